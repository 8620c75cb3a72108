"""Any table that a spectrum comes in (CSV, whitespace text, ECSV, IPAC, FITS, VOTable) → named columns with units."""

from __future__ import annotations

import csv
import gzip
import re
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import ascii, fits
from astropy.io.votable.exceptions import VOWarning
from astropy.table import Table
from astropy.units import UnitsWarning
from astropy.utils.exceptions import AstropyWarning

from astrobio.errors import InputError

MAX_BYTES = 2**28  # a spectrum is kilobytes; this bounds memory on a wrong file
MISSING = {"", "nan", "--", "-", "null", "none", "n/a", "na", "inf", "-inf"}  # text of a value that isn't there
UNIT_WORDS = {  # unambiguous unit words inside a column's name
    "um", "µm", "μm", "micron", "microns", "nm", "angstrom", "angstroms", "ppm", "percent", "pct", "fraction",
    "hz", "ghz", "thz", "cm-1",
}  # fmt: skip
_ENTITY = re.compile(rb"<\0?!\0?E\0?N\0?T\0?I\0?T\0?Y")  # expansion bombs, external files; in UTF-16 as well
_BRACKETS = re.compile(r"^(?P<name>.*\S)\s*[\[(](?P<unit>[^\[\]()]*)[\])]$")


@dataclass(frozen=True)
class Column:
    """A named column: unit as spelled (None where the table gives none), values as read."""

    name: str
    unit: str | None
    values: Any

    def numbers(self, path: Path) -> np.ndarray:
        """[rows] float64, NaN where a value is missing or masked.

        Raises:
            InputError: an entry that is neither a number nor a known word for a missing one.
        """
        if isinstance(self.values, np.ndarray) and self.values.dtype.kind in "fiub":
            return np.ma.filled(np.ma.asarray(self.values, dtype=np.float64), np.nan)
        out = np.full(len(self.values), np.nan)
        for row, entry in enumerate(self.values):
            text = str(entry).strip()
            if text.lower() in MISSING:
                continue
            try:
                out[row] = float(text)
            except ValueError:
                raise InputError(
                    f"{path}: column {self.name[:60]!r}, data row {row + 1}: expected a number, found {text[:40]!r}; "
                    "correct it or leave it empty"
                ) from None
        return out


@dataclass(frozen=True)
class RawTable:
    """The columns of a file, and what its header says besides."""

    columns: tuple[Column, ...]
    meta: dict[str, str] = field(default_factory=dict)


def read_tables(path: Path) -> list[RawTable]:
    """Every table of a file, by content rather than suffix.

    Raises:
        InputError: no such file, too big, empty, not a table, or a damaged one.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a spectrum file, found {'a folder' if path.is_dir() else 'nothing there'}")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(
            f"{path}: expected a spectrum of at most {MAX_BYTES >> 20} MiB, found {path.stat().st_size >> 20}"
        )
    try:
        with warnings.catch_warnings():  # unusual units are judged by us, with the column's name in the sentence
            for category in (UnitsWarning, VOWarning, AstropyWarning):
                warnings.simplefilter("ignore", category)
            return _unpacked(path)
    except InputError:
        raise
    except Exception as error:  # csv, zlib, YAML, FITS and VOTable readers each raise kinds of their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path}: expected a whole table, found something unreadable ({reason}); export it anew"
        ) from error


def _unpacked(path: Path) -> list[RawTable]:
    """Tables of a file that may be packed by gzip; what it unpacks to is bounded."""
    with open(path, "rb") as stream:
        start = stream.read(2048)
    if not start.startswith(b"\x1f\x8b"):
        return _dispatch(path, path, start)
    with tempfile.TemporaryDirectory(prefix="astrobio-") as folder:
        plain = Path(folder) / (path.stem or "table")
        with gzip.open(path) as packed, open(plain, "wb") as out:
            while piece := packed.read(2**20):
                out.write(piece)
                if out.tell() > MAX_BYTES:
                    raise InputError(
                        f"{path}: expected a spectrum of at most {MAX_BYTES >> 20} MiB, found more once unpacked"
                    )
        return _dispatch(path, plain, plain.read_bytes()[:2048])


def _dispatch(path: Path, plain: Path, start: bytes) -> list[RawTable]:
    """By content; `path` is what errors name, `plain` what is read."""
    if start.startswith(b"SIMPLE  ="):
        return _fits(path, plain)
    if b"<VOTABLE" in start or start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return [_astropy(table) for table in _votables(path, plain)]
    if b"%ECSV" in start[:64]:
        return [_astropy(ascii.read(plain, format="ecsv"))]
    if start.startswith((b"\\", b"|")):
        return [_astropy(ascii.read(plain, format="ipac"))]
    return [_text(path, plain.read_bytes().decode("utf-8", errors="replace"))]


def _fits(path: Path, plain: Path) -> list[RawTable]:
    with fits.open(plain) as units:
        numbers = [n for n, unit in enumerate(units) if isinstance(unit, (fits.BinTableHDU, fits.TableHDU))]
    if not numbers:
        raise InputError(
            f"{path}: expected a FITS table, found images only; write wavelength, depth and sigma as a table"
        )
    return [_astropy(Table.read(plain, format="fits", hdu=number)) for number in numbers]


def _votables(path: Path, plain: Path) -> list[Table]:
    from astropy.io.votable import parse

    if _ENTITY.search(plain.read_bytes()):
        raise InputError(f"{path}: expected a VOTable, found XML with entity declarations; refused")
    return [table.to_table(use_names_over_ids=True) for table in parse(plain, verify="ignore").iter_tables()]


def _astropy(table: Any) -> RawTable:
    columns = []
    for name in table.colnames:
        column = table[name]
        spelled = None if column.unit is None else str(column.unit)
        parsed = parse_header(str(name)) if spelled is None else (str(name), spelled)
        columns.append(Column(*parsed, _plain(np.ma.asarray(column.data))))
    return RawTable(tuple(columns), {str(k).lower(): str(v) for k, v in table.meta.items() if isinstance(v, str)})


def _plain(values: Any) -> Any:
    if values.dtype.kind in "fiub":
        return values.astype(np.float64).filled(np.nan)
    return ["" if entry is np.ma.masked else entry for entry in values.tolist()]


def _text(path: Path, text: str) -> RawTable:
    """Comma, semicolon, tab or whitespace separated text with one header line, which may be the last comment."""
    comments = [line.lstrip("#! ").strip() for line in text.splitlines() if line.lstrip().startswith(("#", "!"))]
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "!"))]
    if not lines:
        raise InputError(f"{path}: expected a header line and rows of numbers, found an empty file")
    delimiter = next((mark for mark in (",", ";", "\t") if mark in lines[0]), None)
    rows = _split(lines, delimiter)
    if _numeric(rows[0]):
        header = _split(comments[-1:], delimiter)[0] if comments else []
        if len(header) != len(rows[0]):
            raise InputError(
                f"{path}: expected a header line naming the columns, found only numbers; add one such as "
                "'wavelength [um],depth [ppm],sigma [ppm]'"
            )
    else:
        header, rows = rows[0], rows[1:]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise InputError(
                f"{path}: data row {number + 1}: expected {len(header)} columns, found {len(row)}; is the file whole?"
            )
    meta = dict(comment.lower().split(":", 1) for comment in comments if ":" in comment)
    columns = tuple(Column(*parse_header(name), [row[i] for row in rows]) for i, name in enumerate(header))
    return RawTable(columns, {key.strip(): value.strip() for key, value in meta.items()})


def _split(lines: list[str], delimiter: str | None) -> list[list[str]]:
    if delimiter is None:
        return [re.sub(r"\s+(?=[\[(])", "", line).split() for line in lines]
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]


def _numeric(cells: list[str]) -> bool:
    return all(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?|nan", cell, re.IGNORECASE) for cell in cells)


def parse_header(text: str) -> tuple[str, str | None]:
    """`wavelength [um]`, `depth (ppm)`, `wavelength_um`, `Wavelength microns` → (name, unit or None)."""
    found = _BRACKETS.match(text.strip())
    if found:
        return found["name"], found["unit"].strip()
    words = re.split(r"[\s_,]+", text.strip())
    units = [word for word in words if word.lower() in UNIT_WORDS]
    if units and len(words) > 1:
        return "_".join(word for word in words if word not in units), units[0]
    return text.strip(), None


def with_units(table: RawTable, given: dict[int, str]) -> RawTable:
    """The same table with these units in place of what it says."""
    columns = [replace(c, unit=given.get(i, c.unit)) for i, c in enumerate(table.columns)]
    return RawTable(tuple(columns), table.meta)
