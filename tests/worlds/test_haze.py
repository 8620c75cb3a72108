from dataclasses import replace

import numpy as np
import pytest

from astrobio.worlds import haze, instrument, spectrum
from astrobio.worlds.climate import simulate_climate
from astrobio.worlds.opacity import opacity_tables

AIR = {"CO2": 1e-2, "CH4": 5e-3, "O2": 1e-9}


def draw(seed=1, fuv=0.1, wet=False, **gases):
    return haze.draw_haze(np.random.default_rng(seed), AIR | gases, fuv=fuv, pressure=1e5, wet=wet)


@pytest.mark.parametrize(
    "clear", [{"CH4": 5e-4}, {"O2": 1e-4}, {"fuv": 3.0}, {"wet": True}, {"CH4": 5e-5, "CO2": 1e-4}]
)
def test_air_that_stays_clear(clear):
    """Little methane for its CO2, oxygen, the strongest ultraviolet, steam, traces of carbon."""
    assert draw() is not None
    assert draw(**clear) is None


def test_haze_thickens_with_methane_and_saturates():
    thin, thick, more = (draw(CH4=ratio * 1e-2) for ratio in (0.13, 0.2, 2.0))
    assert thin.optical_depth < thick.optical_depth
    assert more == thick
    depths = [draw(seed).optical_depth for seed in range(200)]
    assert np.median(depths) == pytest.approx(haze.DEPTH_SATURATED, rel=0.2)


def test_clear_air_takes_as_many_draws():
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    for rng, gases in ((first, AIR), (second, AIR | {"O2": 0.2})):
        haze.draw_haze(rng, gases, fuv=0.1, pressure=1e5, wet=False)
    assert first.random() == second.random()


def test_only_anoxic_worlds_are_hazy(scenarios):
    for world in (world for worlds in scenarios.values() for world in worlds):
        if world.haze is not None:
            assert world.gases["O2"] < haze.OXYGEN_LIMIT and world.gases["CH4"] > 0.07 * world.gases["CO2"]


@pytest.fixture(scope="module")
def reducing(trappist_1e):
    scenario = trappist_1e(CO2=1e-2, CH4=4e-3)
    return scenario, spectrum.limb_column(scenario, simulate_climate([scenario])[0])


def binned(scenario, limb):
    tables = opacity_tables()
    return instrument.binning_matrix(tables.wavelength, instrument.default_grid()) @ spectrum.transit_depth(
        scenario, replace(limb, cover=np.zeros_like(limb.cover)), tables
    )


def contrast(depth, band, beside):
    center = instrument.default_grid().center
    inside, outside = (depth[(center > low) & (center < high)].mean() for low, high in (band, beside))
    return inside - outside


def test_haze_mutes_features_below_2_5_micron_and_spares_longer_waves(reducing):
    """Arney et al. (2017)."""
    scenario, limb = reducing
    clear = binned(scenario, limb)
    hazy = binned(replace(scenario, haze=haze.Haze(5.0, 0.15, 3.0, 1e4)), limb)
    assert (hazy >= clear - 1e-3).all()
    assert contrast(hazy, (1.36, 1.44), (1.24, 1.30)) < 0.6 * contrast(clear, (1.36, 1.44), (1.24, 1.30))
    assert contrast(hazy, (3.25, 3.40), (3.90, 4.05)) > 0.9 * contrast(clear, (3.25, 3.40), (3.90, 4.05))


def test_haze_has_the_optical_depth_it_was_given(reducing):
    _, limb = reducing
    given = haze.Haze(2.0, 0.1, 1.0, 1e4)

    class Model:
        nLayers = len(limb.pressure)
        pressureProfile = limb.pressure
        densityProfile = limb.pressure / (1.380649e-23 * limb.temperature)
        deltaz = np.full(len(limb.pressure), 2e3)

    ((_, section),) = spectrum.OrganicHaze(given).prepare_each(Model, np.array([1e4 / haze.REFERENCE, 1e4]))
    depth = (section * (Model.densityProfile * Model.deltaz)[:, None]).sum(axis=0)
    assert depth[0] == pytest.approx(2.0)
    assert depth[1] < 0.1 * depth[0]
    assert (section[limb.pressure > 1e4] == 0).all() and (section[limb.pressure < 1.0] == 0).all()
