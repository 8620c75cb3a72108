"""Where do the systems of `worlds_20k.py` err: accuracy by the parent organism of each world's candidate metabolism.

    python benchmarks/worlds_20k_organisms.py --answers OUT/deep --data DIR

Genomes are many: `--by clade` or `--by guild` puts their worlds together, `--result` names another file. `--state`
looks at the worlds of one true state alone. Where a system has several seeds, `seeds` has each of them.

`spectrum+climate` sees no metabolism, so what the others lose against it on a parent's worlds is lost to its graph.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from astrobio.batch import WORLD_STATES
from astrobio.dataset.reader import WorldDataset
from astrobio.formats.graphs import load_graphs
from astrobio.training.checkpoint import write_json
from machine import RESULTS, describe
from worlds_20k_report import Depth

SYSTEMS = (
    "unified", "small", "small-reactions", "late_fusion", "trees-all", "trees-all-redrawn", "spectrum+climate",
    "trees-spectrum+climate",
)  # fmt: skip
SPLITS = ("train", "validation", "test")


def organisms(data: Path, by: str) -> dict[str, str]:
    """Candidate metabolism → its parent, clade or guild; a candidate is named PARENT/VARIANT, a genome's PARENT."""
    found: dict[str, str] = {}
    for graph, label in load_graphs(data / "organisms.npz"):
        name = str(label["name"])
        found[name] = {"parent": name.split("/")[0], "clade": str(label["clade"]), "guild": graph.guild}[by]
    return found


def groups(data: Path, split: str, group_of: Mapping[str, str]) -> dict[str, str]:
    """World → group of its candidate metabolism."""
    worlds = WorldDataset(data, split)
    records = (worlds.record(index) for index in range(len(worlds)))
    return {record["world_id"]: group_of[record["metabolism"]] for record in records}


def accuracies(depth: Depth, split: str, chosen: np.ndarray) -> dict[str, Any]:
    """Mean over seeds of each system's accuracy on the chosen worlds, and each seed's; nothing where there are none."""
    if not chosen.any():
        return {}
    labels = depth.labels(split)[chosen]
    answers = {name: depth.probabilities[name] for name in SYSTEMS if name in depth.probabilities}
    right = {name: each[split][:, chosen].argmax(axis=2) == labels for name, each in answers.items() if split in each}
    means = {name: float(each.mean()) for name, each in right.items()}
    return {**means, "seeds": {name: each.mean(axis=1).tolist() for name, each in right.items() if len(each) > 1}}


def of_state(depth: Depth, split: str, state: str | None) -> np.ndarray:
    """[N] whether each world of a split is of this true state; None takes all."""
    labels = depth.labels(split)
    return np.ones(len(labels), dtype=bool) if state is None else labels == WORLD_STATES.index(state)


def by_group(depth: Depth, split: str, found: Mapping[str, str], state: str | None) -> dict[str, dict[str, Any]]:
    """Worlds and accuracies of every group of organisms of a split."""
    names = np.array([found[world] for world in depth.worlds[f"{split}.world_ids"]])
    wanted = of_state(depth, split, state)
    chosen = {name: (names == name) & wanted for name in sorted(set(names[wanted].tolist()))}
    return {name: {"worlds": int(each.sum()), **accuracies(depth, split, each)} for name, each in chosen.items()}


def main() -> None:
    """Write `worlds_20k_organisms.json` and print a table."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--answers", type=Path, required=True, help="folder of one depth of worlds_20k.py")
    parser.add_argument("--data", type=Path, required=True, help="the worlds of that depth")
    parser.add_argument("--by", choices=("parent", "clade", "guild"), default="parent")
    parser.add_argument("--state", choices=WORLD_STATES, help="only worlds of this true state [all]")
    parser.add_argument("--result", type=Path, default=RESULTS / "worlds_20k_organisms.json")
    options = parser.parse_args()
    depth = Depth(options.answers)
    group_of = organisms(options.data, options.by)
    of = {split: groups(options.data, split, group_of) for split in SPLITS}
    names = np.array([of["test"][world] for world in depth.worlds["test.world_ids"]])
    trained_on = sorted(set(of["train"].values()))
    wanted = of_state(depth, "test", options.state)
    known = np.isin(names, trained_on)
    result = {
        **describe(), "state": options.state, "trained_on": trained_on,
        **{
            f"{title}_{options.by}s": {"worlds": int(which.sum()), **accuracies(depth, "test", which)}
            for title, which in (("new", ~known & wanted), ("known", known & wanted))
        },
        **{split: by_group(depth, split, of[split], options.state) for split in ("validation", "test")},
    }  # fmt: skip
    write_json(options.result, result)
    pooled = [(title, result[f"{title}_{options.by}s"]) for title in ("new", "known")]
    for title, entry in (*pooled, *result["test"].items()):
        shown = "  ".join(f"{key} {value:.3f}" for key, value in entry.items() if isinstance(value, float))
        print(f"{title:12} {entry['worlds']:5}  {shown}")


if __name__ == "__main__":
    main()
