from dataclasses import replace

import numpy as np
import pytest

from astrobio.worlds import emission, instrument
from astrobio.worlds.climate import dayside_profiles, terminator_profiles
from astrobio.worlds.opacity import THERMAL_WAVELENGTHS, opacity_tables
from astrobio.worlds.scenario import Planet
from astrobio.worlds.spectrum import Limb

GRID = instrument.grid_of(emission.INSTRUMENTS)
BAND, BESIDE = -1, (GRID.center > 8.2) & (GRID.center < 9.2)  # 13.8–16.6 µm around CO2's 15 µm band; a window


def column(surface: float, temperature: np.ndarray, **gases: float) -> Limb:
    levels = np.geomspace(surface, 0.05, len(temperature) + 1)
    mixing = {gas: np.full(len(temperature), value) for gas, value in gases.items()}
    mixing["N2"] = 1.0 - np.sum(list(mixing.values()), axis=0)
    return Limb(levels, temperature, mixing, np.zeros(len(temperature)))


def depth(scenario, limb):
    tables = opacity_tables(None, THERMAL_WAVELENGTHS)
    return instrument.binning_matrix(tables.wavelength, GRID) @ emission.eclipse_depth(scenario, limb, tables)


@pytest.fixture(scope="module")
def trappist_1b(trappist_1e):
    """Agol et al. (2021): 1.116 and 1.374 of Earth, 4.15 solar constants."""
    planet = Planet(1.374, 1.116, 10.8, 0.26, 1.511, 5650.0, 0.1, 0.60)
    return replace(trappist_1e(), planet=planet)


def test_trappist_1b_without_air(trappist_1b):
    """A dark rock's dayside of 508 K: 861 ± 99 ppm measured at 15 µm (Greene et al. 2023). A black body of the star's
    effective temperature is too bright there, so the model gives 0.6–0.8 of it."""
    bare = depth(trappist_1b, column(100.0, np.full(12, 508.0), CO2=1e-12))
    ratio = (1.116 * 6.3781e6 / (0.1192 * 6.957e8)) ** 2
    planck = np.expm1(14388 / 15.1 / 2566) / np.expm1(14388 / 15.1 / 508)
    assert bare[BAND] == pytest.approx(ratio * planck * 1e6, rel=0.03)
    assert 0.6 < bare[BAND] / 861 < 1.0
    assert (np.diff(bare) > 0).all()


def test_carbon_dioxide_absorbs_at_15_microns(trappist_1b):
    """Colder air above: the band is dark, and darker the more air there is; where the air is warmer, it shines."""
    bare = depth(trappist_1b, column(1e4, np.full(24, 508.0), CO2=1e-12))
    cooling = np.linspace(508.0, 250.0, 24)
    thin = depth(trappist_1b, column(1e3, cooling, CO2=0.5))
    thick = depth(trappist_1b, column(1e5, cooling, CO2=0.5))
    assert thick[BAND] < thin[BAND] < 0.9 * bare[BAND]
    warming = depth(trappist_1b, column(1e5, 508.0 + (508.0 - cooling), CO2=0.5))
    assert warming[BAND] > bare[BAND]


def test_isothermal_air_shows_no_bands(trappist_1b):
    clear = depth(trappist_1b, column(1e5, np.full(24, 400.0), CO2=1e-12))
    absorbing = depth(trappist_1b, column(1e5, np.full(24, 400.0), CO2=0.5, H2O=1e-2))
    assert np.allclose(clear, absorbing, rtol=0.01)


def test_clouds_hide_the_warm_surface(trappist_1b):
    cooling = np.linspace(508.0, 250.0, 24)
    clear = column(1e5, cooling, CO2=1e-12)
    deck = replace(clear, cover=np.where(clear.pressure > 1e4, 0.6, 0.0))
    cloudy, bare = depth(trappist_1b, deck), depth(trappist_1b, clear)
    overcast = depth(trappist_1b, replace(deck, cover=deck.cover / 0.6))
    assert (overcast < cloudy).all() and (cloudy < bare).all()
    assert np.allclose(cloudy, 0.4 * bare + 0.6 * overcast)


def test_dayside_is_warmer_than_the_terminator(modern_earthlike):
    scenario, cube = modern_earthlike
    day, limb = dayside_profiles(cube, scenario), terminator_profiles(cube, scenario)
    assert day["temperature"][0] > limb["temperature"][0] + 5
    uniform = replace(
        cube, fields=cube.fields | {"air_temperature": np.full_like(cube.fields["air_temperature"], 250.0)}
    )
    assert np.allclose(dayside_profiles(uniform, scenario)["temperature"], 250.0)


def test_noisy_eclipse_of_a_world(modern_earthlike):
    scenario, cube = modern_earthlike
    spectrum, truth = emission.simulate_eclipse(scenario, cube, eclipses=10)
    again, _ = emission.simulate_eclipse(scenario, cube, eclipses=10)
    assert spectrum.kind == "emission" and np.array_equal(spectrum.value, again.value)
    assert 0.7 < np.std((spectrum.value - truth) / spectrum.sigma) < 1.3
    assert 5 < truth[BESIDE].mean() < 100
    window = truth[(GRID.center > 10.5) & (GRID.center < 11.5)].mean()
    assert truth[BAND] < 2 * window  # CO2's band stays below the Planck slope of a grey planet
