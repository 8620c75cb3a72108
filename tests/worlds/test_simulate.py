from dataclasses import replace

import numpy as np
import pytest

from astrobio.batch import INHABITED_STATES, PHYSICS_TARGETS, WORLD_STATES
from astrobio.errors import InputError
from astrobio.worlds.biosphere import Organism
from astrobio.worlds.simulate import SimulationSettings, simulate_worlds, world_state
from astrobio.worlds.stars import draw_stars

STARS = draw_stars(12, seed=5)


@pytest.fixture(scope="module")
def samples():
    return simulate_worlds(range(6), 3, stars=STARS)


def same(first, second) -> bool:
    cubes = all(np.array_equal(first.climate.fields[k], second.climate.fields[k]) for k in first.climate.fields)
    spectra = np.array_equal(first.spectrum.value, second.spectrum.value)
    texts = (first.context, first.assessment, first.physics, first.provenance)
    return cubes and spectra and texts == (second.context, second.assessment, second.physics, second.provenance)


def test_worlds_are_whole_and_balanced(samples):
    assert {sample.state for sample in samples} == set(WORLD_STATES)
    assert len({sample.world_id for sample in samples}) == 6
    for sample in samples:
        assert sample.present == (True, True, True, False)
        assert set(sample.physics) == set(PHYSICS_TARGETS)
        assert sample.provenance["star"] in {star.name for star in STARS}
        assert sample.provenance["truth"]["log10_CO2"] == sample.physics["log10_CO2"]
        assert sample.state not in sample.context and sample.state in sample.assessment
        assert not any(label in sample.world_id for label in WORLD_STATES)


def test_a_world_is_the_same_alone_and_in_any_order(samples):
    assert same(simulate_worlds([4], 3, stars=STARS)[0], samples[4])
    assert same(simulate_worlds([5, 2], 3, stars=STARS)[1], samples[2])
    assert not same(simulate_worlds([2], 4, stars=STARS)[0], samples[2])


def test_organisms_come_along_and_set_ratios(sample_factory, samples):
    graph = replace(sample_factory(0).metabolism, exchange={"CH4": 2.0, "O2": 2.0, "CO": -1.0})
    organisms = [Organism(f"m/{guild}", guild, "clade", graph, 0.1, 0) for guild in ("methanogen", "phototroph")]
    with_life = simulate_worlds(range(6), 3, organisms, stars=STARS)
    for bare, full in zip(samples, with_life, strict=True):
        assert full.metabolism is graph
        difference = full.physics["log10_CO"] - bare.physics["log10_CO"]
        inhabited = full.state in INHABITED_STATES
        assert difference == pytest.approx(np.log10(0.5) if inhabited else 0.0, abs=1e-6)
        assert full.physics["log10_CH4"] == bare.physics["log10_CH4"]


def test_states_are_balanced_but_not_told_by_index():
    states = [world_state(index, 7) for index in range(600)]
    assert all(states.count(state) == 100 for state in WORLD_STATES)
    first = [states[index] for index in range(0, 600, 6)]
    assert max(first.count(state) for state in WORLD_STATES) < 35


def test_depth_is_a_knob_that_leaves_the_world_alone(samples):
    deep = simulate_worlds([0], 3, stars=STARS, settings=SimulationSettings(transits=1000, floor=False))[0]
    assert deep.spectrum.sigma.mean() < samples[0].spectrum.sigma.mean()
    assert deep.physics == samples[0].physics and "1000" in deep.context


def test_no_transits_is_a_clear_error():
    with pytest.raises(InputError, match="at least 1"):
        SimulationSettings(transits=0)
