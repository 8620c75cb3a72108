"""The AdamW update with 8-bit moments as one Triton kernel: every byte is read once and written once.

A weight costs 2 (weight) + 2 (gradient) + 2 (moments) bytes read and 4 written, plus 16 bytes of scales per 256.
`astrobio.training.eight_bit.update_reference_` is the same arithmetic in plain PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

if TYPE_CHECKING:
    from astrobio.training.eight_bit import Hyperparameters

TILE = 2048  # weights a program updates; at 256 a block, one warp's 16-byte accesses cover a block exactly
WARPS = 8


@triton.jit
def _multiplier(factor, limit):
    """The gradient's multiplier and whether it is finite; with a positive limit, `factor` holds the gradient's norm."""
    value = tl.load(factor)
    bounded = tl.minimum(limit / (value + 1e-6), 1.0)
    return tl.where(limit > 0.0, bounded, value), value - value == 0.0


@triton.jit(do_not_specialize=["seed", "offset"])
def _update_kernel(
    weight, gradient, mean_codes, mean_scales, square_codes, square_scales, factor, blocks,
    lr, beta1, beta2, eps, decay, first, second, seed, offset, limit,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    multiplier, finite = _multiplier(factor, limit)
    end = tl.where(finite, blocks, 0)  # NaN or infinite: nothing is read or written
    inside = block < end
    index = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    keep = index < end.to(tl.int64) * BLOCK
    # the old moments
    code = tl.load(mean_codes + index, mask=keep, other=0).to(tl.float32) * (1.0 / 127.0)
    mean = code * tl.abs(code) * tl.load(mean_scales + block, mask=inside, other=0.0)[:, None]
    code = tl.load(square_codes + index, mask=keep, other=0).to(tl.float32) * (1.0 / 255.0)
    code = code * code
    square = code * code * tl.load(square_scales + block, mask=inside, other=0.0)[:, None]
    # the new ones and the step
    g = tl.load(gradient + index, mask=keep, other=0.0).to(tl.float32) * multiplier
    mean = beta1 * mean + (1.0 - beta1) * g
    square = beta2 * square + (1.0 - beta2) * g * g
    step = mean * first / (tl.sqrt(square * second) + eps)
    fresh = tl.load(weight + index, mask=keep, other=0.0).to(tl.float32) * decay - lr * step
    # random bits: a hash of the weight's index and the seed
    bits = (index + offset).to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32)
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    bits = bits ^ (bits >> 16)
    if ROUND:
        raw = fresh.to(tl.uint32, bitcast=True) + (bits & 0xFFFF)
        fresh = (raw & 0xFFFF0000).to(tl.float32, bitcast=True)
    tl.store(weight + index, fresh.to(weight.dtype.element_ty), mask=keep)
    # first moments back to codes
    size = tl.abs(mean)
    scale = tl.max(size, axis=1)
    place = tl.sqrt(size * (1.0 / tl.maximum(scale, 1e-30))[:, None]) * 127.0
    low = tl.minimum(tl.floor(place), 126.0)
    uniform = (((bits >> 16) & 0xFF).to(tl.float32) + 0.5) * (1.0 / 256.0)
    up = uniform * (2.0 * low + 1.0) < place * place - low * low
    code = low + tl.where(up, 1.0, 0.0)
    code = tl.where(mean < 0, -code, code)
    tl.store(mean_codes + index, code.to(tl.int8), mask=keep)
    tl.store(mean_scales + block, scale, mask=inside)
    # second moments back to codes
    scale = tl.max(square, axis=1)
    root = tl.sqrt(square * (1.0 / tl.maximum(scale, 1e-30))[:, None])
    place = tl.sqrt(root) * 255.0
    low = tl.minimum(tl.floor(place), 254.0)
    low2 = low * low
    high2 = (low + 1.0) * (low + 1.0)
    place2 = place * place
    uniform = ((bits >> 24).to(tl.float32) + 0.5) * (1.0 / 256.0)
    up = uniform * (high2 * high2 - low2 * low2) < place2 * place2 - low2 * low2
    code = tl.maximum(low + tl.where(up, 1.0, 0.0), 1.0)
    code = tl.where(square > 0, code, 0.0)
    tl.store(square_codes + index, code.to(tl.uint8), mask=keep)
    tl.store(square_scales + block, scale, mask=inside)


@triton.jit(do_not_specialize=["seed", "offset"])
def _small_kernel(
    weight, gradient, means, squares, factor, count,
    lr, beta1, beta2, eps, decay, first, second, seed, offset, limit, BLOCK: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    multiplier, finite = _multiplier(factor, limit)
    end = tl.where(finite, count, 0)
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    keep = index < end
    g = tl.load(gradient + index, mask=keep, other=0.0).to(tl.float32) * multiplier
    mean = beta1 * tl.load(means + index, mask=keep, other=0.0) + (1.0 - beta1) * g
    square = beta2 * tl.load(squares + index, mask=keep, other=0.0) + (1.0 - beta2) * g * g
    step = mean * first / (tl.sqrt(square * second) + eps)
    fresh = tl.load(weight + index, mask=keep, other=0.0).to(tl.float32) * decay - lr * step
    if ROUND:
        bits = (index + offset).to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32)
        bits = (bits ^ (bits >> 16)) * 0x7FEB352D
        bits = (bits ^ (bits >> 15)) * 0x846CA68B
        bits = bits ^ (bits >> 16)
        raw = fresh.to(tl.uint32, bitcast=True) + (bits & 0xFFFF)
        fresh = (raw & 0xFFFF0000).to(tl.float32, bitcast=True)
    tl.store(weight + index, fresh.to(weight.dtype.element_ty), mask=keep)
    tl.store(means + index, mean, mask=keep)
    tl.store(squares + index, square, mask=keep)


@triton.jit(do_not_specialize=["seed"])
def _accumulate_kernel(total, gradient, count, seed, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    keep = index < count
    value = tl.load(total + index, mask=keep, other=0.0).to(tl.float32)
    value += tl.load(gradient + index, mask=keep, other=0.0).to(tl.float32)
    bits = index.to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32)
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    bits = bits ^ (bits >> 16)
    raw = value.to(tl.uint32, bitcast=True) + (bits & 0xFFFF)
    tl.store(total + index, (raw & 0xFFFF0000).to(tl.float32, bitcast=True).to(tl.bfloat16), mask=keep)


def update_(
    weight: Tensor, gradient: Tensor, state: dict[str, Tensor], factor: Tensor, numbers: Hyperparameters,
    limit: float = 0.0,
) -> None:  # fmt: skip
    """One AdamW update in place of a contiguous weight; see `update_reference_`."""
    assert weight.is_contiguous(), weight.stride()
    if weight.numel() == 0:
        return
    first, second = numbers.corrections
    shared = (
        numbers.lr, numbers.beta1, numbers.beta2, numbers.eps, 1.0 - numbers.lr * numbers.weight_decay,
        1.0 / first, 1.0 / second, numbers.seed, numbers.offset, float(limit),
    )  # fmt: skip
    gradient, rounded = gradient.contiguous(), weight.element_size() == 2
    grid = (triton.cdiv(weight.numel(), TILE),)
    if "mean_scale" not in state:
        small: Any = _small_kernel
        small[grid](
            weight, gradient, state["mean"], state["square"], factor, weight.numel(), *shared, BLOCK=TILE, ROUND=rounded
        )
        return
    blocks = state["mean_scale"].numel()
    block = weight.numel() // blocks
    kernel: Any = _update_kernel
    kernel[grid](
        weight, gradient, state["mean"], state["mean_scale"], state["square"], state["square_scale"], factor, blocks,
        *shared, BLOCK=block, BLOCKS=TILE // block, ROUND=rounded, num_warps=WARPS,
    )  # fmt: skip


def accumulate_(total: Tensor, gradient: Tensor, seed: int) -> None:
    """total += gradient in bfloat16, rounded at random so that the expected sum is exact."""
    assert total.is_contiguous() and total.numel() == gradient.numel(), (total.shape, gradient.shape)
    kernel: Any = _accumulate_kernel
    grid = (triton.cdiv(total.numel(), 4096),)
    kernel[grid](total, gradient.contiguous(), total.numel(), seed, BLOCK=4096, num_warps=8)
