import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrobio.errors import InputError
from astrobio.worlds import stars


def test_habitable_zone_of_the_sun_to_three_digits():
    zone = stars.habitable_zone(5780.0, 1.0)
    expected = {"recent_venus": 0.750, "runaway_greenhouse": 0.950, "maximum_greenhouse": 1.676, "early_mars": 1.768}
    assert {name: round(value, 3) for name, value in zone.items()} == expected


def test_runaway_limits_match_the_published_fluxes():
    for teff, runaway, greenhouse in ((2600, 1242, 303), (3500, 1268, 336), (4500, 1326, 388)):
        assert stars.habitable_zone_flux(teff, "runaway_greenhouse") * 1361 == pytest.approx(runaway, rel=0.01)
        assert stars.habitable_zone_flux(teff, "maximum_greenhouse") * 1361 == pytest.approx(greenhouse, rel=0.01)
    assert stars.habitable_zone_flux(2300.0, "early_mars") == stars.habitable_zone_flux(2600.0, "early_mars")


def test_unknown_limit_is_a_clear_error():
    with pytest.raises(InputError, match="expected one of"):
        stars.habitable_zone_flux(3000.0, "venus")


def test_trappist_1e_orbit_and_transit(hosts):
    host = hosts["TRAPPIST-1"]
    assert stars.orbital_period(host.luminosity, host.mass, 900.0) == pytest.approx(6.1, rel=0.1)
    assert stars.transit_duration(host, 0.92, 6.10, 0.2) == pytest.approx(0.93, rel=0.05)


@given(flux=st.floats(400, 3100), luminosity=st.floats(1e-4, 1.0), mass=st.floats(0.08, 1.0))
def test_period_and_instellation_are_inverse(flux, luminosity, mass):
    period = stars.orbital_period(luminosity, mass, flux)
    assert stars.instellation_at_period(luminosity, mass, period) == pytest.approx(flux, rel=1e-9)


@given(teff=st.floats(2600, 5000))
def test_zone_position_is_zero_and_one_at_its_limits(teff):
    inner = stars.habitable_zone_flux(teff, "runaway_greenhouse") * 1361.0
    outer = stars.habitable_zone_flux(teff, "maximum_greenhouse") * 1361.0
    assert stars.habitable_zone_position(teff, inner) == pytest.approx(0.0, abs=1e-9)
    assert stars.habitable_zone_position(teff, outer) == pytest.approx(1.0)


def test_drawn_stars_follow_the_dwarf_sequence():
    pool = stars.draw_stars(200, seed=1)
    assert len({star.name for star in pool}) == 200
    for star in pool:
        assert 2570 <= star.teff <= 5100
        expected = np.interp(star.teff, stars.DWARFS[:, 1], stars.DWARFS[:, 2])
        assert star.radius == pytest.approx(expected, rel=0.151)
        assert star.luminosity == pytest.approx(star.radius**2 * (star.teff / 5772) ** 4, rel=0.25)
    assert stars.draw_stars(3, seed=1) == pool[:3]
    assert stars.draw_stars(3, seed=2) != pool[:3]


def test_spectral_types():
    kinds = {star.spectral_type for star in stars.draw_stars(200, seed=1)}
    assert {"M4V", "M5V", "K4V"} <= kinds and all(kind[0] in "MK" for kind in kinds)


def test_a_pool_needs_unique_hosts(hosts):
    with pytest.raises(InputError, match="unique names"):
        stars.check_pool([hosts["K6V"], hosts["K6V"]])
