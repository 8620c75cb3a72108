from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.batch import WORLD_STATES
from astrobio.errors import InputError
from astrobio.worlds import scenario as module
from astrobio.worlds.climate import surface_climate
from astrobio.worlds.scenario import draw_scenario, planet_radius, propose, with_resident


def quantiles(scenarios, state, gas):
    return np.array([world.gases[gas] for world in scenarios[state]])


def test_same_stream_same_world(pools):
    for state in ("lifeless-oxygenated", "oxygenic-biosphere"):
        first, second = (draw_scenario(state, np.random.default_rng(5), pools) for _ in range(2))
        assert first == second
        assert first != draw_scenario(state, np.random.default_rng(6), pools)


def test_hosts_come_from_the_pool(scenarios, pools):
    assert {world.star for worlds in scenarios.values() for world in worlds} <= set(pools.stars)


def test_a_fixed_host_is_kept(pools, hosts):
    host = hosts["TRAPPIST-1"]
    assert draw_scenario("lifeless-temperate", np.random.default_rng(1), pools, star=host).star == host


@given(seed=st.integers(0, 2**32), state=st.sampled_from(WORLD_STATES), hot=st.booleans())
@settings(max_examples=80)
def test_every_proposal_is_physical(hosts, seed, state, hot):
    hot = hot and state == "lifeless-inhospitable"
    world = propose(state, np.random.default_rng(seed), hosts["TRAPPIST-1"], hot=hot)
    others = sum(value for gas, value in world.gases.items() if gas != "N2")
    assert others <= module.MAX_SUM + 2e-3  # O3 and N2O join after the check
    assert sum(world.gases.values()) == pytest.approx(1.0)
    assert all(value >= 0 for value in world.gases.values())
    assert 6 <= world.planet.gravity <= 17 and 0.7 <= world.planet.radius <= 1.75
    assert 0.5 <= world.pressure <= 5 and world.planet.period <= module.MAX_PERIOD + 1e-6
    assert (
        world.path
        in {
            "lifeless-inhospitable": {"frozen", "steam", "desiccated"},
            "lifeless-temperate": {"outgassing"},
            "lifeless-oxygenated": {"water-loss", "dry-CO2", "wet-CO2"},
            "lifeless-reducing": {"reducing"},
            "anoxic-biosphere": {"methanogenic"},
            "oxygenic-biosphere": {"oxygenic"},
        }[state]
    )


@given(mass=st.floats(0.4, 3.4), core=st.floats(0.1, 0.45))
def test_radius_grows_with_mass_and_shrinks_with_iron(mass, core):
    assert planet_radius(mass * 1.1, core) > planet_radius(mass, core) > planet_radius(mass, core + 0.05)


def test_earth_has_its_own_radius():
    assert planet_radius(1.0, 0.33) == pytest.approx(1.0, abs=0.01)


def test_climates_allow_their_states(scenarios):
    for state, worlds in scenarios.items():
        for world in worlds:
            warmest, mean = surface_climate(world)
            if state != "lifeless-inhospitable":
                assert warmest >= 273 and mean < 320
            elif world.path == "frozen":
                assert warmest < 273
            else:
                assert mean > 320


def test_priors_keep_their_bounds(scenarios):
    assert quantiles(scenarios, "lifeless-temperate", "O2").max() <= 1e-5
    assert quantiles(scenarios, "lifeless-reducing", "O2").max() <= 1e-8
    assert quantiles(scenarios, "anoxic-biosphere", "O2").max() <= 1e-7
    assert quantiles(scenarios, "anoxic-biosphere", "N2O").max() <= 1e-8
    assert quantiles(scenarios, "lifeless-oxygenated", "CH4").max() <= 1e-7
    assert quantiles(scenarios, "oxygenic-biosphere", "O2").min() >= 2e-4


def test_states_overlap_where_they_should(hosts):
    """Methane fluxes of 3–30 Tmol/yr occur with and without life, and O2 of 5–30% too."""

    def draws(state):
        return [propose(state, np.random.default_rng(seed), hosts["TRAPPIST-1"]) for seed in range(150)]

    reducing, anoxic = draws("lifeless-reducing"), draws("anoxic-biosphere")
    for worlds in (reducing, anoxic):
        assert sum(3 <= world.fluxes["CH4"] <= 30 for world in worlds) > 20
    for state in ("lifeless-oxygenated", "oxygenic-biosphere"):
        assert sum(0.05 <= world.gases["O2"] <= 0.3 for world in draws(state)) > 20


def test_unknown_state_and_impossible_climate_are_clear_errors(pools):
    with pytest.raises(InputError, match="expected one of"):
        draw_scenario("alive", np.random.default_rng(1), pools)
    with pytest.raises(InputError, match="found none"):
        draw_scenario("lifeless-temperate", np.random.default_rng(1), pools, surface_climate=lambda _: (200.0, 150.0))


def test_resident_sets_ratios_and_leaves_lifeless_worlds_alone(scenarios):
    world = scenarios["anoxic-biosphere"][0]
    eater = with_resident(world, {"CH4": 2.0, "CO": -1.0})
    assert eater.gases["CO"] == pytest.approx(0.5 * world.gases["CO"])
    assert eater.gases["CH4"] == world.gases["CH4"]
    assert sum(eater.gases.values()) == pytest.approx(1.0)
    lifeless = scenarios["lifeless-reducing"][0]
    assert with_resident(lifeless, {"CH4": 2.0, "CO": -1.0}) is lifeless
    oxygenic = replace(scenarios["oxygenic-biosphere"][0], fluxes={"O2": 100.0, "CH4": 10.0, "N2O": 0.1})
    leaky = with_resident(oxygenic, {"O2": 10.0, "N2O": 0.1})
    assert leaky.fluxes["N2O"] == pytest.approx(1.0)


def test_emulator_inputs_stay_in_its_domain(trappist_1e):
    assert trappist_1e(CH4=0.2).emulator_inputs["CH4"] == 0.05
