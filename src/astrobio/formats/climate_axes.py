"""What a climate file's dimensions mean: the horizontal grid, the time steps, the pressures of the levels.

Dimension letters: P levels, Y latitudes, X longitudes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cftime
import numpy as np
import xarray as xr

from astrobio.batch import TIME_KINDS
from astrobio.errors import InputError
from astrobio.formats.climate_names import HELPERS, LATITUDE, LONGITUDE, REALIZATION, TIME, Names, conversion
from astrobio.formats.regrid import canonical_levels, wrap_longitude

MAX_STEPS = 12  # longer series become a monthly climatology, or means over twelve equal stretches
_MONTH_DAYS = (26.0, 32.0)  # spacing of monthly means, days


def axis_of(data: xr.Dataset, dim: str) -> str:
    """What a dimension is: "latitude", "longitude", "time", "realization" or "level" (anything else)."""
    attributes = data[dim].attrs if dim in data.variables else {}
    standard, units = attributes.get("standard_name", ""), str(attributes.get("units", ""))
    for kind, names in (("latitude", LATITUDE), ("longitude", LONGITUDE), ("time", TIME), ("realization", REALIZATION)):
        if standard in names.standard or dim.lower() in names.aliases:
            return kind
    if units.startswith(("degrees_n", "degree_n")):
        return "latitude"
    if units.startswith(("degrees_e", "degree_e")):
        return "longitude"
    if attributes.get("axis") == "T" or " since " in units:
        return "time"
    return "level"


def dims_of(data: xr.Dataset, name: str, kind: str) -> list[str]:
    """The dimensions of a variable that are of this kind; levels of size 1 (such as `height`) don't count."""
    return [
        str(dim)
        for dim, size in data[name].sizes.items()
        if axis_of(data, str(dim)) == kind and (kind != "level" or size > 1)
    ]


def find(data: xr.Dataset, names: Names, *, levels: bool | None = None) -> str | None:
    """The variable called so, by standard_name first; with or without a vertical axis where that is asked for."""

    def fits(name: str) -> bool:
        return levels is None or bool(dims_of(data, name, "level")) == levels

    for standard in names.standard:
        for name, variable in data.variables.items():
            if variable.attrs.get("standard_name") == standard and fits(str(name)):
                return str(name)
    return next((n for n in (*names.standard, *names.aliases) if n in data.variables and fits(n)), None)


@dataclass(frozen=True)
class Horizontal:
    """A global rectilinear grid: dimension names, increasing axes in degrees and the order of the file's rows."""

    latitude_dim: str
    longitude_dim: str
    latitude: np.ndarray
    longitude: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def rotated(self, degrees: float) -> Horizontal:
        """The same grid with this longitude (in the current ones) moved to 0."""
        longitude = wrap_longitude(self.longitude - degrees)
        order = np.argsort(longitude)
        return replace(self, longitude=longitude[order], columns=self.columns[order])


def horizontal(path: Path, data: xr.Dataset, name: str) -> Horizontal:
    """The grid of a variable.

    Raises:
        InputError: no latitude or longitude axis (rotated poles and curvilinear grids have none), or not global.
    """
    dims = [dims_of(data, name, kind) for kind in ("latitude", "longitude")]
    if any(len(found) != 1 or found[0] not in data.variables for found in dims):
        raise InputError(
            f"{path}: {name}: expected one latitude and one longitude axis in degrees, found {data[name].dims}; "
            "regrid to regular latitudes and longitudes first"
        )
    latitude, longitude = (np.asarray(data[found[0]].values, dtype=np.float64) for found in dims)
    rows = np.argsort(latitude)
    wrapped, columns = np.unique(np.round(wrap_longitude(longitude), 6), return_index=True)  # 0 and 360 are one
    latitude = latitude[rows]
    spacing = float(np.diff(latitude).max()) if len(latitude) > 1 else 180.0
    gap = float(np.diff(np.append(wrapped, wrapped[0] + 360.0)).max())
    if latitude[0] > -90 + 1.5 * spacing or latitude[-1] < 90 - 1.5 * spacing or gap > 1.9 * 360 / len(wrapped):
        raise InputError(
            f"{path}: expected a global grid, found latitudes {latitude[0]:.4g}…{latitude[-1]:.4g} and longitudes "
            f"{wrapped[0]:.4g}…{wrapped[-1]:.4g}; give the whole sphere"
        )
    return Horizontal(dims[0][0], dims[1][0], latitude, wrapped, rows, columns)


@dataclass(frozen=True)
class Steps:
    """Which steps of the file's axis make each step of the cube, and what the axis is made of."""

    dim: str | None
    kind: str
    groups: tuple[np.ndarray, ...]
    read: int


def steps(data: xr.Dataset, name: str) -> Steps:
    """Choose the cube's time axis from a variable's realizations, else its times; at most `MAX_STEPS` steps."""
    for kind in ("realization", "time"):
        dims = dims_of(data, name, kind)
        if dims:
            dim, size = dims[0], data[name].sizes[dims[0]]
            label, months = _time_kind(data, dim, kind, size)
            return Steps(dim, label, _groups(size, months), size)
    return Steps(None, "realizations", (np.array([0]),), 1)


def _time_kind(data: xr.Dataset, dim: str, kind: str, size: int) -> tuple[str, np.ndarray | None]:
    """The kind of an axis and, where it runs over calendar dates, the month of every step."""
    stated = data.attrs.get("time_kind")
    if stated in TIME_KINDS:
        return str(stated), None
    if kind == "realization":
        return "realizations", None
    attributes = data[dim].attrs if dim in data.variables else {}
    if " since " in str(attributes.get("units", "")):
        months, spacing = _calendar(data[dim])
        monthly = months is not None and (size > MAX_STEPS or _MONTH_DAYS[0] <= spacing <= _MONTH_DAYS[1])
        return ("months", months) if monthly and months is not None and len(np.unique(months)) > 1 else ("epochs", None)
    if dim.lower().startswith("month") or "of_year" in str(attributes.get("standard_name", "")):
        return "months", None
    return ("phases" if dim.lower().startswith("phase") else "epochs"), None


def _calendar(axis: xr.DataArray) -> tuple[np.ndarray | None, float]:
    """([steps] month 1…12, median spacing in days) of a CF time axis in any calendar; None where undecodable."""
    try:
        calendar = str(axis.attrs.get("calendar", "standard"))
        dates = np.atleast_1d(cftime.num2date(axis.values, axis.attrs["units"], calendar))
    except (ValueError, OverflowError):
        return None, float("nan")
    days = np.array([(date - dates[0]).total_seconds() / 86_400 for date in dates])
    return np.array([date.month for date in dates]), float(np.median(np.diff(days))) if len(days) > 1 else float("nan")


def _groups(size: int, months: np.ndarray | None) -> tuple[np.ndarray, ...]:
    if size <= MAX_STEPS:
        return tuple(np.array([index]) for index in range(size))
    if months is not None:
        return tuple(np.flatnonzero(months == month) for month in np.unique(months))
    return tuple(np.array_split(np.arange(size), MAX_STEPS))


@dataclass(frozen=True)
class Vertical:
    """Pressures of the levels, surface first: p = a + b·ps, or a field of the file.

    Args:
        dim: the file's dimension. order: [P] its indices, surface first. kind: what the coordinate was.
        a: [P] Pa. b: [P] fraction of the surface pressure. field: variable of pressures, used instead of a and b.
    """

    dim: str
    kind: str
    order: np.ndarray
    a: np.ndarray
    b: np.ndarray
    field: str | None = None

    @property
    def isobaric(self) -> bool:
        """Whether the levels are the same pressures everywhere."""
        return self.field is None and not self.b.any()


def vertical(path: Path, data: xr.Dataset, name: str) -> Vertical:
    """The vertical axis of a variable: a pressure field, hybrid, sigma or pressure levels, or CLERO's levels.

    Raises:
        InputError: fewer than two levels, several candidates for the axis, or levels whose pressure is unknown.
    """
    dims = dims_of(data, name, "level")
    if len(dims) != 1:
        raise InputError(f"{path}: {name}: expected one vertical axis of two or more levels, found {data[name].dims}")
    dim, size = dims[0], data[name].sizes[dims[0]]
    field = find(data, HELPERS["air_pressure"], levels=True)
    if field is not None and field != dim and dim in data[field].dims:
        others = [d for d in data[field].dims if d != dim]
        profile = np.asarray(data[field].isel(dict.fromkeys(others, 0)).values)
        return Vertical(dim, "pressure field", np.argsort(-profile), np.zeros(size), np.zeros(size), field)
    kind, a, b = _coefficients(path, data, dim, size)
    order = np.argsort(-(a + b * 1e5), kind="stable")
    return Vertical(dim, kind, order, a[order], b[order])


def _coefficients(path: Path, data: xr.Dataset, dim: str, size: int) -> tuple[str, np.ndarray, np.ndarray]:
    zeros = np.zeros(size)
    coordinate = data[dim] if dim in data.variables else None
    hybrid = _hybrid(data, coordinate, size)
    if hybrid is not None:
        return hybrid
    if coordinate is not None:
        values = np.asarray(coordinate.values, dtype=np.float64)
        standard, units = str(coordinate.attrs.get("standard_name", "")), coordinate.attrs.get("units")
        if "sigma" in standard or (
            units in ("1", "", "sigma", "sigma_level") and values.min() > 0 and values.max() <= 1
        ):
            return "sigma", zeros, values
        if standard == "air_pressure" or _is_pressure(units):
            factor, _ = conversion(units, "Pa", f"{path}: {dim}")
            return "pressure", values * factor, zeros
    surface = _scalar(data, "P0")
    if size == 10 and surface is not None and surface < 1e3:  # CLERO states its surface pressure in bar
        return "clero", canonical_levels(surface * 1e5), zeros
    found = "no coordinate" if coordinate is None else f"{coordinate.attrs or 'no attributes'}"
    raise InputError(
        f"{path}: vertical axis {dim!r}: expected pressure, sigma or hybrid sigma-pressure levels, found {found}; "
        "interpolate to pressure levels or add an air_pressure field"
    )


def _hybrid(data: xr.Dataset, coordinate: xr.DataArray | None, size: int) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Coefficients from CF formula terms, or from CESM's names."""
    words = str(coordinate.attrs.get("formula_terms", "")).split() if coordinate is not None else []
    terms = {key.rstrip(":"): value for key, value in zip(words[::2], words[1::2], strict=False)}

    def term(key: str) -> np.ndarray | None:
        name = terms.get(key)
        return np.asarray(data[name].values, dtype=np.float64) if name in data.variables else None

    a, ap, b, sigma = term("a"), term("ap"), term("b"), term("sigma")
    if sigma is not None and sigma.shape == (size,) and "ps" in terms:
        top = term("ptop")
        return "sigma", (0.0 if top is None else float(top)) * (1 - sigma), sigma
    if not terms and {"hyam", "hybm"} <= set(data.variables):
        a, b = (np.asarray(data[name].values, dtype=np.float64) for name in ("hyam", "hybm"))
    if b is None or b.shape != (size,) or (a is None and ap is None) or "orog" in terms:
        return None
    if ap is not None:
        return "hybrid", ap, b
    assert a is not None
    reference = term("p0")
    if reference is None:
        reference = np.asarray(_scalar(data, "P0") or 1e5)
    return "hybrid", a * float(reference), b


def _is_pressure(units: object) -> bool:
    try:
        conversion(str(units) if units is not None else "?", "Pa", "")
    except InputError:
        return False
    return True


def _scalar(data: xr.Dataset, name: str) -> float | None:
    """A single number held as a variable or a global attribute."""
    value = data[name].values if name in data.variables else data.attrs.get(name)
    return float(np.asarray(value).reshape(-1)[0]) if value is not None and np.size(value) == 1 else None
