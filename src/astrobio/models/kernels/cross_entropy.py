"""Row kernels of the chunked next-token loss: one program reads one row of logits.

Dimension letters: T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

BLOCK = 8192  # logits per step of a row: 16 KB of bfloat16
WARPS = 16


@triton.jit
def _log_denominator_kernel(logits, targets, denominator, picked, vocabulary, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * vocabulary
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for offset in range(0, vocabulary, BLOCK):
        column = offset + tl.arange(0, BLOCK)
        value = tl.load(start + column, mask=column < vocabulary, other=float("-inf")).to(tl.float32)
        above = tl.maximum(highest, value)
        shift = tl.where(above == float("-inf"), 0.0, above)
        total = total * tl.exp(highest - shift) + tl.exp(value - shift)
        highest = above
    top = tl.max(highest, axis=0)
    tl.store(denominator + row, tl.log(tl.sum(total * tl.exp(highest - top), axis=0)) + top)
    target = tl.load(targets + row)
    tl.store(picked + row, tl.load(start + target).to(tl.float32))


@triton.jit
def _gradient_kernel(logits, targets, denominator, vocabulary, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * vocabulary
    shift, target = tl.load(denominator + row), tl.load(targets + row)
    for offset in range(0, vocabulary, BLOCK):
        column = offset + tl.arange(0, BLOCK)
        inside = column < vocabulary
        value = tl.load(start + column, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.exp(value - shift) - tl.where(column == target, 1.0, 0.0)
        tl.store(start + column, gradient.to(logits.dtype.element_ty), mask=inside)


def log_denominator(logits: Tensor, targets: Tensor, denominator: Tensor, picked: Tensor) -> None:
    """Write log Σ exp(logits) [T] and the target's logit [T] (float32) of contiguous logits [T, V]."""
    assert logits.is_contiguous(), logits.stride()
    kernel: Any = _log_denominator_kernel
    kernel[(logits.shape[0],)](logits, targets, denominator, picked, logits.shape[1], BLOCK=BLOCK, num_warps=WARPS)


def logits_to_gradient_(logits: Tensor, targets: Tensor, denominator: Tensor) -> None:
    """Turn contiguous logits [T, V] into softmax − one-hot of the target, in place."""
    assert logits.is_contiguous(), logits.stride()
    kernel: Any = _gradient_kernel
    kernel[(logits.shape[0],)](logits, targets, denominator, logits.shape[1], BLOCK=BLOCK, num_warps=WARPS)
