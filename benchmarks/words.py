"""What the shipped model writes of test worlds, read back and compared with the truth.

    astrobio simulate --worlds 20000 --seed 1 --depth deep --hold-out all --out DIR   # its own worlds
    python benchmarks/words.py DIR [--worlds 1024]

The scores of `astrobio.evaluation.language`: as `astrobio assess` writes, before gases that the ranges do not bear out
are struck (`every_gas`), and left to the decoder alone (`unguided`). `physics` has coverage and width of the ranges
themselves on the whole test split.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import machine
from astrobio.assess.predict import PACKAGED_RUN
from astrobio.batch import WORLD_STATES
from astrobio.evaluation.calibrate import Calibration
from astrobio.evaluation.evaluate import predict_all
from astrobio.evaluation.language import language
from astrobio.evaluation.ranges import score_ranges
from astrobio.training.checkpoint import load_run, read_run
from astrobio.training.config import choose_device
from astrobio.training.feed import Store
from astrobio.training.loop import open_store

SHOWN = ("right_state", "gases_agree", "gases_named", "all_gases_agree", "temperature_agrees")
SWEEP = 32  # worlds of a batch; more are slower on CPUs


def measure(folder: Path, store: Store, worlds: int) -> dict[str, Any]:
    """Scores of a run's words on the first worlds of a split, and of its ranges on all."""
    run = load_run(folder, store.device)
    calibration, found = Calibration.load(folder / "calibration.json"), predict_all(run, store, batch_size=SWEEP)
    likeliest = calibration.likeliest(found)
    believed = [WORLD_STATES[int(state)] for state in likeliest]
    ranges = calibration.physics_ranges(found)
    scores = language(run, store, believed, ranges, limit=worlds, label="writing assessments")
    return {"language": scores, "physics": score_ranges(found, ranges, likeliest)}


def main() -> None:
    """Measure, write `words.json`, print a table."""
    parser: argparse.ArgumentParser = machine.parser(__doc__ or "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--worlds", type=int, default=1024, help="test worlds whose assessments are read")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    settings, device = read_run(PACKAGED_RUN)[0].training, choose_device(options.device)
    store = open_store(PACKAGED_RUN, options.data, "test", settings, device)
    result = measure(PACKAGED_RUN, store, options.worlds)
    machine.write(options.out, "words", result)
    words = result["language"]
    ways = {"as assessed": words, "every gas": words["every_gas"], "unguided": words["unguided"]}
    machine.table([("", *SHOWN)] + [(way, *(scores[name] for name in SHOWN)) for way, scores in ways.items()])
    machine.table([("physics", "worlds", "coverage", "median width", "rmse")] + [
        (name, entry["worlds"], entry["coverage"], entry["median_width"], entry["rmse"])
        for name, entry in result["physics"].items()
    ])  # fmt: skip


if __name__ == "__main__":
    main()
