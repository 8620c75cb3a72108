from dataclasses import replace

import numpy as np
import pytest

from astrobio import units
from astrobio.worlds import instrument, spectrum
from astrobio.worlds.climate import simulate_climate
from astrobio.worlds.opacity import opacity_tables

GRID = instrument.default_grid()


def depth_at(values: np.ndarray, low: float, high: float) -> float:
    return float(values[(GRID.center > low) & (GRID.center < high)].mean())


def contrast(scenario, cube, band, continuum) -> float:
    _, truth = spectrum.simulate_spectrum(scenario, cube)
    return depth_at(truth, *band) - depth_at(truth, *continuum)


BANDS = {  # gas: band, continuum beside it (µm), least change of contrast in ppm when the gas is there
    "CH4": ((3.25, 3.4), (3.9, 4.05), 15.0),
    "CO2": ((4.23, 4.35), (3.9, 4.05), 30.0),
    "O3": ((9.4, 9.9), (8.4, 8.8), 10.0),
    "CO": ((4.6, 4.75), (5.05, 5.2), 10.0),
    "O2": ((0.756, 0.768), (0.775, 0.80), 2.0),
}


@pytest.mark.parametrize("gas", BANDS)
def test_bands_appear_where_they_should(modern_earthlike, gas):
    band, continuum, least = BANDS[gas]
    scenario, cube = modern_earthlike
    without = replace(scenario, gases={**scenario.gases, gas: 1e-14, "N2": scenario.gases["N2"] + scenario.gases[gas]})
    change = contrast(scenario, cube, band, continuum) - contrast(without, cube, band, continuum)
    assert change > least


def test_trappist_1e_scale_check_8(trappist_1e):
    """Depth 5000 ppm; 16 ppm per scale height of N2 at 250 K."""
    scenario = trappist_1e(CO2=1e-2)
    _, truth = spectrum.simulate_spectrum(scenario, simulate_climate([scenario])[0])
    assert truth.min() == pytest.approx(5000, rel=0.05)
    planet, star = scenario.planet, scenario.star
    height = units.GAS_CONSTANT * 250 / (0.028 * planet.gravity)
    ppm = 2 * planet.radius * units.EARTH_RADIUS * height / (star.radius * units.SOLAR_RADIUS) ** 2 * 1e6
    assert ppm == pytest.approx(16, rel=0.1)
    assert 2 * ppm < np.ptp(truth) < 10 * ppm


def test_transits_that_reveal_carbon_dioxide_check_9(trappist_1e):
    """TRAPPIST-1e: 3σ in under 15 transits, 5σ in under 35 (Fauchez et al. 2019); no detection in two."""
    scenario = trappist_1e()
    cube = simulate_climate([scenario])[0]
    _, present = spectrum.simulate_spectrum(scenario, cube)
    _, absent = spectrum.simulate_spectrum(trappist_1e(CO2=1e-14), cube)
    for transits, low, high in ((2, 0.0, 3.0), (15, 3.0, 8.0), (35, 5.0, 10.0)):
        sigma = instrument.noise(GRID, j_mag=11.35, transit_hours=0.93, transits=transits)[GRID.near]
        difference = (present - absent)[GRID.near]
        difference -= np.average(difference, weights=sigma**-2)
        assert low <= np.sqrt(np.sum((difference / sigma) ** 2)) < high


def test_agrees_with_stock_taurex(modern_earthlike):
    scenario, cube = modern_earthlike
    limb = spectrum.limb_column(scenario, cube)
    clear = replace(limb, cover=np.zeros_like(limb.cover))
    tables = opacity_tables()
    ours = spectrum.transit_depth(scenario, clear, tables)

    class Stock(spectrum.LimbModel):
        path_integral = spectrum.TransmissionModel.path_integral

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrum, "LimbModel", Stock)
        stock = spectrum.transit_depth(scenario, clear, tables)
    matrix = instrument.binning_matrix(tables.wavelength, GRID)
    assert np.abs(matrix @ (ours - stock)).max() < 0.1  # ppm of features of 60 ppm


def test_clouds_mute_features(modern_earthlike):
    scenario, cube = modern_earthlike
    limb = spectrum.limb_column(scenario, cube)
    clear = spectrum.transit_depth(scenario, replace(limb, cover=np.zeros_like(limb.cover)), opacity_tables())
    for top, left in ((1e4, 0.85), (1e3, 0.7)):
        deck = (limb.pressure > top).astype(float)
        cloudy = spectrum.transit_depth(scenario, replace(limb, cover=deck), opacity_tables())
        assert (cloudy >= clear - 1e-3).all()
        assert np.ptp(cloudy) < left * np.ptp(clear)


def test_cloud_cover_grows_downwards(modern_earthlike):
    limb = spectrum.limb_column(*modern_earthlike)
    assert (np.diff(limb.cover) <= 0).all() and 0 < limb.cover.max() <= 1
    assert limb.levels[-1] < limb.cloud_top < limb.levels[0]


def test_limb_is_a_whole_atmosphere(modern_earthlike):
    limb = spectrum.limb_column(*modern_earthlike)
    assert np.allclose(np.sum(list(limb.mixing.values()), axis=0), 1.0)
    water = limb.mixing["H2O"]
    assert water[0] > 10 * water[-1]  # layer by layer, dry above the cold trap
    assert np.allclose(limb.temperature[-8:], limb.temperature[-1])


def test_noise_and_truth(modern_earthlike):
    scenario, cube = modern_earthlike
    shallow, truth = spectrum.simulate_spectrum(scenario, cube, transits=5)
    deep, same = spectrum.simulate_spectrum(scenario, cube, transits=500)
    assert np.array_equal(truth, same)
    assert np.median(shallow.sigma / deep.sigma) > 3
    assert 0.8 < np.std((shallow.value - truth) / shallow.sigma) < 1.2
    again, _ = spectrum.simulate_spectrum(scenario, cube, transits=5)
    assert np.array_equal(shallow.value, again.value)
    other, _ = spectrum.simulate_spectrum(replace(scenario, noise_seed=9), cube, transits=5)
    assert not np.array_equal(shallow.value, other.value)


def test_chords_fill_the_ray():
    bounds = np.linspace(6.4e6, 6.5e6, 11)
    tangent = (bounds[1:] + bounds[:-1]) / 2
    chords = spectrum.chord_lengths(bounds, tangent)
    assert np.allclose(chords.sum(axis=1), 2 * np.sqrt(bounds[-1] ** 2 - tangent**2))
    assert np.allclose(np.tril(chords, -1), 0)
