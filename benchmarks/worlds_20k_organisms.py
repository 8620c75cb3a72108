"""Where do the systems of `worlds_20k.py` err: accuracy by the parent organism of each world's candidate metabolism.

    python benchmarks/worlds_20k_organisms.py --answers OUT/deep --data DIR

`spectrum+climate` sees no metabolism, so what the others lose against it on a parent's worlds is lost to its graph.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np

from astrobio.dataset.reader import WorldDataset
from astrobio.training.checkpoint import write_json
from machine import RESULTS, describe
from worlds_20k_report import Depth

SYSTEMS = ("unified", "small", "trees-all", "spectrum+climate", "trees-spectrum+climate")
SPLITS = ("train", "validation", "test")


def parents(data: Path, split: str) -> dict[str, str]:
    """World → parent organism of its candidate metabolism; a candidate is named PARENT/VARIANT."""
    worlds = WorldDataset(data, split)
    records = (worlds.record(index) for index in range(len(worlds)))
    return {record["world_id"]: record["metabolism"].split("/")[0] for record in records}


def accuracies(depth: Depth, split: str, chosen: np.ndarray) -> dict[str, float]:
    """Mean over seeds of each system's accuracy on the chosen worlds."""
    labels = depth.labels(split)[chosen]
    return {
        name: float(np.mean(depth.probabilities[name][split][:, chosen].argmax(axis=2) == labels))
        for name in SYSTEMS
        if name in depth.probabilities
    }


def by_parent(depth: Depth, split: str, found: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Worlds and accuracies of every parent organism of a split."""
    names = np.array([found[world] for world in depth.worlds[f"{split}.world_ids"]])
    return {
        name: {"worlds": int((names == name).sum()), **accuracies(depth, split, names == name)}
        for name in sorted(set(names.tolist()))
    }


def main() -> None:
    """Write `worlds_20k_organisms.json` and print a table."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--answers", type=Path, required=True, help="folder of one depth of worlds_20k.py")
    parser.add_argument("--data", type=Path, required=True, help="the worlds of that depth")
    parser.add_argument("--result", type=Path, default=RESULTS / "worlds_20k_organisms.json")
    options = parser.parse_args()
    depth = Depth(options.answers)
    of = {split: parents(options.data, split) for split in SPLITS}
    names = np.array([of["test"][world] for world in depth.worlds["test.world_ids"]])
    trained_on = sorted(set(of["train"].values()))
    new = ~np.isin(names, trained_on)
    result = {
        **describe(), "trained_on": trained_on,
        "new_parents": {"worlds": int(new.sum()), **accuracies(depth, "test", new)},
        "known_parents": {"worlds": int((~new).sum()), **accuracies(depth, "test", ~new)},
        **{split: by_parent(depth, split, of[split]) for split in ("validation", "test")},
    }  # fmt: skip
    write_json(options.result, result)
    for title, entry in (("new", result["new_parents"]), ("known", result["known_parents"]), *result["test"].items()):
        shown = "  ".join(f"{key} {value:.3f}" for key, value in entry.items() if key != "worlds")
        print(f"{title:12} {entry['worlds']:5}  {shown}")


if __name__ == "__main__":
    main()
