"""Catalogue rows: a pandera schema for types and ranges, duplicates, and physics that ties the columns together.

Columns are named as in the NASA Exoplanet Archive. A row with an error is set aside, warnings leave it in.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from astrobio.quality.checks import MAD_TO_SIGMA, named
from astrobio.quality.findings import Finding, RowReport
from astrobio.quality.intake import CATALOGUE_COLUMNS, Refused, header_cells
from astrobio.quality.rules import finding
from astrobio.quality.validators import load, missing_tool, tool
from astrobio.units import DAY, EARTH_GM, EARTH_RADIUS, JUPITER_GM, JUPITER_RADIUS, SOLAR_GM, SOLAR_RADIUS

EARTH_DENSITY = 5.51  # g/cm3, NASA planetary fact sheet
RANGES: dict[str, tuple[float, float]] = {  # column → lowest and highest possible value, in the archive's unit
    "pl_orbper": (0.01, 1e9),  # d; minutes for the fastest white-dwarf companions, Myr for the widest directly imaged
    "pl_orbsmax": (1e-4, 1e5),  # AU
    "pl_orbeccen": (0.0, 0.9999),
    "pl_orbincl": (0.0, 180.0),  # degrees
    "pl_rade": (0.05, 100.0),  # Earth radii; imaged young giants reach 80
    "pl_radj": (0.004, 9.0),  # Jupiter radii
    "pl_bmasse": (1e-3, 30_000.0),  # Earth masses; 30 Jupiter masses is the archive's limit, with errors up to 90
    "pl_masse": (1e-3, 30_000.0),
    "pl_bmassj": (3e-6, 95.0),  # Jupiter masses
    "pl_massj": (3e-6, 95.0),
    "pl_dens": (1e-3, 500.0),  # g/cm3
    "pl_eqt": (1.0, 10_000.0),  # K
    "pl_insol": (0.0, 1e6),  # Earth fluxes
    "pl_trandep": (0.0, 100.0),  # per cent
    "st_teff": (100.0, 300_000.0),  # K; brown dwarfs to white dwarfs
    "st_rad": (1e-6, 300.0),  # solar radii; pulsars to giants
    "st_mass": (1e-3, 100.0),  # solar masses
    "st_met": (-5.0, 2.0),  # dex
    "st_logg": (-2.0, 16.0),  # log10 cm/s2
    "st_lum": (-8.0, 8.0),  # log10 solar luminosities
    "st_lumstr": (-8.0, 8.0),
    "st_age": (0.0, 20.0),  # Gyr, upper ends of fits included
    "sy_dist": (1.0, 30_000.0),  # pc
    "ra": (0.0, 360.0),  # degrees
    "dec": (-90.0, 90.0),
    "disc_year": (1980.0, 2100.0),
    "sy_snum": (1.0, 10.0),
    "sy_pnum": (1.0, 20.0),
}
INTEGERS = {"disc_year", "sy_snum", "sy_pnum"}
KEYS = ("pl_name", "planet_name", "kepoi_name", "kepler_name", "toi", "name", "star_name", "hostname")
DENSITY_RANGE = (0.02, 50.0)  # g/cm3; super-puffs at 0.03, iron at the pressure of 20 Earth masses below 30
TEMPERATURE_RATIO = (0.4, 2.5)  # equilibrium temperature, stated over expected; albedo and heating fit inside
OUTLIER_DEX = 8.0  # robust standard deviations in log10
MAX_ROWS = 2_000_000
REASONS_SHOWN = 100_000  # rows whose reasons are kept in a report


@dataclass
class Table:
    """A catalogue as text: columns, the rows that fit the header, and the rows (counted from 1) that don't."""

    columns: list[str]
    frame: pd.DataFrame
    misfits: dict[int, int] = field(default_factory=dict)


def read_catalogue(path: Path, encoding: str = "utf-8") -> Table:
    """A CSV (comma, tab, bar or semicolon; comment lines with #), an IPAC table, or an Open Exoplanet Catalogue system,
    as text cells.

    Raises:
        Refused: broken quoting or an unreadable table, or too many rows.
    """
    text = path.read_text(encoding=encoding, errors="replace").lstrip("\ufeff")
    if text.lstrip().startswith("<"):
        return read_open_exoplanet_catalogue(path)
    if text.startswith(("\\", "|")):
        return _read_ipac(path, text)
    _, delimiter = header_cells(text)
    lines = io.StringIO("\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#")))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows, misfits = [], {}
    try:
        columns = [c.strip() for c in next(reader)]
        for number, row in enumerate(reader, 1):
            if number > MAX_ROWS:
                raise Refused("FILE-004", path.name, f"expected ≤ {MAX_ROWS:,} rows, found more")
            if len(row) != len(columns):
                misfits[number] = len(row)
                row = (row + [""] * len(columns))[: len(columns)]
            rows.append(row)
    except (csv.Error, StopIteration) as error:
        raise Refused("FILE-003", path.name, f"expected rows of fields, found {error}") from error
    return Table(columns, pd.DataFrame(rows, columns=pd.Index(columns), dtype=str), misfits)


def _read_ipac(path: Path, text: str) -> Table:
    """An IPAC table, as the Exoplanet Archive's downloads are; what is missing becomes an empty text."""
    from astropy.io import ascii

    if text.count("\n") > MAX_ROWS:
        raise Refused("FILE-004", path.name, f"expected ≤ {MAX_ROWS:,} rows, found more")
    try:
        table: Any = ascii.read(text, format="ipac", guess=False)
    except Exception as error:  # astropy's readers raise many kinds on damaged tables
        raise Refused("FILE-003", path.name, f"expected an IPAC table, found {str(error)[:200]}") from error
    cells = {name: ["" if np.ma.is_masked(v) else str(v) for v in table[name]] for name in table.colnames}
    return Table(list(cells), pd.DataFrame(cells, dtype=str))


def read_open_exoplanet_catalogue(path: Path) -> Table:
    """A `<system>` (or many) that has passed `intake.guard_xml` → one row a planet, in the archive's columns."""
    from defusedxml.ElementTree import parse

    names = {"period": ("pl_orbper", 1.0), "semimajoraxis": ("pl_orbsmax", 1.0), "eccentricity": ("pl_orbeccen", 1.0),
             "inclination": ("pl_orbincl", 1.0), "temperature": ("pl_eqt", 1.0), "discoveryyear": ("disc_year", 1.0),
             "radius": ("pl_rade", JUPITER_RADIUS / EARTH_RADIUS),
             "mass": ("pl_bmasse", JUPITER_GM / EARTH_GM)}  # fmt: skip
    stellar = {
        "mass": "st_mass",
        "radius": "st_rad",
        "temperature": "st_teff",
        "metallicity": "st_met",
        "age": "st_age",
    }
    rows = []
    root = parse(str(path)).getroot()
    assert root is not None  # guard_xml has seen it
    for system in [root] if root.tag == "system" else root.iter("system"):
        distance = system.findtext("distance", "")
        for parent in system.iter():
            for planet in parent.findall("planet"):
                row = {"pl_name": planet.findtext("name", ""), "sy_dist": distance}
                row |= {to: _scaled(planet.findtext(tag, ""), factor) for tag, (to, factor) in names.items()}
                if parent.tag == "star":
                    row |= {to: parent.findtext(tag, "") for tag, to in stellar.items()}
                rows.append(row)
    frame = pd.DataFrame(rows, dtype=str) if rows else pd.DataFrame({"pl_name": []}, dtype=str)
    return Table(list(frame.columns), frame.fillna(""))


def _scaled(text: str | None, factor: float) -> str:
    try:
        return text or "" if factor == 1.0 else repr(float(text or "") * factor)
    except ValueError:
        return text or ""


def check_catalogue(table: Table) -> tuple[list[Finding], RowReport, dict[str, Any], list[str]]:
    """Schema, duplicates, ranges and physics of a catalogue's rows."""
    lowered = {c.lower(): c for c in table.columns}
    key = next((lowered[name] for name in KEYS if name in lowered), None)
    facts: dict[str, Any] = {"rows": len(table.frame), "columns": len(table.columns)}
    report = RowReport(len(table.frame))
    if key is None:
        message = f"expected one of {', '.join(sorted(CATALOGUE_COLUMNS))}, found {table.columns[:8]}"
        return [finding("CAT-001", "header", message)], report, facts, []
    repeated = [c for c in dict.fromkeys(table.columns) if table.columns.count(c) > 1]
    if repeated:
        return (
            [finding("CAT-001", "header", f"expected columns named once, found {repeated[:5]} again")],
            report,
            facts,
            [],
        )
    reasons: dict[int, list[str]] = defaultdict(list)
    found = _shape(table, key, reasons)
    numbers, typed = _numbers(table.frame.drop(index=[row - 1 for row in table.misfits]), reasons)
    found += typed
    if "toi" in lowered and lowered.get("pl_trandep") in numbers:
        numbers[lowered["pl_trandep"]] /= 1e4  # the archive's table of TESS candidates gives ppm
    ranged, tools = _schema(numbers, reasons)
    found += ranged
    sound = numbers.drop(index=[row - 1 for row in reasons], errors="ignore")
    found += check_planets(sound, table.frame[key]) + _outliers(sound)
    report.reasons = dict(list(reasons.items())[:REASONS_SHOWN])
    facts["numeric_columns"] = len(numbers.columns)
    return found, report, facts, tools


def _group(
    rule: str,
    location: str,
    rows: list[int],
    message: str,
    reasons: dict[int, list[str]],
    seen: list[str] | None = None,
) -> list[Finding]:
    """One finding for many rows (counted from 1), each of which is set aside; `seen`: what each row holds."""
    told = [message] * len(rows) if seen is None else [f"{message}, found {value}" for value in seen]
    for row, text in zip(rows, told, strict=True):
        reasons[row].append(f"{rule} {location}: {text}")
    where = f"{location}, rows {named([str(r) for r in rows[:10]], len(rows))}"
    return [finding(rule, where, told[0], count=len(rows))] if rows else []


def _shape(table: Table, key: str, reasons: dict[int, list[str]]) -> list[Finding]:
    expected = f"expected {len(table.columns)} fields, found {next(iter(table.misfits.values()), 0)}"
    found = _group("CAT-007", "row", list(table.misfits), expected, reasons)
    names = table.frame[key].str.strip()
    empty = (np.flatnonzero(names == "") + 1).tolist()
    found += _group(
        "CAT-008", key, [r for r in empty if r not in table.misfits], "expected a name, found none", reasons
    )
    if key in ("hostname", "star_name"):
        copies = table.frame.duplicated()
    else:
        copies = names.str.casefold().str.replace(r"\s+", " ", regex=True).duplicated() & (names != "")
    rows = (np.flatnonzero(copies) + 1).tolist()
    first = names.iloc[rows[0] - 1] if rows else ""
    return found + _group("CAT-004", key, rows, f"expected each record once, found {first!r} again", reasons)


def _numbers(frame: pd.DataFrame, reasons: dict[int, list[str]]) -> tuple[pd.DataFrame, list[Finding]]:
    """The known numeric columns as floats, and a finding for every column with cells that are none."""
    found, columns = [], {}
    for name in frame.columns:
        if name.lower() not in RANGES:
            continue
        text = frame[name].str.strip()
        values = pd.to_numeric(text, errors="coerce").astype(float)
        odd = (values.isna() & ~text.str.lower().isin(("", "nan", "null", "none", "na"))) | np.isinf(values)
        if name.lower() in ("ra", "dec") and odd.mean() > 0.5:  # sexagesimal, as many catalogues write them
            continue
        if name.lower() in INTEGERS:
            odd |= values.notna() & (values != values.round())
        rows = (odd.index[odd] + 1).tolist()
        kind = "a whole number" if name.lower() in INTEGERS else "a number"
        seen = [repr(cell[:40]) for cell in text[odd]]
        found += _group("CAT-002", name, rows, f"expected {kind}", reasons, seen)
        columns[name] = values.mask(odd)
    return pd.DataFrame(columns, index=frame.index), found


def _schema(numbers: pd.DataFrame, reasons: dict[int, list[str]]) -> tuple[list[Finding], list[str]]:
    """Ranges, by pandera."""
    pandera = load("pandera.pandas")
    if pandera is None:
        return [missing_tool("pandera")], []
    columns = {}
    for name in numbers.columns:
        low, high = RANGES[name.lower()]
        columns[name] = pandera.Column(float, pandera.Check.in_range(low, high), nullable=True)
    if not columns:
        return [], [tool("pandera")]
    try:
        pandera.DataFrameSchema(columns).validate(numbers, lazy=True)
    except pandera.errors.SchemaErrors as error:
        found = []
        for name, cases in error.failure_cases.groupby("column", sort=False):
            low, high = RANGES[str(name).lower()]
            cells = {int(i) + 1: f"{value:g}" for i, value in zip(cases["index"], cases["failure_case"], strict=True)}
            message = f"expected {low:g}…{high:g}"
            found += _group("CAT-003", str(name), list(cells), message, reasons, list(cells.values()))
        return found, [tool("pandera")]
    return [], [tool("pandera")]


def check_planets(numbers: pd.DataFrame, names: pd.Series) -> list[Finding]:
    """Density from mass and radius; equilibrium temperature from orbit and star. Columns in the archive's units."""
    found = []

    def column(*options: str) -> np.ndarray | None:
        return next((numbers[o].to_numpy() for o in options if o in numbers), None)

    mass, radius = column("pl_bmasse", "pl_masse"), column("pl_rade")
    if mass is not None and radius is not None:
        density = EARTH_DENSITY * mass / radius**3
        found += _tied("CAT-005", density, DENSITY_RANGE, "g/cm³", numbers.index, names)
    stated, period = column("pl_eqt"), column("pl_orbper")
    star = [column(f"st_{n}") for n in ("teff", "rad", "mass")]
    if stated is not None and period is not None and all(s is not None for s in star):
        teff, size, weight = star
        semimajor = (SOLAR_GM * weight * (period * DAY / (2 * np.pi)) ** 2) ** (1 / 3)  # type: ignore[operator]
        expected = teff * np.sqrt(size * SOLAR_RADIUS / (2 * semimajor))  # type: ignore[operator]  # zero albedo
        found += _tied("CAT-006", stated / expected, TEMPERATURE_RATIO, "× expected", numbers.index, names)
    return found


def _tied(
    rule: str, values: np.ndarray, allowed: tuple[float, float], unit: str, index: pd.Index, names: pd.Series
) -> list[Finding]:
    off = np.flatnonzero((values < allowed[0]) | (values > allowed[1]))  # NaN compares false
    if not len(off):
        return []
    rows = index[off].tolist()
    where = named([f"{names.iloc[row]} (row {row + 1})" for row in rows[:5]], len(rows))
    message = f"expected {allowed[0]:g}…{allowed[1]:g} {unit}, found {values[off[0]]:.3g}"
    return [finding(rule, where, message, count=len(rows))]


def _outliers(numbers: pd.DataFrame) -> list[Finding]:
    found = []
    for name in numbers.columns:
        values = numbers[name].to_numpy()
        positive = values[np.isfinite(values) & (values > 0)]
        if len(positive) < 50 or re.match(r"ra$|dec$|disc_|sy_", name.lower()):
            continue
        logs = np.log10(positive)
        spread = MAD_TO_SIGMA * float(np.median(np.abs(logs - np.median(logs))))
        off = positive[np.abs(logs - np.median(logs)) > OUTLIER_DEX * spread] if spread > 0 else positive[:0]
        if len(off):
            shown = ", ".join(f"{v:.4g}" for v in np.sort(off)[::-1][:3])
            found.append(
                finding("CAT-009", name, f"expected near {10 ** np.median(logs):.3g}, found {shown}", count=len(off))
            )
    return found
