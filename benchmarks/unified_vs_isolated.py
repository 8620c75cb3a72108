"""Does training four modalities jointly beat training each alone?

For every seed: the unified `mini` system, the same system on each modality alone, the late fusion of those, and boosted
trees on hand-made features of all modalities; all with the same worlds, the networks with the same steps and settings.
Late fusion and trees choose among three settings on the validation split, which only helps them. Writes
`benchmarks/results/unified_vs_isolated.json` and a figure. It is the stage `mini` of `worlds_20k.py` at one depth:
what is finished in `--out` is kept, so an interrupted benchmark continues, and answers made there are used.

    python benchmarks/unified_vs_isolated.py --data worlds --out runs/benchmark/deep --seeds 3 --steps 600
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

import worlds_20k
from astrobio.batch import MODALITIES
from astrobio.errors import InputError
from astrobio.training.checkpoint import read_json, write_json
from machine import describe
from worlds_20k_report import Depth, difference, score
from worlds_20k_trees import fit_views

ROOT = Path(__file__).parents[1]
NAMES = {
    "unified": "unified", **{name: f"{name} alone" for name in MODALITIES},
    "late_fusion": "late fusion of these", "trees-all": "boosted trees",
}  # fmt: skip


def compare(depth: Depth) -> dict[str, Any]:
    """Scores over all seeds with their intervals, and paired differences of the unified system to each other."""
    means = {name: score(depth, name) for name in NAMES}
    gains = {name: difference(depth, "unified", name) for name in NAMES if name != "unified"}
    return {
        "mean": means,
        "best_single": max(MODALITIES, key=lambda name: means[name]["macro_accuracy"]),
        "difference": gains,
        "beaten": {name: gain["beaten"] for name, gain in gains.items()},
        "late_fusion": {"methods": depth.fusions},
    }


def trainings(folder: Path, seeds: int) -> dict[str, Any]:
    """Of every training compared: what it was set to, when its best weights were found, its seconds and machine."""
    notes = {
        f"{name}-seed-{seed}": read_json(folder / "predictions" / f"{name}-seed-{seed}.json")
        for name in ("unified", *MODALITIES)
        for seed in range(seeds)
    }
    kept = ("best", "seconds", "parameters", "machine")
    return {name: {key: note[key] for key in kept} | note["config"] for name, note in notes.items()}


def draw(result: dict[str, Any], path: Path) -> None:
    """Macro accuracies with intervals (left) and what the unified system gains over each (right)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(reversed(NAMES))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for row, name in enumerate(names):
        colour = "#b5179e" if name == "unified" else "#4a5568"
        for axis, entries, key in ((left, result["mean"], "macro_accuracy"), (right, result["difference"], "mean")):
            if name in entries:
                low, high = entries[name]["ci95"]
                axis.plot([low, high], [row, row], color=colour, lw=2.5, solid_capstyle="round")
                axis.plot(entries[name][key], row, "o", color=colour, ms=6)
        seeds = result["mean"][name]["seeds"]
        left.plot(seeds, [row] * len(seeds), "|", color=colour, ms=10, alpha=0.6)
    left.axvline(1 / 6, color="#a0aec0", lw=1, ls=":")
    right.axvline(0.0, color="#a0aec0", lw=1, ls=":")
    left.set_yticks(range(len(names)), [NAMES[name] for name in names])
    left.set_xlabel("macro accuracy, six world states (dotted: chance)")
    right.set_xlabel("gain of the unified system")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#e2e8f0", lw=0.8)
        axis.set_axisbelow(True)
    worlds, seeds = result["worlds"], len(result["mean"]["unified"]["seeds"])
    said = f"Held-out stars and climates: {worlds['test']} worlds, {seeds} seeds, 95% intervals"
    figure.suptitle(said, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def arguments() -> Namespace:
    """The command line: that of `worlds_20k.py` where they share something."""
    parser = worlds_20k.shared_arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of worlds; not needed where all answers are in --out")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks/results/unified_vs_isolated.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs/figures/unified_vs_isolated.png")
    return parser.parse_args()


def train_all(options: Namespace, console: Console) -> None:
    """Everything that is compared, what is there already aside."""
    worlds_20k.prepare(options.out, options.data, options, console)
    jobs = worlds_20k.jobs_of("mini", options.out, options.data, options)
    worlds_20k.run_jobs([job for job in jobs if job.name in NAMES], options.jobs, console)
    fit_views(options.out / "features", options.out / "predictions", options.trials, console, views=("all",))


def main() -> None:
    """Train, compare, write the result and the figure."""
    options, console, start = arguments(), Console(stderr=True), time.time()
    if options.data is not None:
        train_all(options, console)
    depth = Depth(options.out)
    result = {
        **describe(), "date": datetime.now(UTC).isoformat("T", "seconds"), "wall_seconds": round(time.time() - start),
        "observation": read_json(options.out / "data.json"),
        "worlds": depth.sizes, "stars_in_test": depth.stars_in_test,
        **compare(depth), "trainings": trainings(options.out, options.seeds),
    }  # fmt: skip
    write_json(options.result, result)
    draw(result, options.figure)
    print(json.dumps({key: result[key] for key in ("mean", "difference", "beaten")}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
