"""From the kept answers of `worlds_20k.py` to its result file, tables and figures; needs neither worlds nor a GPU.

Dimension letters: N worlds, C world states, R runs (seeds).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import worlds_20k_figures
from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.errors import InputError
from astrobio.evaluation.baselines import LateFusion, late_fusion
from astrobio.evaluation.calibrate import expert_parts, fit_expert_scales
from astrobio.evaluation.metrics import (
    area_under_roc,
    confusion,
    expected_calibration_error,
    macro_accuracy,
    macro_accuracy_over_runs,
    negative_log_likelihood,
    paired_difference,
    reliability,
)
from astrobio.evaluation.predictions import Predictions, log_softmax
from astrobio.training.checkpoint import read_json, write_json
from machine import describe

NAME = "worlds_20k"  # of the result file, its page and figures, unless another set of worlds is reported
RUN = re.compile(r"(?P<name>.+)-seed-(?P<seed>\d+)")
TREES = "trees-"
RIVALS = ("late_fusion", "late_fusion-averaged", "trees-all", "trees-all-redrawn")  # the strongest
# The result speaks of the first of these that was trained.
HEADLINE = ("unified", "small", "small-reactions")
REACTIONS = "small-reactions"  # `small` with reactions hidden in training
AVERAGED = "-averaged"  # of the seeds' probabilities: a deep ensemble (Lakshminarayanan et al. 2017, arXiv:1612.01474)
LIVING = np.array(["biosphere" in name for name in WORLD_STATES])


def depths_in(out: Path) -> list[str]:
    """Depths that a folder holds anything of."""
    return sorted(path.name for path in out.iterdir() if path.is_dir()) if out.is_dir() else []


@dataclass(frozen=True)
class Depth:
    """All answers at one depth; `speaker` names the system that the result speaks of."""

    folder: Path
    speaker: str | None = None

    @cached_property
    def worlds(self) -> dict[str, np.ndarray]:
        """`SPLIT.labels`, `SPLIT.groups`, `SPLIT.present`, `SPLIT.world_ids`."""
        path = self.folder / "worlds.npz"
        if not path.is_file():
            raise InputError(
                f"{path}: expected the answers of a trained system, found none; run stage `mini` or `small`"
            )
        return dict(np.load(path))

    @property
    def splits(self) -> list[str]:
        """Names of the splits that were answered."""
        return sorted({name.split(".")[0] for name in self.worlds})

    @cached_property
    def runs(self) -> dict[str, dict[int, dict[str, Predictions]]]:
        """System → seed → split → its raw answers."""
        found: dict[str, dict[int, dict[str, Predictions]]] = {}
        for path in sorted((self.folder / "predictions").glob("*-seed-*.npz")):
            match = RUN.fullmatch(path.stem)
            assert match is not None, path
            arrays = {name: value.astype(np.float64) for name, value in np.load(path).items()}
            answers = {split: self._predictions(split, arrays) for split in self.splits}
            found.setdefault(match["name"], {})[int(match["seed"])] = answers
        return found

    def _predictions(self, split: str, arrays: Mapping[str, np.ndarray]) -> Predictions:
        about = {name: self.worlds[f"{split}.{name}"] for name in ("groups", "labels", "present")}
        ids = tuple(self.worlds[f"{split}.world_ids"].tolist())
        logits, unimodal = arrays[f"{split}.logits"], arrays[f"{split}.unimodal"]
        return Predictions(ids, about["groups"], about["labels"], logits, about["present"], {}, unimodal)

    @cached_property
    def probabilities(self) -> dict[str, dict[str, np.ndarray]]:
        """System → split → [R, N, C] calibrated on the validation split; late fusion has the test split only."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, seeds in self.runs.items():
            each = [calibrated(answers) for _, answers in sorted(seeds.items())]
            found[name] = {split: np.stack([one[split] for one in each]) for split in each[0]}
        if all(name in self.runs for name in MODALITIES):
            common = sorted(set.intersection(*(set(self.runs[name]) for name in MODALITIES)))
            found["late_fusion"] = {"test": np.stack([self._fused(seed).probabilities for seed in common])}
        for name in ("unified", "late_fusion", "small"):
            if name in found and len(found[name]["test"]) > 1:
                means = {split: each.mean(axis=0, keepdims=True) for split, each in found[name].items()}
                found[name + AVERAGED] = means
        for path in sorted((self.folder / "predictions").glob(f"{TREES}*.npz")):
            found[path.stem] = {split: value[None].astype(np.float64) for split, value in np.load(path).items()}
        return found

    @cached_property
    def fusions(self) -> list[str]:
        """The way of fusing late that each seed's validation split preferred."""
        return [self._fused(seed).method for seed in sorted(self.runs[MODALITIES[0]])]

    @cache  # noqa: B019  # few of them, and the process is short
    def _fused(self, seed: int) -> LateFusion:
        validation, test = (
            {name: self.runs[name][seed][split] for name in MODALITIES} for split in ("validation", "test")
        )
        return late_fusion(validation, test, trials=3, seed=seed)

    def labels(self, split: str = "test") -> np.ndarray:
        """[N] true states."""
        return self.worlds[f"{split}.labels"]

    def groups(self, split: str = "test") -> np.ndarray:
        """[N] host stars."""
        return self.worlds[f"{split}.groups"]

    def stars_and_clades(self, split: str = "test") -> np.ndarray | None:
        """[N, 2] host stars and orders of the candidates; None where the answers do not say these."""
        clades = self.worlds.get(f"{split}.clades")
        return None if clades is None else np.stack([self.groups(split), clades], axis=1)

    @property
    def sizes(self) -> dict[str, int]:
        """Worlds of every split that was answered."""
        return {split: len(self.labels(split)) for split in self.splits}

    @property
    def stars_in_test(self) -> int:
        """Host stars that the test split's worlds share."""
        return len(np.unique(self.groups()))

    @property
    def headline(self) -> str:
        """The system that the result speaks of."""
        return next(name for name in (self.speaker, *HEADLINE, *self.runs) if name in self.runs)


def calibrated(answers: Mapping[str, Predictions]) -> dict[str, np.ndarray]:
    """Probabilities of every split by factors on the experts that the validation split gave."""
    scales = fit_expert_scales(answers["validation"])
    return {
        split: np.exp(log_softmax(np.einsum("nkc,k->nc", expert_parts(found), scales)))
        for split, found in answers.items()
    }


def score(depth: Depth, name: str, split: str = "test") -> dict[str, Any]:
    """Macro accuracy with its interval over stars and seeds, calibration, and each seed's own accuracy."""
    found, labels = depth.probabilities[name][split], depth.labels(split)
    interval = macro_accuracy_over_runs(labels, found.argmax(axis=2), depth.groups(split))
    living = [area_under_roc(each[:, LIVING].sum(axis=1), LIVING[labels]) for each in found]
    return {
        "macro_accuracy": interval.mean, "ci95": [interval.low, interval.high],
        "ece": float(np.mean([expected_calibration_error(each, labels) for each in found])),
        "negative_log_likelihood": float(np.mean([negative_log_likelihood(each, labels) for each in found])),
        "inhabited_auroc": float(np.mean(living)),
        "seeds": [macro_accuracy(labels, each.argmax(axis=1)) for each in found],
    }  # fmt: skip


def experts(depth: Depth, name: str) -> dict[str, float]:
    """Macro accuracy of each modality's own vote within a system, first seed, not calibrated."""
    votes = next(iter(depth.runs[name].values()))["test"].unimodal
    assert votes is not None
    return {m: macro_accuracy(depth.labels(), votes[:, i].argmax(axis=1)) for i, m in enumerate(MODALITIES)}


def difference(
    depth: Depth, better: str, other: str, split: str = "test", groups: np.ndarray | None = None
) -> dict[str, Any]:
    """Paired difference of macro accuracies; who has fewer seeds is compared with each seed of the other.

    Args:
        groups: what the interval resamples, host stars unless told.
    """
    rows = [depth.probabilities[name][split].argmax(axis=2) for name in (better, other)]
    most = max(len(each) for each in rows)
    first, second = (each[np.arange(most) % len(each)] for each in rows)
    resampled = depth.groups(split) if groups is None else groups
    found = paired_difference(depth.labels(split), first, second, resampled)
    return {**found.to_dict(), "beaten": found.low > 0.0}


def against_rivals(depth: Depth) -> dict[str, Any]:
    """What systems and averages of seeds gain over their rivals, and how sure that is for other microbes as well."""
    names, crossed = depth.probabilities, depth.stars_and_clades()
    ours = [name for name in dict.fromkeys(("unified", "unified" + AVERAGED, depth.headline)) if name in names]
    pairs = [(each, other) for each in ours for other in RIVALS if other in names]
    found: dict[str, Any] = {"difference_to_rivals": {each: {} for each in ours}}
    for each, other in pairs:
        found["difference_to_rivals"][each][other] = difference(depth, each, other)
    if crossed is not None:
        found["over_stars_and_clades"] = {
            "clades_in_test": len(np.unique(crossed[:, 1])),
            "macro_accuracy": {
                name: macro_accuracy_over_runs(depth.labels(), names[name]["test"].argmax(axis=2), crossed).to_dict()
                for name in (*ours, *RIVALS)
                if name in names
            },
            "difference": {
                each: {other: difference(depth, each, other, groups=crossed) for one, other in pairs if one == each}
                for each in ours
            },
        }
    return found


def of_depth(depth: Depth) -> dict[str, Any]:
    """Everything found at one depth."""
    names, best = list(depth.probabilities), depth.headline
    ablated = [name for name in names if name.startswith("no-")]
    notes = {path.stem: read_json(path) for path in sorted((depth.folder / "predictions").glob("*.json"))}
    ood = [split for split in depth.splits if split.startswith("ood-")]
    judged = [name for name in dict.fromkeys((*HEADLINE, best, f"{TREES}all")) if name in names]
    hidden = {"reaction_dropout": difference(depth, REACTIONS, "small")} if {REACTIONS, "small"} <= set(names) else {}
    return {
        "headline": best,
        "observation": read_json(depth.folder / "data.json") if (depth.folder / "data.json").is_file() else None,
        "worlds": depth.sizes,
        "stars_in_test": depth.stars_in_test,
        "systems": {name: score(depth, name) for name in names},
        "difference": {name: difference(depth, best, name) for name in names if name != best},
        **against_rivals(depth),
        "ablations": {name: difference(depth, "unified", name) for name in ablated if "unified" in names},
        "experts": {name: experts(depth, name) for name in depth.runs},
        **hidden,
        "reliability": {name: reliability(depth.probabilities[name]["test"][0], depth.labels()) for name in judged},
        "confusion": confusion(
            depth.labels(), depth.probabilities[best]["test"][0].argmax(axis=1), len(WORLD_STATES)
        ).tolist(),
        "ood": {
            split: {name: score(depth, name, split) for name in judged if split in depth.probabilities[name]}
            | {"unlike_training": {n: note["outliers"].get(split) for n, note in notes.items() if "outliers" in note
                                   and n in (f"{best}-seed-0", "unified-seed-0")}}
            for split in ood
        },
        "unlike_training": notes.get(f"{best}-seed-0", {}).get("outliers", {}).get("test"),
        "language": {path.stem: read_json(path) for path in sorted((depth.folder / "language").glob("*.json"))},
        "trainings": {
            name: {key: note[key] for key in ("best", "seconds", "parameters", "machine")}
            | {"training": _without_folder(note["config"]["training"]), "loss": note["config"]["loss"]}
            for name, note in notes.items()
        },
    }  # fmt: skip


def _without_folder(training: Mapping[str, Any]) -> dict[str, Any]:
    """A training's settings with the decoder's name in place of its folder, which is one machine's own."""
    decoder = training.get("decoder")
    return {**training, "decoder": decoder and Path(decoder).name}


def report(
    out: Path, results: Path, figures: Path | None, console: Console, name: str = NAME, speaker: str | None = None
) -> None:
    """Write `NAME.json`, `NAME.md` and, where there is a folder for them, the figures.

    Args:
        speaker: the system that the result speaks of, where it was trained.

    Raises:
        InputError: no trained system in `out`.
    """
    answered = [each for each in depths_in(out) if (out / each / "worlds.npz").is_file()]
    depths = {each: of_depth(Depth(out / each, speaker)) for each in answered}
    if not depths:
        raise InputError(f"{out}: expected the answers of trained systems, found none; run the other stages first")
    first = depths["deep"] if "deep" in depths else next(iter(depths.values()))
    systems, best = first["systems"], first["headline"]
    result = {
        **describe(), "date": datetime.now(UTC).isoformat("T", "seconds"), "states": list(WORLD_STATES),
        "unified": systems[best], "single": {each: systems.get(each) for each in MODALITIES},
        "isolated_late_fusion": systems.get("late_fusion"), "gradient_boosting": systems.get(f"{TREES}all"),
        "confusion": first["confusion"], "oracle": systems.get(f"{TREES}oracle"),
        "ablations": first["ablations"], "language": first["language"], "ood": first["ood"], "depths": depths,
    }  # fmt: skip
    write_json(results / f"{name}.json", _without_nan(result))
    drawn = {} if figures is None else worlds_20k_figures.draw_all(depths, figures, name)
    (results / f"{name}.md").write_text(tables(depths, drawn, name), encoding="utf-8")
    said = f"{len(drawn)} figures in {figures}" if drawn else "no figures"
    console.print(f"{results / name}.json, {said}", highlight=False)


def tables(depths: Mapping[str, dict[str, Any]], drawn: Mapping[str, Path], name: str) -> str:
    """One table and one figure a finding."""
    parts = [f"# {name.capitalize().replace('_', '-')}", ""]
    for title, key, rows in (
        ("Gains over rivals, of these stars and of stars and microbes in general", "headline", _rival_rows(depths)),
        ("Systems: macro accuracy over six states", "systems", _system_rows(depths)),
        ("What each part adds to the `mini` system", "ablations", _difference_rows(depths)),
        ("What hiding reactions in training adds to the `small` system", "reactions", _reaction_rows(depths)),
        ("Words", "language", _language_rows(depths)),
        ("Out of distribution", "ood", _ood_rows(depths)),
    ):
        if len(rows) > 1:
            lines = ["| " + " | ".join(row) + " |" for row in rows]
            parts += [f"## {title}", "", lines[0], "|" + "-|" * len(rows[0]), *lines[1:], ""]
            parts += [f"![{title}](../../docs/figures/{drawn[key].name})", ""] if key in drawn else []
    for key, title in (("reliability", "Reliability"), ("confusion", "Confusion")):
        parts += [f"## {title}", "", f"![{title}](../../docs/figures/{drawn[key].name})", ""] if key in drawn else []
    return "\n".join(parts)


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: where there was nothing to judge stands null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(entry: Mapping[str, Any], key: str = "macro_accuracy") -> str:
    low, high = (100 * value for value in entry["ci95"])
    return f"{100 * entry[key]:.1f}% [{low:.1f}, {high:.1f}]"


def _system_rows(depths: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    rows = [["", *(cell for name, found in depths.items() for cell in (name, f"gain of {found['headline']}"))]]
    for name in worlds_20k_figures.ordered({n for found in depths.values() for n in found["systems"]}):
        row = [worlds_20k_figures.said(name)]
        for found in depths.values():
            entry, gain = found["systems"].get(name), found["difference"].get(name)
            row += ["" if entry is None else _percent(entry), "" if gain is None else _points(gain)]
        rows.append(row)
    return rows


def _rival_rows(depths: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    rows = [["", "points gained, stars resampled", "stars and orders of microbes resampled"]]
    for depth, found in depths.items():
        crossed = found.get("over_stars_and_clades", {}).get("difference", {})
        for ours, rivals in found["difference_to_rivals"].items():
            for other, gain in rivals.items():
                names = " − ".join(worlds_20k_figures.said(name) for name in (ours, other))
                wider = crossed.get(ours, {}).get(other)
                rows.append([f"{names}, {depth}", _points(gain), "" if wider is None else _points(wider)])
    return rows


def _points(entry: Mapping[str, Any]) -> str:
    low, high = (100 * value for value in entry["ci95"])
    return f"{100 * entry['mean']:+.1f} [{low:+.1f}, {high:+.1f}]"


def _difference_rows(depths: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    names = sorted({name for found in depths.values() for name in found["ablations"]})
    rows = [["without", *(f"points lost, {name}" for name in depths)]]
    for name in names:
        cells = [found["ablations"].get(name) for found in depths.values()]
        rows.append([name.removeprefix("no-"), *("" if cell is None else _points(cell) for cell in cells)])
    return rows


def _reaction_rows(depths: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    found = {name: each["reaction_dropout"] for name, each in depths.items() if "reaction_dropout" in each}
    return [["", "points gained"], *([name, _points(entry)] for name, entry in found.items())]


def _language_rows(depths: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    keys = ("right_state", "right_verdict", "gases_agree", "gases_exact", "gases_named", "temperature_agrees")
    rows = [["", "worlds", *(key.replace("_", " ") for key in keys)]]
    for depth, found in depths.items():
        for name, entry in found["language"].items():
            for kind, scores in (("", entry), (", unguided", entry["unguided"])):
                if keys[0] in scores:
                    shares = ["" if math.isnan(scores[key]) else f"{100 * scores[key]:.1f}%" for key in keys]
                    rows.append([f"{name}{kind}, {depth}", str(scores["worlds"]), *shares])
    return rows


def _ood_rows(depths: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    rows = [["split", "system", "macro accuracy", "in distribution"]]
    for depth, found in depths.items():
        for split, entries in found["ood"].items():
            for name in (name for name in entries if name != "unlike_training"):
                rows.append([f"{split}, {depth}", worlds_20k_figures.said(name), _percent(entries[name]),
                             _percent(found["systems"][name])])  # fmt: skip
    return rows
