"""Each rank's share of the work, so that what is learned does not depend on how many ranks there are.

Micro-batches are numbered over the whole run, and a step has the same ones on any number of ranks: rank r of R takes
its r-th, (r + R)-th …; all random numbers of a micro-batch are seeded by its number. Sharded ranks must all compute
equally often, so one without a micro-batch left computes a blank one, which has no target and so no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch

from astrobio.batch import IGNORED, MODALITIES, MultiModalBatch
from astrobio.training.feed import Feed, Store, hide
from astrobio.training.ranks import rank, world_size


@dataclass(frozen=True)
class MicroBatch:
    """A batch and the seed of the random numbers that its forward pass draws."""

    batch: MultiModalBatch
    seed: int


def own_micro_batches(feed: Feed, accumulation: int, start: int) -> Iterator[list[MicroBatch]]:
    """This rank's micro-batches of step `start`, `start + 1`, …, equally many on every rank."""
    own = range(rank(), accumulation, world_size())
    blanks = [MicroBatch(blank_batch(feed.store), 0)] * (-(-accumulation // world_size()) - len(own))
    numbers = (step * accumulation + place for step in count(start) for place in own)
    batches = feed.batches(numbers) if own else iter(())
    for step in count(start):
        yield [MicroBatch(next(batches), seed_of(feed.seed, step * accumulation + place)) for place in own] + blanks


def seed_of(seed: int, number: int) -> int:
    """Seed of micro-batch `number` of a run."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


def blank_batch(store: Store) -> MultiModalBatch:
    """One world of which nothing is known or asked: every part of its loss is 0, with a gradient of 0."""
    rows = [store[0]]
    batch = store.merge(rows, hide(rows, [[True] * len(MODALITIES)], store.absent))
    return without_targets(batch)


def without_targets(batch: MultiModalBatch) -> MultiModalBatch:
    """The same worlds with nothing present and nothing to predict."""
    return replace(
        batch,
        present=torch.zeros_like(batch.present),
        labels=torch.full_like(batch.labels, IGNORED),
        lm_labels=torch.full_like(batch.lm_labels, IGNORED),
        physics_mask=torch.zeros_like(batch.physics_mask),
    )


def own_sweep(store: Store, batch_size: int, modalities: tuple[str, ...]) -> Iterator[MultiModalBatch]:
    """This rank's batches of all worlds of a split, in order, equally many on every rank."""
    shown = [name in modalities for name in MODALITIES]
    indices = [list(range(start, min(start + batch_size, len(store)))) for start in range(0, len(store), batch_size)]
    own = indices[rank() :: world_size()]
    for rows in store.fetch(own):
        yield store.merge(rows, hide(rows, [shown] * len(rows), store.absent))
    for _ in range(-(-len(indices) // world_size()) - len(own)):
        yield blank_batch(store)
