"""A step has the same micro-batches on any number of ranks, and a rank without one computes a blank."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from astrobio.batch import Collator, MultiModalBatch
from astrobio.losses import count_targets
from astrobio.losses.combined import LossWeights, compute_multimodal_loss
from astrobio.system import SystemConfig, UnifiedMultiModalSystem
from astrobio.training import share
from astrobio.training.feed import Feed, Store
from astrobio.training.share import MicroBatch, blank_batch, own_micro_batches, own_sweep


@pytest.fixture
def store(worlds: dict, collator: Collator) -> Store:
    return Store(worlds["train"], collator, torch.device("cpu"), "memory")


def feed_of(store: Store) -> Feed:
    return Feed(store, 3, seed=5, dropout=0.3)


def same(one: MultiModalBatch, other: MultiModalBatch) -> bool:
    return one.world_ids == other.world_ids and torch.equal(one.present, other.present)


def on_rank(monkeypatch: pytest.MonkeyPatch, rank: int, ranks: int) -> None:
    monkeypatch.setattr(share, "rank", lambda: rank)
    monkeypatch.setattr(share, "world_size", lambda: ranks)


def test_numbered_batches_are_those_of_the_stream(store: Store) -> None:
    stream = list(islice(Feed(store, 3, seed=5, dropout=0.3).stream(), 11))  # almost three epochs of 4
    numbers = [0, 1, 3, 4, 9, 10]
    found = list(feed_of(store).batches(numbers))
    assert len(found) == len(numbers)
    assert all(same(batch, stream[number]) for batch, number in zip(found, numbers, strict=True))


@pytest.mark.parametrize(("ranks", "accumulation"), [(2, 4), (2, 3), (3, 1), (4, 2)])
def test_ranks_deal_the_micro_batches_of_one_process(
    store: Store, monkeypatch: pytest.MonkeyPatch, ranks: int, accumulation: int
) -> None:
    alone = list(islice(own_micro_batches(feed_of(store), accumulation, start=2), 3))
    assert [len(step) for step in alone] == [accumulation] * 3
    dealt: list[list[list[MicroBatch]]] = []
    for rank in range(ranks):
        on_rank(monkeypatch, rank, ranks)
        dealt.append(list(islice(own_micro_batches(feed_of(store), accumulation, start=2), 3)))
    for step in range(3):
        shares = [steps[step] for steps in dealt]
        assert {len(part) for part in shares} == {-(-accumulation // ranks)}, "all ranks compute equally often"
        for place, expected in enumerate(alone[step]):
            found = shares[place % ranks][place // ranks]
            assert found.seed == expected.seed and same(found.batch, expected.batch)
        rest = [part[i] for r, part in enumerate(shares) for i in range(len(part)) if r + i * ranks >= accumulation]
        assert all(not blank.batch.present.any() for blank in rest)


def test_a_blank_asks_nothing_and_moves_nothing(store: Store, tiny_system: SystemConfig) -> None:
    system, blank = UnifiedMultiModalSystem(tiny_system), blank_batch(store)
    assert all(float(count) == 0 for count in count_targets(blank).values())
    loss = compute_multimodal_loss(system(blank), blank, LossWeights())
    assert float(loss.total.detach()) == 0.0
    loss.total.backward()
    gradients = [p.grad for p in system.parameters() if p.grad is not None]
    assert gradients and all(float(g.abs().sum()) == 0.0 for g in gradients)


def test_a_split_is_swept_once_whatever_the_ranks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, lengths = [], set()
    for rank in range(3):
        on_rank(monkeypatch, rank, 3)
        batches = list(own_sweep(store, 5, ("text", "spectrum", "climate", "metabolism")))
        lengths.add(len(batches))
        for batch in batches:
            seen += [name for name, there in zip(batch.world_ids, batch.present, strict=True) if there.any()]
    assert sorted(seen) == sorted(sample.world_id for sample in store.worlds.samples)  # pyright: ignore
    assert lengths == {1}
