"""Contrastive alignment: the modalities of one world find each other among those of the batch.

Dimension letters: B worlds, A alignment width, P pairs of modalities.
"""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from astrobio.batch import INHABITED_STATES, MODALITIES, WORLD_STATES
from astrobio.losses.terms import indices

TEMPERATURE = 0.1  # of the softmax over cosine similarities (SimCLR's, Chen et al. 2020, arXiv:2002.05709)
PAIRS = tuple(combinations(range(len(MODALITIES)), 2))
INHABITED = [WORLD_STATES.index(name) for name in INHABITED_STATES]
METABOLISM = MODALITIES.index("metabolism")  # the last


def info_nce(
    first: Float[Tensor, "*P B A"], second: Float[Tensor, "*P B A"], valid: Bool[Tensor, "*P B"]
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) of unit vectors in nats, summed over valid worlds.

    The candidates are the batch's other valid worlds; with fewer than two there is nothing to tell apart and the sum
    is 0. Leading dimensions are pairs of modalities, compared all at once.
    """
    usable = valid & (valid.sum(-1, keepdim=True) > 1)
    similarity = first.float() @ second.float().transpose(-1, -2) / TEMPERATURE  # [*P, B, B]
    # Where nothing may be compared a row compares with itself, which costs nothing.
    closed = ~(usable[..., None, :] | torch.eye(valid.shape[-1], dtype=torch.bool, device=valid.device))
    lowest = torch.finfo(torch.float32).min
    rows, columns = (matrix.masked_fill(closed, lowest).logsumexp(-1) for matrix in (similarity, similarity.mT))
    loss = (rows + columns) / 2 - similarity.diagonal(dim1=-2, dim2=-1)  # [*P, B]
    return torch.where(usable, loss, 0.0).sum()


def together(present: Bool[Tensor, "B 4"], labels: Int[Tensor, "B"]) -> Bool[Tensor, "P B"]:
    """Worlds in which the modalities of each of `PAIRS` belong together.

    The metabolism given with a lifeless world is only a candidate, so its pairs exist on inhabited worlds alone.
    """
    inhabited = torch.zeros_like(labels, dtype=torch.bool)
    for state in INHABITED:
        inhabited |= labels == state
    shown = present.T & torch.stack([torch.ones_like(inhabited)] * METABOLISM + [inhabited])  # [4, B]
    first, second = (indices(side, labels.device) for side in zip(*PAIRS, strict=True))
    return shown[first] & shown[second]


def alignment(
    embeddings: dict[str, Float[Tensor, "B A"]], present: Bool[Tensor, "B 4"], labels: Int[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Sum of `info_nce` over all pairs of modalities."""
    every = torch.stack([embeddings[name] for name in MODALITIES])  # [4, B, A]
    first, second = (indices(side, labels.device) for side in zip(*PAIRS, strict=True))
    return info_nce(every[first], every[second], together(present, labels))


def count_alignment(present: Bool[Tensor, "B 4"], labels: Int[Tensor, "B"]) -> Int[Tensor, ""]:
    """Number of worlds × pairs that `alignment` sums over."""
    counts = together(present, labels).sum(-1)
    return torch.where(counts > 1, counts, 0).sum()
