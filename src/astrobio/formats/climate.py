"""Climate files of any model ↔ `ClimateCube`.

`read_climate` takes CF netCDF or Zarr (ExoPlaSim, CMIP, CESM/ExoCAM, reanalyses, CLERO's fields), finds variables by
standard name or alias, converts units, understands pressure, sigma and hybrid levels, normalises the axes to the
contract's convention and regrids to the canonical grid. `write_climate` writes CF netCDF.

Dimension letters: T time steps, P levels, Y latitudes, X longitudes.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from astrobio.batch import CLIMATE_VARIABLES, SURFACE_VARIABLES, ClimateCube
from astrobio.errors import InputError
from astrobio.formats.climate_axes import Horizontal, Steps, Vertical, dims_of, find, horizontal, steps, vertical
from astrobio.formats.climate_names import HELPERS, VARIABLES, conversion
from astrobio.formats.regrid import (
    BOTTOM_FRACTION,
    LATITUDE,
    LONGITUDE,
    SIGMA_LEVELS,
    canonical_levels,
    first_harmonic,
    to_canonical,
    to_pressures,
    wrap_longitude,
)
from astrobio.formats.zarr_metadata import guard_store

__all__ = ["LATITUDE", "LONGITUDE", "SIGMA_LEVELS", "canonical_levels", "load_climate", "read_climate", "write_climate"]

REQUIRED = ("surface_temperature", "air_temperature")
LOCKED_STRENGTH = 0.4  # first zonal harmonic of mean starlight: 0.78 locked, 0.01 Earth (measured on ExoPlaSim runs)
SNAP = 6.0  # degrees, one T21 cell: clouds shift the absorbed light this much, while models put the star at 0 or 180
_BLOCK = 2**22  # values read at once
_CLERO_LEVELS = ("temperature", "specific_humidity", "cloud_fraction", "u", "v")
_SHORT_NAMES: dict[str, str] = dict(
    zip(CLIMATE_VARIABLES, ("ts", "rst", "rlut", "ta", "hus", "cl", "ua", "va"), strict=True)
)
_TIME_DIMS = {"realizations": "realization", "months": "month", "phases": "phase", "epochs": "epoch"}


Paths = str | Path | Sequence[str | Path]


def read_climate(path: Paths, *, substellar_longitude: float | None = None) -> ClimateCube:
    """Read a climate file as a cube on the canonical grid; see `load_climate`."""
    return load_climate(path, substellar_longitude=substellar_longitude)[0]


def load_climate(path: Paths, *, substellar_longitude: float | None = None) -> tuple[ClimateCube, dict[str, Any]]:
    """Read a climate file as a cube [8 variables, T ≤ 12, 10 levels, 32, 64] and say what was done.

    Args:
        path: netCDF (also .xz or .gz) or Zarr; several where an archive keeps each variable apart (CMIP).
        substellar_longitude: degrees in the file's longitudes, moved to 0; None: found from the starlight where the
            planet is tidally locked, else longitudes stay.

    Returns:
        The cube, and notes: variables used and absent, steps read, level coordinate, longitude shift, assumptions.

    Raises:
        InputError: unreadable or truncated file, missing surface or air temperature, NaN, unknown unit or axis; several
            files on different axes.
    """
    sources = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    if not sources:
        raise InputError("climate: expected at least one file, found none")
    source = sources[0]
    with ExitStack() as stack:
        data = _together(sources, [stack.enter_context(_opened(one)) for one in sources])
        try:
            reader = _reader(source, data)
            reader = reader.rotated(reader.substellar() if substellar_longitude is None else substellar_longitude)
            cube = reader.cube()
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{source}: expected a whole file, found unreadable data ({error}); copy it anew"
            ) from error
    return cube, reader.notes


def _together(paths: list[Path], parts: list[xr.Dataset]) -> xr.Dataset:
    """The variables of all files; what several files hold (bounds, cell areas) is the first one's."""
    if len(parts) == 1:
        return parts[0]
    try:
        return xr.merge(parts, join="exact", compat="override", combine_attrs="override")
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{', '.join(path.name for path in paths)}: expected files on the same axes, found others ({reason}); "
            "give one period on one grid"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[xr.Dataset]:
    """Open netCDF, compressed netCDF or Zarr without decoding times."""
    if not path.exists():
        raise InputError(f"{path}: expected a climate file, found nothing there; check the path")
    if path.is_dir():
        guard_store(path)
    with tempfile.TemporaryDirectory(prefix="astrobio-") as folder:
        try:
            with warnings.catch_warnings():  # a NaN fill value of packed integers marks nothing and is harmless
                warnings.filterwarnings(
                    "ignore", "variable .* has non-conforming '_FillValue'", xr.SerializationWarning
                )
                data = _open(path, Path(folder))
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, lzma.LZMAError) as error:
            reason = " ".join(str(error).replace(f": '{path}'", "").split())[:200]
            raise InputError(
                f"{path}: expected a whole netCDF file or Zarr store, found something unreadable ({reason}); "
                "copy it anew or convert it to netCDF"
            ) from error
        with data:
            yield _with_stacked_levels(data)


def _open(path: Path, folder: Path) -> xr.Dataset:
    if path.is_dir():
        return xr.open_zarr(path, consolidated=False, decode_times=False, chunks=None)
    return xr.open_dataset(_decompressed(path, folder), engine="netcdf4", decode_times=False)


def _decompressed(path: Path, folder: Path) -> Path:
    openers = {".xz": lzma.open, ".gz": gzip.open}
    if path.suffix not in openers:
        return path
    target = folder / path.stem
    with openers[path.suffix](path, "rb") as packed, open(target, "wb") as plain:
        shutil.copyfileobj(packed, plain)
    return target


def _with_stacked_levels(data: xr.Dataset) -> xr.Dataset:
    """CLERO's dictionaries hold one field a level (`u_0` … `u_9`): join them."""
    for base in _CLERO_LEVELS:
        parts = sorted((name for name in data.data_vars if _is_level_of(str(name), base)), key=_level_number)
        if len(parts) > 1 and base not in data.variables:
            data = data.assign({base: xr.concat([data[name] for name in parts], dim="level", coords="minimal")})
    return data


def _is_level_of(name: str, base: str) -> bool:
    return name.startswith(f"{base}_") and name[len(base) + 1 :].isdigit()


def _level_number(name: Any) -> int:
    return int(str(name).rsplit("_", 1)[1])


def _reader(path: Path, data: xr.Dataset) -> _Reader:
    """Settle which variables and axes the file has."""
    terms: dict[str, tuple[tuple[float, str, str], ...]] = {}
    for name, names in VARIABLES.items():
        found = find(data, names, levels=name not in SURFACE_VARIABLES)
        if found is not None:
            terms[name] = ((1.0, found, names.unit),)
    down, up = (find(data, HELPERS[f"toa_{way}_shortwave_flux"], levels=False) for way in ("incoming", "outgoing"))
    if "toa_net_downward_shortwave_flux" not in terms and down and up:
        terms["toa_net_downward_shortwave_flux"] = ((1.0, down, "W m-2"), (-1.0, up, "W m-2"))
    for name in REQUIRED:
        if name not in terms:
            raise _missing(path, data, name)
    main = terms["air_temperature"][0][1]
    surface = find(data, HELPERS["surface_air_pressure"], levels=False)
    reader = _Reader(
        path, data, terms, surface, horizontal(path, data, main), steps(data, main), vertical(path, data, main)
    )
    if surface is None and reader.column.b.any():
        raise InputError(
            f"{path}: expected surface_air_pressure beside {reader.column.kind} levels, found none; add it (ps, Pa)"
        )
    return reader


def _missing(path: Path, data: xr.Dataset, name: str) -> InputError:
    """What to say of a file without a variable that a cube needs."""
    axes = "axes time, latitude, longitude" + (" and levels" if name == "air_temperature" else "")
    other = find(data, VARIABLES[name])
    if other is not None:
        return InputError(
            f"{path}: {name}: expected {axes}, found {other!r} with {', '.join(map(str, data[other].dims)) or 'none'}; "
            "give the whole field on latitudes and longitudes in degrees"
        )
    found = ", ".join(sorted(map(str, data.data_vars)))[:400] or "no variables"
    return InputError(
        f"{path}: expected surface_temperature and air_temperature at least, found no {name} among {found}; add it, "
        f"with that standard_name or named {VARIABLES[name].aliases[0]}"
    )


@dataclass(frozen=True)
class _Reader:
    """An open file whose axes are known; fields are read one step of the cube at a time.

    `terms` holds for each variable of the contract the signed sum of file variables that makes it, with its unit.
    """

    path: Path
    data: xr.Dataset
    terms: dict[str, tuple[tuple[float, str, str], ...]]
    surface: str | None
    grid: Horizontal
    time: Steps
    column: Vertical
    notes: dict[str, Any] = field(default_factory=dict)

    def rotated(self, degrees: float) -> _Reader:
        """The same file with this longitude moved to 0."""
        self.notes["longitude_shift"] = round(float(degrees), 3)
        return replace(self, grid=self.grid.rotated(degrees))

    def substellar(self) -> float:
        """Where the star stands, if it stands still: from the incoming, else the absorbed starlight."""
        if "substellar_longitude" in self.data.attrs:
            return float(self.data.attrs["substellar_longitude"])
        incoming = find(self.data, HELPERS["toa_incoming_shortwave_flux"], levels=False)
        terms = self.terms.get("toa_net_downward_shortwave_flux")
        if incoming is not None:
            terms = ((1.0, incoming, "W m-2"),)
        if terms is None:
            return 0.0
        light = np.mean([self._sum(terms, step) for step in range(len(self.time.groups))], axis=0)
        degrees, strength = first_harmonic(light, self.grid.latitude, self.grid.longitude)
        self.notes["tidally_locked"] = strength > LOCKED_STRENGTH
        if strength <= LOCKED_STRENGTH:
            return 0.0
        centre = 0.0 if abs(degrees) < 90 else 180.0
        return centre if abs(wrap_longitude(np.array(degrees - centre))) <= SNAP else degrees

    def cube(self) -> ClimateCube:
        """Read, check, interpolate and assemble everything."""
        pressure = self._mean_surface_pressure()
        levels = self._levels(pressure)
        times = [self._step(index, levels) for index in range(len(self.time.groups))]
        fields = {name: np.stack([step[name] for step in times]).astype(np.float32) for name in times[0]}
        for name, low in (("specific_humidity", 0.0), ("cloud_area_fraction_in_atmosphere_layer", 0.0)):
            if name in fields:  # spectral models ring slightly below zero, rounding goes slightly above one
                fields[name] = np.where(fields[name] > -0.01, np.clip(fields[name], low, None), fields[name])
        self.notes.update(
            variables={name: " − ".join(term[1] for term in terms) for name, terms in self.terms.items()},
            absent=[name for name in CLIMATE_VARIABLES if name not in self.terms],
            steps_read=self.time.read,
            time_kind=self.time.kind,
            level_coordinate=self.column.kind,
            surface_pressure_pa=None if pressure is None else round(pressure, 1),
        )
        try:
            return ClimateCube(fields, levels, LATITUDE.copy(), LONGITUDE.copy(), self.time.kind)  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(f"{self.path}: {error}; check the file's units") from error

    def _step(self, index: int, levels: np.ndarray) -> dict[str, np.ndarray]:
        """One step of every variable on the canonical grid: name → [P or 1, 32, 64]."""
        pressure = self._pressure(index)
        out = {}
        for name in CLIMATE_VARIABLES:
            if name not in self.terms:
                continue
            native = self._sum(self.terms[name], index)
            if name in SURFACE_VARIABLES:
                self._finite(native, name, index)
                sign = -1.0 if name == "toa_outgoing_longwave_flux" and native.mean() < 0 else 1.0
                native = sign * native[None]  # [1, Y, X]
            else:
                native = self._above_ground(native, pressure, index)
                self._finite(native, name, index)
                if not (self.column.isobaric and np.array_equal(pressure, levels)):
                    native = to_pressures(native, pressure, levels)
            out[name] = to_canonical(native, self.grid.latitude, self.grid.longitude)
        return out

    def _sum(self, terms: tuple[tuple[float, str, str], ...], index: int) -> np.ndarray:
        return np.sum([sign * self._native(name, unit, index) for sign, name, unit in terms], axis=0)

    def _native(self, name: str, unit: str, index: int) -> np.ndarray:
        """A file variable averaged over one step of the cube, in contract unit and order: [P, Y, X] or [Y, X]."""
        variable = self.data[name]
        spelled = variable.attrs.get("units")
        if spelled is None and name not in self.notes.setdefault("units_assumed", {}):
            self.notes["units_assumed"][name] = unit
        factor, offset = conversion(spelled, unit, f"{self.path}: {name}")
        values = _mean(variable, self.time.dim, self.time.groups[index], self._kept(name))
        levels = [self.column.dim] if self.column.dim in variable.dims else []
        values = values.transpose(*levels, self.grid.latitude_dim, self.grid.longitude_dim).values
        if levels:
            values = values[self.column.order]
        return values[..., self.grid.rows, :][..., self.grid.columns] * factor + offset

    def _kept(self, name: str) -> set[str]:
        kept = {self.column.dim, self.grid.latitude_dim, self.grid.longitude_dim}
        lost = {self.grid.latitude_dim, self.grid.longitude_dim} - set(self.data[name].dims)
        extra = [d for d in dims_of(self.data, name, "level") if d != self.column.dim]
        if lost or extra:
            raise InputError(
                f"{self.path}: {name}: expected the axes of air_temperature ({', '.join(sorted(kept))}), "
                f"found {self.data[name].dims}; put all variables on one grid"
            )
        return kept

    def _pressure(self, index: int) -> np.ndarray:
        """[P] or [P, Y, X] Pa, surface first."""
        if self.column.field is not None:
            dims = self.data[self.column.field].dims
            if self.grid.latitude_dim in dims:
                return self._native(self.column.field, "Pa", index)
            factor, _ = conversion(self.data[self.column.field].attrs.get("units"), "Pa", f"{self.path}: air_pressure")
            return self.data[self.column.field].values.reshape(-1)[self.column.order].astype(np.float64) * factor
        if self.column.isobaric:
            return self.column.a
        assert self.surface is not None
        ground = self._native(self.surface, "Pa", index)
        return self.column.a[:, None, None] + self.column.b[:, None, None] * ground

    def _mean_surface_pressure(self) -> float | None:
        """Pa, mean over the sphere and the steps; None where the file doesn't say."""
        if self.surface is None:
            return None
        mean = np.mean([self._native(self.surface, "Pa", i).mean(axis=1) for i in range(len(self.time.groups))], axis=0)
        return float(np.average(mean, weights=np.cos(np.deg2rad(self.grid.latitude)) + 1e-9))

    def _levels(self, surface: float | None) -> np.ndarray:
        """The cube's isobars; a file that is already on canonical ones keeps them."""
        lowest = float(np.mean(self._pressure(0)[0]))
        if self.column.isobaric and len(self.column.a) == len(SIGMA_LEVELS):
            own = canonical_levels(lowest / BOTTOM_FRACTION)
            if np.allclose(own, self.column.a, rtol=1e-4):
                return self.column.a
        if surface is None:
            self.notes["surface_pressure"] = "absent: the lowest level stands for it"
        return canonical_levels(lowest if surface is None else surface)

    def _above_ground(self, native: np.ndarray, pressure: np.ndarray, index: int) -> np.ndarray:
        """Fill cells of isobars that lie below the ground (masked by most archives) from the level above."""
        if self.surface is None or not self.column.isobaric or np.isfinite(native).all():
            return native
        ground = self._native(self.surface, "Pa", index)
        buried = ~np.isfinite(native) & (pressure[:, None, None] > ground)
        self.notes["below_ground_cells_filled"] = int(buried.sum())
        filled = native.copy()
        for level in range(len(filled) - 2, -1, -1):
            filled[level] = np.where(buried[level], filled[level + 1], filled[level])
        return filled

    def _finite(self, native: np.ndarray, name: str, index: int) -> None:
        bad = ~np.isfinite(native)
        if not bad.any():
            return
        first = np.unravel_index(int(bad.argmax()), bad.shape)
        where = f"step {index}" + (f", level {first[0]} from the surface" if native.ndim == 3 else "")
        raise InputError(
            f"{self.path}: {name} ({self.terms[name][0][1]}): expected finite values, found {int(bad.sum())} NaN or "
            f"infinite of {bad.size}, the first at {where}, latitude {self.grid.latitude[first[-2]]:.2f}, longitude "
            f"{self.grid.longitude[first[-1]]:.2f}; fill or remove them"
        )


def _mean(variable: xr.DataArray, dim: str | None, group: np.ndarray, kept: set[str]) -> xr.DataArray:
    """Average over a group of steps, read in blocks, and over every axis that isn't kept; NaN stays NaN."""
    if dim is not None and dim in variable.dims:
        size = max(1, variable.size // variable.sizes[dim])
        parts = np.array_split(group, max(1, len(group) * size // _BLOCK))
        sums = [variable.isel({dim: part}).astype(np.float64).sum(dim, skipna=False) for part in parts if len(part)]
        variable = sum(sums[1:], sums[0]) / len(group)
    rest = [other for other in variable.dims if other not in kept]
    return variable.astype(np.float64).mean(rest, skipna=False) if rest else variable.astype(np.float64)


def write_climate(cube: ClimateCube, path: str | Path) -> None:
    """Write a cube as CF-1.8 netCDF; `read_climate` returns the same values if it is on the canonical grid."""
    target = Path(path)
    if target.suffix not in (".nc", ".nc4"):
        raise InputError(f"{target}: expected a name ending in .nc, found {target.suffix or 'no suffix'}; rename it")
    partial = target.with_name(f".{target.name}.partial")
    try:
        _dataset(cube).to_netcdf(partial, engine="netcdf4")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _dataset(cube: ClimateCube) -> xr.Dataset:
    time = _TIME_DIMS[cube.time_kind]
    count = cube.shape[1]
    labels = {"long_name": f"{time} of the cube", "units": "1"}
    if time == "realization":
        labels["standard_name"] = "realization"
    coordinates = {
        time: (time, np.arange(1, count + 1, dtype=np.int32), labels),
        "plev": ("plev", cube.levels, _axis("air_pressure", "Pa", "Z", positive="down", long_name="pressure")),
        "lat": ("lat", cube.latitude, _axis("latitude", "degrees_north", "Y", long_name="latitude")),
        "lon": ("lon", cube.longitude, _axis("longitude", "degrees_east", "X", long_name="longitude")),
    }
    fields = {}
    for name, values in cube.fields.items():
        attributes = {"standard_name": name, "units": VARIABLES[name].unit, "long_name": name.replace("_", " ")}
        if name in SURFACE_VARIABLES:
            fields[_SHORT_NAMES[name]] = ((time, "lat", "lon"), values[:, 0], attributes)
        else:
            fields[_SHORT_NAMES[name]] = ((time, "plev", "lat", "lon"), values, attributes)
    about = {
        "Conventions": "CF-1.8",
        "title": "Climate cube",
        "source": "astrobio",
        "time_kind": cube.time_kind,
        "substellar_longitude": 0.0,
        "comment": "the substellar point of a tidally locked planet is at longitude 0",
    }
    encoding = {name: {"zlib": True, "complevel": 4, "_FillValue": None} for name in fields}
    data = xr.Dataset(fields, coordinates, about)
    for name in data.variables:
        data[name].encoding = encoding.get(str(name), {"_FillValue": None})
    return data


def _axis(standard_name: str, units: str, axis: str, **more: str) -> dict[str, str]:
    return {"standard_name": standard_name, "units": units, "axis": axis, **more}
