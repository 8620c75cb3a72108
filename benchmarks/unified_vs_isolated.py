"""Does training four modalities jointly beat training each alone?

For every seed: the unified system, the same system on each modality alone, the late fusion of those, and boosted trees
on hand-made features of all modalities; all with the same worlds, steps and tuning trials (learning rate and weight of
the experts' own loss are tuned at the first seed, on the validation split). Writes
`benchmarks/results/unified_vs_isolated.json` and a figure. Finished runs are kept in `--out`, so an interrupted
benchmark continues.

    python benchmarks/unified_vs_isolated.py --data worlds --out runs/benchmark --seeds 3 --steps 600
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from astrobio.batch import MODALITIES, Collator
from astrobio.dataset.reader import WorldDataset, read_manifest
from astrobio.dataset.splits import SPLITS
from astrobio.errors import InputError
from astrobio.evaluation.baselines import (
    Table,
    best_score,
    feature_tables,
    gradient_boosting,
    is_finished,
    isolated_config,
    late_fusion,
)
from astrobio.evaluation.calibrate import fit_expert_scales, scaled_probabilities
from astrobio.evaluation.evaluate import predict_all
from astrobio.evaluation.metrics import (
    expected_calibration_error,
    macro_accuracy,
    macro_accuracy_over_runs,
    negative_log_likelihood,
    paired_difference,
)
from astrobio.evaluation.predictions import Predictions
from astrobio.training.checkpoint import load_run, read_run, write_json
from astrobio.training.config import RunConfig, choose_device, run_config
from astrobio.training.feed import Store
from astrobio.training.loop import Stores, prepare_run, train
from astrobio.training.packed import load_store, parts_of, prepare_parts
from astrobio.training.step import is_mixed
from machine import describe

ROOT = Path(__file__).parents[1]
SYSTEMS = ("unified", *MODALITIES)
VALIDATIONS = 8  # of each training; the best weights are kept
TRIALS = ((1.0, 2.0), (2.0, 2.0), (1.0, 0.5))  # factor on the learning rate, weight of the experts' own loss
NAMES = {
    "unified": "unified", **{name: f"{name} alone" for name in MODALITIES},
    "late_fusion": "late fusion of these", "gradient_boosting": "boosted trees",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One training: `config` on `data` into `run`, with tokenizer and statistics of `like`."""

    config: RunConfig
    data: Path
    run: Path
    like: Path


_STORES: dict[Path, Stores] = {}  # prepared worlds on this process's device, shared by its jobs


def run_job(job: Job) -> str:
    """Train one system to the end; returns what to say of it."""
    if is_finished(job.run, job.config):
        return f"{job.run}: kept"
    if job.like not in _STORES:
        _STORES[job.like] = stores_of(job)
    start = time.perf_counter()
    console = Console(stderr=True, quiet=multiprocessing.parent_process() is not None)
    train(
        job.config, job.data, job.run, stores=_STORES[job.like], like=job.like, console=console,
        label=job.run.parent.name,
    )  # fmt: skip
    return f"{job.run}: {time.perf_counter() - start:.0f} s"


def stores_of(job: Job) -> Stores:
    """The worlds on the training's device."""
    return Stores(*(load_worlds(job.config, job.data, job.like, name) for name in Stores._fields))


def load_worlds(config: RunConfig, data: Path, like: Path, split: str) -> Store:
    """A split on the training's device, read from the files that `prepare_worlds` wrote."""
    settings = config.training
    device = choose_device(settings.device)
    half, (_, tokenizer, statistics) = is_mixed(device, settings.precision), read_run(like)
    store = Store(WorldDataset(data, split), Collator(tokenizer, statistics, settings.max_length), device, half=half)
    return load_store(store, [part.path for part in parts_of(like, data, split, like, half=half)])


def prepare_worlds(base: RunConfig, data: Path, like: Path, processes: int) -> None:
    """Prepare all worlds once for all trainings (kept where they are there already)."""
    half = is_mixed(choose_device(base.training.device), base.training.precision)
    prepare_parts([p for name in SPLITS for p in parts_of(like, data, name, like, half=half)], processes)


def run_jobs(jobs: list[Job], processes: int, console: Console) -> None:
    """Train all, side by side in so many processes."""
    if not jobs:
        return
    if processes == 1:
        for job in jobs:
            console.print(run_job(job), highlight=False)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for said in pool.map(run_job, jobs):
            console.print(said, highlight=False)


def config_of(system: str, base: RunConfig, seed: int, trial: int) -> RunConfig:
    """The unified system or one on a single modality, at a seed, with the settings of a trial."""
    factor, unimodal = TRIALS[trial]
    config = base if system == "unified" else isolated_config(base, system)
    settings = replace(config.training, seed=seed, lr=config.training.lr * factor)
    return replace(config, training=settings, loss=replace(config.loss, unimodal=unimodal))


def run_folder(out: Path, system: str, seed: int, trial: int) -> Path:
    """Where that training lies."""
    return out / f"seed-{seed}" / system / f"trial-{trial}"


def train_all(
    base: RunConfig, options: argparse.Namespace, console: Console
) -> tuple[dict[str, int], dict[str, dict[int, Path]]]:
    """Tune at the first seed, train what was chosen at the others; returns trials and folders (system → seed → run)."""
    like = options.out / "prepared"
    prepare_run(base, options.data, like, console)
    prepare_worlds(base, options.data, like, max(options.workers, 1))

    def jobs(seed: int, trials: dict[str, list[int]]) -> list[Job]:
        return [
            Job(config_of(s, base, seed, t), options.data, run_folder(options.out, s, seed, t), like)
            for s in SYSTEMS
            for t in trials[s]
        ]

    def score(system: str, trial: int) -> float:
        return best_score(run_folder(options.out, system, first, trial), base)

    first, *others = range(options.seeds)
    tried = list(range(options.trials))
    run_jobs(jobs(first, dict.fromkeys(SYSTEMS, tried)), options.jobs, console)
    chosen = {s: min(tried, key=lambda trial, s=s: score(s, trial)) for s in SYSTEMS}
    run_jobs([job for seed in others for job in jobs(seed, {s: [t] for s, t in chosen.items()})], options.jobs, console)
    runs = {s: {seed: run_folder(options.out, s, seed, chosen[s]) for seed in range(options.seeds)} for s in SYSTEMS}
    return chosen, runs


def probabilities_of_seed(
    runs: dict[str, Path], held_out: dict[str, Store], tables: dict[str, Table], seed: int, trials: int
) -> tuple[Predictions, dict[str, np.ndarray], dict[str, Any]]:
    """Test truths, calibrated test probabilities of everything compared, and notes on the late fusion."""
    validation, test, out = {}, {}, {}
    for name, run_dir in runs.items():
        run = load_run(run_dir, held_out["test"].device)
        validation[name], test[name] = (predict_all(run, held_out[s]).labelled() for s in ("validation", "test"))
        out[name] = scaled_probabilities(test[name], fit_expert_scales(validation[name]))
    fused = late_fusion(*({m: found[m] for m in MODALITIES} for found in (validation, test)), trials=trials, seed=seed)
    out["late_fusion"] = fused.probabilities
    out["gradient_boosting"] = gradient_boosting(tables, trials=trials, seed=seed)
    return test["unified"], out, {"method": fused.method, "validation": fused.validation}


def compare(found: list[dict[str, np.ndarray]], truth: Predictions) -> dict[str, Any]:
    """Per-seed scores, means over seeds with intervals, and paired differences of the unified system to each other."""
    predicted = {name: np.stack([seed[name].argmax(axis=1) for seed in found]) for name in found[0]}
    per_seed = [
        {
            name: {
                "macro_accuracy": macro_accuracy(truth.labels, p.argmax(axis=1)),
                "ece": expected_calibration_error(p, truth.labels),
                "negative_log_likelihood": negative_log_likelihood(p, truth.labels),
            }
            for name, p in seed.items()
        }
        for seed in found
    ]
    means = {n: macro_accuracy_over_runs(truth.labels, rows, truth.groups) for n, rows in predicted.items()}
    gains = {
        name: paired_difference(truth.labels, predicted["unified"], rows, truth.groups)
        for name, rows in predicted.items()
        if name != "unified"
    }
    return {
        "per_seed": per_seed,
        "mean": {name: interval.to_dict() for name, interval in means.items()},
        "best_single": max(MODALITIES, key=lambda name: means[name].mean),
        "difference": {name: interval.to_dict() for name, interval in gains.items()},
        "beaten": {name: interval.low > 0.0 for name, interval in gains.items()},
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Macro accuracies with intervals (left) and what the unified system gains over each (right)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(reversed(NAMES))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for row, name in enumerate(names):
        colour = "#b5179e" if name == "unified" else "#4a5568"
        for axis, entries in ((left, result["mean"]), (right, result["difference"])):
            if name in entries:
                low, high = entries[name]["ci95"]
                axis.plot([low, high], [row, row], color=colour, lw=2.5, solid_capstyle="round")
                axis.plot(entries[name]["mean"], row, "o", color=colour, ms=6)
        left.plot([s[name]["macro_accuracy"] for s in result["per_seed"]], [row] * len(result["per_seed"]), "|",
                  color=colour, ms=10, alpha=0.6)  # fmt: skip
    left.axvline(1 / 6, color="#a0aec0", lw=1, ls=":")
    right.axvline(0.0, color="#a0aec0", lw=1, ls=":")
    left.set_yticks(range(len(names)), [NAMES[name] for name in names])
    left.set_xlabel("macro accuracy, six world states (dotted: chance)")
    right.set_xlabel("gain of the unified system")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#e2e8f0", lw=0.8)
        axis.set_axisbelow(True)
    worlds = result["worlds"]
    figure.suptitle(
        f"Held-out stars and climates: {worlds['test']} worlds, {len(result['per_seed'])} seeds, 95% intervals",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of worlds")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128, help="worlds in a step")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare and read worlds")
    parser.add_argument("--trials", type=int, default=3, choices=range(1, len(TRIALS) + 1), help="of every system")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="KEY=VALUE of the configuration")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks/results/unified_vs_isolated.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs/figures/unified_vs_isolated.png")
    return parser.parse_args()


def main() -> None:
    """Train, compare, write the result and the figure."""
    options, console, start = arguments(), Console(stderr=True), time.time()
    fixed = [f"training.steps={options.steps}", f"training.device={options.device}"]
    fixed += [f"training.batch_size={options.batch}", "training.workers=0"]
    fixed += [f"training.validate_every={max(options.steps // VALIDATIONS, 1)}"]
    quiet = [f"training.checkpoint_every={max(options.steps // 2, 1)}", "training.keep=1"]
    base = run_config("mini", [*fixed, *quiet, "training.gradient_norms_every=0", *options.overrides])
    chosen, runs = train_all(base, options, console)
    worlds = {name: WorldDataset(options.data, name) for name in SPLITS}
    tables = feature_tables(worlds, workers=options.workers)
    held_out = {name: load_worlds(base, options.data, options.out / "prepared", name) for name in SPLITS[1:]}
    found, fusions, truth = [], [], None
    for seed in range(options.seeds):
        of_seed = {system: runs[system][seed] for system in SYSTEMS}
        truth, probabilities, fusion = probabilities_of_seed(of_seed, held_out, tables, seed, options.trials)
        found.append(probabilities)
        fusions.append(fusion)
    assert truth is not None
    result = {
        **describe(), "date": datetime.now(UTC).isoformat("T", "seconds"), "wall_seconds": round(time.time() - start),
        "observation": read_manifest(options.data)["identity"],
        "worlds": {name: len(split) for name, split in worlds.items()},
        "stars_in_test": len(np.unique(truth.groups)), "steps": options.steps, "trials": options.trials,
        "chosen": {s: dict(zip(("rate_factor", "unimodal"), TRIALS[t], strict=True)) for s, t in chosen.items()},
        "config": base.to_dict(), "late_fusion": fusions, **compare(found, truth),
    }  # fmt: skip
    write_json(options.result, result)
    draw(result, options.figure)
    print(json.dumps({key: result[key] for key in ("mean", "difference", "beaten")}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
