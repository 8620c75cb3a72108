"""Contrastive alignment: the modalities of one world find each other among those of the batch.

Dimension letters: B worlds, A alignment width, M modalities.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from astrobio.batch import INHABITED_STATES, MODALITIES, WORLD_STATES

TEMPERATURE = 0.1  # of the softmax over cosine similarities (SimCLR's, Chen et al. 2020, arXiv:2002.05709)


def info_nce(first: Float[Tensor, "B A"], second: Float[Tensor, "B A"], valid: Bool[Tensor, "B"]) -> Float[Tensor, ""]:
    """Symmetric InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) of unit vectors in nats, summed over valid worlds.

    The candidates are the batch's other valid worlds; with fewer than two there is nothing to tell apart and the sum
    is 0.
    """
    usable = valid & (valid.sum() > 1)
    similarity = first.float() @ second.float().T / TEMPERATURE  # [B, B]
    # Where nothing may be compared a row compares with itself, which costs nothing.
    open_to = usable[None, :] | torch.eye(len(valid), dtype=torch.bool, device=valid.device)
    target = torch.arange(len(valid), device=valid.device)
    lowest = torch.finfo(torch.float32).min
    both = [
        functional.cross_entropy(matrix.masked_fill(~open_to, lowest), target, reduction="none")
        for matrix in (similarity, similarity.T)
    ]
    return torch.where(usable, (both[0] + both[1]) / 2, 0.0).sum()


def pairs(present: Bool[Tensor, "B 4"], labels: Int[Tensor, "B"]) -> Iterator[tuple[str, str, Bool[Tensor, "B"]]]:
    """Pairs of modalities and the worlds in which they belong together.

    The metabolism given with a lifeless world is only a candidate, so its pairs exist on inhabited worlds alone.
    """
    inhabited = torch.zeros_like(labels, dtype=torch.bool)
    for name in INHABITED_STATES:
        inhabited |= labels == WORLD_STATES.index(name)
    for (i, first), (j, second) in combinations(enumerate(MODALITIES), 2):
        together = present[:, i] & present[:, j]
        yield first, second, together & inhabited if "metabolism" in (first, second) else together


def alignment(
    embeddings: dict[str, Float[Tensor, "B A"]], present: Bool[Tensor, "B 4"], labels: Int[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Sum of `info_nce` over all pairs of modalities."""
    return torch.stack(
        [info_nce(embeddings[first], embeddings[second], valid) for first, second, valid in pairs(present, labels)]
    ).sum()


def count_alignment(present: Bool[Tensor, "B 4"], labels: Int[Tensor, "B"]) -> Int[Tensor, ""]:
    """Number of worlds × pairs that `alignment` sums over."""
    counts = torch.stack([valid.sum() for _, _, valid in pairs(present, labels)])
    return torch.where(counts > 1, counts, 0).sum()
