"""Depthwise 3×3×3 convolution on the sphere as one operator, which compilation leaves whole.

cuDNN runs a depthwise 3-D convolution as one group a channel, or PyTorch's own kernel wants channels first and the
fields padded; this one reads channels-last rows, in which everything around it works (`kernels/depthwise.py`).

Dimension letters: B worlds (times steps), P levels, Y latitudes, X longitudes, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op(
    "astrobio::sphere_depthwise", mutates_args=(), schema="(Tensor rows, Tensor weight, Tensor bias) -> Tensor"
)
def sphere_depthwise(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """rows [B, P, Y, X, C] → the same shape; `weight` [C, 1, 3, 3, 3], `bias` [C], X even, zeros beyond P.

    Equals a `Conv3d(C, C, 3, groups=C)` of `pad_sphere(…, 1, 1)`, with sums in float32.
    """
    from astrobio.models.kernels.depthwise import gather

    return gather(rows.contiguous(), weight, bias, transposed=False)


@torch.library.custom_op(
    "astrobio::sphere_depthwise_gradients", mutates_args=(),
    schema="(Tensor rows, Tensor weight, Tensor gradient) -> (Tensor, Tensor, Tensor)",
)  # fmt: skip
def sphere_depthwise_gradients(rows: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of rows, weight and bias from that of the output."""
    from astrobio.models.kernels.depthwise import gather, weight_gradient

    gradient = gradient.contiguous()
    sums = weight_gradient(rows.contiguous(), gradient).to(weight.dtype)
    taps = sums[:27].t().reshape(weight.shape)  # [27, C] → [C, 1, 3, 3, 3]
    return gather(gradient, weight, weight, transposed=True).to(rows.dtype), taps.contiguous(), sums[27].clone()


@sphere_depthwise.register_fake
def _(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


@sphere_depthwise_gradients.register_fake
def _(rows: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    fresh = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return torch.empty_like(rows, memory_format=torch.contiguous_format), fresh, weight.new_empty(len(weight))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return sphere_depthwise_gradients(*ctx.saved_tensors, gradient)


sphere_depthwise.register_autograd(_backward, setup_context=_keep)
