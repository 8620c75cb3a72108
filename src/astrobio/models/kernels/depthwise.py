"""The depthwise 3×3×3 convolution on the sphere in channels-last rows, without padded copies.

A program reads 27 neighbours of a few cells for a block of channels. Its transpose (the gradient of the input) visits
the same neighbours with the mirrored tap; across a pole latitude is not mirrored, because both cells look at the pole.

Dimension letters: B worlds (times steps), P levels, Y latitudes, X longitudes, C channels, R = B·P·Y·X rows.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

ROWS, CHANNELS = 16, 128  # cells and channels of a program
SHARE = 1024  # rows that one program of the weight's gradient sums over


@triton.jit
def _neighbour(row, P, Y, X, dp, dy, dx):
    """Row of the neighbour of each row, whether it exists, and whether the way there crosses a pole."""
    x, y, p = row % X, (row // X) % Y, (row // (X * Y)) % P
    crosses = (y + dy < 0) | (y + dy >= Y)
    new_y = tl.where(crosses, y, y + dy)
    new_x = (x + dx + X + tl.where(crosses, X // 2, 0)) % X
    exists = (p + dp >= 0) & (p + dp < P)
    return row + dp * (Y * X) + (new_y - y) * X + (new_x - x), exists, crosses


@triton.jit
def _gather_kernel(
    rows, taps, bias, out, count, channels, P, Y, X,
    TRANSPOSED: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside, wanted = row < count, channel < channels
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    if not TRANSPOSED:
        total += tl.load(bias + channel, mask=wanted, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(27):  # pyright: ignore[reportGeneralTypeIssues]
        source, exists, crosses = _neighbour(row, P, Y, X, tap // 9 - 1, (tap // 3) % 3 - 1, tap % 3 - 1)
        mask = (inside & exists)[:, None] & wanted[None, :]
        place = source.to(tl.int64)[:, None] * channels + channel[None, :]
        value = tl.load(rows + place, mask=mask, other=0.0).to(tl.float32)
        if TRANSPOSED:
            plain = tl.load(taps + (26 - tap) * channels + channel, mask=wanted, other=0.0).to(tl.float32)
            mirrored = (2 - tap // 9) * 9 + ((tap // 3) % 3) * 3 + (2 - tap % 3)  # levels, longitudes; not latitudes
            pole = tl.load(taps + mirrored * channels + channel, mask=wanted, other=0.0).to(tl.float32)
            total += value * tl.where(crosses[:, None], pole[None, :], plain[None, :])
        else:
            total += value * tl.load(taps + tap * channels + channel, mask=wanted, other=0.0).to(tl.float32)[None, :]
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside[:, None] & wanted[None, :])


@triton.jit
def _weight_kernel(
    rows, gradient, partial, count, channels, P, Y, X,
    SHARE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum of gradient × neighbour over a share of the rows, for one tap; tap 27 is the bias."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    tap, share = tl.program_id(1), tl.program_id(2)
    wanted = channel < channels
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for start in range(0, SHARE, ROWS):
        row = share * SHARE + start + tl.arange(0, ROWS)
        inside = row < count
        here = row.to(tl.int64)[:, None] * channels + channel[None, :]
        g = tl.load(gradient + here, mask=inside[:, None] & wanted[None, :], other=0.0).to(tl.float32)
        if tap == 27:
            total += g
        else:
            source, exists, _ = _neighbour(row, P, Y, X, tap // 9 - 1, (tap // 3) % 3 - 1, tap % 3 - 1)
            mask = (inside & exists)[:, None] & wanted[None, :]
            place = source.to(tl.int64)[:, None] * channels + channel[None, :]
            total += g * tl.load(rows + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(partial + (share * 28 + tap) * channels + channel, tl.sum(total, axis=0), mask=wanted)


def gather(rows: Tensor, weight: Tensor, bias: Tensor, *, transposed: bool) -> Tensor:
    """The convolution of contiguous rows [B, P, Y, X, C] (or its transpose, which ignores the bias), summed in fp32."""
    assert rows.is_contiguous(), rows.stride()
    _, p, y, x, channels = rows.shape
    count, out = rows.numel() // channels, torch.empty_like(rows)
    taps = weight.reshape(channels, 27).t().contiguous()  # [27, C]
    kernel: Any = _gather_kernel
    grid = (triton.cdiv(count, ROWS), triton.cdiv(channels, CHANNELS))
    kernel[grid](rows, taps, bias, out, count, channels, p, y, x, TRANSPOSED=transposed, ROWS=ROWS, CHANNELS=CHANNELS)
    return out


def weight_gradient(rows: Tensor, gradient: Tensor) -> Tensor:
    """[28, C] float32: gradients of the 27 taps and of the bias."""
    assert rows.is_contiguous() and gradient.is_contiguous(), (rows.stride(), gradient.stride())
    _, p, y, x, channels = rows.shape
    count = rows.numel() // channels
    shares = triton.cdiv(count, SHARE)
    partial = torch.empty(shares, 28, channels, dtype=torch.float32, device=rows.device)
    kernel: Any = _weight_kernel
    grid = (triton.cdiv(channels, CHANNELS), 28, shares)
    kernel[grid](rows, gradient, partial, count, channels, p, y, x, SHARE=SHARE, ROWS=ROWS, CHANNELS=CHANNELS)
    return partial.sum(0)
