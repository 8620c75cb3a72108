"""Rows in a file are the rows that were prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from astrobio.batch import Collator
from astrobio.errors import InputError
from astrobio.training.feed import Store, sweep
from astrobio.training.packed import load_store, save_store

CPU = torch.device("cpu")


@pytest.fixture
def store(worlds: dict[str, Any], collator: Collator) -> Store:
    return Store(worlds["train"], collator, CPU, "memory")  # worlds of two grids, some without text or spectrum


def test_loaded_rows_merge_into_the_same_batch(store: Store, collator: Collator, tmp_path: Path):
    save_store(store, tmp_path / "train.safetensors")
    loaded = load_store(Store(store.worlds, collator, CPU, "memory"), tmp_path / "train.safetensors")
    found, expected = (next(sweep(each, 12, batch_size=12)) for each in (loaded, store))
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if name == "graph":
            assert torch.equal(value.x, other.x) and torch.equal(value.edge_index, other.edge_index)
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, other) and value.dtype == other.dtype, name
        else:
            assert value == other, name
    assert [loaded[i].group for i in range(12)] == [store[i].group for i in range(12)]
    assert loaded[0].graph is loaded[0].graph


def test_half_precision_rounds_cubes_only(store: Store, collator: Collator, tmp_path: Path):
    save_store(store, tmp_path / "train.safetensors", half=True)
    loaded = load_store(Store(store.worlds, collator, CPU, "memory"), tmp_path / "train.safetensors")
    found, expected = (next(sweep(each, 12, batch_size=12)) for each in (loaded, store))
    assert torch.equal(found.climate, expected.climate.bfloat16().float())
    assert torch.equal(found.spectrum, expected.spectrum)


def test_files_of_other_worlds_are_refused(store: Store, worlds: dict[str, Any], collator: Collator, tmp_path: Path):
    path = tmp_path / "train.safetensors"
    with pytest.raises(InputError, match="expected prepared worlds"):
        load_store(store, path)
    save_store(store, path)
    with pytest.raises(InputError, match="expected 6 worlds, found 12"):
        load_store(Store(worlds["validation"], collator, CPU, "memory"), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="expected prepared worlds"):
        load_store(store, path)
