"""Supervised terms against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from astrobio.batch import IGNORED
from astrobio.batch.graph import FLUX_SCALE
from astrobio.losses import terms


def test_classification_leaves_unlabelled_worlds_out() -> None:
    logits = torch.zeros(3, 6)
    assert float(terms.classification(logits, torch.tensor([1, IGNORED, 4]))) == pytest.approx(2 * math.log(6))


def test_links_count_only_valid_ones() -> None:
    logits, targets = torch.tensor([0.0, 0.0, math.inf]), torch.tensor([1.0, 0.0, 0.0])
    found = terms.links(logits, targets, torch.tensor([True, True, False]))
    assert float(found) == pytest.approx(2 * math.log(2))


def test_fluxes_are_compared_as_asinh() -> None:
    truth = torch.tensor([FLUX_SCALE * math.sinh(1.0), 99.0])
    predicted = torch.tensor([1.0 + 0.6, 0.0], requires_grad=True)
    found = terms.fluxes(predicted, truth, torch.tensor([True, False]))
    assert found.item() == pytest.approx(0.6 - 0.05, rel=1e-5)  # smooth L1 with β = 0.1: |e| − β/2
    found.backward()
    assert predicted.grad is not None and predicted.grad[1] == 0


def test_kl_divergence_by_hand_and_its_free_nats() -> None:
    mu, logvar = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.log(2.0), 0.0]], requires_grad=True)
    first = 0.5 * (1.0 + 2.0 - 1.0 - math.log(2.0))
    found = terms.kl_divergence(mu, logvar, torch.tensor([True]))
    assert found.item() == pytest.approx((first + terms.FREE_NATS) / 2)
    found.backward()
    assert logvar.grad is not None and logvar.grad[0, 1] == 0  # a collapsed dimension is not pushed further


def test_regression_weights() -> None:
    predicted, truth = torch.tensor([[3.0, 0.5]]), torch.tensor([[0.0, 0.0]])
    assert float(terms.regression(predicted, truth, torch.tensor([[2.0, 0.0]]))) == pytest.approx(2 * 2.5)
    assert float(terms.regression(predicted, truth, torch.tensor([[0.0, 1.0]]))) == pytest.approx(0.125)


def test_masked_sum_keeps_infinities_out_of_sum_and_gradient() -> None:
    values = torch.tensor([1.0, -1.0], requires_grad=True)
    found = terms.masked_sum(values.log(), torch.tensor([True, False]))
    assert found.item() == 0.0
