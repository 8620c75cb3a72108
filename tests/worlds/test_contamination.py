import numpy as np
import pytest

from astrobio.worlds import contamination as module
from astrobio.worlds.contamination import StellarSurface, contamination, draw_surface
from astrobio.worlds.instrument import default_grid
from astrobio.worlds.spectrum import simulate_spectrum
from astrobio.worlds.stars import draw_stars

CENTER = default_grid().center
TRAPPIST_1 = StellarSurface(0.08, 0.20)


def visits(surface, count, many=1, teff=2566.0):
    """[count, L] factors of independent programmes of `many` transits."""
    return np.array([contamination(CENTER, surface, teff, many, np.random.default_rng((n, 7))) for n in range(count)])


def within(low, high):
    center = default_grid().center
    return (center > low) & (center < high)


def test_a_quiet_star_changes_nothing():
    assert np.allclose(visits(StellarSurface(0.0, 0.0), 1), 1.0)


def test_spots_deepen_and_faculae_fill_most_at_short_wavelengths():
    spots, faculae = (visits(surface, 1)[0] for surface in (StellarSurface(0.1, 0.0), StellarSurface(0.0, 0.1)))
    assert (np.diff(spots) < 0).all() and (spots > 1).all()
    assert (np.diff(faculae) > 0).all() and (faculae < 1).all()


def test_formula_of_one_surface(monkeypatch):
    """Rackham et al. (2018), eq. 3, with 10% of spots at 2207 K at 1 µm: contrast e^−0.91."""
    monkeypatch.setattr(module, "VISIT_SPREAD", 0.0)
    factor = contamination(np.array([1.0]), StellarSurface(0.1, 0.0), 2566.0, 1, np.random.default_rng(0))
    assert factor[0] == pytest.approx(1 / (1 - 0.1 * (1 - np.exp(14388 * (1 / 2566 - 1 / 2207)))), rel=0.01)


def test_scatter_between_visits_of_trappist_1():
    """In excess of single visits' errors: about 180 ppm at 1–3.2 µm, 85–96 at 3.2–4.6 (Espinoza et al. 2025)."""
    scatter = 5000 * visits(TRAPPIST_1, 300).std(axis=0)
    assert scatter[within(1.0, 3.2)].mean() == pytest.approx(180, rel=0.15)
    assert scatter[within(3.2, 4.6)].mean() == pytest.approx(95, rel=0.25)


def test_visits_average_the_scatter_down_but_not_the_mean():
    one, many = visits(TRAPPIST_1, 200), visits(TRAPPIST_1, 60, many=50)
    short = within(1.0, 2.0)
    assert many.std(axis=0)[short].mean() == pytest.approx(one.std(axis=0)[short].mean() / np.sqrt(50), rel=0.3)
    assert many.mean(axis=0)[short].mean() == pytest.approx(one.mean(axis=0)[short].mean(), abs=0.01)
    assert abs(many.mean(axis=0)[short].mean() - 1) > 0.005


def test_active_and_late_stars_are_spottier():
    pool = draw_stars(300, seed=2)
    surfaces = [draw_surface(np.random.default_rng(n), star) for n, star in enumerate(pool)]
    spots, teff = np.array([s.spots for s in surfaces]), np.array([star.teff for star in pool])
    assert np.median(spots[teff < 2900]) > 1.5 * np.median(spots[teff > 3850])
    assert spots.min() > 0 and spots.max() <= module.LARGEST
    activity = np.array([star.fuv / star.nuv for star in pool])
    late = teff < 3300
    assert np.corrcoef(np.log(spots[late]), np.log(activity[late]))[0, 1] > 0.1


def test_spectra_are_coloured_on_demand(scenarios, modern_earthlike):
    _, cube = modern_earthlike
    world = next(w for worlds in scenarios.values() for w in worlds if w.surface and w.surface.spots > 0.05)
    clean, truth = simulate_spectrum(world, cube, contaminated=False)
    spotted, same = simulate_spectrum(world, cube)
    assert np.array_equal(truth, same)
    factor = (spotted.value - clean.value) / truth  # the noise is the same
    assert 1e-4 < np.abs(factor).max() < 0.5
    assert np.abs(factor[within(0.6, 1.0)]).mean() > np.abs(factor[within(8.0, 12.0)]).mean()
