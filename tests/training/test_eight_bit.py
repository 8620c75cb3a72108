"""The 8-bit optimizer against float32 AdamW, its rounding, and its behaviour on bad gradients."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

from astrobio.training.eight_bit import (
    AdamW8bit,
    Hyperparameters,
    block_size,
    clip_factor,
    decode_mean,
    decode_square,
    encode_mean,
    encode_square,
    fresh_state,
    random_bits,
    round_to_bfloat16,
    update_reference_,
)

BLOCK = 256


def _uniform(shape: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_round_trip_of_the_moments_is_within_a_code() -> None:
    torch.manual_seed(0)
    values = torch.randn(64, BLOCK) * torch.logspace(-6, 2, 64)[:, None]
    codes, scale = encode_mean(values, _uniform((64, BLOCK), 1))
    error = (decode_mean(codes, scale) - values).abs() / scale[:, None]
    assert codes.dtype == torch.int8
    assert float(error.max()) <= 1.0 - (126 / 127) ** 2 + 1e-6  # the widest gap between codes
    codes, scale = encode_square(values.square(), _uniform((64, BLOCK), 2))
    error = (decode_square(codes, scale) - values.square()).abs() / scale[:, None]
    assert float(error.max()) <= 1.0 - (254 / 255) ** 4 + 1e-6


def test_rounding_is_unbiased() -> None:
    values = torch.full((1, BLOCK), 0.3)
    values[0, 0] = 1.0  # the scale
    draws = torch.stack([decode_mean(*encode_mean(values, _uniform((1, BLOCK), seed))) for seed in range(400)])
    assert float(draws[..., 1:].mean()) == pytest.approx(0.3, rel=2e-4)
    draws = torch.stack([decode_square(*encode_square(values, _uniform((1, BLOCK), seed))) for seed in range(400)])
    assert float(draws[..., 1:].mean()) == pytest.approx(0.3, rel=2e-4)


def test_positive_second_moments_never_become_zero() -> None:
    values = torch.full((1, BLOCK), 1e-20)
    values[0, 0] = 1.0
    codes, _ = encode_square(values, torch.full((1, BLOCK), 0.999))
    assert int(codes.min()) == 1
    assert int(encode_square(torch.zeros(1, BLOCK), torch.zeros(1, BLOCK))[0].max()) == 0


def test_bfloat16_weights_move_by_less_than_their_spacing_on_average() -> None:
    count, step = 100_000, 1e-4  # the spacing of bfloat16 at 1 is 1/128 upwards, 1/256 downwards
    moved = round_to_bfloat16(torch.full((count,), 1.0 + step), random_bits(count, seed=3))
    assert set(moved.float().tolist()) == {1.0, 1.0 + 1 / 128}
    assert float(moved.double().mean() - 1.0) == pytest.approx(step, rel=0.1)
    assert float(torch.full((count,), 1.0 + step).bfloat16().double().mean() - 1.0) == 0.0  # nearest loses it


def test_bits_are_uniform_and_differ_between_seeds() -> None:
    bits = random_bits(1 << 16, seed=12345)
    for shift in (0, 8, 16, 24):
        counts = torch.bincount((bits >> shift) & 0xFF, minlength=256).double()
        assert float(((counts - 256) ** 2 / 256).sum()) < 350  # χ² with 255 degrees of freedom, p ≈ 1e-4
    other = random_bits(1 << 16, seed=12346)
    assert abs(float(torch.corrcoef(torch.stack([bits.double(), other.double()]))[0, 1])) < 0.02


def _train(optimizer_of, dtype: torch.dtype, steps: int = 150) -> list[float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 256)).to(dtype)
    teacher = nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256))
    optimizer, losses = optimizer_of(model.parameters()), []
    for _ in range(steps):
        x = torch.randn(64, 256)
        loss = (model(x.to(dtype)).float() - teacher(x).detach()).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_trains_like_float32_adamw() -> None:
    exact = _train(lambda p: torch.optim.AdamW(p, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0), torch.float32)
    ours = _train(lambda p: AdamW8bit(p, lr=3e-3, betas=(0.9, 0.98)), torch.float32)
    rounded = _train(lambda p: AdamW8bit(p, lr=3e-3, betas=(0.9, 0.98)), torch.bfloat16)
    final, start = sum(exact[-20:]), sum(exact[:1]) * 20
    assert final < 0.6 * start
    assert sum(ours[-20:]) == pytest.approx(final, rel=0.03)
    assert sum(rounded[-20:]) == pytest.approx(final, rel=0.05)


def test_small_tensors_follow_adamw_exactly() -> None:
    torch.manual_seed(0)
    a, b = (nn.Parameter(torch.linspace(-1, 1, 33)) for _ in range(2))
    ours = AdamW8bit([a], lr=1e-2, betas=(0.9, 0.98), weight_decay=0.1)
    exact = torch.optim.AdamW([b], lr=1e-2, betas=(0.9, 0.98), weight_decay=0.1)
    for _ in range(20):
        gradient = torch.randn(33)
        a.grad, b.grad = gradient.clone(), gradient.clone()
        ours.step()
        exact.step()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_second_moments_decay_where_nearest_rounding_would_hold_them() -> None:
    weight = torch.zeros(16, BLOCK)
    state = fresh_state(weight)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 801):
        gradient = torch.randn(16, BLOCK, generator=generator) * (1.0 if step <= 200 else 0.1)
        numbers = Hyperparameters(1e-3, 0.9, 0.99, 1e-8, 0.0, step, seed=step)
        update_reference_(weight, gradient, state, torch.ones(()), numbers)
    square = decode_square(state["square"].view(-1, BLOCK), state["square_scale"].view(-1))
    assert float(square.mean()) == pytest.approx(0.01 + 0.99**600, rel=0.1)


def test_a_factor_that_is_not_finite_changes_nothing() -> None:
    weight = nn.Parameter(torch.randn(32, BLOCK))
    optimizer, before = AdamW8bit([weight], lr=0.1), weight.detach().clone()
    weight.grad = torch.full_like(weight, float("nan"))
    optimizer.step(factor=clip_factor(weight.grad.norm(), 1.0))
    assert torch.equal(weight, before)
    assert float(optimizer.state[weight]["square_scale"].abs().max()) == 0.0


def test_saved_moments_resume_byte_for_byte() -> None:
    torch.manual_seed(0)
    a = nn.Parameter(torch.randn(32, BLOCK).bfloat16())
    first = AdamW8bit([a], lr=0.1, seed=4)
    gradients = [torch.randn(32, BLOCK).bfloat16() for _ in range(6)]
    for gradient in gradients[:3]:
        a.grad = gradient
        first.step()
    b = nn.Parameter(a.detach().clone())
    second = AdamW8bit([b], lr=0.1, seed=4)
    second.load_state_dict(first.state_dict())
    for gradient in gradients[3:]:
        a.grad = b.grad = gradient
        first.step()
        second.step()
    assert torch.equal(a, b)
    assert second.state[b]["mean"].dtype == torch.int8


@pytest.mark.parametrize(
    ("shape", "expected"), [((64, 256), 256), ((8, 8000), 64), ((64, 32, 3, 3), 0), ((8192,), 0), ((4, 256), 0)]
)
def test_only_rows_of_whole_blocks_are_quantised(shape: tuple[int, ...], expected: int) -> None:
    assert block_size(shape) == expected


def test_weights_in_host_memory_are_updated_on_the_device() -> None:
    torch.manual_seed(0)
    here, there = (nn.Parameter(torch.linspace(-1, 1, 8192).view(16, 512)) for _ in range(2))
    plain, visiting = AdamW8bit([here], lr=0.1), AdamW8bit([there], lr=0.1, device=torch.device("meta"))
    visiting._device = torch.device("cpu", 0)  # another name of the same place, so that the copies are really made
    for _ in range(3):
        here.grad = there.grad = torch.randn(16, 512)
        plain.step()
        visiting.step()
    assert torch.equal(here, there)
    assert torch.equal(plain.state[here]["square"], visiting.state[there]["square"])


def test_moments_of_a_shard_in_host_memory_stay_there() -> None:
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = DeviceMesh("cuda", [0], _init_backend=False)  # offloaded shards: a mesh of GPUs, tensors on the host
        values = torch.linspace(-1, 1, 8192).view(16, 512)
        spec = DTensorSpec(mesh, (Shard(0),), tensor_meta=TensorMeta(values.shape, values.stride(), values.dtype))
        weight = nn.Parameter(DTensor(values, spec, requires_grad=False))  # pyright: ignore[reportCallIssue]
        optimizer = AdamW8bit([weight], lr=0.1, device=torch.device("cpu", 0))
        optimizer.update(weight, torch.ones(16, 512))
        optimizer._mover.synchronize()  # pyright: ignore[reportOptionalMemberAccess]
        assert {value.device.type for value in optimizer.local_state(weight).values()} == {"cpu"}
        assert float(values[0, 0]) == pytest.approx(-1.1)
    finally:
        dist.destroy_process_group()


INTERPRETED = """
import torch
from astrobio.training import eight_bit
from astrobio.training.kernels import accumulate_, update_
from astrobio.training.gradients import add_stochastically_
torch.manual_seed(0)
for dtype, columns in ((torch.bfloat16, 512), (torch.float32, 320), (torch.bfloat16, 33)):
    weight = torch.randn(18, columns).to(dtype)
    other, state = weight.clone(), eight_bit.fresh_state(weight)
    kernel_state = {name: value.clone() for name, value in state.items()}
    for step in range(1, 4):
        gradient = torch.randn_like(weight) * torch.rand_like(weight) ** 4
        numbers = eight_bit.Hyperparameters(1e-2, 0.9, 0.99, 1e-8, 0.1, step, 1000 * step)
        eight_bit.update_reference_(weight, gradient, state, torch.tensor(0.5), numbers)
        update_(other, gradient, kernel_state, torch.tensor(0.5), numbers)
    torch.testing.assert_close(weight, other, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    assert float((weight != other).float().mean()) < (0.002 if dtype == torch.bfloat16 else 0.2)
    for name in ("mean", "square"):
        assert float((state[name] != kernel_state[name]).float().mean()) < 0.001, name
    before = other.clone()
    for bad in (float("nan"), float("inf")):
        for limit in (0.0, 1.0):
            update_(other, gradient, kernel_state, torch.tensor(bad), numbers, limit)
            assert torch.equal(before, other)
    bounded = before.clone()
    twin = {name: value.clone() for name, value in kernel_state.items()}
    update_(other, gradient, kernel_state, torch.tensor(0.25 / (4.0 + 1e-6)), numbers)
    update_(bounded, gradient, twin, torch.tensor(4.0), numbers, 0.25)
    torch.testing.assert_close(bounded, other, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-7)
    assert float((bounded != other).float().mean()) < (0.002 if dtype == torch.bfloat16 else 0.2)
a = torch.randn(5000).bfloat16()
b, more = a.clone(), torch.randn(5000).bfloat16()
accumulate_(a, more, 17)
add_stochastically_(b, more, 17)
assert torch.equal(a, b)
"""


def test_the_kernel_equals_the_reference() -> None:
    """Triton's interpreter runs the kernel on the CPU; it must be chosen before Triton is imported."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
