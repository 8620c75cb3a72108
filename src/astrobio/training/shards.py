"""Tensors that ranks share, in safetensors files: each rank writes its rows, and any number of ranks reads them.

`NAME.safetensors` of one process, or `NAME.rank-00000.safetensors` … of several. A file's header says from which row on
its tensors belong in the whole ones. Tensors go to disk one at a time, so that no copy of all of them is ever held.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from astrobio.errors import InputError
from astrobio.training.eight_bit import local
from astrobio.training.ranks import rank, shard_place, world_size

WRAPPER = "_checkpoint_wrapped_module."  # what recomputation adds to the names of parameters
STARTS = "first_rows"  # key of a file's header: name → first row, for tensors that do not begin at row 0
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64",
    torch.int32: "I32", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def named_weights(system: nn.Module) -> dict[str, Tensor]:
    """Parameters by the names they have without recomputation; shared ones once, and the system has no buffers."""
    return {name.replace(WRAPPER, ""): parameter.data for name, parameter in system.named_parameters()}


def write_whole(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Gather each tensor from all ranks in turn; rank 0 writes them to one file. Every rank must call it."""
    shapes = _shapes(tensors)
    values = (_gathered(tensors[name]) for name in _order(shapes))
    try:
        if rank() == 0:
            _write(path, shapes, values)
    finally:
        for _ in values:  # the other ranks gather to the end, whatever happened to the file
            pass


def _gathered(value: Tensor) -> Tensor:
    if not isinstance(value, DTensor):
        return value
    device = torch.device(value.device_mesh.device_type)
    moved = value.to(device)
    assert isinstance(moved, DTensor)
    return moved.full_tensor()  # shards in host memory meet where the ranks' fast links are


def write_shards(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """This rank's rows of all tensors; tensors that every rank has whole are written by rank 0."""
    places = {key: shard_place(value) for key, value in tensors.items()}
    mine = {key: local(value) for key, value in tensors.items() if places[key][1]}
    if mine:
        file = name if world_size() == 1 else f"{name}.rank-{rank():05d}"
        starts = {key: places[key][0] for key in mine if places[key][0] > 0}
        shapes = _shapes(mine)
        _write(folder / f"{file}.safetensors", shapes, (mine[key] for key in _order(shapes)), starts)


def read_shards(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Fill this rank's rows of all tensors in place, whatever number of ranks wrote them.

    Raises:
        InputError: files that cannot be read, or that lack some rows or tensors.
    """
    files = [_open(path) for path in sorted([*folder.glob(f"{name}.safetensors"), *folder.glob(f"{name}.rank-*")])]
    for key, value in tensors.items():
        own = local(value)
        _fill(folder, files, key, own, shard_place(value)[0], tuple(value.shape))


def _fill(
    folder: Path, files: list[tuple[Any, set[str], dict[str, int]]], key: str, own: Tensor, start: int,
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    """Rows `start` … of one tensor from the files that hold some of them."""
    missing = own.shape[0] if own.ndim else 1
    for file, names, starts in files:
        if key not in names:
            continue
        stored = file.get_slice(key)
        found, begin = tuple(stored.get_shape()), starts.get(key, 0)
        if len(found) != len(shape) or found[1:] != shape[1:] or begin + sum(found[:1]) > sum(shape[:1]):
            raise InputError(f"{folder}: {key}: expected shape {shape}, found {found}; train anew")
        if own.ndim == 0:
            own.copy_(file.get_tensor(key))
            missing = 0
            continue
        low, high = max(start, begin), min(start + own.shape[0], begin + found[0])
        if low < high:
            own[low - start : high - start].copy_(stored[low - begin : high - begin])
            missing -= high - low
    if missing:
        raise InputError(f"{folder}: {key}: {missing} rows are missing; delete this folder to resume from an older one")


def _open(path: Path) -> tuple[Any, set[str], dict[str, int]]:
    try:
        file: Any = safe_open(path, framework="pt")
        return file, set(file.keys()), json.loads((file.metadata() or {}).get(STARTS, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        folder = path.parent
        raise InputError(f"{path}: unreadable ({error}); delete {folder} to resume from the one before") from None


Shapes = Mapping[str, tuple[torch.Size, torch.dtype]]


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _order(shapes: Shapes) -> list[str]:
    """Names with the largest numbers first, which keeps all of them aligned."""
    return sorted(shapes, key=lambda name: -shapes[name][1].itemsize)


def _write(path: Path, shapes: Shapes, values: Iterable[Tensor], starts: Mapping[str, int] | None = None) -> None:
    """Header, then the tensors one by one, in `_order`.

    Args:
        starts: first rows, of shards that do not begin at row 0.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"} | ({STARTS: json.dumps(starts)} if starts else {})}
    end = 0
    for name in _order(shapes):
        shape, dtype = shapes[name]
        begin, end = end, end + shape.numel() * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in values:
            file.write(_bytes(value))


def _bytes(value: Tensor) -> Any:
    flat = value.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).cpu().numpy().data if flat.numel() else b""
