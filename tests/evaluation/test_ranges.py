"""Ranges of retrieved physics on residuals whose distribution is known."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astrobio.batch import MODALITIES, PHYSICS_TARGETS, WORLD_STATES, Collator, Sample, Statistics
from astrobio.evaluation.calibrate import Calibration
from astrobio.evaluation.metrics import share_interval
from astrobio.evaluation.predictions import Predictions, predict
from astrobio.evaluation.ranges import (
    ANY,
    PHYSICS_UNITS,
    STATE_WORLDS,
    fit_ranges,
    inputs_key,
    possible,
    residual_quantiles,
    score_ranges,
    world_ranges,
)
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.checkpoint import write_json
from astrobio.training.config import RunConfig
from astrobio.training.feed import Store

ALL = "+".join(MODALITIES)
CO2 = PHYSICS_TARGETS.index("log10_CO2")
CENTRE = np.array([280.0, 240.0, 240.0, *[-6.0] * 7])


def draw(
    rng: np.random.Generator, worlds: int, spread: np.ndarray | float = 0.5, shown: tuple[str, ...] = MODALITIES
) -> Predictions:
    """Worlds whose likeliest state is their label and whose truths miss the predictions by skewed residuals.

    `spread` of the residuals, one number or one a state.
    """
    labels = np.arange(worlds) % len(WORLD_STATES)
    width = np.broadcast_to(spread, len(WORLD_STATES))[labels][:, None]
    physics = CENTRE + rng.normal(0, 0.5, (worlds, len(PHYSICS_TARGETS)))
    residual = width * (rng.gamma(2.0, 1.0, physics.shape) - 1.0)  # lopsided on purpose
    return Predictions(
        world_ids=tuple(map(str, range(worlds))), groups=np.arange(worlds) // 12, labels=labels,
        logits=10.0 * np.eye(len(WORLD_STATES))[labels], present=np.tile([m in shown for m in MODALITIES], (worlds, 1)),
        embeddings={m: rng.normal(0, 1, (worlds, 4)) for m in MODALITIES},
        unimodal=np.zeros((worlds, 4, len(WORLD_STATES))), physics=physics, physics_truth=physics + residual,
    )  # fmt: skip


def calibrated(*held_out: Predictions) -> Calibration:
    return Calibration((1.0,) * 5, (1.0,) * 6, {}).with_ranges(held_out)


def scores(calibration: Calibration, found: Predictions) -> dict[str, dict[str, Any]]:
    return score_ranges(found, calibration.physics_ranges(found), calibration.likeliest(found))


@pytest.mark.parametrize("worlds", [19, 20, 59, 200])
def test_exchangeable_residuals_are_covered_on_average(worlds: int):
    """Over many draws the share inside is at least nominal and no more than ties and ranks allow."""
    rng = np.random.default_rng(worlds)
    covered = []
    for _ in range(2000):
        quantiles = residual_quantiles(rng.gamma(2.0, 1.0, worlds), 0.1)
        assert quantiles is not None
        fresh = rng.gamma(2.0, 1.0, 50)
        covered.append(((fresh >= quantiles[0]) & (fresh <= quantiles[1])).mean())
    assert 0.9 - 0.01 <= np.mean(covered) <= 0.9 + 2 / (worlds + 1) + 0.01


def test_the_two_sides_miss_alike_and_the_ranks_are_exact():
    residuals = np.arange(1.0, 20.0)
    assert residual_quantiles(residuals, 0.1) == (1.0, 19.0), "19 worlds: the extremes"
    assert residual_quantiles(np.arange(1.0, 60.0), 0.1) == (3.0, 57.0), "0.05 · 60 is 3, not 2.999…"
    assert residual_quantiles(residuals[1:], 0.1) is None, "18 worlds guarantee nothing: no range, not an infinite one"


def test_more_miscoverage_gives_narrower_ranges():
    residuals = np.random.default_rng(0).normal(0, 1, 500)
    widths = []
    for miscoverage in (0.01, 0.05, 0.1, 0.2, 0.5, 0.9):
        quantiles = residual_quantiles(residuals, miscoverage)
        assert quantiles is not None
        widths.append(quantiles[1] - quantiles[0])
    assert all(narrower < wider for wider, narrower in pairwise(widths))


def test_every_state_gets_the_width_that_it_needs():
    rng = np.random.default_rng(1)
    spread = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 1.0])
    calibration = calibrated(draw(rng, 6000, spread))
    every = scores(calibration, draw(rng, 6000, spread))
    for state in WORLD_STATES:
        covered = np.mean([entry["by_likeliest"][state]["coverage"] for entry in every.values()])
        assert covered == pytest.approx(0.9, abs=0.015), f"{state}: one scatters by 0.0042 (1 sd)"
    found = every["log10_CO2"]
    wide, narrow = (found["by_state"][WORLD_STATES[index]]["median_width"] for index in (5, 0))
    assert wide == pytest.approx(10 * narrow, rel=0.15)
    assert found["ci95"][0] < found["coverage"] < found["ci95"][1] and found["worlds"] == found["ranged"] == 6000


def test_states_with_few_worlds_share_the_pooled_range():
    rng = np.random.default_rng(2)
    few = fit_ranges(draw(rng, 6 * (STATE_WORLDS - 1)), np.arange(6 * (STATE_WORLDS - 1)) % 6, 0.1)
    assert set(few[ALL]["log10_CO2"]) == {ANY}
    enough = fit_ranges(draw(rng, 6 * STATE_WORLDS), np.arange(6 * STATE_WORLDS) % 6, 0.1)
    assert set(enough[ALL]["log10_CO2"]) == {ANY, *WORLD_STATES}
    physics = dict(zip(PHYSICS_TARGETS, CENTRE.tolist(), strict=True))
    low, high = few[ALL]["log10_CO2"][ANY]
    expected = (physics["log10_CO2"] + low, physics["log10_CO2"] + high)
    assert world_ranges(few, physics, MODALITIES, WORLD_STATES[3])["log10_CO2"] == expected
    assert fit_ranges(draw(rng, 18), np.zeros(18, int), 0.1) == {}


def test_unknown_truths_count_neither_in_fit_nor_in_score():
    rng = np.random.default_rng(3)
    found = draw(rng, 1200)
    assert found.physics is not None and found.physics_truth is not None
    found.physics_truth[::2, CO2] = np.nan
    quantiles = fit_ranges(found, np.zeros(1200, int), 0.1)[ALL]
    residuals = (found.physics_truth - found.physics)[1::2, CO2]
    assert quantiles["log10_CO2"][ANY] == residual_quantiles(residuals, 0.1)
    found.physics_truth[18:, CO2] = np.nan
    calibration = calibrated(found)
    assert "log10_CO2" not in calibration.ranges[ALL] and "log10_CH4" in calibration.ranges[ALL]
    entry = scores(calibration, found)["log10_CO2"]
    assert entry["worlds"] == 9 and entry["ranged"] == 0 and entry["coverage"] is None and entry["ci95"] is None
    assert entry["rmse"] == pytest.approx(np.sqrt((residuals[:9] ** 2).mean()))
    found.physics_truth[:] = np.nan
    assert calibrated(found).ranges == {} and scores(calibration, found)["olr"]["rmse"] is None


def test_fewer_inputs_have_ranges_of_their_own_or_none():
    rng = np.random.default_rng(4)
    whole, words = draw(rng, 600, 0.1), draw(rng, 600, 1.0, shown=("text",))
    words.present[:10] = False  # a world without words says nothing of words
    assert words.physics is not None
    words.physics[:10] += 100.0
    calibration = calibrated(whole, words)
    assert set(calibration.ranges) == {ALL, "text"}
    physics = dict(zip(PHYSICS_TARGETS, CENTRE.tolist(), strict=True))
    ranges = {key: calibration.physics_range(physics, key.split("+"), WORLD_STATES[0]) for key in (ALL, "text")}
    widths = {key: each["log10_CO2"][1] - each["log10_CO2"][0] for key, each in ranges.items()}
    assert 5 * widths[ALL] < widths["text"] < 20 * widths[ALL]
    assert calibration.physics_range(physics, ("climate",), WORLD_STATES[0]) == {}
    assert inputs_key(("climate", "text")) == "text+climate"


def test_ranges_stay_within_what_is_possible():
    quantiles = {"text": {name: {ANY: (-500.0, 500.0)} for name in PHYSICS_TARGETS}}
    physics = dict(zip(PHYSICS_TARGETS, CENTRE.tolist(), strict=True))
    ranges = world_ranges(quantiles, physics, ("text",), WORLD_STATES[0])
    assert ranges["log10_CO2"] == (-12.0, 0.0) and ranges["surface_temperature"] == (0.0, 780.0)
    assert set(PHYSICS_UNITS) == set(PHYSICS_TARGETS) and possible("log10_O3") == (-12.0, 0.0)


def test_round_trip_and_files_of_older_versions(tmp_path: Path):
    rng = np.random.default_rng(5)
    calibration = calibrated(draw(rng, 700), draw(rng, 30, shown=("text",)))
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == calibration
    old = json.loads((tmp_path / "calibration.json").read_text())
    del old["physics_ranges"]
    write_json(tmp_path / "calibration.json", old)
    again, found = Calibration.load(tmp_path / "calibration.json"), draw(rng, 5)
    assert again.ranges == {} and again.scales == calibration.scales
    assert again.physics_range(dict.fromkeys(PHYSICS_TARGETS, 1.0), MODALITIES, WORLD_STATES[0]) == {}
    assert {entry["coverage"] for entry in scores(again, found).values()} == {None}


def test_answers_kept_without_physics_give_no_ranges():
    found = draw(np.random.default_rng(6), 60)
    bare = Predictions(found.world_ids, found.groups, found.labels, found.logits, found.present, {}, found.unimodal)
    assert calibrated(bare).ranges == {} and scores(calibrated(found), bare) == {} and bare.labelled().physics is None
    labelled = found.labelled().physics
    assert labelled is not None and np.array_equal(labelled, np.asarray(found.physics))


def test_share_is_its_own_mean_and_varies_with_the_groups():
    hits = np.repeat([True, False], 50)
    one = share_interval(hits, np.arange(100))
    assert one.mean == 0.5 and 0.3 < one.low < 0.5 < one.high < 0.7
    assert share_interval(hits, np.arange(100) // 50).high == 1.0


def test_predictions_hold_physics_in_the_units_of_the_worlds(
    tiny_run: RunConfig, worlds: dict[str, Any], collator: Collator, statistics: Statistics
):
    """Truths come back as they went in, unknown ones as NaN; predictions are de-normalised as an assessment's."""
    samples: list[Sample] = worlds["test"].samples
    store = Store(worlds["test"], collator, torch.device("cpu"))
    torch.manual_seed(0)
    system = UnifiedMultiModalSystem(tiny_run.system)
    found = predict(system, store, batch_size=3, precision="fp32")
    assert found.physics is not None and found.physics_truth is not None
    for row, sample in zip(found.physics_truth, samples, strict=True):
        for value, name in zip(row, PHYSICS_TARGETS, strict=True):
            if name in (sample.physics or {}):
                assert value == pytest.approx((sample.physics or {})[name], rel=1e-5)
            else:
                assert np.isnan(value)
    with torch.inference_mode():
        raw = system(collator(samples[:1])).physics[0].numpy()
    expected = raw * np.array(statistics.physics_std) + np.array(statistics.physics_mean)
    assert found.physics[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
