"""What to take of gridded data: named variables, ranges by coordinate or by index; and how it is kept."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from astrobio.errors import InputError
from astrobio.sources.errors import PayloadError, SourceError

LARGEST = 2 * 2**30  # bytes of a selection once read
LARGEST_CHUNK = 2**29  # bytes of one compressed chunk, which libraries unpack whole


def select(dataset: xr.Dataset, selection: dict[str, str], where: str) -> xr.Dataset:
    """The named variables and ranges, still unread.

    Raises:
        SourceError: an unknown variable. InputError: an unknown dimension, a range that is not one, or a selection
            that is empty or larger than `LARGEST`.
    """
    names = [name for name in selection.pop("variables", "").split(",") if name]
    unknown = [name for name in names if name not in dataset.variables]
    if unknown:
        raise SourceError(
            f"{where}: expected variables among {sorted(map(str, dataset.data_vars))[:20]}, found {unknown}"
        )
    chosen = dataset[names] if names else dataset
    for name, text in selection.items():
        if name not in chosen.dims:
            raise InputError(f"{where}: expected a dimension among {sorted(map(str, chosen.dims))}, found {name!r}")
        chosen = _cut(chosen, name, text, where)
    empty = [str(name) for name, size in chosen.sizes.items() if size == 0]
    if empty:
        raise InputError(f"{where}: the selection along {empty} selects nothing; its coordinates lie elsewhere")
    if chosen.nbytes > LARGEST:
        raise InputError(
            f"{where}: the selection has {chosen.nbytes / 2**30:.1f} GiB, at most {LARGEST / 2**30:.0f}; narrow it"
        )
    return chosen


def _cut(dataset: xr.Dataset, name: str, text: str, where: str) -> xr.Dataset:
    by_index = text.startswith("@")
    low, colon, high = text.removeprefix("@").partition(":")
    try:
        if by_index:
            return dataset.isel({name: slice(int(low), int(high)) if colon else [int(low)]})
        if not colon:
            return dataset.sel({name: [_bound(low)]}, method="nearest")
        axis = dataset[name].values
        bounds = (_bound(low), _bound(high))
        if isinstance(bounds[0], float) and isinstance(bounds[1], float):
            bounds = (min(bounds), max(bounds))  # either way round: pressures fall with height
        return dataset.sel({name: slice(*(bounds if axis[0] <= axis[-1] else bounds[::-1]))})
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{where}: {name}={text!r} selects nothing ({str(error)[:100]})") from None


def _bound(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def write(dataset: xr.Dataset, target: Path, where: str) -> None:
    """Read the selection and keep it as netCDF; the name appears only when the file is whole."""
    loaded = dataset.load()
    if not loaded.data_vars:
        raise PayloadError(f"{where}: expected a gridded file with variables, found none")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    for variable in loaded.variables.values():
        variable.encoding = {
            k: v for k, v in variable.encoding.items() if k in ("units", "calendar", "_FillValue", "dtype")
        }
    loaded.to_netcdf(partial, engine="netcdf4")
    os.replace(partial, target)
