"""The chunked next-token loss equals PyTorch's, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from astrobio.models.cross_entropy import IGNORED, linear_cross_entropy


def _inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 32, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(77, 32, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, 77, (50,), generator=generator)
    targets[::3] = IGNORED
    return hidden, weight, targets


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_equals_the_plain_loss_and_its_gradients_at_any_scale(chunk: int) -> None:
    hidden, weight, targets = _inputs()
    total, each = linear_cross_entropy(hidden, weight, targets, chunk=chunk)
    plain = cross_entropy(hidden @ weight.T, targets, reduction="none", ignore_index=IGNORED)
    torch.testing.assert_close(each, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total, plain.sum(), rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(0.3 * total / 17, (hidden, weight))
    expected = torch.autograd.grad(0.3 * plain.sum() / 17, (hidden, weight))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_no_target_gives_zero_loss_and_zero_gradients_of_every_weight() -> None:
    hidden, weight, targets = _inputs()
    total, each = linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED))
    got = torch.autograd.grad(total, (hidden, weight))
    assert float(total.detach()) == float(each.abs().max()) == 0.0
    assert all(float(g.abs().max()) == 0.0 for g in got)


def test_low_precision_products_are_reduced_in_float32() -> None:
    hidden, weight, targets = _inputs(torch.bfloat16)
    _, ours = linear_cross_entropy(hidden, weight, targets)
    exact = cross_entropy(hidden.float() @ weight.float().T, targets, reduction="none", ignore_index=IGNORED)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, exact, rtol=0.02, atol=0.05)


def test_a_known_number_of_targets_changes_nothing() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(30, 8), torch.randn(11, 8)
    targets = torch.randint(0, 11, (30,))
    targets[torch.rand(30) < 0.5] = IGNORED
    expected = linear_cross_entropy(hidden, weight, targets, chunk=4)
    count = int((targets != IGNORED).sum())
    found = linear_cross_entropy(hidden, weight, targets, chunk=4, count=count)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    total, each = linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED), count=0)
    assert float(total) == 0.0 and torch.equal(each, torch.zeros(30))


def test_only_what_learns_gets_a_gradient() -> None:
    hidden, weight, targets = _inputs()
    total, _ = linear_cross_entropy(hidden, weight.detach(), targets)
    (alone,) = torch.autograd.grad(total, hidden)
    total, _ = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(alone, torch.autograd.grad(total, (hidden, weight))[0])
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, targets)[0].requires_grad
