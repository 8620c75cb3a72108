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
    opening,
    pinned_gases,
    read_assessment,
    score_assessments,
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


def test_only_gases_that_their_ranges_pin_are_stated():
    ranges = {
        "log10_CO2": (-3.9, -2.2),  # around 1e-3
        "log10_CH4": (-6.0, -3.0),  # too wide
        "log10_H2O": (-1.45, -1.35),  # 1e-1 is the nearest power of ten, 3e-2 is never said
        "log10_O3": (-12.0, -11.0),  # too rare to be named
        "surface_temperature": (280.0, 281.0),
    }
    assert pinned_gases(ranges) == {"H2O": pytest.approx(-1.4), "CO2": pytest.approx(-3.05)}
    shifted = {"log10_CO2": (-4.4, -2.5)}  # no wider than two decades, but 1e-3 and 1e-4 both miss an end
    assert pinned_gases(shifted) == {}


def test_an_opening_states_gases_as_the_simulator_does():
    begun = opening("anoxic-biosphere", {"CO2": -0.52, "CH4": -3.1})
    assert begun == "State: anoxic-biosphere; inhabited. Gases: CO2 3e-1, CH4 1e-3. Surface"
    assert read_assessment(begun + " 280 K.").gases == {"CO2": 0.3, "CH4": 1e-3}
    assert opening("anoxic-biosphere", {}) == "State: anoxic-biosphere; inhabited. Surface"
    assert opening("lifeless-reducing") == "State: lifeless-reducing; not inhabited. Gases:"


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
    begun = [opening(state) for state in states]
    written = write_assessments(run, store, begun, limit=4, at_once=3)
    assert written == write_assessments(run, store, begun, limit=4, at_once=1)
    stated = [read_assessment(text) for text in written]
    assert [found.state for found in stated] == states
    assert [found.inhabited for found in stated] == [True, False, False, True]
    scores = language.language(run, store, begun, limit=4)
    assert scores["agrees"] == 1.0 and scores["worlds"] == scores["unguided"]["worlds"] == 4
