"""Reading a sharded Zarr v3 array chunk by chunk, without Zarr's event loop, which costs more than the decompression.

Only the layout that `dataset.store` writes is read: little-endian numbers, one chunk a world, one shard a file with its
index at the end, Blosc. https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/v1.0.html
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without stubs

MISSING = 2**64 - 1  # offset of a chunk that holds the fill value only
CHECKSUM = 4  # bytes of CRC-32C behind the index
LAYOUT = ["sharding_indexed", "bytes", "blosc", "bytes", "crc32c"]  # codecs outside, within, and of the index


def read_json(path: Path) -> dict[str, Any]:
    """Metadata of a group or an array.

    Raises:
        OSError, ValueError: none there, or not JSON.
    """
    return json.loads(path.joinpath("zarr.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class ShardedArray:
    """A [W, …] array on disk.

    Args:
        file: the shard. shape: of a chunk without its first axis, of length one. index: [W, 2] offset and length of
            each chunk in bytes.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> np.ndarray:
        """One chunk.

        Raises:
            OSError, ValueError: not there any more, or damaged.
        """
        offset, length = (int(number) for number in self.index[row])
        if offset == MISSING:
            return np.zeros(self.shape, self.dtype)
        descriptor = os.open(self.file, os.O_RDONLY)
        try:
            return self._decoded(os.pread(descriptor, length, offset))
        finally:
            os.close(descriptor)

    def whole(self) -> np.ndarray:
        """[W, …] all chunks by one read."""
        data = memoryview(self.file.read_bytes())
        out = np.zeros((len(self), *self.shape), self.dtype)
        for row, (offset, length) in enumerate(self.index.tolist()):
            if offset != MISSING:
                out[row] = self._decoded(data[offset : offset + length])
        return out

    def _decoded(self, data: bytes | memoryview) -> np.ndarray:
        out = np.empty(self.shape, self.dtype)
        if int.from_bytes(data[4:8], "little") != out.nbytes:  # Blosc's header says how much comes out
            raise ValueError(f"{self.file}: expected a chunk of {out.nbytes} bytes")
        try:
            blosc.decompress(data, out)
        except RuntimeError as error:
            raise ValueError(f"{self.file}: {error}") from error
        return out


def open_array(path: Path) -> ShardedArray:
    """Open an array for reading; only its metadata and index are read.

    Raises:
        OSError, KeyError, ValueError: not there, damaged, or of another layout.
    """
    meta = read_json(path)
    (shards,) = meta["codecs"]
    inner = shards["configuration"]
    found = [shards["name"], *(codec["name"] for codec in (*inner["codecs"], *inner["index_codecs"]))]
    rows, *shape = meta["shape"]
    if found != LAYOUT or inner["chunk_shape"] != [1, *shape] or inner["index_location"] != "end" or meta["fill_value"]:
        raise ValueError(f"{path}: expected one chunk a world in one shard, found {meta['codecs']}")
    file = path.joinpath("c", *["0"] * len(meta["shape"]))
    size = 16 * rows
    with file.open("rb") as stream:
        total = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, total - size - CHECKSUM))
        index = np.frombuffer(stream.read(size), dtype="<u8").reshape(rows, 2)
    stored = index[index[:, 0] != MISSING]
    if len(stored) and stored.astype(float).sum(axis=1).max() > total - size - CHECKSUM:
        raise ValueError(f"{path}: the index points beyond the file")
    dtype = np.dtype(meta["data_type"]).newbyteorder("<")
    if dtype.itemsize * math.prod(shape) >= 2**31:
        raise ValueError(f"{path}: a chunk of {shape} is too large")
    return ShardedArray(file, tuple(shape), dtype, index)
