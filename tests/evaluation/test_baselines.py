"""Late fusion and boosted trees on toy worlds whose best answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from astrobio.batch import MODALITIES, WORLD_STATES, Sample
from astrobio.evaluation.baselines import Table, feature_tables, gradient_boosting, isolated_config, late_fusion
from astrobio.evaluation.features import BANDS, FeatureExtractor
from astrobio.evaluation.metrics import macro_accuracy
from astrobio.evaluation.predictions import Predictions
from astrobio.training.config import run_config

STATES = len(WORLD_STATES)


def witnesses(seed: int, worlds: int, skill: dict[str, float], absent: float = 0.0) -> dict[str, Predictions]:
    """Independent answers about the same worlds, right by `skill` (0 is noise), some modalities absent."""
    rng = np.random.default_rng(seed)
    labels = np.arange(worlds) % STATES
    present = rng.random((worlds, 4)) >= absent
    out = {}
    for index, name in enumerate(MODALITIES):
        logits = rng.normal(0, 1, (worlds, STATES))
        logits[np.arange(worlds), labels] += np.where(present[:, index], skill[name], 0.0)
        out[name] = Predictions(
            tuple(map(str, range(worlds))),
            np.arange(worlds),
            labels,
            skill[name] * logits,
            present,
            {},
            np.zeros((worlds, 4, STATES)),
        )
    return out


@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_fusion_of_equal_witnesses_beats_each(absent: float):
    skill: dict[str, float] = {name: 1.5 for name in MODALITIES}
    validation, test = (witnesses(seed, 600, skill, absent) for seed in (0, 1))
    fused = late_fusion(validation, test)
    labels = test["text"].labels
    alone = max(macro_accuracy(labels, p.predicted) for p in test.values())
    assert macro_accuracy(labels, fused.probabilities.argmax(axis=1)) > alone + 0.1
    assert fused.probabilities.sum(axis=1) == pytest.approx(1.0)


def test_fusion_reports_the_better_method_on_validation():
    skill = {"text": 0.0, "spectrum": 3.0, "climate": 0.0, "metabolism": 0.0}
    fused = late_fusion(witnesses(0, 600, skill), witnesses(1, 600, skill), trials=3)
    assert fused.method == max(fused.validation, key=lambda name: fused.validation[name])


def test_fusion_is_not_misled_by_a_confident_but_wrong_witness():
    skill = {"text": 2.0, "spectrum": 2.0, "climate": 2.0, "metabolism": 0.0}
    validation, test = (witnesses(seed, 600, skill) for seed in (0, 1))
    for split in (validation, test):
        liar = split["metabolism"]
        liar.logits[:] = 20.0 * np.eye(STATES)[np.random.default_rng(5).integers(STATES, size=600)]
    fused = late_fusion(validation, test)
    without = {name: p for name, p in test.items() if name != "metabolism"}
    honest = sum(p.logits for p in without.values())
    labels = test["text"].labels
    reached = macro_accuracy(labels, fused.probabilities.argmax(axis=1))
    assert reached > macro_accuracy(labels, np.asarray(honest).argmax(axis=1)) - 0.03


def test_boosted_trees_find_a_rule_of_two_features():
    rng = np.random.default_rng(0)

    def table(worlds: int) -> Table:
        features = rng.normal(0, 1, (worlds, 4))
        labels = 2 * (features[:, 0] > 0) + (features[:, 1] > 0)
        features[rng.random((worlds, 4)) < 0.05] = np.nan
        return Table(features, labels.astype(int))

    tables = {"train": table(400), "validation": table(100), "test": table(200)}
    probabilities = gradient_boosting(tables)
    assert probabilities.shape == (200, STATES)
    assert macro_accuracy(tables["test"].labels, probabilities.argmax(axis=1)) > 0.85


def test_isolated_training_differs_in_modalities_alone():
    config = run_config("mini", ["training.steps=7"])
    alone = isolated_config(config, "climate").training
    assert alone.modalities == ("climate",) and alone.modality_dropout == 0.0
    assert (alone.steps, alone.lr, alone.batch_size) == (7, config.training.lr, config.training.batch_size)


def test_features_measure_the_band_that_is_there(sample_factory: Callable[..., Sample]):
    worlds = [sample_factory(i) for i in range(24)]
    extract = FeatureExtractor.fit(worlds)
    methane = [band.name for band in BANDS].index("CH4_3.3")
    start = 2 * len(extract.units) + len(extract.words)
    depth = np.array([extract(w)[start + 2 * methane] for w in worlds])
    has = np.array([w.state in ("lifeless-reducing", "anoxic-biosphere", "oxygenic-biosphere") for w in worlds])
    assert depth[has].mean() - depth[~has].mean() == pytest.approx(60.0, abs=25.0)  # an 80 ppm peak over its window


def test_features_of_absent_modalities_are_missing_not_zero(sample_factory: Callable[..., Sample]):
    extract = FeatureExtractor.fit([sample_factory(i) for i in range(6)])
    whole = extract(sample_factory(0))
    empty = extract(Sample(world_id="nothing"))
    assert whole.shape == empty.shape and np.isnan(empty).all()
    no_climate = extract(sample_factory(0, without=["climate"]))
    both = ~np.isnan(no_climate)
    assert np.array_equal(no_climate[both], whole[both]) and np.isnan(no_climate).sum() > np.isnan(whole).sum()


def test_text_numbers_are_read_by_unit():
    worlds = [
        Sample(world_id=str(i), context=f"M5V host, Teff {3000 + i} K, period {i}.5 d; active.") for i in range(4)
    ]
    extract = FeatureExtractor.fit(worlds)
    values = dict(zip(np.repeat(extract.units, 2), extract(worlds[3]), strict=False))
    first = {unit: extract(worlds[3])[2 * k] for k, unit in enumerate(extract.units)}
    assert first["K"] == 3003.0 and first["d"] == 3.5
    assert np.isnan(values["K"]), "one number of that unit only"


def test_tables_leave_out_worlds_of_unknown_state(sample_factory: Callable[..., Sample]):
    worlds = [sample_factory(i) for i in range(5)] + [Sample(world_id="unknown", context="star M1")]
    tables = feature_tables({"train": worlds, "test": worlds}, progress=False)
    assert len(tables["test"].labels) == len(tables["test"].features) == 5
