"""Spectra from every table format and unit, and what is said of the unusable ones."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from astrobio.batch import Spectrum
from astrobio.errors import InputError
from astrobio.formats.spectra import read_spectrum, role_of, write_spectrum
from astrobio.formats.spectra_table import parse_header

REAL = Path(__file__).parents[2] / "../shared/data/spectra/wasp-39b_niriss/data/ts"
WAVELENGTH = np.array([1.0, 1.5, 2.5])  # µm
DEPTH = np.array([5000.0, 5100.0, 5050.0])  # ppm
SIGMA = np.array([10.0, 20.0, 30.0])  # ppm


def _csv(tmp_path: Path, header: str, rows: list[str] | None = None, name: str = "spectrum.csv") -> Path:
    path = tmp_path / name
    lines = rows if rows is not None else [f"{w},{d},{s}" for w, d, s in zip(WAVELENGTH, DEPTH, SIGMA, strict=True)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def _assert_truth(spectrum: Spectrum) -> None:
    np.testing.assert_allclose(spectrum.wavelength, WAVELENGTH, rtol=1e-6)
    np.testing.assert_allclose(spectrum.value, DEPTH, rtol=1e-6)
    np.testing.assert_allclose(spectrum.sigma, SIGMA, rtol=1e-6)


@pytest.mark.parametrize(
    "header",
    [
        "wavelength [um],depth [ppm],sigma [ppm]",
        "wavelength_um,depth_ppm,depth_err_ppm",
        "Wavelength (micron),Transit depth (ppm),Error",
        "wave,dppm,dppm_err",
        "lambda [μm], transit_depth [ppm], transit_depth_error",
        "CENTRALWAVELNG,dppm,e_depth",
    ],
)
def test_columns_are_found_by_name_and_unit(tmp_path: Path, header: str) -> None:
    spectrum, notes = read_spectrum(_csv(tmp_path, header))
    _assert_truth(spectrum)
    assert notes["rows"] == 3 and notes["units"] == {"wavelength": "um", "value": "ppm"}


@pytest.mark.parametrize(
    ("axis", "factor"), [("wavelength [nm]", 1e3), ("wavelength [Angstrom]", 1e4), ("wavelength [m]", 1e-6)]
)
@pytest.mark.parametrize(("depth", "scale"), [("fraction", 1e-6), ("%", 1e-4), ("ppm", 1.0)])
def test_units_are_converted(tmp_path: Path, axis: str, factor: float, depth: str, scale: float) -> None:
    rows = [
        f"{float(w * factor)!r},{float(d * scale)!r},{float(s * scale)!r}"
        for w, d, s in zip(WAVELENGTH, DEPTH, SIGMA, strict=True)
    ]
    _assert_truth(read_spectrum(_csv(tmp_path, f"{axis},depth [{depth}],sigma [{depth}]", rows))[0])


def test_wavenumber_is_sorted_and_its_half_widths_become_micrometres(tmp_path: Path) -> None:
    rows = [f"{1e4 / w},50,{d},{s}" for w, d, s in zip(WAVELENGTH, DEPTH, SIGMA, strict=True)][::-1]
    spectrum, notes = read_spectrum(_csv(tmp_path, "wavenumber [cm-1],half_width [cm-1],depth [ppm],sigma", rows))
    _assert_truth(spectrum)
    assert notes["sorted"]
    expected = 1e4 / (1e4 / WAVELENGTH - 50) - 1e4 / (1e4 / WAVELENGTH + 50)
    np.testing.assert_allclose(spectrum.bin_width, expected, rtol=1e-9)


def test_frequency_axis(tmp_path: Path) -> None:
    rows = [f"{2.99792458e5 / w},{d},{s}" for w, d, s in zip(WAVELENGTH, DEPTH, SIGMA, strict=True)]
    _assert_truth(read_spectrum(_csv(tmp_path, "frequency [GHz],depth [ppm],sigma [ppm]", rows))[0])


def test_bin_edges_and_asymmetric_errors(tmp_path: Path) -> None:
    rows = [f"{w - 0.1},{w + 0.1},{d},{s + 2},{-(s - 2)}" for w, d, s in zip(WAVELENGTH, DEPTH, SIGMA, strict=True)]
    header = "wave_low [um],wave_high [um],depth [ppm],depth_err_upper,depth_err_lower"
    spectrum, notes = read_spectrum(_csv(tmp_path, header, rows))
    _assert_truth(spectrum)
    np.testing.assert_allclose(spectrum.bin_width, 0.2)
    assert notes["bin_width"] == "edges"


def test_radius_ratio_becomes_depth_with_propagated_error(tmp_path: Path) -> None:
    spectrum, _ = read_spectrum(_csv(tmp_path, "wavelength [um],Rp/R*,Rp/R* error", ["1,0.1,0.001", "2,0.2,0.002"]))
    np.testing.assert_allclose(spectrum.value, [1e4, 4e4])
    np.testing.assert_allclose(spectrum.sigma, [200.0, 800.0])


def test_albedo_and_eclipse_set_the_kind(tmp_path: Path) -> None:
    albedo, _ = read_spectrum(_csv(tmp_path, "wavelength [um],albedo,sigma", ["1,0.3,0.01", "2,0.2,0.01"]))
    assert albedo.kind == "reflection" and albedo.value[0] == pytest.approx(0.3)
    eclipse, _ = read_spectrum(_csv(tmp_path, "wavelength [um],eclipse_depth [ppm],sigma"))
    assert eclipse.kind == "emission"


def test_bad_rows_are_dropped_counted_and_duplicates_merged(tmp_path: Path) -> None:
    rows = ["2,100,10", "1,100,10", "3,nan,10", "4,,10", "5,100,0", "6,100,-1", "2,200,10", "7,2e6,1"]
    spectrum, notes = read_spectrum(_csv(tmp_path, "wavelength [um],depth [ppm],sigma [ppm]", rows))
    assert notes["dropped"] == {"nan": 2, "sigma_not_positive": 2, "width_not_positive": 0, "out_of_range": 1}
    assert notes["duplicates_merged"] == 1 and notes["sorted"]
    np.testing.assert_allclose(spectrum.value, [100.0, 150.0])
    np.testing.assert_allclose(spectrum.sigma, [10.0, 10.0 / np.sqrt(2)])


def test_missing_units_name_the_remedy_and_units_mend_them(tmp_path: Path) -> None:
    path = _csv(tmp_path, "wavelength,depth,sigma")
    with pytest.raises(InputError, match=r"'wavelength': expected a unit.*--units wavelength=um"):
        read_spectrum(path)
    with pytest.raises(InputError, match=r"'depth': expected a unit \(fraction, % or ppm\)"):
        read_spectrum(path, units="wavelength=um")
    _assert_truth(read_spectrum(path, units="wavelength=um,depth=ppm")[0])
    with pytest.raises(InputError, match="units: expected a column among wavelength, depth, sigma, found 'colour'"):
        read_spectrum(path, units="colour=um")
    with pytest.raises(InputError, match="expected pairs such as"):
        read_spectrum(path, units="um")


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("wavelength [um],depth [ppm]", ["1,2", "2,3"], "expected an uncertainty column, found wavelength, depth"),
        ("a,b,c", ["1,2,3", "2,3,4"], "expected a wavelength column, found a, b, c"),
        ("wavelength [kg],depth [ppm],sigma", ["1,2,3", "2,3,4"], "unit of length, wavenumber or frequency"),
        ("wavelength [um],depth [K],sigma", ["1,2,3", "2,3,4"], "expected fraction, % or ppm, found 'K'"),
        ("wavelength [m],depth [ppm],sigma", ["1,2,3", "2,3,4"], "expected wavelengths of 0.05…1000 µm"),
        ("wavelength [um],depth [fraction],sigma", ["1,5000,3", "2,5000,4"], "expected depths below 1e6 ppm"),
        ("wavelength [um],depth [ppm],sigma", ["1,nan,3", "2,3,4"], "at least two usable rows, found 1 of 2"),
        ("wavelength [um],depth [ppm],sigma", ["1,2,3", "2,3"], "data row 2: expected 3 columns, found 2"),
        ("wavelength [um],depth [ppm],sigma", ["1,2,3", "2,red,4"], "data row 2: expected a number, found 'red'"),
        ("1,2,3", ["2,3,4"], "expected a header line"),
    ],
)
def test_unusable_tables_say_why(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    path = _csv(tmp_path, header, rows)
    with pytest.raises(InputError) as caught:
        read_spectrum(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "cut.fits").write_bytes(b"SIMPLE  =                    T" + b" " * 100)
    (tmp_path / "cut.vot").write_text('<?xml version="1.0"?><VOTABLE><RESOURCE><TABLE>')
    (tmp_path / "bomb.vot").write_text('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><VOTABLE>&b;</VOTABLE>')
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"wavelength [um],depth [ppm]\n" * 99)[:40])
    for name in ("empty.csv", "cut.fits", "cut.vot", "bomb.vot", "cut.csv.gz", "absent.csv"):
        with pytest.raises(InputError, match=name):
            read_spectrum(tmp_path / name)


def _table() -> Table:
    table = Table({"wavelength": WAVELENGTH * 1e3, "depth": DEPTH * 1e-4, "depth_error": SIGMA * 1e-4})
    table["wavelength"].unit, table["depth"].unit, table["depth_error"].unit = u.nm, u.percent, u.percent
    return table


@pytest.mark.filterwarnings("ignore:.*W50.*", "ignore:The unit")  # astropy doesn't like to write % to a VOTable
@pytest.mark.parametrize(("name", "kind"), [("s.ecsv", "ascii.ecsv"), ("s.fits", "fits"), ("s.vot", "votable")])
def test_astropy_formats(tmp_path: Path, name: str, kind: str) -> None:
    _table().write(tmp_path / name, format=kind)
    _assert_truth(read_spectrum(tmp_path / name)[0])


def test_second_hdu_and_masked_rows(tmp_path: Path) -> None:
    table = _table()
    table["depth"] = MaskedColumn(table["depth"], mask=[False, True, False], unit=u.percent)
    table.write(tmp_path / "masked.ecsv", format="ascii.ecsv")
    assert read_spectrum(tmp_path / "masked.ecsv")[1]["dropped"]["nan"] == 1
    other = fits.BinTableHDU(Table({"flux": [1.0, 2.0]}))
    fits.HDUList([fits.PrimaryHDU(), other, fits.table_to_hdu(_table())]).writeto(tmp_path / "two.fits")
    _assert_truth(read_spectrum(tmp_path / "two.fits")[0])


def test_fits_image_is_refused(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(InputError, match="expected a FITS table, found images only"):
        read_spectrum(tmp_path / "image.fits")


@given(
    depth=arrays(np.float64, 5, elements=st.floats(-1e5, 1e5)),
    kind=st.sampled_from(["transmission", "emission", "reflection"]),
    suffix=st.sampled_from([".csv", ".ecsv"]),
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, depth, kind, suffix) -> None:
    value = depth / 1e5 if kind == "reflection" else depth
    wavelength = np.geomspace(0.6, 12.0, 5)
    spectrum = Spectrum(wavelength, value, np.full(5, 0.01), np.full(5, 0.02), kind)
    path = tmp_path_factory.mktemp("round") / f"spectrum{suffix}"
    write_spectrum(spectrum, path)
    again, _ = read_spectrum(path)
    assert again.kind == kind
    np.testing.assert_allclose(again.value, value, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(again.wavelength, wavelength, rtol=1e-15)
    np.testing.assert_allclose(again.bin_width, spectrum.bin_width, rtol=1e-9)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("wave_error", "half"),
        ("pl_trandeperr1", "plus"),
        ("Rp/Rs", "ratio"),
        ("temperature", None),
        ("e_albedo", "sigma"),
    ],
)
def test_roles_of_names(name: str, role: str | None) -> None:
    assert role_of(name) == role


def test_header_units() -> None:
    assert parse_header("wavelength [um]") == ("wavelength", "um")
    assert parse_header("Wavelength microns") == ("Wavelength", "microns")
    assert parse_header("(Rp/Rs)") == ("(Rp/Rs)", None)


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared WASP-39b NIRISS tables are not here")
def test_every_real_table_of_wasp39b_is_read() -> None:
    files = sorted(REAL.iterdir())
    assert len(files) == 14
    for path in files:
        spectrum, notes = read_spectrum(path)
        assert 20_500 < np.average(spectrum.value, weights=spectrum.sigma**-2) < 22_000, path.name  # Feinstein 2023
        assert notes["rows"] - sum(notes["dropped"].values()) - notes["duplicates_merged"] == len(spectrum.value)
        assert sum(notes["dropped"].values()) <= 3


def test_a_row_that_was_copied_counts_once(tmp_path: Path) -> None:
    rows = [f"{w},{d},{s}" for w, d, s in zip(WAVELENGTH, DEPTH, SIGMA, strict=True)]
    spectrum, notes = read_spectrum(
        _csv(tmp_path, "wavelength [um],depth [ppm],sigma [ppm]", [*rows, rows[1], rows[0]])
    )
    _assert_truth(spectrum)
    assert notes["copies_dropped"] == 2 and notes["duplicates_merged"] == 0


FORMATS = ("csv", "ecsv", "fits", "votable", "ipac", "csv.gz")


def _written(tmp_path: Path, form: str) -> bytes:
    """A small spectrum in this format."""
    path = tmp_path / f"sound.{form}"
    if form.startswith("csv"):
        body = _csv(tmp_path, "wavelength [um],depth [ppm],sigma [ppm]").read_bytes()
        return gzip.compress(body) if form.endswith("gz") else body
    table = Table({"wavelength": WAVELENGTH * u.um, "depth": DEPTH, "sigma": SIGMA})
    table["depth"].unit = table["sigma"].unit = u.percent
    if form == "ecsv":
        write_spectrum(Spectrum(WAVELENGTH, DEPTH, SIGMA, np.full(3, 0.1)), path)
    else:
        table.write(path, format={"ipac": "ascii.ipac"}.get(form, form))
    return path.read_bytes()


def _damaged(body: bytes, rng: random.Random) -> bytes:
    at, to = sorted(rng.randrange(len(body)) for _ in range(2))
    noise = bytes(rng.randrange(256) for _ in range(rng.choice([1, 8, 80])))
    return rng.choice([
        body[:at], body[:at] + noise + body[at + len(noise) :], body[:at] + body[to:], body + body,
        body[:at] + b"9" * 3000 + body[at:], body[:at] + b'"' + b"A" * 200_000 + body[at:],
        body[:at] + body[at:to] * 20 + body[to:],
        body.replace(b"um", b"furlong"), body.replace(b"e", b"\\x00", 3), b"<?xml version='1.0'?>" + body,
    ])  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutations", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", FORMATS)
def test_damaged_tables_give_a_spectrum_or_one_clear_error(form: str, mutations: int, tmp_path: Path) -> None:
    body, rng, refused = _written(tmp_path, form), random.Random(f"{form} {mutations}"), 0
    path = tmp_path / "damaged.table"
    for _ in range(mutations):
        path.write_bytes(_damaged(body, rng))
        try:
            read_spectrum(path, units={"wavelength": "um"} if rng.random() < 0.2 else None)
        except InputError as error:
            refused += 1
            said = str(error)
            assert (path.name in said, len(said) < 1000) == (True, True), said[:300]
    assert refused > mutations // 4


def test_what_other_readers_raise_names_the_file(tmp_path: Path) -> None:
    """csv's, astropy's and zlib's own errors are no ValueErrors."""
    wide = _csv(tmp_path, "wavelength [um],depth [ppm],sigma [ppm]", ['1,"' + "9" * 200_000 + '",3'], "wide.csv")
    header = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0)]).tostring().encode()
    broken = tmp_path / "broken.fits"
    broken.write_bytes(header.replace(b"NAXIS   =                    0", b"NAXIS   =                    Q"))
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(b"wavelength [um],depth [ppm],sigma [ppm]\\n" * 50)[:-20] + b"\\xff" * 12)
    for path in (wide, broken, packed):
        with pytest.raises(InputError, match=path.name):
            read_spectrum(path)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrobio.formats.spectra_table.MAX_BYTES", 2**22)
    (tmp_path / "bomb.fits.gz").write_bytes(gzip.compress(b"SIMPLE  =" + bytes(2**24)))
    with pytest.raises(InputError, match="found more once unpacked"):
        read_spectrum(tmp_path / "bomb.fits.gz")
    entity = '<?xml version="1.0"?><!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><VOTABLE>&b;</VOTABLE>'
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "bomb.vot").write_bytes(entity.encode(encoding))
        with pytest.raises(InputError, match=r"bomb\.vot"):
            read_spectrum(tmp_path / "bomb.vot")
