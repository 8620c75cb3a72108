"""The trees of `worlds_20k.py`: boosted on hand-made features of every view of the worlds, and on their hidden truth.

`oracle` sees the hidden truth, which holds nothing of the candidate organism; `everything` sees all features, too.

Dimension letters: N worlds, F features.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from astrobio.batch import IGNORED, MODALITIES, WORLD_STATES, Sample
from astrobio.evaluation.audit import UNFIT
from astrobio.evaluation.baselines import VOCABULARY_WORLDS, Table, boosted_trees
from astrobio.evaluation.features import FeatureExtractor, spectrum_features
from astrobio.evaluation.metrics import macro_accuracy
from astrobio.training.feed import Worlds, host_of, noise_seed_of
from astrobio.worlds.instrument import other_noise

PAIRS = tuple("+".join(pair) for pair in itertools.combinations(MODALITIES, 2))
REDRAWN, CLEAN = "-redrawn", "-clean"  # with each training world under `DRAWS` draws of noise more; without any noise
NOISES = tuple(view + kind for kind in (REDRAWN, CLEAN) for view in ("spectrum", "all"))
VIEWS = (*MODALITIES, *PAIRS, "all", *NOISES, "oracle", "everything")
DRAWS = 3


@dataclass(frozen=True)
class View:
    """What is extracted of a world, fitted to training worlds: hand-made features, and hidden truths by name."""

    extract: FeatureExtractor
    truths: tuple[str, ...]

    @classmethod
    def fit(cls, training: Worlds) -> View:
        """Vocabularies of the first training worlds."""
        samples = [training[index] for index in range(min(len(training), VOCABULARY_WORLDS))]
        return cls(FeatureExtractor.fit(samples), tuple(sorted({name for s in samples for name in truth_of(s)})))

    def of(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Features [N, F], those of spectra without noise and anew [N, 1 + DRAWS, F'], truths [N, T], labels, names."""
        truths = [truth_of(sample) for sample in samples]
        return {
            "features": np.array([self.extract(sample) for sample in samples], dtype=np.float32),
            "redrawn": np.array([_observed_anew(sample) for sample in samples], dtype=np.float32),
            "truth": np.array([[truth.get(name, np.nan) for name in self.truths] for truth in truths], np.float32),
            "labels": np.array([IGNORED if s.state is None else WORLD_STATES.index(s.state) for s in samples]),
            "groups": np.array([host_of(sample) for sample in samples]),
            "world_ids": np.array([sample.world_id for sample in samples]),
        }


def _observed_anew(sample: Sample) -> list[list[float]]:
    """Spectral features of a simulated world without noise, then under other noise, `DRAWS` times."""
    seed, spectrum = noise_seed_of(sample), sample.spectrum
    assert seed is not None and spectrum is not None, "these worlds are simulated"
    rng, bins = np.random.default_rng([seed, 1]), len(spectrum.value)
    noise = [other_noise(seed, bins, generator) for generator in (None, *[rng] * DRAWS)]
    values = [spectrum.value + spectrum.sigma * each for each in noise]
    return [spectrum_features(replace(spectrum, value=value)) for value in values]


def keep_columns(view: View, folder: Path) -> None:
    """Write which features are whose beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: [part.start, part.stop] for name, part in view.extract.columns().items()}
    (folder / "columns.json").write_text(json.dumps(columns))


def read_tables(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """What was extracted of every split, its parts one behind the other."""
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for path in sorted(folder.glob("*.npz")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(dict(np.load(path)))
    return {
        split: {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} for split, parts in found.items()
    }


def truth_of(sample: Sample) -> dict[str, float]:
    """The numbers that the world was made of and its physics, without noise; never the state's own history."""
    values: dict[str, Any] = {**sample.provenance.get("truth", {}), **(sample.physics or {})}
    return {name: float(v) for name, v in values.items() if name not in UNFIT and isinstance(v, int | float)}


def fit_views(features: Path, folder: Path, trials: int, console: Console, views: Sequence[str] = VIEWS) -> None:
    """Boosted trees on views; probabilities of all other splits into `folder/trees-VIEW.npz`, kept if there."""
    arrays = read_tables(features)
    columns = {name: slice(*ends) for name, ends in json.loads((features / "columns.json").read_text()).items()}
    for view in views:
        path = folder / f"trees-{view}.npz"
        if path.is_file():
            continue
        shown, _, kind = view.partition("-")
        tables = {split: table_of(found, shown, columns) for split, found in arrays.items()}
        if kind == CLEAN[1:]:
            tables = {split: under_draw(found, 0, shown, columns) for split, found in arrays.items()}
        elif kind:
            draws = [under_draw(arrays["train"], 1 + draw, shown, columns) for draw in range(DRAWS)]
            tables["train"] = joined([tables["train"], *draws])
        measured = np.isfinite(tables["train"].features).any(axis=0)
        tables = {split: Table(table.features[:, measured], table.labels) for split, table in tables.items()}
        found = boosted_trees(tables, trials=trials if shown in ("all", "oracle", "everything") else 1)
        save_arrays(path, {name: value.astype(np.float32) for name, value in found.items()})
        score = macro_accuracy(tables["test"].labels, found["test"].argmax(axis=1))
        console.print(f"trees on {view}: {score:.3f}", highlight=False)


def table_of(found: dict[str, np.ndarray], view: str, columns: dict[str, slice]) -> Table:
    """What trees on a view see of a split."""
    if view == "oracle":
        return Table(found["truth"], found["labels"])
    if view == "everything":
        return Table(np.concatenate([found["truth"], found["features"]], axis=1), found["labels"])
    shown = MODALITIES if view == "all" else view.split("+")
    return Table(np.concatenate([found["features"][:, columns[name]] for name in shown], axis=1), found["labels"])


def under_draw(found: dict[str, np.ndarray], draw: int, view: str, columns: dict[str, slice]) -> Table:
    """What trees on a view see of a split under another draw of noise; draw 0 has none."""
    features = found["features"].copy()
    features[:, columns["spectrum"]] = found["redrawn"][:, draw]
    return table_of({**found, "features": features}, view, columns)


def joined(tables: Sequence[Table]) -> Table:
    """The worlds of all tables."""
    return Table(np.concatenate([t.features for t in tables]), np.concatenate([t.labels for t in tables]))


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Compressed, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez_compressed(temporary, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(temporary, path)
