"""Simulated worlds observed anew in training: other noise of the same size, by seed, epoch and world alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from astrobio.batch import Collator, MetabolicGraph, MultiModalBatch, Sample
from astrobio.batch.collate import with_noise
from astrobio.training.config import RunConfig
from astrobio.training.feed import Feed, Row, Store, observe_anew
from astrobio.training.loop import train
from astrobio.training.packed import load_store, save_rows
from astrobio.worlds.instrument import noise_draws, other_noise


class SomeWorlds(list[Sample]):
    """Worlds in a list."""

    def metabolism(self, index: int) -> MetabolicGraph | None:
        return self[index].metabolism


def simulated(sample: Sample, seed: int) -> Sample:
    """The sample as if its noise had been drawn from a seed."""
    assert sample.spectrum is not None
    noise = sample.spectrum.sigma * noise_draws(seed, len(sample.spectrum.value))
    spectrum = replace(sample.spectrum, value=sample.spectrum.value + noise)
    return replace(sample, spectrum=spectrum, provenance={"source": "astrobio.worlds", "noise_seed": seed})


@pytest.fixture
def store(sample_factory: Callable[..., Sample], collator: Collator) -> Store:
    samples = [simulated(sample_factory(i), 100 + i) for i in range(8)] + [sample_factory(i) for i in range(8, 11)]
    return Store(SomeWorlds(samples), collator, torch.device("cpu"), "memory")


def test_new_noise_is_as_if_the_world_had_another_noise_seed(
    sample_factory: Callable[..., Sample], collator: Collator
) -> None:
    for index in range(4):
        world = sample_factory(index)
        mine, other = collator([simulated(world, 7)]), collator([simulated(world, 8)])
        found = with_noise(mine, torch.from_numpy(other_noise(7, 60, np.random.default_rng(8))).float())
        assert torch.allclose(found.spectrum, other.spectrum, atol=1e-4)  # units of 100 ppm
        assert torch.allclose(found.spectrum_mean, other.spectrum_mean, atol=1e-6)
        assert not torch.allclose(mine.spectrum, other.spectrum, atol=1e-2)


def spectra(batches: list[MultiModalBatch]) -> dict[str, torch.Tensor]:
    return {name: batch.spectrum[row] for batch in batches for row, name in enumerate(batch.world_ids)}


def test_only_simulated_spectra_change_and_all_else_stays(store: Store) -> None:
    anew, plain = (next(Feed(store, 11, redraw_noise=flag).stream()) for flag in (True, False))
    changed = (anew.spectrum[..., 1] != plain.spectrum[..., 1]).any(dim=1)
    known = [store[i].noise_seed is not None for i in range(11)]
    assert sum(known) == 8
    assert {name for name, flag in zip(anew.world_ids, changed, strict=True) if flag} == {
        store[i].batch.world_ids[0] for i in range(11) if known[i]
    }
    assert torch.equal(anew.spectrum[..., ::2], plain.spectrum[..., ::2]), "wavelengths and standard errors"
    assert torch.equal(anew.climate, plain.climate) and torch.equal(anew.input_ids, plain.input_ids)


def test_draws_depend_on_seed_epoch_and_world_alone(store: Store) -> None:
    def epoch(size: int, number: int, seed: int = 5) -> dict[str, torch.Tensor]:
        feed = Feed(store, size, seed=seed, redraw_noise=True)
        first = number * feed.batches_per_epoch
        return spectra(list(feed.batches(range(first, first + feed.batches_per_epoch))))

    by_one, by_eleven = epoch(1, 0), epoch(11, 0)
    assert all(torch.equal(value, by_eleven[name]) for name, value in by_one.items()), "whatever the batch it is in"
    name = store[0].batch.world_ids[0]
    assert not torch.equal(by_one[name], epoch(11, 1)[name]), "another epoch"
    assert not torch.equal(by_one[name], epoch(11, 0, seed=6)[name]), "another seed"


def test_noise_has_the_size_that_the_spectrum_states(store: Store) -> None:
    draws = [observe_anew(store[0], np.random.default_rng([1, k])).batch.spectrum[0] for k in range(400)]
    assert store.worlds[0].spectrum is not None
    values, sigma = torch.stack([d[:, 1] for d in draws]), draws[0][:, 2]
    ratio = values.std(dim=0) / sigma  # a little below 1: every spectrum is centred on its own mean
    assert 0.93 < float(ratio.median()) < 1.02
    clean = store[0].batch.spectrum[0, :, 1] - sigma * torch.from_numpy(noise_draws(100, len(sigma))).float()
    off = (values.mean(dim=0) - clean) / sigma
    assert float((off - off.mean()).abs().max()) < 0.25  # 5 standard errors of 400 draws


def test_prepared_files_keep_the_seeds(store: Store, tmp_path: Path) -> None:
    save_rows([store[i] for i in range(11)], tmp_path / "rows.safetensors")
    empty = Store(store.worlds, store.collator, torch.device("cpu"), "memory")
    again = load_store(empty, tmp_path / "rows.safetensors")
    assert [again[i].noise_seed for i in range(11)] == [*range(100, 108), None, None, None]


@pytest.mark.usefixtures("worlds")
def test_the_setting_reaches_a_run(tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(row: Row, rng: np.random.Generator | None) -> Row:
        seen.append(1)
        return observe_anew(row, rng)

    monkeypatch.setattr("astrobio.training.feed.observe_anew", spy)
    config = replace(tiny_run, training=replace(tiny_run.training, redraw_noise=False))
    train(config, "data", tmp_path / "plain", console=Console(quiet=True))
    assert not seen
    settings = tiny_run.training
    train(tiny_run, "data", tmp_path / "anew", console=Console(quiet=True))
    assert len(seen) == settings.steps * settings.accumulation * settings.batch_size
    plain, anew = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "anew"))
    assert all(torch.equal(value, anew[name]) for name, value in plain.items()), "worlds of no known noise stay"
