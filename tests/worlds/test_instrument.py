import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrobio.errors import InputError
from astrobio.worlds import instrument

GRID = instrument.default_grid()


def test_grid_is_contiguous_and_covers_both_instruments():
    assert 200 <= len(GRID.center) <= 300
    assert GRID.edges[0] == pytest.approx(0.6) and GRID.edges[-1] == pytest.approx(12.0)
    assert np.allclose(GRID.width, np.diff(GRID.edges)) and (np.diff(GRID.center) > 0).all()


def test_binning_conserves_flux():
    native = np.geomspace(0.55, 12.5, 3100)
    matrix = instrument.binning_matrix(native, GRID)
    values = 5000 + 30 * np.sin(40 * np.log(native)) + np.random.default_rng(1).normal(0, 5, len(native))
    assert np.allclose(matrix @ np.ones(len(native)), 1.0)
    inside = (matrix @ values * GRID.width).sum() / GRID.width.sum()
    cells = np.interp(np.linspace(0.6, 12.0, 400_000), native, values).mean()
    assert inside == pytest.approx(cells, abs=0.05)


@given(transits=st.integers(1, 10_000), j=st.floats(5, 14))
def test_photon_noise_falls_as_the_root_of_transits(transits, j):
    one, many = (instrument.noise(GRID, j_mag=j, transit_hours=1.0, transits=n, floor=False) for n in (1, transits))
    assert np.allclose(many, one / np.sqrt(transits))


def test_noise_ends_at_the_floor():
    deep = instrument.noise(GRID, j_mag=8.0, transit_hours=2.0, transits=10**9)
    assert np.allclose(deep[GRID.near], instrument.FLOOR_NEAR, rtol=1e-3)
    assert np.allclose(deep[~GRID.near], instrument.FLOOR_MID, rtol=1e-3)


def test_trappist_1e_visit_is_reproduced():
    """One visit at R = 31: 143 ppm at 1.2 µm, 78 at 3.6 µm."""
    sigma = instrument.noise(GRID, j_mag=11.35, transit_hours=0.93, transits=1, floor=False)
    resolution = GRID.center / GRID.width
    for wavelength, expected in ((1.2, 143.0), (3.6, 78.0)):
        index = int(np.argmin(np.abs(GRID.center - wavelength)))
        assert sigma[index] * np.sqrt(31 / resolution[index]) == pytest.approx(expected, rel=0.01)


def test_k2_18b_is_predicted():
    """The scaling's one independent check: 47/39/46 ppm measured at R = 100, one 2.7 h transit, J = 9.8."""
    sigma = instrument.noise(GRID, j_mag=9.8, transit_hours=2.7, transits=1, floor=False)
    for wavelength, measured in ((1.6, 47.0), (3.6, 39.0), (4.3, 46.0)):
        index = int(np.argmin(np.abs(GRID.center - wavelength)))
        resolution = GRID.center[index] / GRID.width[index]
        assert sigma[index] * np.sqrt(100 / resolution) == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("prism", 0.6, 5.3), ("lrs", 5.0, 12.0), ("prism+lrs", 0.6, 12.0), ("lrs+filters", 5.0, 16.6)],
)
def test_grids_of_the_instruments(name, low, high):
    grid = instrument.grid_of(name)
    assert grid.edges[0] == pytest.approx(low) and grid.edges[-1] == pytest.approx(high)
    assert grid.near.any() == name.startswith("prism") and grid.near.all() == (name == "prism")
    assert np.isfinite(instrument.noise(grid, j_mag=11.0, transit_hours=1.0, transits=1)).all()


def test_photometry_of_trappist_1b_is_reproduced():
    """Five eclipses: ±86 ppm at 12.8 µm, ±99 at 15."""
    grid = instrument.grid_of("lrs+filters")
    sigma = instrument.noise(grid, j_mag=11.35, transit_hours=0.6, transits=5, floor=False)
    assert sigma[-2:] == pytest.approx([86, 99], rel=0.01)


def test_named_depths():
    assert instrument.named_depth("jwst-50") == instrument.Depth(50, True)
    assert instrument.named_depth("deep") == instrument.Depth(5000, False)
    for call in (lambda: instrument.named_depth("shallow"), lambda: instrument.grid_of("niriss")):
        with pytest.raises(InputError, match="expected one of"):
            call()
