"""Contrastive alignment by hand."""

from __future__ import annotations

import math

import pytest
import torch

from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.losses.alignment import PAIRS, TEMPERATURE, alignment, count_alignment, info_nce, together

EVERYTHING = torch.ones(2, 4, dtype=torch.bool)
LIFELESS, INHABITED = WORLD_STATES.index("lifeless-temperate"), WORLD_STATES.index("anoxic-biosphere")


def test_info_nce_by_hand() -> None:
    unit = torch.eye(2)
    both = torch.tensor([True, True])
    expected = 2 * math.log(1 + math.exp(-1 / TEMPERATURE))  # matching pairs, cosine 1 against 0
    assert float(info_nce(unit, unit, both)) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert float(info_nce(unit, unit.flip(0), both)) == pytest.approx(2 / TEMPERATURE + expected, rel=1e-4)


def test_a_single_valid_world_has_nothing_to_be_told_from() -> None:
    x = torch.nn.functional.normalize(torch.randn(3, 4), dim=-1).requires_grad_()
    found = info_nce(x, torch.randn(3, 4), torch.tensor([False, True, False]))
    assert found.item() == 0.0
    found.backward()
    assert x.grad is not None and not x.grad.any()


def test_invalid_worlds_are_no_candidates() -> None:
    first, second = torch.randn(4, 5), torch.randn(4, 5)
    valid = torch.tensor([True, False, True, False])
    found = info_nce(first, second, valid)
    torch.testing.assert_close(found, info_nce(first[valid], second[valid], torch.tensor([True, True])))


def test_the_metabolism_aligns_on_inhabited_worlds_only() -> None:
    labels = torch.tensor([LIFELESS, INHABITED])
    for (_, second), valid in zip(PAIRS, together(EVERYTHING, labels), strict=True):
        assert valid.tolist() == ([False, True] if MODALITIES[second] == "metabolism" else [True, True])
    assert int(count_alignment(EVERYTHING, labels)) == 3 * 2  # text, spectrum and climate among themselves
    assert int(count_alignment(EVERYTHING, torch.tensor([INHABITED, INHABITED]))) == 6 * 2
    assert int(count_alignment(~EVERYTHING, labels)) == 0


def test_pairs_compared_at_once_sum_to_pairs_compared_alone() -> None:
    """Gradients too, with worlds that lack something."""
    present = torch.rand(7, 4) > 0.3
    labels = torch.tensor([LIFELESS, INHABITED] * 3 + [INHABITED])
    vectors = {m: torch.nn.functional.normalize(torch.randn(7, 5), dim=-1).requires_grad_() for m in MODALITIES}
    alignment(vectors, present, labels).backward()
    at_once = {name: vector.grad.clone() for name, vector in vectors.items() if vector.grad is not None}
    for vector in vectors.values():
        vector.grad = None
    valid = together(present, labels)
    alone = [info_nce(vectors[MODALITIES[i]], vectors[MODALITIES[j]], valid[p]) for p, (i, j) in enumerate(PAIRS)]
    torch.stack(alone).sum().backward()
    for name, vector in vectors.items():
        torch.testing.assert_close(at_once[name], vector.grad)


def test_alignment_sums_over_pairs() -> None:
    unit = torch.eye(2)
    labels = torch.tensor([INHABITED, INHABITED])
    both = torch.tensor([True, True])
    found = alignment(dict.fromkeys(MODALITIES, unit), EVERYTHING, labels)
    torch.testing.assert_close(found, 6 * info_nce(unit, unit, both))
