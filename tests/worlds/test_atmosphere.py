import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrobio import units
from astrobio.worlds import atmosphere

MODERN = 1e11 / units.TMOL_PER_YEAR  # Tmol/yr, the reference flux of 1e11 molecules/cm²/s
HOSTS = st.sampled_from(["Sun", "K6V", "AD Leo", "TRAPPIST-1"])


def test_modern_sun_check_1(hosts):
    assert atmosphere.oxic_methane(MODERN, hosts["Sun"]) == pytest.approx(1.1e-6, rel=0.05)
    assert atmosphere.ozone_column(1.0, hosts["Sun"]) == pytest.approx(5.6e18, rel=0.02)


def test_k6v_holds_ten_times_more_methane_check_2(hosts):
    ratio = atmosphere.oxic_methane(MODERN, hosts["K6V"]) / atmosphere.oxic_methane(MODERN, hosts["Sun"])
    assert 8 < ratio < 16


def test_ad_leo_check_3(hosts):
    assert atmosphere.oxic_methane(MODERN, hosts["AD Leo"]) == pytest.approx(150e-6, rel=0.15)


def test_archean_sun_lies_between_the_two_models_check_4(hosts):
    """930 ppm by Photochem and 92 by Atmos' relation: the middle, each within the stated 0.5 dex."""
    decades = np.log10(atmosphere.anoxic_methane(MODERN, hosts["Sun"]))
    assert abs(decades - np.log10(930e-6)) <= atmosphere.ANOXIC_SPREAD + 0.01
    assert abs(decades - np.log10(92e-6)) <= atmosphere.ANOXIC_SPREAD + 0.01


def test_anoxic_flux_of_one_part_per_thousand(hosts):
    for host, flux in ((hosts["Sun"], 1.85e11), (hosts["K6V"], 0.79e11), (hosts["TRAPPIST-1"], 2.75e11)):
        assert atmosphere.anoxic_methane(flux / units.TMOL_PER_YEAR, host) == pytest.approx(1e-3, rel=0.02)


@given(host=HOSTS, flux=st.floats(0.01, 100), factor=st.floats(1.01, 10), pal=st.floats(1e-3, 2))
def test_methane_grows_with_its_flux(hosts, host, flux, factor, pal):
    host = hosts[host]
    assert atmosphere.anoxic_methane(flux * factor, host) >= atmosphere.anoxic_methane(flux, host)
    less = atmosphere.oxic_methane(flux, host, o2_pal=pal)
    assert less <= atmosphere.oxic_methane(flux * factor, host, o2_pal=pal) <= atmosphere.OXIC_CH4_CAP


@given(host=HOSTS, flux=st.floats(0.1, 50), column=st.floats(0.3, 5))
def test_a_thicker_column_holds_a_smaller_fraction(hosts, host, flux, column):
    host = hosts[host]
    for relation in (atmosphere.anoxic_methane, atmosphere.oxic_methane, atmosphere.nitrous_oxide):
        assert relation(flux, host, column=column * 1.5) <= relation(flux, host, column=column)


@given(low=st.floats(1e-8, 2.0), factor=st.floats(1.0, 100.0))
def test_ozone_falls_with_oxygen_around_cool_stars(hosts, low, factor):
    assert atmosphere.ozone_column(low * factor, hosts["K6V"]) >= atmosphere.ozone_column(low, hosts["K6V"]) * (
        1 - 1e-9
    )


def test_ozone_around_the_sun_peaks_below_one_pal(hosts):
    columns = {pal: atmosphere.ozone_column(pal, hosts["Sun"]) for pal in (0.01, 0.32, 1.0)}
    assert columns[0.32] > columns[1.0] > columns[0.01]


@given(surface=st.floats(5e4, 5e5), pal=st.floats(1e-4, 5.0), mean=st.floats(1e-12, 1e-6))
def test_ozone_layer_keeps_its_column(surface, pal, mean):
    levels = np.geomspace(0.5, surface, 4000)
    profile = atmosphere.ozone_profile(mean, levels, surface, pal)
    column = np.trapezoid(profile, levels) / surface
    assert column == pytest.approx(mean, rel=0.03)
    assert levels[np.argmax(profile)] <= 0.21 * surface


def test_lifetime_factors_at_low_oxygen():
    assert atmosphere.low_oxygen_lifetime(0.1, 5780.0) == pytest.approx(0.5)
    assert atmosphere.low_oxygen_lifetime(0.01, 5780.0) == pytest.approx(0.2)
    assert atmosphere.low_oxygen_lifetime(0.01, 3000.0) == 1.0


def test_exchange_ratios_count_by_anchor_or_carbon():
    assert atmosphere.exchange_ratios({"CH4": 8.0, "CO": -4.0}, "CH4") == {"CO": -0.5}
    assert atmosphere.exchange_ratios({"CO": -24.0, "CO2": 12.0}, "CH4") == {"CO": -1.0, "CO2": 0.5}
    assert atmosphere.exchange_ratios(None, "O2") == {}


def test_mass_of_air():
    assert atmosphere.mean_molecular_mass({"O2": 0.21, "N2": 0.79}) == pytest.approx(28.85, abs=0.01)
