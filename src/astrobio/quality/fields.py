"""Climate files of any size, looked at slab by slab: ranges, gaps, dead fields, the energy budget.

Dimension letter: Y latitudes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from astrobio.batch.sample import CLIMATE_RANGES
from astrobio.errors import InputError
from astrobio.formats.climate_axes import axis_of, horizontal
from astrobio.formats.climate_names import HELPERS, VARIABLES, Names, conversion
from astrobio.quality.checks import MAD_TO_SIGMA, OUTLIER_SIGMAS, check_axis, check_energy_budget
from astrobio.quality.findings import Finding
from astrobio.quality.intake import Refused
from astrobio.quality.rules import finding

SLAB = 2**18  # values read at once
CHUNK_LIMIT = 2**29  # bytes of one compressed chunk, which libraries unpack whole
DECLARED_RATIO = 400  # declared to stored bytes; honest fields compress below 50
DECLARED_FREE = 2**28  # bytes that may be declared at any ratio
SAMPLED = 20_000  # values a field's median and spread are estimated from
MISSING_SHARE = 0.5
RANGES = {**CLIMATE_RANGES, "surface_air_pressure": (0.0, 1e9), "air_pressure": (0.0, 1e9)}
ASR, OLR = "toa_net_downward_shortwave_flux", "toa_outgoing_longwave_flux"


@dataclass
class FieldSummary:
    """What one pass over a variable tells, in the file's own unit. `by_latitude`: [Y] means, or None."""

    count: int = 0
    missing: int = 0
    infinite: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    low_at: tuple[int, ...] = ()
    high_at: tuple[int, ...] = ()
    median: float = float("nan")
    spread: float = float("nan")
    by_latitude: np.ndarray | None = None


def open_lazily(path: Path) -> xr.Dataset:
    """A dataset whose values are read only when asked for; times stay numbers."""
    if path.is_dir():
        return xr.open_zarr(path, consolidated=False, decode_times=False, chunks=None)
    return xr.open_dataset(path, engine="netcdf4", decode_times=False)


def guard_declared(path: Path, data: xr.Dataset, stored: int) -> int:
    """Bytes that a file declares to hold.

    Raises:
        Refused: far more than what is stored, or one chunk too large to unpack.
    """
    declared = 0
    for name, variable in data.variables.items():
        width = max(variable.dtype.itemsize, 1)
        declared += width * prod(variable.shape)
        chunk = width * prod(variable.encoding.get("chunksizes") or variable.encoding.get("chunks") or (1,))
        if chunk > CHUNK_LIMIT:
            raise Refused("FILE-004", str(name), f"expected chunks ≤ {CHUNK_LIMIT:,} bytes, found one of {chunk:,}")
    if declared > max(DECLARED_FREE, DECLARED_RATIO * stored):
        raise Refused(
            "FILE-004", path.name, f"expected contents near its {stored:,} bytes, found {declared:,} declared"
        )
    return declared


def slabs(shape: tuple[int, ...], chunks: tuple[int, ...] | None, limit: int = SLAB) -> Iterator[tuple[slice, ...]]:
    """Slices that cover an array in pieces of about `limit` values, along whole chunks where that is possible."""
    inner = prod(shape[1:])
    if not shape or prod(shape) <= limit:
        yield tuple(slice(0, n) for n in shape)
        return
    step = limit // max(inner, 1)
    if chunks and chunks[0] > 1 and chunks[0] * inner <= 8 * limit:
        step = max(chunks[0], step // chunks[0] * chunks[0])
    if step >= 1:
        for start in range(0, shape[0], step):
            yield slice(start, min(start + step, shape[0])), *(slice(0, n) for n in shape[1:])
        return
    for index in range(shape[0]):
        for rest in slabs(shape[1:], chunks[1:] if chunks else None, limit):
            yield slice(index, index + 1), *rest


def summarise(variable: xr.DataArray, latitude_dim: str | None) -> FieldSummary:
    """One pass over a numeric variable, at most a slab in memory."""
    out, kept = FieldSummary(), []
    axis = variable.dims.index(latitude_dim) if latitude_dim in variable.dims else None
    sums, counts = (np.zeros(variable.shape[axis]) if axis is not None else np.zeros(0) for _ in range(2))
    chunks = variable.encoding.get("chunksizes") or variable.encoding.get("chunks")
    stride = max(1, variable.size // SAMPLED)
    for piece in slabs(variable.shape, tuple(chunks) if chunks else None):
        values = np.asarray(variable[piece].values, dtype=np.float64)
        good = np.isfinite(values)
        out.count += values.size
        out.missing += int(np.isnan(values).sum())
        out.infinite += int(np.isinf(values).sum())
        if good.any():
            _extremes(out, np.where(good, values, np.nan), piece)
            kept.append(values[good][::stride].copy())  # a view would keep the whole slab
        if axis is not None:
            others = tuple(i for i in range(values.ndim) if i != axis)
            sums[piece[axis]] += np.where(good, values, 0.0).sum(axis=others)
            counts[piece[axis]] += good.sum(axis=others)
    if kept:
        sample = np.concatenate(kept)
        out.median = float(np.median(sample))
        out.spread = MAD_TO_SIGMA * float(np.median(np.abs(sample - out.median)))
    if axis is not None and (counts > 0).all():
        out.by_latitude = sums / counts
    return out


def _extremes(out: FieldSummary, values: np.ndarray, piece: tuple[slice, ...]) -> None:
    offset = [s.start for s in piece]
    for name, at, index in (("low", "low_at", np.nanargmin(values)), ("high", "high_at", np.nanargmax(values))):
        value = float(values.flat[index])
        better = value < out.low if name == "low" else value > out.high
        if better:
            local = np.unravel_index(int(index), values.shape)
            setattr(out, name, value)
            setattr(out, at, tuple(int(i) + o for i, o in zip(local, offset, strict=True)))


def quantity_of(name: str, variable: xr.DataArray) -> tuple[str, Names, bool] | None:
    """(canonical CF name, names, by standard name) of a file's variable, or None where it is something else."""
    standard = str(variable.attrs.get("standard_name", ""))
    known = {**VARIABLES, **{k: v for k, v in HELPERS.items() if k in RANGES}}
    for canonical, names in known.items():
        if standard in names.standard:
            return canonical, names, True
    for canonical, names in known.items():
        if not standard and name in names.aliases and variable.ndim >= 2:
            return canonical, names, False
    return None


def check_fields(path: Path, data: xr.Dataset) -> tuple[list[Finding], dict[str, Any]]:
    """Every axis and numeric variable of an open dataset, without loading it whole; findings and facts."""
    found: list[Finding] = []
    facts: dict[str, Any] = {"dimensions": {str(k): int(v) for k, v in data.sizes.items()}, "variables": {}}
    used = {d for n, v in data.data_vars.items() if quantity_of(str(n), v) for d in v.dims}
    for dim in data.sizes:
        if dim in data.variables and data[dim].ndim == 1:
            kind = axis_of(data, str(dim))
            for one in check_axis(str(dim), np.asarray(data[dim].values), kind):
                unused = dim not in used
                found.append(finding(one.rule, one.location, one.message, severity="warning") if unused else one)
    means: dict[str, np.ndarray] = {}
    for name, variable in data.data_vars.items():
        if variable.dtype.kind in "fiu" and variable.size:
            found += _check_variable(path, data, str(name), variable, facts, means)
    if ASR in means and OLR in means:
        asr, olr = float(means[ASR]), float(means[OLR])
        olr = abs(olr)  # ExoPlaSim and ECMWF count downwards
        facts["asr_w_m2"], facts["olr_w_m2"] = round(asr, 2), round(olr, 2)
        found += check_energy_budget(asr, olr)
    return found, facts


def _check_variable(
    path: Path, data: xr.Dataset, name: str, variable: xr.DataArray, facts: dict[str, Any], means: dict[str, Any]
) -> list[Finding]:
    latitude = next((str(d) for d in variable.dims if axis_of(data, str(d)) == "latitude"), None)
    summary = summarise(variable, latitude)
    units = variable.attrs.get("units")
    facts["variables"][name] = _shown(summary, units)
    found = _gaps(name, variable, summary)
    quantity = quantity_of(name, variable)
    if quantity is None or not np.isfinite(summary.low):
        return found
    canonical, names, certain = quantity
    try:
        factor, offset = conversion(None if units is None else str(units), names.unit, name)
    except InputError as error:
        return [*found, finding("CLIM-004", name, error)] if certain else found
    found += _in_range(canonical, name, variable, summary, factor, offset)
    if canonical in (ASR, OLR) and summary.by_latitude is not None and canonical not in means:
        mean = _global_mean(path, data, name, summary.by_latitude)
        if mean is not None:
            means[canonical] = mean * factor + offset
    return found


def _shown(summary: FieldSummary, units: object) -> dict[str, Any]:
    share = summary.missing / max(summary.count, 1)
    low, high = (v if np.isfinite(v) else None for v in (summary.low, summary.high))
    return {"units": None if units is None else str(units)[:60], "min": low, "max": high, "missing": round(share, 4)}


def _gaps(name: str, variable: xr.DataArray, summary: FieldSummary) -> list[Finding]:
    found = []
    if summary.infinite:
        message = f"expected finite values, found {summary.infinite} infinite of {summary.count}"
        found.append(finding("CLIM-005", name, message, count=summary.infinite))
    if summary.missing > MISSING_SHARE * summary.count:
        message = f"expected values, found {summary.missing} missing of {summary.count}"
        found.append(finding("CLIM-006", name, message, count=summary.missing))
    if variable.ndim >= 2 and summary.count > 1 and summary.low == summary.high and not summary.missing:
        found.append(finding("CLIM-010", name, f"expected varying values, found {summary.low:g} everywhere"))
    return found


def _in_range(
    canonical: str, name: str, variable: xr.DataArray, summary: FieldSummary, factor: float, offset: float
) -> list[Finding]:
    low, high = RANGES[canonical]
    if canonical == OLR and summary.high <= 0:  # counted downwards
        low, high = -high, -low
    found = []
    for value, at in ((summary.low, summary.low_at), (summary.high, summary.high_at)):
        physical = value * factor + offset
        where = f"{name}[{', '.join(f'{d}={i}' for d, i in zip(variable.dims, at, strict=True))}]"
        if not low <= physical <= high:
            message = f"{canonical}: expected {low:g}…{high:g}, found {physical:g}"
            found.append(finding("CLIM-003", where, message))
        elif summary.spread > 0 and abs(value - summary.median) > OUTLIER_SIGMAS * summary.spread:
            far = abs(value - summary.median) / summary.spread
            message = f"expected values near {summary.median:.4g}, found {value:.4g}, {far:.0f} robust deviations away"
            found.append(finding("CLIM-009", where, message))
    return found


def _global_mean(path: Path, data: xr.Dataset, name: str, by_latitude: np.ndarray) -> float | None:
    """Area-weighted mean; None where the grid isn't a global one."""
    try:
        grid = horizontal(path, data, name)
    except InputError:
        return None
    edges = np.concatenate([[-90.0], (grid.latitude[1:] + grid.latitude[:-1]) / 2, [90.0]])
    return float(np.average(by_latitude[grid.rows], weights=np.diff(np.sin(np.deg2rad(edges)))))
