"""Does a data set give its labels away? What must tell nothing is tried by trees, what must differ is compared.

Dimension letters: N worlds, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.progress import track
from rich.table import Table

from astrobio.batch import INHABITED_STATES, MODALITIES, WORLD_STATES, Sample
from astrobio.dataset.holdout import PREFIX, HoldOuts
from astrobio.dataset.reader import WorldDataset, read_manifest, split_names
from astrobio.errors import InputError
from astrobio.evaluation.features import FeatureExtractor
from astrobio.evaluation.metrics import Interval, area_under_roc, macro_accuracy_interval

ROUNDS = 100  # of boosting: enough for a leak, which is easy to find
DRAWS = 500  # resamplings of the interval of an area under the curve
PRIOR = 1.0 / len(WORLD_STATES)
LIVING = [WORLD_STATES.index(name) for name in INHABITED_STATES]
OXYGENATED = WORLD_STATES.index("lifeless-oxygenated")
UNFIT = ("path",)  # of the truth: names the state's own history
FITTED = 512  # training worlds in which words, units and guilds are looked for


@dataclass(frozen=True)
class Finding:
    """One check: what was found, what is expected, and whether that holds (None: for information)."""

    check: str
    found: str
    expected: str
    passed: bool | None


@dataclass(frozen=True)
class Seen:
    """What the audit keeps of a world: its label, what must be its split's own, and features of each view."""

    label: int
    star: str
    keys: dict[str, Any]
    views: dict[str, Float[np.ndarray, "F"]]
    truth: dict[str, float]
    held: frozenset[str] = frozenset()  # of the kinds of `HoldOuts`, those that the world has


def audit(root: Path) -> list[Finding]:
    """All checks of a data set.

    Raises:
        InputError: no finished data set, or one without training worlds.
    """
    if "train" not in split_names(root):
        raise InputError(
            f"{root}: expected training worlds, from which a leak could be learned, found {split_names(root)} only"
        )
    splits = {name: WorldDataset(root, name) for name in split_names(root)}
    hold_outs = HoldOuts(**read_manifest(root)["identity"].get("hold_out", {}))
    training = splits["train"]
    extract = FeatureExtractor.fit(training[i] for i in range(min(FITTED, len(training))))
    seen: dict[str, list[Seen]] = {}
    for name, worlds in splits.items():
        places = track(range(len(worlds)), f"reading {name}", transient=True)
        seen[name] = [_see(worlds[i], extract, hold_outs) for i in places]
    return [*_shared(seen), *_held_out(seen), *_trees(seen)]


def _see(sample: Sample, extract: FeatureExtractor, hold_outs: HoldOuts) -> Seen:
    keys = {
        "host stars in two splits": sample.provenance["star"],
        "climate draws in two splits": sample.provenance["climate_seed"],
        "world ids in two splits": sample.world_id,
        "observing records in two splits": sample.context,
        "spectra in two splits": None if sample.spectrum is None else _digest([sample.spectrum.value]),
        "climates in two splits": None if sample.climate is None else _digest(sample.climate.fields.values()),
    }
    views = {name: extract(_only(sample, name)) for name in MODALITIES} | {"metadata": _metadata(sample)}
    label = WORLD_STATES.index(str(sample.state))
    held = hold_outs.held(sample.provenance)
    return Seen(label, sample.provenance["star"], keys, views, _truth(sample), held)


def report(findings: list[Finding]) -> Table:
    """The findings as a table for the terminal."""
    table = Table("check", "found", "expected", "", title="Leak audit", title_justify="left")
    mark = {True: "[green]ok[/]", False: "[red]leak[/]", None: ""}
    for finding in findings:
        table.add_row(finding.check, finding.found, finding.expected, mark[finding.passed])
    return table


def _shared(seen: Mapping[str, list[Seen]]) -> list[Finding]:
    """Nothing that should be a split's own may lie in two."""
    findings = []
    for check in seen["train"][0].keys:
        found = [{world.keys[check] for world in group} - {None} for group in seen.values()]
        twice = sum(len(one & other) for i, one in enumerate(found) for other in found[:i])
        findings.append(Finding(check, str(twice), "0", twice == 0))
    return findings


def _held_out(seen: Mapping[str, list[Seen]]) -> list[Finding]:
    """What a split out of distribution is named after is in all its worlds (path: those of its state) and no other."""
    findings = []
    for split in (name for name in seen if name.startswith(PREFIX)):
        kind = split.removeprefix(PREFIX)
        inside = [kind in world.held for world in seen[split] if kind != "path" or world.label == OXYGENATED]
        astray = sum(kind in world.held for name, group in seen.items() if name != split for world in group)
        found = f"{astray}; {inside.count(False)} of {len(inside)} of its own lack it"
        findings.append(Finding(f"{split} in other splits", found, "0; 0", astray == 0 and all(inside)))
    return findings


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _trees(seen: Mapping[str, list[Seen]]) -> list[Finding]:
    """What trees recover from each modality, from metadata, and from the noise-free truth."""
    labels = {name: np.array([world.label for world in group]) for name, group in seen.items()}
    stars = np.array([world.star for world in seen["test"]])

    def probabilities(features: Callable[[Seen], Float[np.ndarray, "F"]]) -> Float[np.ndarray, "N 6"]:
        tables = {name: np.array([features(world) for world in seen[name]]) for name in ("train", "test")}
        return _boost(tables["train"], labels["train"], tables["test"])

    def accuracy(found: Float[np.ndarray, "N 6"]) -> Interval:
        return macro_accuracy_interval(labels["test"], found.argmax(axis=1), stars)

    metadata = accuracy(probabilities(lambda world: world.views["metadata"]))
    names = sorted({name for world in seen["train"] for name in world.truth})
    oracle = accuracy(probabilities(lambda world: np.array([world.truth.get(name, np.nan) for name in names])))
    findings = [
        Finding("state from file order, identifiers and sizes", _say(metadata), f"not above the prior {PRIOR:.3f}",
                metadata.low <= PRIOR),
        Finding("oracle: state from the noise-free truth", _say(oracle), "the ceiling", None),
    ]  # fmt: skip
    life = np.isin(labels["test"], LIVING)
    for name in MODALITIES:
        found = probabilities(lambda world, name=name: world.views[name])
        area = _area_interval(found[:, LIVING].sum(axis=1), life, stars)
        blind = name == "metabolism"  # candidates are offered to lifeless worlds as often: it must tell nothing of life
        findings += [
            Finding(f"state from {name} alone", _say(accuracy(found)), "for information", None),
            Finding(f"life from {name} alone, area under the curve", _say(area),
                    "0.5 within the interval" if blind else "for information",
                    area.low <= 0.5 <= area.high if blind else None),
        ]  # fmt: skip
    return findings


def _only(sample: Sample, name: str) -> Sample:
    """The world with one modality and nothing else."""
    return Sample(
        world_id=sample.world_id,
        context=sample.context if name == "text" else None,
        spectrum=sample.spectrum if name == "spectrum" else None,
        climate=sample.climate if name == "climate" else None,
        metabolism=sample.metabolism if name == "metabolism" else None,
    )


def _metadata(sample: Sample) -> Float[np.ndarray, "F"]:
    """[F] what a reader sees without opening a modality: place in the files, identifiers, sizes."""
    index = int(sample.provenance["index"])
    digits = [int(d) for d in sample.world_id[-6:]]
    cube, graph, spectrum = sample.climate, sample.metabolism, sample.spectrum
    star = sample.provenance["star"].encode()
    return np.array([
        index, index % len(WORLD_STATES), index // len(WORLD_STATES), index % 32, *digits,
        len(sample.context or ""), 0 if spectrum is None else len(spectrum.wavelength),
        0 if cube is None else len(cube.fields), 0 if graph is None else len(graph.reactions), star[-1], star[-2],
    ], dtype=float)  # fmt: skip


def _truth(sample: Sample) -> dict[str, float]:
    """The latent numbers that the world was made of, and its physics."""
    values = {**sample.provenance["truth"], **(sample.physics or {})}
    return {name: float(v) for name, v in values.items() if name not in UNFIT and isinstance(v, int | float)}


def _boost(
    train: Float[np.ndarray, "N F"], labels: np.ndarray, test: Float[np.ndarray, "M F"]
) -> Float[np.ndarray, "M 6"]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    measured = np.isfinite(train).any(axis=0)
    if not measured.any():  # the data set lacks the modality
        return np.full((len(test), len(WORLD_STATES)), PRIOR)
    model = HistGradientBoostingClassifier(max_iter=ROUNDS, random_state=0)
    found = model.fit(train[:, measured], labels).predict_proba(test[:, measured])
    out = np.zeros((len(test), len(WORLD_STATES)))
    out[:, np.asarray(model.classes_, dtype=int)] = found
    return out


def _area_interval(scores: Float[np.ndarray, "N"], positive: np.ndarray, groups: np.ndarray) -> Interval:
    """Area under the curve with its 95% interval from resampling stars."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    draws = []
    for _ in range(DRAWS):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        draws.append(area_under_roc(scores[rows], positive[rows]))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(area_under_roc(scores, positive), float(low), float(high))


def _say(interval: Interval) -> str:
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"
