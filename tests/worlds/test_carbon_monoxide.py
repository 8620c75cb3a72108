import numpy as np
import pytest

from astrobio.worlds import carbon_monoxide


def test_positions_and_band_strengths_match_line_lists():
    """HITRAN: R(0) at 2147.0811 and R(7) at 2172.7588 cm⁻¹, fundamental 9.8e-18; HITEMP overtone 7.6e-20 cm."""
    lines = carbon_monoxide.line_list()
    main = lines.mass < 28.5
    for position in (2147.0811, 2172.7588):
        assert np.abs(lines.position[main] - position).min() < 0.005
    strength = carbon_monoxide.strengths(lines, 296.0)
    assert strength[main & (lines.position < 3000)].sum() == pytest.approx(9.8e-18, rel=0.03)
    assert strength[main & (lines.position > 3000)].sum() == pytest.approx(7.56e-20, rel=0.03)


@pytest.mark.parametrize("pressure", [1e2, 1e5])
def test_profiles_conserve_strength(pressure):
    wavenumber = np.linspace(1900.0, 2400.0, 500_000)
    section = carbon_monoxide.cross_section(1e4 / wavenumber, 296.0, pressure)
    lines = carbon_monoxide.line_list()
    expected = carbon_monoxide.strengths(lines, 296.0)[lines.position < 2400].sum()
    assert np.trapezoid(section, wavenumber) == pytest.approx(expected, rel=0.02)


def test_warmth_spreads_the_band():
    """At 600 K the rotational wings hold more of the strength than at 200 K."""
    lines = carbon_monoxide.line_list()
    wing = (np.abs(lines.position - 2143) > 80) & (lines.position < 2400)
    cold, hot = (carbon_monoxide.strengths(lines, t)[wing].sum() for t in (200.0, 600.0))
    assert hot > 5 * cold
