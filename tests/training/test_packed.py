"""Rows in a file are the rows that were prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from astrobio.batch import Collator, Statistics
from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.errors import InputError
from astrobio.training import packed
from astrobio.training.checkpoint import read_run
from astrobio.training.config import RunConfig
from astrobio.training.feed import Store, sweep
from astrobio.training.loop import prepare_run
from astrobio.training.packed import load_store, parts_of, prepare_parts, save_rows

CPU = torch.device("cpu")


@pytest.fixture
def store(worlds: dict[str, Any], collator: Collator) -> Store:
    return Store(worlds["train"], collator, CPU, "memory")  # worlds of two grids, some without text or spectrum


def test_loaded_rows_merge_into_the_same_batch(store: Store, collator: Collator, tmp_path: Path):
    save_rows([store[index] for index in range(len(store))], tmp_path / "train.safetensors")
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
    save_rows([store[index] for index in range(len(store))], tmp_path / "train.safetensors", half=True)
    loaded = load_store(Store(store.worlds, collator, CPU, "memory"), tmp_path / "train.safetensors")
    found, expected = (next(sweep(each, 12, batch_size=12)) for each in (loaded, store))
    assert torch.equal(found.climate, expected.climate.bfloat16().float())
    assert torch.equal(found.spectrum, expected.spectrum)


def test_files_of_other_worlds_are_refused(store: Store, worlds: dict[str, Any], collator: Collator, tmp_path: Path):
    path = tmp_path / "train.safetensors"
    with pytest.raises(InputError, match="expected prepared worlds"):
        load_store(store, path)
    save_rows([store[index] for index in range(len(store))], path)
    with pytest.raises(InputError, match="expected 6 worlds, found 12"):
        load_store(Store(worlds["validation"], collator, CPU, "memory"), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="expected prepared worlds"):
        load_store(store, path)


def test_a_split_prepared_in_parts_loads_as_one_and_is_kept(
    worlds: dict[str, Any], tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packed, "WorldDataset", lambda data, split: worlds[split])
    monkeypatch.setattr(packed, "PART", 5)
    packed.open_worlds.cache_clear()
    packed._collator.cache_clear()
    prepare_run(tiny_run, "data", tmp_path / "like", Console(quiet=True))
    parts = parts_of(tmp_path / "like", Path("data"), "train", tmp_path / "parts", half=False)
    files = prepare_parts(parts, processes=1)
    assert [path.name for path in files] == [f"train-{k:05d}.safetensors" for k in range(3)]
    _, tokenizer, statistics = read_run(tmp_path / "like")
    whole = Store(worlds["train"], Collator(tokenizer, statistics), CPU, "memory")
    loaded = load_store(Store(worlds["train"], Collator(tokenizer, statistics), CPU, "memory"), files)
    found, expected = (next(sweep(each, 12, batch_size=12)) for each in (loaded, whole))
    assert torch.equal(found.climate, expected.climate) and torch.equal(found.input_ids, expected.input_ids)
    monkeypatch.setattr(packed, "prepare_row", lambda *_: pytest.fail("a finished part was prepared again"))
    files[1].unlink()
    with pytest.raises(pytest.fail.Exception, match="prepared again"):
        prepare_parts(parts, processes=1)
    with pytest.raises(InputError, match="expected 12 worlds, found 7"):
        load_store(Store(worlds["train"], Collator(tokenizer, statistics), CPU, "memory"), [files[0], files[2]])


def test_texts_become_the_tokens_of_another_tokenizer(store: Store, statistics: Statistics, tmp_path: Path):
    save_rows([store[index] for index in range(len(store))], tmp_path / "train.safetensors")
    words = WorldTokenizer.train(["star radius transits instrument prism this world reads as"] * 2, 280)
    collator = Collator(words, statistics)
    records = [vars(store.worlds[index]) for index in range(12)]
    other = load_store(Store(store.worlds, collator, CPU, "memory"), tmp_path / "train.safetensors", records=records)
    expected = Store(store.worlds, collator, CPU, "memory")
    for each in ("input_ids", "lm_labels", "context_mask", "attention_mask"):
        first, second = (getattr(next(sweep(s, 12, batch_size=12)), each) for s in (other, expected))
        assert torch.equal(first, second), each
