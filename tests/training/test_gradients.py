"""Gradient policies: accumulation equals one large batch, steps in the backward equal steps after it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from astrobio.errors import InputError
from astrobio.training.eight_bit import AdamW8bit
from astrobio.training.gradients import add_stochastically_, gradient_policy


def _model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 256), nn.GELU(), nn.Linear(256, 32)).to(dtype)


def _loss(model: nn.Module, rows: Tensor) -> Tensor:
    dtype = next(model.parameters()).dtype
    return model(rows.to(dtype)).float().square().mean()


def _run(kind: str, model: nn.Module, micro_batches: list[Tensor], limit: float = 1e9) -> Tensor:
    optimizer = AdamW8bit(model.parameters(), lr=1e-2, seed=1)
    policy = gradient_policy(kind, optimizer, limit)  # pyright: ignore[reportArgumentType]
    norm = torch.zeros(())
    for _ in range(3):
        policy.begin()
        for rows in micro_batches:
            (_loss(model, rows) / len(micro_batches)).backward()
        norm = policy.finish()
    assert all(p.grad is None for p in model.parameters())
    return norm


@pytest.mark.parametrize("kind", ["keep", "stochastic", "host"])
def test_accumulating_32_micro_batches_equals_one_batch(kind: str) -> None:
    data = torch.randn(128, 32)
    one, many = _model(), _model()
    norm_one = _run("keep", one, [data])
    norm_many = _run(kind, many, list(data.split(4)))
    assert float(norm_many) == pytest.approx(float(norm_one), rel=1e-4)
    for a, b in zip(one.parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)  # 8-bit codes may round apart; three steps of 1e-2


@pytest.mark.parametrize("limit", [1e9, 1e-3])
def test_a_step_in_the_backward_equals_a_step_after_it(limit: float) -> None:
    data = torch.randn(16, 32)
    after, inside = _model(), _model()
    if limit < 1:  # one tensor only: there, clipping by tensor and by the global norm are the same
        for model in (after, inside):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name == "0.weight")
    norms = []
    for kind, model in (("keep", after), ("backward", inside)):
        parameters = [p for p in model.parameters() if p.requires_grad]
        policy = gradient_policy(kind, AdamW8bit(parameters, lr=1e-2), limit)  # pyright: ignore[reportArgumentType]
        for _ in range(3):
            policy.begin()
            _loss(model, data).backward()
            norms.append(float(policy.finish()))
    assert norms[:3] == pytest.approx(norms[3:], rel=1e-5)
    for a, b in zip(after.parameters(), inside.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_kept_gradients_in_host_memory_are_clipped_by_the_norm_that_the_device_finds() -> None:
    data, norms, models = torch.randn(16, 32), [], [_model(), _model()]
    # another name of the same place, so that weights and gradients really travel
    for model, device in zip(models, (None, torch.device("cpu", 0)), strict=True):
        optimizer = AdamW8bit(model.parameters(), lr=1e-2, device=device)
        policy = gradient_policy("keep", optimizer, 1e-2)
        policy.begin()
        _loss(model, data).backward()
        norms.append(float(policy.finish()))
        assert (optimizer.mover_of(next(model.parameters())) is None) == (device is None)
    assert norms[0] == pytest.approx(norms[1], rel=1e-6) and norms[0] > 1e-2
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_bfloat16_sums_of_many_small_gradients_keep_their_mean() -> None:
    total, plain = torch.full((20_000,), 1.0).bfloat16(), torch.full((20_000,), 1.0).bfloat16()
    small = torch.full((20_000,), 0.001).bfloat16()
    for micro in range(31):
        add_stochastically_(total, small, seed=micro)
        plain += small
    exact = 1.0 + 31 * float(small[0])
    assert float(total.double().mean()) == pytest.approx(exact, rel=1e-3)
    assert float(plain.double().mean()) == 1.0  # rounding to nearest loses every one of them


def test_a_bad_micro_batch_skips_the_step() -> None:
    model = _model()
    before = copy.deepcopy(list(model.parameters()))
    norm = _run("stochastic", model, [torch.full((4, 32), float("nan"))])
    assert not torch.isfinite(norm)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_plain_adamw_is_kept_to_kept_gradients() -> None:
    with pytest.raises(InputError, match="8-bit optimizer"):
        gradient_policy("backward", torch.optim.AdamW(_model().parameters()), 1.0)


def test_kept_gradients_are_clipped_by_the_global_norm_for_any_optimizer() -> None:
    clipped, scaled = _model(), _model()
    rows = torch.randn(8, 32)
    for model, limit in ((clipped, 1e-3), (scaled, 1e9)):
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        policy = gradient_policy("keep", optimizer, limit)
        policy.begin()
        _loss(model, rows).backward()
        norm = policy.finish()
    moved = torch.cat([(a - b).flatten() for a, b in zip(clipped.parameters(), _model().parameters(), strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-3)
    assert float(norm) > 1e-3
