"""Assessments are read back as they were written, and scored by what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rich.console import Console

from astrobio.batch import WORLD_STATES
from astrobio.evaluation import language
from astrobio.evaluation.language import (
    Stated,
    Truth,
    read_assessment,
    score_assessments,
    strike_unsure,
    write_assessments,
)
from astrobio.training import loop
from astrobio.training.checkpoint import LoadedRun, load_run
from astrobio.training.feed import Store
from astrobio.worlds.narrative import NAMED_GASES, assessment
from astrobio.worlds.scenario import Pools, Scenario, draw_scenario
from astrobio.worlds.stars import draw_star


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    rng = np.random.default_rng(3)
    stars = tuple(draw_star(rng, f"s{i}") for i in range(6))
    return [draw_scenario(state, rng, Pools(stars)) for state in WORLD_STATES]


@pytest.mark.parametrize("seed", range(6))
def test_every_template_is_read_back_and_scores_full_marks(scenarios: list[Scenario], seed: int):
    """All templates by all states: what the simulator writes must count as right."""
    rng = np.random.default_rng(seed)
    stated, truths = [], []
    for scenario in scenarios:
        text = assessment(scenario, rng, surface_temperature=287.0, water=2e-3)
        gases = {gas: math.log10(max(x, 1e-12)) for gas, x in {**scenario.gases, "H2O": 2e-3}.items() if gas != "N2"}
        found = read_assessment(text)
        named = {gas for gas in gases if gases[gas] >= -8.0}
        assert set(found.gases) <= named and len(found.gases) == min(len(named), NAMED_GASES)
        stated.append(found)
        truths.append(Truth(scenario.state, gases, frozenset(found.gases), 287.0))
    scores = score_assessments(stated, truths)
    for key in ("right_state", "right_verdict", "consistent", "gases_agree", "gases_exact", "gases_named",
                "all_gases_agree", "temperature_agrees"):  # fmt: skip
        assert scores[key] == 1.0, (key, scores[key])


def test_wrong_statements_lower_what_they_should():
    truth = Truth("oxygenic-biosphere", {"CO2": -2.0, "O2": -0.7, "CH4": -6.0}, frozenset({"CO2", "O2"}), 290.0)
    far = read_assessment("State: anoxic-biosphere; inhabited. Gases: CO2 1e-4, O2 3e-1. Surface 340 K.")
    near = read_assessment("oxygenic-biosphere, not inhabited. Gases CO2 1e-3, N2 1e0; surface near 300 K.")
    silent = read_assessment("the the the")
    assert silent == Stated() and near.gases == {"CO2": 1e-3}
    scores = score_assessments([far, near, silent], [truth] * 3)
    assert scores["right_state"] == pytest.approx(1 / 3) and scores["right_verdict"] == pytest.approx(1 / 3)
    assert scores["names_a_state"] == pytest.approx(2 / 3) and scores["consistent"] == 0.5
    assert scores["gases_agree"] == pytest.approx(2 / 3) and scores["gases_exact"] == pytest.approx(1 / 3)
    assert scores["gases_named"] == pytest.approx(3 / 6) and scores["all_gases_agree"] == pytest.approx(1 / 3)
    assert scores["temperature_agrees"] == 0.5
    assert scores["by_gas"]["CO2"] == {"stated": 2, "agree": 0.5} and scores["by_gas"]["O3"]["stated"] == 0


def test_the_first_number_of_a_gas_and_the_first_state_count():
    found = read_assessment("lifeless-reducing. CH4 1e-3, CH4 1e-9. Not oxygenic-biosphere.")
    assert found.gases == {"CH4": 1e-3} and found.state == "lifeless-reducing"


def test_an_unknown_state_is_not_judged():
    scores = score_assessments([read_assessment("This world is inhabited: anoxic-biosphere.")], [Truth(None, {})])
    assert math.isnan(scores["right_state"]) and math.isnan(scores["gases_agree"])


def test_gases_that_their_ranges_do_not_bear_out_are_struck():
    text = "State: anoxic-biosphere; inhabited. Gases: CO2 1e-2, CH4 1e-3, CO 1e-5, H2O 1e-3. Surface 280 K. Reason: r."
    ranges = {
        "log10_CO2": (-2.9, -1.2),  # within a decade of 1e-2
        "log10_CH4": (-4.5, -2.5),  # two decades wide, but not around 1e-3
        "log10_H2O": (-3.2, -2.8),
    }  # of CO nothing is known
    struck = text.replace(", CH4 1e-3, CO 1e-5", "")
    assert strike_unsure(text, ranges) == struck
    assert read_assessment(struck).gases == {"CO2": 1e-2, "H2O": 1e-3}
    assert strike_unsure(text, {}) == text
    nothing = strike_unsure(text, {"log10_O3": (-7.0, -6.0)})
    assert "Gases: none to within a decade. Surface 280 K." in nothing and not read_assessment(nothing).gases


def test_a_gas_that_stays_is_right_as_often_as_its_range_says():
    rng = np.random.default_rng(0)
    truth, spread = rng.uniform(-6, -2, 4000), rng.uniform(0.1, 1.2, 4000)
    middle = truth + spread * rng.standard_normal(4000)
    texts = [f"Gases: CO2 1e{round(value)}." for value in middle]
    ranges = [{"log10_CO2": (m - 1.645 * s, m + 1.645 * s)} for m, s in zip(middle, spread, strict=True)]
    stated = [read_assessment(strike_unsure(text, each)) for text, each in zip(texts, ranges, strict=True)]
    scores = score_assessments(stated, [Truth(None, {"CO2": value}) for value in truth])
    every = score_assessments([read_assessment(text) for text in texts], [Truth(None, {"CO2": v}) for v in truth])
    assert scores["by_gas"]["CO2"]["stated"] > 500 and scores["gases_agree"] >= 0.9 > every["gases_agree"] + 0.05


def test_texts_written_side_by_side_are_those_written_alone(tiny_run, worlds, run_dir, monkeypatch):
    monkeypatch.setattr(language, "MAX_NEW_TOKENS", 6)
    loop.train(tiny_run, "data", run_dir, console=Console(quiet=True))
    run: LoadedRun = load_run(run_dir)
    store: Store = loop.open_store(run_dir, "data", "test", tiny_run.training, torch.device("cpu"))
    alone = write_assessments(run, store, limit=4, at_once=1)
    assert alone == write_assessments(run, store, limit=4, at_once=3) and len(alone) == 4


def test_texts_open_with_the_answer_and_go_on_side_by_side_as_alone(tiny_run, worlds, run_dir, monkeypatch):
    monkeypatch.setattr(language, "MAX_NEW_TOKENS", 4)
    loop.train(tiny_run, "data", run_dir, console=Console(quiet=True))
    run: LoadedRun = load_run(run_dir)
    store: Store = loop.open_store(run_dir, "data", "test", tiny_run.training, torch.device("cpu"))
    states = ["oxygenic-biosphere", "lifeless-reducing", "lifeless-inhospitable", "anoxic-biosphere"]
    written = write_assessments(run, store, states, limit=4, at_once=3)
    assert written == write_assessments(run, store, states, limit=4, at_once=1)
    stated = [read_assessment(text) for text in written]
    assert [found.state for found in stated] == states
    assert [found.inhabited for found in stated] == [True, False, False, True]
    scores = language.language(run, store, states, [{}] * 4, limit=4)
    assert scores["agrees"] == 1.0 and scores["worlds"] == scores["unguided"]["worlds"] == 4
