"""Shards: read as Zarr itself reads them, and refused where they are not what is written here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec

from astrobio.dataset.shard import ShardedArray, open_array
from astrobio.dataset.store import open_piece


def write(path: Path, data: np.ndarray, **options: object) -> Path:
    """An array as `dataset.store` writes it, unless `options` say otherwise."""
    codec = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=data.dtype.itemsize)
    layout = {"chunks": (1, *data.shape[1:]), "shards": data.shape, "compressors": codec} | options
    zarr.create_array(path, shape=data.shape, dtype=data.dtype, **layout)[:] = data  # pyright: ignore[reportArgumentType]
    return path


@pytest.mark.parametrize("piece", ["spectra", "climate"])
def test_pieces_are_read_as_zarr_reads_them(folder: Path, piece: str) -> None:
    for path in sorted((folder / piece).iterdir()):
        found, group = open_piece(path), zarr.open_group(path, mode="r")
        assert found.attributes == dict(group.attrs)
        for name, array in group.arrays():
            mine = found.arrays.get(name) if name != "fields" else found.fields
            assert mine is not None and len(mine) == array.shape[0]
            whole = mine.whole() if isinstance(mine, ShardedArray) else mine
            np.testing.assert_array_equal(whole, np.asarray(array[:]))
            assert whole.dtype == array.dtype


def test_chunks_alone_and_chunks_of_zeros(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 4096, (5, 3, 4)).astype(np.uint16)
    data[2] = 0  # Zarr does not store it
    array = open_array(write(tmp_path / "a", data))
    np.testing.assert_array_equal(np.stack([array[row] for row in range(5)]), data)
    np.testing.assert_array_equal(array.whole(), data)


def test_other_layouts_and_damage_are_refused(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32).reshape(4, 6)
    for name, options in {
        "unsharded": {"shards": None}, "gzip": {"compressors": GzipCodec()}, "pairs": {"chunks": (2, 6)},
    }.items():  # fmt: skip
        with pytest.raises(ValueError):
            open_array(write(tmp_path / name, data, **options))
    whole = write(tmp_path / "whole", data)
    for name, keep in {"cut": 40, "empty": 0}.items():
        shutil.copytree(whole, tmp_path / name)
        shard = tmp_path / name / "c" / "0" / "0"
        shard.write_bytes(shard.read_bytes()[:keep])
        with pytest.raises(ValueError):
            open_array(tmp_path / name)
    shifted = tmp_path / "shifted"
    shutil.copytree(whole, shifted)
    shard = shifted / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[30:])  # the index now points behind the chunks
    with pytest.raises(ValueError, match="beyond"):
        open_array(shifted)
    (shifted / "zarr.json").write_text(json.dumps({"shape": [4, 6]}))
    with pytest.raises(KeyError):
        open_array(shifted)
