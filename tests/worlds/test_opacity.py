import numpy as np
import pytest

from astrobio.errors import InputError
from astrobio.worlds import opacity


def write_table(path, scale=1.0, temperatures=opacity.TEMPERATURES, pressures=opacity.PRESSURES):
    """A small Exo-Transmit table: 2e-22·scale m² everywhere, times pressure over 1e5 Pa."""
    lines = [" ".join(f"{t:g}" for t in temperatures), " ".join(f"{p:.3e}" for p in pressures)]
    for wavelength in np.geomspace(0.5e-6, 13e-6, 40):
        lines.append(f"{wavelength:.8e}")
        lines += [" ".join([f"{p:.3e}"] + [f"{2e-22 * scale * p / 1e5:.4e}"] * len(temperatures)) for p in pressures]
    path.write_text("\n".join(lines) + "\n")


def test_default_gases_and_the_absent_ones():
    tables = opacity.opacity_tables()
    assert set(tables.gases) == {"H2O", "CO2", "CH4", "O2", "O3", "CO"}
    assert tables.values.shape == (6, 8, 7, len(tables.wavelength)) and (np.diff(tables.wavelength) > 0).all()


def test_pressures_are_pascal(tmp_path):
    """Read as bar, as TauREx up to 3.3.2 does, the value at 1 bar would be 1e5 times smaller."""
    write_table(tmp_path / "opacCO.dat")
    _, values = opacity.read_exotransmit(tmp_path / "opacCO.dat")
    at_one_bar = values[int(np.argmin(np.abs(opacity.PRESSURES - 1e5)))]
    assert np.allclose(at_one_bar, 2e-18, rtol=1e-3)  # cm²


def test_interpolation_is_linear_in_temperature_and_log_pressure():
    tables = opacity.opacity_tables()
    share = np.eye(len(tables.gases))[:, [tables.gases.index("CO2")]]
    node = tables.cross_section(np.array([300.0]), np.array([1e4]), share)[0]
    assert np.allclose(node, tables.values[tables.gases.index("CO2"), 5, 2], rtol=1e-5)
    warm = tables.cross_section(np.array([400.0]), np.array([1e4]), share)[0]
    between = tables.cross_section(np.array([350.0]), np.array([1e4]), share)[0]
    assert np.allclose(between, (node + warm) / 2, rtol=1e-4, atol=1e-34)


def test_user_opacities_add_a_gas(tmp_path):
    write_table(tmp_path / "opacN2O.dat")
    tables = opacity.opacity_tables(str(tmp_path))
    assert set(tables.gases) == {"H2O", "CO2", "CH4", "O2", "O3", "CO", "N2O"}
    assert tables.values[tables.gases.index("N2O"), 6].max() == pytest.approx(2e-18, rel=1e-3)


def test_bad_opacities_are_clear_errors(tmp_path):
    with pytest.raises(InputError, match="expected a folder"):
        opacity.opacity_tables(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="found none"):
        opacity.opacity_tables(str(tmp_path))
    (tmp_path / "opacCO.dat").write_text("not a table\n1 2 3\n")
    with pytest.raises(InputError, match="Exo-Transmit"):
        opacity.read_exotransmit(tmp_path / "opacCO.dat")
    write_table(tmp_path / "opacN2O.dat", temperatures=np.array([1000.0, 2000.0]))
    with pytest.raises(InputError, match="nodes"):
        opacity.read_exotransmit(tmp_path / "opacN2O.dat")
