"""The choice of the attention kernel, and that every kernel computes the same attention."""

from __future__ import annotations

import pytest
import torch

from astrobio.errors import InputError
from astrobio.models.attention_backends import causal_attention, kernel_order


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 33, 16, generator=generator)
    k, v = (torch.randn(2, 2, 33, 16, generator=generator) for _ in range(2))
    return q, k, v


def _by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    hidden = torch.ones(33, 33, dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("kernel", ["auto", "math"])
def test_equals_attention_by_hand(kernel: str) -> None:
    q, k, v = _inputs()
    torch.testing.assert_close(causal_attention(q, k, v, kernel), _by_hand(q, k, v), rtol=1e-4, atol=1e-5)  # pyright: ignore


def test_the_measured_table_decides_by_device_and_length() -> None:
    assert kernel_order("auto", "NVIDIA H100 80GB HBM3", 512)[0] == "cudnn"
    assert kernel_order("auto", "some other card", 512)[0] == "flash"
    assert kernel_order("auto", "", 8192)[-1] == "math"


def test_a_named_kernel_is_the_only_one() -> None:
    assert kernel_order("math", "NVIDIA H100 80GB HBM3", 8192) == ("math",)


def test_a_kernel_that_is_not_installed_is_named() -> None:
    with pytest.raises(InputError, match=r"flash_attn\.cute"):
        kernel_order("flash4", "NVIDIA H100 80GB HBM3", 8192)
    with pytest.raises(InputError, match="expected one of"):
        kernel_order("fastest", "", 8)  # pyright: ignore[reportArgumentType]
