"""Prepared worlds merge into exactly what collation gives; the order is a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from astrobio.batch import IGNORED, Collator, MultiModalBatch, Sample
from astrobio.errors import InputError
from astrobio.training.feed import Feed, Store, hide, sweep

CPU = torch.device("cpu")


def assert_equal(found: MultiModalBatch, expected: MultiModalBatch) -> None:
    for item in fields(MultiModalBatch):
        one, other = getattr(found, item.name), getattr(expected, item.name)
        if item.name == "graph":
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one.keys() if torch.is_tensor(one[key]))  # noqa: SIM118
        elif isinstance(one, tuple):
            assert one == other
        else:
            assert torch.equal(one, other), item.name


@pytest.fixture
def store(sample_factory: Callable[..., Sample], collator: Collator) -> Store:
    without = [(), ("climate",), ("text", "spectrum"), ("metabolism",)]
    samples = [sample_factory(i, without=without[i % 4]) for i in range(11)]
    samples[4] = sample_factory(4, context="a longer observing record than all the others have by some words")
    return Store(samples, collator, CPU, "memory")


def unchanged(batch: MultiModalBatch, expected: MultiModalBatch) -> None:
    """Equal, apart from the grid that stands where a world has no climate."""
    absent = ~batch.present[:, 2]
    for name in ("climate_levels", "latitude", "longitude"):
        getattr(batch, name)[absent] = getattr(expected, name)[absent]
    assert_equal(batch, expected)


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [4], [1], [2, 6, 10]])
def test_merged_rows_equal_collated_samples(store: Store, collator: Collator, indices: list[int]):
    rows = [store[i] for i in indices]
    merged = store.merge(rows, hide(rows, [[True] * 4] * len(rows), store.absent))
    unchanged(merged, collator([store.worlds[i] for i in indices]))


def test_texts_are_padded_to_a_multiple(store: Store):
    plain = store.merge(rows := [store[0], store[1]], [[row] * 4 for row in rows])
    store.multiple = 64
    padded = store.merge(rows, [[row] * 4 for row in rows])
    length = plain.input_ids.shape[1]
    assert padded.input_ids.shape[1] % 64 == 0 and padded.input_ids.shape[1] - length < 64
    for name in ("input_ids", "attention_mask", "context_mask", "lm_labels"):
        assert torch.equal(getattr(padded, name)[:, :length], getattr(plain, name))
    assert not padded.attention_mask[:, length:].any() and (padded.lm_labels[:, length:] == IGNORED).all()


def test_hidden_modalities_equal_absent_ones(store: Store, collator: Collator, sample_factory: Callable[..., Sample]):
    names = ["text", "spectrum", "climate", "metabolism"]
    for hidden in ([0], [1], [2], [3], [0, 2], [1, 3], [0, 1, 2]):
        keep = [m not in hidden for m in range(4)]
        rows = [store[0], store[8]]
        without = [names[m] for m in hidden]
        expected = collator([sample_factory(i, without=without) for i in (0, 8)])
        unchanged(store.merge(rows, hide(rows, [keep, keep], store.absent)), expected)


def test_stream_resumes_anywhere(store: Store):
    feed = Feed(store, batch_size=3, seed=5, dropout=0.4)
    whole = list(islice(feed.stream(), 8))
    for start in (1, 3, 5):
        for found, expected in zip(islice(feed.stream(start), 3), whole[start:], strict=False):
            assert_equal(found, expected)


def test_epochs_differ_and_hold_each_world_once(store: Store):
    feed = Feed(store, batch_size=3, seed=5)
    assert feed.batches_per_epoch == 3
    names = [name for batch in islice(feed.stream(), 6) for name in batch.world_ids]
    assert len(set(names[:9])) == len(set(names[9:])) == 9
    assert names[:9] != names[9:]


def test_dropout_hides_at_its_rate_and_never_everything(store: Store):
    feed = Feed(store, batch_size=11, seed=0, dropout=0.5)
    shown = torch.cat([batch.present for batch in islice(feed.stream(), 40)])
    assert bool(shown.any(dim=1).all())
    complete = [i for batch in islice(feed.stream(), 40) for i, n in enumerate(batch.world_ids) if n in ("w0", "w4")]
    assert len(complete) == 80
    assert 0.3 < shown.float().mean() < 0.55


def test_isolated_feed_shows_one_modality(store: Store):
    feed = Feed(store, batch_size=4, modalities=("climate",))
    batch = next(feed.stream())
    assert not batch.present[:, [0, 1, 3]].any()
    assert bool((batch.lm_labels >= 0).any()), "the language target stays where the context is hidden"
    assert batch.context_mask.sum(dim=1).tolist() == [1] * 4, "a hidden context is its first token alone"


def test_permuted_modality_comes_from_other_worlds(store: Store):
    whole = list(sweep(store, 11, batch_size=4))
    mixed = list(sweep(store, 11, batch_size=4, permute="spectrum"))
    assert [b.world_ids for b in whole] == [b.world_ids for b in mixed]
    assert all(
        torch.equal(a.climate, b.climate) and torch.equal(a.labels, b.labels) for a, b in zip(whole, mixed, strict=True)
    )
    means = [torch.cat([b.spectrum_mean for b in found]) for found in (whole, mixed)]
    assert not torch.equal(*means) and torch.equal(means[0].sort().values, means[1].sort().values)


def test_loader_processes_give_the_same_rows(store: Store):
    uncached = Store(store.worlds, store.collator, CPU, "none", workers=1)
    state = torch.get_rng_state()
    found = list(islice(Feed(uncached, 3, seed=1).stream(), 3))
    assert torch.equal(torch.get_rng_state(), state), "loading leaves the random state alone"
    for one, other in zip(found, Feed(store, 3, seed=1).stream(), strict=False):
        assert_equal(one, other)


def test_filling_by_loader_processes_gives_the_same_rows(collator: Collator, worlds: dict[str, Any]):
    filled = Store(worlds["train"], collator, CPU, "memory", workers=2).fill()
    plain = Store(worlds["train"], collator, CPU, "memory")
    assert_equal(*(next(sweep(store, 12, batch_size=12)) for store in (filled, plain)))
    assert filled[0].graph is filled[0].graph and filled[0].present == plain[0].present


def test_half_precision_cubes_come_back_whole(store: Store):
    row = replace(store[0], batch=replace(store[0].batch, climate=store[0].batch.climate.bfloat16()))
    assert row.batch.climate.dtype == torch.bfloat16
    merged = store.merge([row], [[row] * 4])
    assert torch.equal(merged.climate, store[0].batch.climate.bfloat16().float())


def test_empty_split_is_refused(collator: Collator):
    with pytest.raises(InputError, match="expected at least one world"):
        Store([], collator, CPU)


def test_cubes_of_two_shapes_are_refused(store: Store, sample_factory: Callable[..., Sample], collator: Collator):
    cube = sample_factory(0).climate
    assert cube is not None
    half = type(cube)(
        fields={name: values[:1] for name, values in cube.fields.items()}, levels=cube.levels,
        latitude=np.asarray(cube.latitude), longitude=np.asarray(cube.longitude),
    )  # fmt: skip
    two = Store([sample_factory(0), sample_factory(1, climate=half)], collator, CPU, "memory")
    with pytest.raises(InputError, match="one cube shape"):
        list(sweep(two, 2, batch_size=2))
