"""The files of a data set: pieces of 32 worlds a modality, each written whole or not at all, each with its hash.

    DIR/manifest.json            what was built, from what, how, with the hash of every piece
    DIR/organisms.npz            every metabolism once
    DIR/pieces.jsonl             one line a finished piece (the manifest takes them over at the end)
    DIR/worlds/00007.jsonl       texts, state, physics, provenance, metabolism and its growth temperature
    DIR/spectra/00007.zarr       wavelength, bin_width, value, sigma  [W, L]  float32
    DIR/climate/00007.zarr       fields [W, F, T, Y, X] as 12-bit integers, scaled by world and field

Dimension letters: W worlds of a piece, L spectral points, F fields (3 surface + 5 variables × 10 levels), T time steps,
P levels, Y latitudes, X longitudes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from astrobio.batch import LEVEL_VARIABLES, SURFACE_VARIABLES, ClimateCube, Sample, Spectrum
from astrobio.batch.statistics import HUMIDITY_FLOOR
from astrobio.dataset.shard import ShardedArray, open_array, read_json
from astrobio.errors import InputError

Piece = str  # one of `PIECES`
PIECES = ("worlds", "spectra", "climate")
STEPS = 4095  # 12 bits over each field's own range: rounding ≤ 1/8190 of it, e.g. 0.012 K over 100 K


def piece_path(root: Path, piece: Piece, shard: int) -> Path:
    return root / piece / f"{shard:05d}.{'jsonl' if piece == 'worlds' else 'zarr'}"


def hash_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files in the order of their names."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file())


def remove(path: Path) -> None:
    """Delete a file or folder that may or may not be there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True))


def write_text(path: Path, text: str) -> None:
    """Write text whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _publish(temporary: Path, path: Path) -> None:
    remove(path)
    os.replace(temporary, path)


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    remove(temporary)
    return temporary


def write_worlds(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """One JSON line a world."""
    temporary = _temporary(path)
    lines = [json.dumps(record, sort_keys=True, allow_nan=False) for record in records]
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _publish(temporary, path)


def record_of(sample: Sample, split: str, metabolism: str | None) -> dict[str, Any]:
    """What of a world goes into `worlds/`."""
    names = ("world_id", "context", "assessment", "state", "physics", "provenance")
    growth = None if sample.metabolism is None else sample.metabolism.growth_temperature
    known = {name: getattr(sample, name) for name in names}
    return known | {"split": split, "metabolism": metabolism, "growth_temperature": growth}


def _store(group: zarr.Group, name: str, data: np.ndarray) -> None:
    """One array in one file: a chunk a world, so that a reader takes only what it needs."""
    codec = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=data.dtype.itemsize)
    array = group.create_array(
        name, shape=data.shape, dtype=data.dtype, chunks=(1, *data.shape[1:]), shards=data.shape, compressors=codec
    )
    array[:] = data


def write_spectra(path: Path, spectra: Sequence[Spectrum]) -> None:
    """Spectra of one kind and length."""
    temporary = _temporary(path)
    group = zarr.create_group(temporary, attributes={"kind": spectra[0].kind})
    for name in ("wavelength", "bin_width", "value", "sigma"):
        _store(group, name, np.stack([getattr(s, name) for s in spectra]).astype(np.float32))
    _publish(temporary, path)


@dataclass(frozen=True)
class OpenPiece:
    """A piece opened for reading: its small arrays whole in memory, `fields` (of climates) still on disk."""

    attributes: dict[str, Any]
    arrays: dict[str, np.ndarray]
    fields: ShardedArray | None


def open_piece(path: Path) -> OpenPiece:
    """Open spectra or climates.

    Raises:
        OSError, KeyError, ValueError: not there, damaged, or not of the layout written here.
    """
    arrays = {member.name: open_array(member) for member in sorted(path.iterdir()) if member.is_dir()}
    fields = arrays.pop("fields", None)
    return OpenPiece(read_json(path)["attributes"], {name: array.whole() for name, array in arrays.items()}, fields)


def read_spectrum(piece: OpenPiece, row: int) -> Spectrum:
    """One spectrum of a piece."""
    names = ("wavelength", "bin_width", "value", "sigma")
    arrays = {name: piece.arrays[name][row].astype(np.float64) for name in names}
    return Spectrum(**arrays, kind=piece.attributes["kind"])


def write_climates(path: Path, cubes: Sequence[ClimateCube]) -> None:
    """Complete cubes of one shape; humidity is stored as its log10, floored at 1e-8 kg/kg."""
    temporary = _temporary(path)
    first = cubes[0]
    attributes = {
        "time_kind": first.time_kind, "latitude": first.latitude.tolist(), "longitude": first.longitude.tolist(),
    }  # fmt: skip
    group = zarr.create_group(temporary, attributes=attributes)
    quantised = [_quantise(cube) for cube in cubes]
    _store(group, "fields", np.stack([fields for fields, _, _ in quantised]))
    _store(group, "lowest", np.stack([lowest for _, lowest, _ in quantised]))
    _store(group, "step", np.stack([step for _, _, step in quantised]))
    _store(group, "levels", np.stack([cube.levels for cube in cubes]).astype(np.float64))
    _publish(temporary, path)


def _quantise(cube: ClimateCube) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cube → [F, T, Y, X] uint16 in 0…4095, [F] lowest value and [F] step, float32."""
    stack = np.concatenate([_stored(cube, name) for name in (*SURFACE_VARIABLES, *LEVEL_VARIABLES)])
    lowest, highest = stack.min(axis=(1, 2, 3)), stack.max(axis=(1, 2, 3))
    step = np.maximum((highest - lowest) / STEPS, 1e-12)
    scaled = (stack - lowest[:, None, None, None]) / step[:, None, None, None]
    return np.rint(scaled).astype(np.uint16), lowest.astype(np.float32), step.astype(np.float32)


def _stored(cube: ClimateCube, name: str) -> np.ndarray:
    """[levels of the variable, T, Y, X]"""
    if name not in cube.fields:
        raise InputError(f"climate: expected all of {(*SURFACE_VARIABLES, *LEVEL_VARIABLES)}, found no {name}")
    values = cube.fields[name].astype(np.float64).swapaxes(0, 1)  # [P, T, Y, X]
    return np.log10(np.maximum(values, HUMIDITY_FLOOR)) if name == "specific_humidity" else values


def read_climate(piece: OpenPiece, row: int) -> ClimateCube:
    """One cube of a piece."""
    assert piece.fields is not None, "a piece of climates has fields"
    lowest, step = (piece.arrays[name][row][:, None, None, None] for name in ("lowest", "step"))
    packed = piece.fields[row]
    stack = np.empty(packed.shape, np.float32)  # [F, T, Y, X]
    np.multiply(packed, step, out=stack)
    stack += lowest
    levels, first = piece.arrays["levels"][row], len(SURFACE_VARIABLES)
    parts = {name: first + place * len(levels) for place, name in enumerate(LEVEL_VARIABLES)}
    humidity = stack[parts["specific_humidity"] :][: len(levels)]
    np.power(np.float32(10.0), humidity, out=humidity)
    np.minimum(humidity, 1.0, out=humidity)  # rounding may lift pure steam beyond 1 kg/kg
    fields = {name: stack[place][:, None] for place, name in enumerate(SURFACE_VARIABLES)}
    fields |= {name: stack[start : start + len(levels)].swapaxes(0, 1) for name, start in parts.items()}  # [T, P, Y, X]
    axes = {name: np.asarray(piece.attributes[name], dtype=np.float64) for name in ("latitude", "longitude")}
    return ClimateCube(fields=fields, levels=levels, **axes, time_kind=piece.attributes["time_kind"])
