"""Spectra files ↔ `Spectrum`: CSV, whitespace text, ECSV, IPAC tables, FITS tables, VOTable.

Columns are found by name and unit. A wavelength may be given in any unit of length, or as wavenumber, frequency or
photon energy; a depth as fraction, % or ppm, or as the radius ratio; a reflection spectrum as albedo. Units stand in
the file's own unit field, in the header (`wavelength [um]`, `depth (ppm)`, `wavelength_um`), or come from `units`.

Dimension letter: L rows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
from astropy import units as u
from astropy.io import ascii
from astropy.table import Column as TableColumn
from astropy.table import Table

from astrobio.batch import SPECTRUM_KINDS, Spectrum
from astrobio.batch.sample import SpectrumKind
from astrobio.errors import InputError
from astrobio.formats.spectra_table import Column, RawTable, read_tables, with_units

ROLES: dict[str, tuple[str, ...]] = {  # role → names, lower case, words joined by underscores
    "axis": (
        "wavelength", "wave", "wav", "wl", "lambda", "lam", "wavelength_center", "wavelength_centre",
        "center", "centre", "central_wavelength", "wavelength_mid", "lambda_mid", "bin_center", "bin_centre",
        "centralwavelng", "spectral_axis", "wavenumber", "wn", "frequency", "freq", "nu", "energy",
    ),
    "low": (
        "wavelength_low", "wave_low", "wavelength_min", "wave_min", "lambda_min", "wl_min", "wl_low",
        "bin_low", "bin_min", "bin_left", "bin_start", "low_edge", "lower_edge", "left_edge",
        "wavelength_lower", "wave_lower", "wavelength_start",
    ),
    "high": (
        "wavelength_high", "wave_high", "wavelength_max", "wave_max", "lambda_max", "wl_max", "wl_high",
        "bin_high", "bin_max", "bin_right", "bin_end", "high_edge", "upper_edge", "right_edge",
        "wavelength_upper", "wave_upper", "wavelength_end",
    ),
    "half": ("half_width", "bin_half_width", "wavelength_half_width", "wave_half_width", "halfwidth", "half_bin"),
    "width": (
        "bin_width", "width", "binwidth", "bandwidth", "bin_size", "binsize", "dwave", "dlambda", "dwl",
        "delta_wavelength", "delta_lambda", "wavelength_width", "wave_width", "wavelength_bin_size",
        "wavelength_bin_width", "dwavelength",
    ),
    "depth": (
        "depth", "transit_depth", "dppm", "pl_trandep", "value", "transmission", "rprs2", "rp_rs_2",
        "rp2_rs2", "rp_r_2", "eclipse_depth", "especlipdep", "secondary_eclipse_depth", "fp_fs", "fpfs",
        "flux_ratio", "planet_star_flux_ratio", "contrast",
    ),
    "albedo": ("albedo", "geometric_albedo", "spherical_albedo", "reflectance", "reflectivity"),
    "ratio": ("rp_rs", "rprs", "rp_r", "rp_over_rs", "radius_ratio", "pl_ratror", "k"),
    "sigma": ("sigma", "error", "err", "uncertainty", "unc", "noise", "std"),
    "plus": ("pl_trandeperr1", "pl_ratrorerr1", "especlipdeperr1"),
    "minus": ("pl_trandeperr2", "pl_ratrorerr2", "especlipdeperr2"),
    "quality": ("quality", "flag", "dq"),
}  # fmt: skip
IMPLIED_UNITS = {  # names that fix the unit: JWST early-release tables, NASA Exoplanet Archive tables
    "dppm": "ppm", "centralwavelng": "um", "bandwidth": "um", "pl_trandep": "%", "especlipdep": "%",
}  # fmt: skip
EMISSION_NAMES = {"eclipse_depth", "especlipdep", "secondary_eclipse_depth", "fp_fs", "fpfs", "planet_star_flux_ratio"}
DEPTH_UNITS = {  # spelling → ppm
    **dict.fromkeys(("", "1", "fraction", "dimensionless", "none"), 1e6),
    **dict.fromkeys(("%", "percent", "pct"), 1e4),
    "ppm": 1.0,
}  # fmt: skip
WAVELENGTH_RANGE = (0.05, 1000.0)  # µm, far ultraviolet to submillimetre; outside it a unit is wrong
DEPTH_LIMIT = 1e6  # ppm: a planet can't hide more than the whole star
ALBEDO_LIMIT = 10.0  # geometric albedos exceed 1 for strongly back-scattering bodies, never by this much
_ERROR_WORDS = {"err", "error", "errors", "sigma", "sig", "unc", "uncertainty", "std", "e"}
_PLUS_WORDS = {"plus", "upper", "up", "pos", "high", "hi", "1"}
_MINUS_WORDS = {"minus", "lower", "down", "neg", "low", "lo", "2"}
_GIVEN_NAMES = {"wavelength": "axis", "depth": "depth", "value": "depth", "albedo": "albedo", "sigma": "sigma",
                "error": "sigma", "width": "width"}  # fmt: skip


def read_spectrum(
    path: str | Path, *, units: str | dict[str, str] | None = None, kind: SpectrumKind | None = None
) -> tuple[Spectrum, dict[str, Any]]:
    """Read a spectrum and say what was done to it.

    Args:
        path: the table. units: units that the file lacks, `wavelength=um,depth=ppm`, by column name or by role
            (wavelength, depth, albedo, sigma, width). kind: overrides what names and header say.

    Returns:
        The spectrum (µm and ppm, or albedo), and notes: rows read and dropped, columns and units used, duplicates
        merged, rows flagged by a quality column (kept), where the bin widths came from.

    Raises:
        InputError: not a table, a column or unit missing, implausible values, or fewer than two usable rows.
    """
    source = Path(path)
    tables = sorted(read_tables(source), key=lambda table: len(_roles(table)), reverse=True)
    if not tables:
        raise InputError(f"{source}: expected a table, found none; export the spectrum anew")
    return _spectrum(source, tables[0], _given(units), kind)  # of several tables the one with most columns we know


def _given(units: str | dict[str, str] | None) -> dict[str, str]:
    if units is None or isinstance(units, dict):
        return dict(units or {})
    pairs = [part.partition("=") for part in units.split(",") if part.strip()]
    if not pairs or any(not mark for _, mark, _ in pairs):
        raise InputError(f"units: expected pairs such as 'wavelength=um,depth=ppm', found {units!r}")
    return {name.strip(): unit.strip() for name, _, unit in pairs}


def _spectrum(
    path: Path, raw: RawTable, given: dict[str, str], kind: SpectrumKind | None
) -> tuple[Spectrum, dict[str, Any]]:
    roles = _roles(raw)
    table = with_units(raw, _matched(path, raw, roles, given))
    roles = _roles(table)
    columns = {role: table.columns[index] for role, index in roles.items()}
    _require_columns(path, table, columns)
    wavelength, width, axis_unit, width_source = _axis(path, columns)
    value, sigma, value_unit, found_kind = _values(path, columns)
    limit = ALBEDO_LIMIT if "albedo" in columns else DEPTH_LIMIT
    _plausible(path, wavelength, value, limit)
    arrays, notes = _clean(path, wavelength, value, sigma, width, limit)
    stated = kind or raw.meta.get("kind", "").lower() or found_kind
    if stated not in SPECTRUM_KINDS:
        raise InputError(f"{path}: kind: expected one of {', '.join(SPECTRUM_KINDS)}, found {stated[:60]!r}")
    if (stated == "reflection") != ("albedo" in columns):
        raise InputError(
            f"{path}: expected an albedo column for reflection and a depth for the rest, found kind {stated[:60]}"
        )
    widths = _from_spacing(arrays[0]) if width is None else arrays[3]
    notes.update(
        columns={role: column.name for role, column in columns.items()},
        units={"wavelength": axis_unit, "value": value_unit},
        bin_width=width_source,
        kind=stated,
        quality_flagged=int((columns["quality"].numbers(path) > 0).sum()) if "quality" in columns else 0,
    )
    return Spectrum(*arrays[:3], widths, cast(SpectrumKind, stated)), notes


def _normalised(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def role_of(name: str) -> str | None:
    """What a column of this name holds: a key of `ROLES`, or None where the name says nothing."""
    key = _normalised(name)
    for role, names in ROLES.items():
        if key in names:
            return role
    words = re.sub(r"(err|error)(\d)$", r"\1_\2", key).split("_")
    rest = [word for word in words if word not in _ERROR_WORDS]
    if len(rest) == len(words):
        return None
    sign = "plus" if _PLUS_WORDS & set(rest) else "minus" if _MINUS_WORDS & set(rest) else "sigma"
    base = "_".join(word for word in rest if word not in _PLUS_WORDS | _MINUS_WORDS)
    if base in ROLES["axis"]:
        return "half"
    named = not base or any(base in ROLES[role] for role in ("depth", "albedo", "ratio"))
    return sign if named else None


def _roles(table: RawTable) -> dict[str, int]:
    """Role → column index: by name first (the first column of a role wins), then by unit."""
    found: dict[str, int] = {}
    taken = set()
    for index, column in enumerate(table.columns):
        role = role_of(column.name)
        if role is not None:
            taken.add(index)
            found.setdefault(role, index)
    for index, column in enumerate(table.columns):
        if index in taken or column.unit is None:
            continue
        if "axis" not in found and "low" not in found and _spectral_unit(column.unit) is not None:
            found["axis"] = index
        elif not {"depth", "albedo", "ratio"} & set(found) and column.unit in ("ppm", "%"):
            found["depth"] = index
    return found


def _matched(path: Path, table: RawTable, roles: dict[str, int], given: dict[str, str]) -> dict[int, str]:
    """Units given by the user and implied by names → column index → unit."""
    keys = [_normalised(column.name) for column in table.columns]
    out = {
        i: IMPLIED_UNITS[key] for i, key in enumerate(keys) if key in IMPLIED_UNITS and table.columns[i].unit is None
    }
    if "dppm" in keys and "wave" in keys and table.columns[keys.index("wave")].unit is None:
        out[keys.index("wave")] = "um"  # the layout of the JWST early-release tables: wave, wave_error, dppm, dppm_err
    for name, unit in given.items():
        role = _GIVEN_NAMES.get(name.lower(), "")
        if _normalised(name) in keys:
            out[keys.index(_normalised(name))] = unit
        elif role in roles:
            out[roles[role]] = unit
        else:
            raise InputError(f"{path}: units: expected a column among {_names(table)}, found {name!r}")
    return out


def _names(table: RawTable) -> str:
    return ", ".join(repr(column.name)[1:-1] for column in table.columns)[:300]


def _require_columns(path: Path, table: RawTable, columns: dict[str, Column]) -> None:
    needs = {
        "a wavelength": {"axis"} & set(columns) or {"low", "high"} <= set(columns),
        "a depth, radius ratio or albedo": {"depth", "ratio", "albedo"} & set(columns),
        "an uncertainty": {"sigma"} & set(columns) or {"plus", "minus"} & set(columns),
    }
    for what, there in needs.items():
        if not there:
            raise InputError(
                f"{path}: expected {what} column, found {_names(table) or 'none'}; "
                "name the columns as in 'wavelength [um],depth [ppm],sigma [ppm]'"
            )


def _spectral_unit(spelled: str) -> u.UnitBase | None:
    """A unit of length, wavenumber, frequency or energy, or None."""
    text = {"micron": "um", "microns": "um", "μm": "um", "µm": "um", "angstroms": "Angstrom", "a": "Angstrom"}.get(
        spelled.strip().lower(), spelled.strip().replace("cm^-1", "cm-1")
    )
    try:
        unit = u.Unit(text)
    except (ValueError, TypeError):
        lowered = {"hz": "Hz", "ghz": "GHz", "thz": "THz", "angstrom": "Angstrom", "ev": "eV"}
        if text.lower() not in lowered:
            return None
        unit = u.Unit(lowered[text.lower()])
    convertible = isinstance(unit, u.UnitBase) and unit.is_equivalent(u.um, equivalencies=u.spectral())
    return unit if convertible else None


def _axis(path: Path, columns: dict[str, Column]) -> tuple[np.ndarray, np.ndarray | None, str, str]:
    """([L] µm, [L] bin width in µm or None, unit found, where the width came from)."""
    main = columns.get("axis", columns.get("low"))
    assert main is not None
    unit = _unit_of_axis(path, main)

    def micron(values: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (np.where(values > 0, values, np.nan) * unit).to_value(u.um, equivalencies=u.spectral())

    def numbers(role: str) -> np.ndarray:
        column = columns[role]
        own = unit if column.unit is None else _unit_of_axis(path, column)
        return column.numbers(path) * own.to(unit)

    edges = {"low", "high"} <= set(columns)
    if edges:
        low, high = numbers("low"), numbers("high")
        centre = numbers("axis") if "axis" in columns else (low + high) / 2
        return micron(centre), np.abs(micron(high) - micron(low)), str(unit), "edges"
    centre = numbers("axis")
    for role, factor, label in (("width", 0.5, "full widths"), ("half", 1.0, "half widths")):
        if role in columns:
            half = np.abs(numbers(role)) * factor
            return micron(centre), np.abs(micron(centre + half) - micron(centre - half)), str(unit), label
    return micron(centre), None, str(unit), "spacing"


def _unit_of_axis(path: Path, column: Column) -> u.UnitBase:
    if column.unit is None:
        raise InputError(
            f"{path}: column {column.name[:60]!r}: expected a unit, found none; write '{column.name[:60]} [um]' in the "
            f"header or pass --units wavelength=um"
        )
    unit = _spectral_unit(column.unit)
    if unit is None:
        raise InputError(
            f"{path}: column {column.name[:60]!r}: expected a unit of length, wavenumber or frequency, "
            f"found {column.unit[:60]!r}; pass --units wavelength=um"
        )
    return unit


def _values(path: Path, columns: dict[str, Column]) -> tuple[np.ndarray, np.ndarray, str, str]:
    """([L] value, [L] σ) in ppm or as albedo, the unit found, and the kind the names suggest."""
    role = next(role for role in ("albedo", "depth", "ratio") if role in columns)
    column = columns[role]
    unit = column.unit if column.unit is not None else ("" if role != "depth" else None)
    if unit is None:
        raise InputError(
            f"{path}: column {column.name[:60]!r}: expected a unit (fraction, % or ppm), found none; write "
            f"'{column.name[:60]} [ppm]' in the header or pass --units depth=ppm"
        )
    factor = _depth_factor(path, column.name, unit)
    errors = [columns[name] for name in ("sigma",) if name in columns]
    errors = errors or [columns[name] for name in ("plus", "minus") if name in columns]
    scaled = []
    for error in errors:
        own = factor if error.unit is None else _depth_factor(path, error.name, error.unit)
        scaled.append(np.abs(error.numbers(path)) * own if len(errors) > 1 else error.numbers(path) * own)
    value, sigma = column.numbers(path) * factor, np.mean(scaled, axis=0)
    if role == "albedo":
        return value / 1e6, sigma / 1e6, unit or "1", "reflection"
    if role == "ratio":  # depth = ratio², so σ(depth) = 2 · ratio · σ(ratio)
        return value**2 / 1e6, 2 * value * sigma / 1e6, "radius ratio", "transmission"
    return value, sigma, unit or "1", "emission" if _normalised(column.name) in EMISSION_NAMES else "transmission"


def _depth_factor(path: Path, name: str, unit: str) -> float:
    spelled = unit.strip().lower()
    if re.fullmatch(r"0\.0*1|1e-0?\d|10\*\*-\d", spelled):  # FITS and VOUnit spell % and ppm as powers of ten
        return 1e6 * float(spelled.replace("10**", "1e"))
    if spelled not in DEPTH_UNITS:
        raise InputError(
            f"{path}: column {name[:60]!r}: expected fraction, % or ppm, found {unit[:60]!r}; pass --units depth=ppm"
        )
    return DEPTH_UNITS[spelled]


def _clean(
    path: Path, wavelength: np.ndarray, value: np.ndarray, sigma: np.ndarray, width: np.ndarray | None, limit: float
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, Any]]:
    """Drop and count unusable rows and copies, sort, merge equal wavelengths by inverse variance."""
    widths = np.ones_like(wavelength) if width is None else width
    usable = np.isfinite(wavelength) & np.isfinite(value) & np.isfinite(sigma) & np.isfinite(widths)
    dropped = {"nan": int((~usable).sum())}
    for reason, good in (
        ("sigma_not_positive", sigma > 0),
        ("width_not_positive", widths > 0),
        ("out_of_range", np.abs(value) < limit),
    ):
        dropped[reason] = int((usable & ~good).sum())
        usable &= good
    order = np.flatnonzero(usable)[np.argsort(wavelength[usable], kind="stable")]
    swapped = bool((np.diff(order) < 0).any())
    rows = np.stack([wavelength[order], value[order], sigma[order]], axis=1)
    _, first = np.unique(rows, axis=0, return_index=True)  # a row that was copied is one measurement, not two
    copies, order = len(order) - len(first), order[np.sort(first)]
    parts = wavelength[order], value[order], sigma[order], widths[order]
    starts = np.flatnonzero(np.append(True, np.diff(parts[0]) > 1e-9 * parts[0][1:])) if len(order) else order
    if len(starts) < 2:
        raise InputError(
            f"{path}: expected at least two usable rows, found {len(starts)} of {len(wavelength)} "
            f"({dropped['nan']} with missing values, {dropped['sigma_not_positive']} with uncertainty ≤ 0)"
        )
    weight = np.add.reduceat(parts[2] ** -2.0, starts)
    merged = np.add.reduceat(parts[1] * parts[2] ** -2.0, starts) / weight
    single = np.diff(np.append(starts, len(order))) == 1
    arrays = (
        parts[0][starts],
        np.where(single, parts[1][starts], merged),
        np.where(single, parts[2][starts], weight**-0.5),
        np.maximum.reduceat(parts[3], starts),
    )
    notes = {"rows": len(wavelength), "dropped": dropped, "copies_dropped": copies,
             "duplicates_merged": len(order) - len(starts), "sorted": swapped}  # fmt: skip
    return arrays, notes


def _plausible(path: Path, wavelength: np.ndarray, value: np.ndarray, limit: float) -> None:
    """Refuse what a wrong unit gives: wavelengths no telescope sees, or most values beyond the star's whole light."""
    (low, high), axis, typical = WAVELENGTH_RANGE, wavelength[np.isfinite(wavelength)], value[np.isfinite(value)]
    if len(axis) and (axis.min() < low or axis.max() > high):
        raise InputError(
            f"{path}: expected wavelengths of {low:g}…{high:g} µm, found {axis.min():.4g}…{axis.max():.4g}; "
            "is the unit right? --units wavelength=… overrides the file's"
        )
    if len(typical) and np.median(np.abs(typical)) >= limit:
        raise InputError(
            f"{path}: expected {'depths below 1e6 ppm' if limit == DEPTH_LIMIT else f'albedos below {limit:g}'}, found "
            f"{float(np.median(np.abs(typical))):.4g} as the median; is the unit right? --units depth=… overrides it"
        )


def _from_spacing(wavelength: np.ndarray) -> np.ndarray:
    middle = (wavelength[1:] + wavelength[:-1]) / 2
    first, last = 2 * wavelength[0] - middle[0], 2 * wavelength[-1] - middle[-1]
    return np.diff(np.concatenate([[first], middle, [last]]))


def _ecsv_unit(spelled: str) -> u.UnitBase:
    """The unit object that ECSV spells so; ppm is no unit of the standard, but the format keeps its name."""
    return {"um": u.um, "ppm": u.def_unit("ppm", 1e-6 * u.dimensionless_unscaled), "": u.dimensionless_unscaled}[
        spelled
    ]


def write_spectrum(spectrum: Spectrum, path: str | Path) -> None:
    """Write ECSV (by suffix) or CSV with units in the header; `read_spectrum` returns the same numbers."""
    target = Path(path)
    name, unit = ("albedo", "") if spectrum.kind == "reflection" else ("depth", "ppm")
    columns = {"wavelength": (spectrum.wavelength, "um"), "bin_width": (spectrum.bin_width, "um"),
               name: (spectrum.value, unit), "sigma": (spectrum.sigma, unit)}  # fmt: skip
    partial = target.with_name(f".{target.name}.partial")
    try:
        if target.suffix == ".ecsv":
            table = Table(meta={"kind": spectrum.kind})
            for key, (values, spelled) in columns.items():
                table.add_column(TableColumn(np.asarray(values, dtype=np.float64), name=key, unit=_ecsv_unit(spelled)))
            ascii.write(table, partial, format="ecsv", overwrite=True)
        else:
            header = ",".join(f"{key} [{spelled}]" if spelled else key for key, (_, spelled) in columns.items())
            rows = zip(*(values.tolist() for values, _ in columns.values()), strict=True)
            lines = [f"# kind: {spectrum.kind}", header, *(",".join(map(repr, row)) for row in rows)]
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
