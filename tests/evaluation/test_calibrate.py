"""Temperature, conformal sets and outlier scores on data with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.errors import InputError
from astrobio.evaluation.calibrate import (
    Calibration,
    OutlierModel,
    conformal_thresholds,
    fit_expert_scales,
    fit_temperature,
    scaled_probabilities,
)
from astrobio.evaluation.predictions import Predictions, log_softmax

ONES = (1.0,) * 5


def draw(rng: np.random.Generator, worlds: int, sharpness: float = 1.0) -> Predictions:
    """Predictions whose logits, divided by `sharpness`, are the true log-odds."""
    logits = rng.normal(0, 2, (worlds, len(WORLD_STATES)))
    chances = np.exp(log_softmax(logits))
    labels = np.array([rng.choice(len(WORLD_STATES), p=row) for row in chances])
    return Predictions(
        world_ids=tuple(map(str, range(worlds))), groups=np.arange(worlds), labels=labels, logits=logits * sharpness,
        present=np.ones((worlds, 4), bool), embeddings={m: rng.normal(0, 1, (worlds, 24)) for m in MODALITIES},
        unimodal=np.zeros((worlds, 4, len(WORLD_STATES))),
    )  # fmt: skip


def test_temperature_undoes_overconfidence():
    found = draw(np.random.default_rng(0), 4000, sharpness=3.0)
    assert fit_temperature(found.logits, found.labels) == pytest.approx(3.0, rel=0.1)


def test_each_expert_gets_the_scale_that_it_lacks():
    """Two experts, one three times too sure, one not sure enough: the scales undo both."""
    rng = np.random.default_rng(5)
    first, second = (rng.normal(0, 1.5, (6000, len(WORLD_STATES))) for _ in range(2))
    chances = np.exp(log_softmax(first + second))
    labels = np.array([rng.choice(len(WORLD_STATES), p=row) for row in chances])
    unimodal = np.zeros((6000, 4, len(WORLD_STATES)))
    unimodal[:, 1], unimodal[:, 2] = 3.0 * first, 0.5 * second
    found = Predictions(
        tuple(map(str, range(6000))),
        np.arange(6000),
        labels,
        unimodal.sum(axis=1),
        np.ones((6000, 4), bool),
        {},
        unimodal,
    )
    scales = fit_expert_scales(found)
    assert scales[2:4] == pytest.approx([1 / 3, 2.0], rel=0.1)
    exact = np.exp(log_softmax(first + second))
    assert np.abs(scaled_probabilities(found, scales) - exact).mean() < 0.01


def test_conformal_sets_cover_every_state():
    rng = np.random.default_rng(1)
    fitted, fresh = draw(rng, 3000), draw(rng, 3000)
    limits = np.array(conformal_thresholds(scaled_probabilities(fitted, ONES), fitted.labels))
    inside = (1.0 - scaled_probabilities(fresh, ONES) <= limits)[np.arange(3000), fresh.labels]
    for state in range(len(WORLD_STATES)):
        assert inside[fresh.labels == state].mean() == pytest.approx(0.9, abs=0.05)


def test_state_with_too_few_worlds_is_never_ruled_out():
    assert conformal_thresholds(np.full((3, 2), 0.5), np.array([0, 0, 0])) == (1.0, 1.0)


def test_outliers_stand_out_and_ordinary_worlds_do_not():
    rng = np.random.default_rng(2)
    mixing = rng.normal(0, 1, (24, 24))
    model = OutlierModel.fit(rng.normal(0, 1, (400, 24)) @ mixing, rng.normal(0, 1, (400, 24)) @ mixing)
    ordinary = model.distance(rng.normal(0, 1, (1000, 24)) @ mixing)
    assert (ordinary > model.threshold).mean() < 0.05
    assert (model.distance(rng.normal(0, 4, (1000, 24)) @ mixing) > model.threshold).mean() > 0.95


def test_calibration_round_trip(tmp_path: Path):
    rng = np.random.default_rng(3)
    calibration = Calibration.fit(draw(rng, 100), draw(rng, 100))
    calibration.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    found, embedding = draw(rng, 5), rng.normal(0, 1, 24)
    assert np.array_equal(again.probabilities(found), calibration.probabilities(found))
    assert again.outlier_ratio("climate", embedding) == calibration.outlier_ratio("climate", embedding)
    assert again.prediction_set(np.array([0.99, 0.01, 0, 0, 0, 0]))[0] == WORLD_STATES[0]


def test_calibration_without_known_states_is_refused():
    rng = np.random.default_rng(4)
    nothing = draw(rng, 5)
    nothing.labels[:] = -100
    with pytest.raises(InputError, match="validation split"):
        Calibration.fit(draw(rng, 50), nothing)
