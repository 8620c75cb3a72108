"""Worlds shared by the tests of this folder: drawn once, around real anchors and random hosts."""

from collections.abc import Callable

import numpy as np
import pytest

from astrobio.batch import WORLD_STATES
from astrobio.worlds.climate import simulate_climate
from astrobio.worlds.scenario import Planet, Pools, Scenario, draw_scenario
from astrobio.worlds.stars import Star, draw_stars

# name: Teff K, radius, mass, luminosity in solar units, NUV and FUV at 1 solar constant in W/m², J
ANCHORS = {
    "Sun": (5780.0, 1.0, 1.0, 1.0, 20.8, 0.022, 8.0),
    "K6V": (4230.0, 0.68, 0.68, 0.12, 0.78, 0.048, 8.0),
    "AD Leo": (3390.0, 0.43, 0.42, 0.02, 0.59, 0.50, 5.4),
    "TRAPPIST-1": (2566.0, 0.1192, 0.090, 5.5e-4, 0.069, 0.099, 11.35),
}
TRAPPIST_1E = Planet(0.692, 0.920, 8.02, 0.26, 6.10, 900.0, 0.2, 0.93)


def make_host(name: str) -> Star:
    teff, radius, mass, luminosity, nuv, fuv, j = ANCHORS[name]
    return Star(name, teff, radius, mass, luminosity, 8.0, 12.4, j, j - 1.0, 5.0, nuv, fuv)


def make_trappist_1e(**gases: float) -> Scenario:
    """TRAPPIST-1e under 1 bar of N2 with the given volume fractions."""
    air = {"CO2": 4e-4, "CH4": 0.0, "O2": 1e-12, "CO": 1e-12, "O3": 0.0, "N2O": 1e-12} | gases
    air["N2"] = 1.0 - sum(air.values())
    host = make_host("TRAPPIST-1")
    return Scenario("lifeless-temperate", "outgassing", host, TRAPPIST_1E, 1.0, air, {}, climate_seed=3)


@pytest.fixture(scope="session")
def hosts() -> dict[str, Star]:
    """The stars that the photochemical models were run for."""
    return {name: make_host(name) for name in ANCHORS}


@pytest.fixture(scope="session")
def trappist_1e() -> Callable[..., Scenario]:
    """Volume fractions → TRAPPIST-1e under 1 bar of N2 with them."""
    return make_trappist_1e


@pytest.fixture(scope="session")
def pools() -> Pools:
    return Pools(draw_stars(30, seed=11))


@pytest.fixture(scope="session")
def scenarios(pools: Pools) -> dict[str, list[Scenario]]:
    """Ten worlds of each state."""
    return {
        state: [draw_scenario(state, np.random.default_rng((number, place)), pools) for place in range(10)]
        for number, state in enumerate(WORLD_STATES)
    }


@pytest.fixture(scope="session")
def modern_earthlike():
    """TRAPPIST-1e with an oxygenic atmosphere, and its climate."""
    scenario = make_trappist_1e(CO2=1e-2, CH4=1e-3, O2=0.2, O3=3e-7, CO=1e-3)
    return scenario, simulate_climate([scenario])[0]
