"""How well a run does on worlds whose stars and climates it never saw, beside what it has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.dataset.reader import WorldDataset
from astrobio.evaluation.baselines import (
    RATES,
    feature_tables,
    gradient_boosting,
    isolated_config,
    late_fusion,
    train_tuned,
)
from astrobio.evaluation.calibrate import Calibration, fit_expert_scales, scaled_probabilities
from astrobio.evaluation.language import language
from astrobio.evaluation.metrics import (
    area_under_roc,
    confusion,
    expected_calibration_error,
    macro_accuracy,
    macro_accuracy_interval,
    negative_log_likelihood,
    paired_difference,
    reliability,
)
from astrobio.evaluation.predictions import Predictions, predict
from astrobio.evaluation.ranges import MIXING_RATIO, STATE_WORLDS, score_ranges
from astrobio.training.checkpoint import LoadedRun, load_run, read_json, read_run, write_json
from astrobio.training.config import RunConfig, choose_device, run_config
from astrobio.training.feed import Store
from astrobio.training.loop import Stores, open_store, train
from astrobio.training.ranks import leave_ranks, rank

OUTLIER_WORLDS = 512  # training worlds that shape the outlier models
PART_WORLDS = {"cuda": 1024, "cpu": 128}  # held-out worlds that are shown every smaller set of inputs, for its ranges
WRITTEN_WORLDS = 64  # test worlds whose assessment is written out and read back where there is no GPU


@dataclass(frozen=True)
class Splits:
    """Prepared worlds of a data set as one run reads them; `test` are those to be scored."""

    train: Store
    validation: Store
    test: Store


def evaluate_run(
    run_dir: Path | str,
    data_dir: Path | str,
    *,
    split: str = "test",
    scored: Path | None = None,
    baselines: bool = True,
    trials: int = 1,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Any]:
    """Calibrate a run on the validation split and score it, and its baselines, on the test split.

    `RUN/evaluation.json` (of another split or folder: `evaluation-ITS_NAME.json`) receives more than is returned:
    likelihoods, reliability, what permuting each modality costs, how far the written assessments are right, how many
    worlds look unlike the training's, and the paired differences to every baseline.

    Args:
        split: the one to score, such as "ood-star" of a data set that has it. scored: another folder of worlds that has
            the split to score, such as one on a climate model's runs; None is `data_dir`.
        baselines: train isolated systems (into `RUN/baselines`, resumed and kept) and boosted trees; without, their
            entries are None. trials: tuning trials that each baseline gets (the run itself had one).

    Returns:
        `unified` {macro_accuracy, ci95, ece}, `single` {modality: same}, `isolated_late_fusion`, `gradient_boosting`,
        `confusion` (rows true, columns predicted) and `physics`: errors and 90% ranges (`score_ranges`).

    Raises:
        InputError: no trained run, or a split without worlds.
    """
    run_dir, data_dir, console = Path(run_dir), Path(data_dir), console or Console(stderr=True)
    target = choose_device(device)
    run, splits = load_run(run_dir, target), open_splits(run_dir, data_dir, target, split, scored)
    calibration = calibrate(run, splits)
    calibration.save(run_dir / "calibration.json")
    everything = predict_all(run, splits.test, label="unified")
    test, others = everything.labelled(), {}
    if baselines:
        others = baseline_probabilities(run.config, run_dir, data_dir, splits, trials=trials, console=console)
    scores = {name: score(probabilities, test) for name, probabilities in others.items()}
    believed, likeliest = calibration.probabilities(test), calibration.likeliest(everything)
    ranges = calibration.physics_ranges(everything)
    report = {
        "unified": score(believed, test),
        "single": {name: scores.get(name) for name in MODALITIES},
        "isolated_late_fusion": scores.get("isolated_late_fusion"),
        "gradient_boosting": scores.get("gradient_boosting"),
        "confusion": confusion(test.labels, believed.argmax(axis=1), len(WORLD_STATES)).tolist(),
        "physics": score_ranges(everything, ranges, likeliest),
    }
    limit = None if target.type == "cuda" else WRITTEN_WORLDS
    states = [WORLD_STATES[index] for index in likeliest]
    details = {
        **detailed(run, splits, calibration, test, others),
        "language": language(run, splits.test, states, ranges, limit=limit, label="writing assessments"),
        "data": _identity(splits.test.worlds), "split": split, "states": list(WORLD_STATES),
    }  # fmt: skip
    parts = ["evaluation", scored.resolve().name if scored else "", split if split != "test" else ""]
    write_json(run_dir / f"{'-'.join(filter(None, parts))}.json", {**report, **details})
    return report


def open_splits(
    run_dir: Path, data_dir: Path, device: torch.device, split: str = "test", scored: Path | None = None
) -> Splits:
    """Training and validation worlds and those to be scored, as a run's tokenizer and statistics prepare them."""
    settings = read_run(run_dir)[0].training
    parts = (("train", data_dir), ("validation", data_dir), (split, scored or data_dir))
    return Splits(*(open_store(run_dir, folder, name, settings, device) for name, folder in parts))


def calibrate(run: LoadedRun, splits: Splits, *, parts: bool = True) -> Calibration:
    """Scales, conformal sets and ranges from the validation split, the outliers' shape from the training split.

    Args:
        parts: whether smaller sets of inputs get ranges too (from 100 held-out worlds on, each answered 14 times more).
    """
    training = predict_all(run, splits.train, limit=OUTLIER_WORLDS)
    smaller = predict_parts(run, splits.validation) if parts else ()
    return Calibration.fit(training, predict_all(run, splits.validation), smaller)


def predict_parts(run: LoadedRun, store: Store, **options: Any) -> Iterator[Predictions]:
    """`predict_all` of the first `PART_WORLDS` with every smaller set of the run's inputs; nothing for few worlds.

    A world of which less is known is retrieved less well: ranges of the whole would promise too much of it.
    """
    if len(store) < STATE_WORLDS:
        return
    modalities, limit = run.config.training.modalities, PART_WORLDS.get(store.device.type, PART_WORLDS["cpu"])
    for size in range(1, len(modalities)):
        for shown in combinations(modalities, size):
            yield predict_all(run, store, **{"modalities": shown, "limit": limit, **options})


def predict_all(run: LoadedRun, store: Store, **options: Any) -> Predictions:
    """`predict` with the run's own modalities, batch size and precision."""
    settings = run.config.training
    shown = {"modalities": settings.modalities, "batch_size": settings.batch_size, "precision": settings.precision}
    return predict(run.system, store, **{**shown, **options})


def score(probabilities: Float[np.ndarray, "N C"], truth: Predictions) -> dict[str, Any]:
    """Macro accuracy with its interval by star, and calibration error."""
    interval = macro_accuracy_interval(truth.labels, probabilities.argmax(axis=1), truth.groups)
    return {
        "macro_accuracy": interval.mean,
        "ci95": [interval.low, interval.high],
        "ece": expected_calibration_error(probabilities, truth.labels),
    }


def baseline_probabilities(
    config: RunConfig, run_dir: Path, data_dir: Path, splits: Splits, *, trials: int, console: Console
) -> dict[str, Float[np.ndarray, "N C"]]:
    """Calibrated test probabilities of every isolated system, of their late fusion and of boosted trees."""
    validation, test = {}, {}
    for name in MODALITIES:
        best = train_tuned(
            isolated_config(config, name), data_dir, run_dir / "baselines" / name, factors=RATES[:trials], like=run_dir,
            stores=Stores(splits.train, splits.validation), console=console, label=f"{name} alone",
        )  # fmt: skip
        run = load_run(best.run, splits.test.device)
        validation[name], test[name] = (predict_all(run, s).labelled() for s in (splits.validation, splits.test))
    out = {name: scaled_probabilities(test[name], fit_expert_scales(found)) for name, found in validation.items()}
    fused = late_fusion(validation, test, trials=trials)
    console.print(f"late fusion by {fused.method}", highlight=False)
    worlds = {name: getattr(splits, name).worlds for name in ("train", "validation", "test")}
    tables = feature_tables(worlds, workers=config.training.workers)
    trees = gradient_boosting(tables, trials=trials, seed=config.training.seed)
    return out | {"isolated_late_fusion": fused.probabilities, "gradient_boosting": trees}


def detailed(
    run: LoadedRun,
    splits: Splits,
    calibration: Calibration,
    test: Predictions,
    others: Mapping[str, Float[np.ndarray, "N C"]],
) -> dict[str, Any]:
    """What `evaluate_run` found besides its report."""
    probabilities = calibration.probabilities(test)
    sets = np.stack([1.0 - p <= np.array(calibration.conformal) for p in probabilities])
    inhabited = np.array(["biosphere" in name for name in WORLD_STATES])
    ours = probabilities.argmax(axis=1)[None]
    return {
        "accuracy": float((ours[0] == test.labels).mean()),
        "negative_log_likelihood": negative_log_likelihood(probabilities, test.labels),
        "inhabited_auroc": area_under_roc(probabilities[:, inhabited].sum(axis=1), inhabited[test.labels]),
        "expert_scales": dict(zip(("joint", *MODALITIES), calibration.scales, strict=True)),
        "conformal_coverage": float(sets[np.arange(len(sets)), test.labels].mean()),
        "conformal_size": float(sets.sum(axis=1).mean()),
        "permutation_cost": permutation_cost(run, splits.test, test),
        "reliability": reliability(probabilities, test.labels),
        "outliers": outlier_rates(calibration, test),
        "difference": {
            name: paired_difference(test.labels, ours, other.argmax(axis=1)[None], test.groups).to_dict()
            for name, other in others.items()
        },
    }


def permutation_cost(run: LoadedRun, store: Store, test: Predictions) -> dict[str, float]:
    """Macro accuracy lost when a modality comes from another world: 0 says that the system ignores it."""
    whole = macro_accuracy(test.labels, test.predicted)
    costs = {}
    for name in run.config.training.modalities:
        mixed = predict_all(run, store, permute=name).labelled()
        costs[name] = whole - macro_accuracy(mixed.labels, mixed.predicted)
    return costs


def outlier_rates(calibration: Calibration, test: Predictions) -> dict[str, float]:
    """Share of the worlds that have a modality in which it is unlike the training's (1% of ordinary ones are)."""
    rates = {}
    for index, name in enumerate(MODALITIES):
        shown = test.present[:, index]
        if name in calibration.outliers and shown.any():
            model = calibration.outliers[name]
            rates[name] = float(
                (model.distance(test.embeddings[name][shown].astype(np.float64)) > model.threshold).mean()
            )
    return rates


def _identity(worlds: object) -> dict[str, Any] | None:
    """What a data set on disk says it is."""
    return worlds.manifest["identity"] if isinstance(worlds, WorldDataset) else None


def train_and_calibrate(preset: str, overrides: Sequence[str], data_dir: Path, run_dir: Path, console: Console) -> None:
    """Train a run to its end, on all ranks, and write `RUN/calibration.json`, on the first.

    Raises:
        InputError: as `run_config` and `train`.
    """
    config = run_config(preset, overrides)
    device = choose_device(config.training.device)
    progress = train(config, data_dir, run_dir, console=console)
    first = rank() == 0
    leave_ranks()
    if not first:
        return
    skipped = f", {progress.skipped} steps skipped as not finite" if progress.skipped else ""
    if config.training.keep == 0:
        console.print(f"{run_dir}: {progress.step} steps{skipped}; training.keep=0 kept no weights", highlight=False)
        return
    found = calibrate(load_run(run_dir, device), open_splits(run_dir, data_dir, device), parts=False)
    found.save(run_dir / "calibration.json")
    best = read_json(run_dir / "best.json")
    console.print(
        f"{run_dir}: {progress.step} steps{skipped}; best at step {best['step']} "
        f"with validation accuracy {best['accuracy']:.3f}",
        highlight=False,
    )


def evaluate_and_print(
    run_dir: Path,
    data_dir: Path,
    json_file: Path | None,
    *,
    split: str,
    scored: Path | None,
    baselines: bool,
    trials: int,
    device: str,
    console: Console,
) -> None:
    """`evaluate_run`, its table on the console and its report in a file."""
    options = {"split": split, "scored": scored, "baselines": baselines, "trials": trials, "device": device}
    report = evaluate_run(run_dir, data_dir, **options, console=console)
    if json_file is not None:
        write_json(json_file, report)
    rows = Table("system", "macro accuracy [95%]", "calibration error", title=f"held-out worlds ({scored or split})")
    entries = {"unified": report["unified"], **{f"{name} alone": entry for name, entry in report["single"].items()}}
    entries |= {"late fusion": report["isolated_late_fusion"], "boosted trees": report["gradient_boosting"]}
    for name, entry in entries.items():
        if entry is not None:
            low, high = entry["ci95"]
            rows.add_row(name, f"{entry['macro_accuracy']:.3f} [{low:.3f}, {high:.3f}]", f"{entry['ece']:.3f}")
    console.print(rows)
    console.print(physics_table(report["physics"]))


def physics_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Error, coverage and width of every retrieved target's ranges, for the console."""
    rows = Table("retrieved", "unit", "rms error", "in 90% range [95%]", "median width", title="retrieved physics")
    for name, entry in scores.items():
        unit = "dex" if entry["unit"] == MIXING_RATIO else entry["unit"]
        known = "" if entry["rmse"] is None else f"{entry['rmse']:.2f}"
        held, width = "no range", ""
        if entry["coverage"] is not None:
            low, high = entry["ci95"]
            held, width = f"{entry['coverage']:.3f} [{low:.3f}, {high:.3f}]", f"{entry['median_width']:.2f}"
        rows.add_row(name.removeprefix("log10_"), unit, known, held, width)
    return rows
