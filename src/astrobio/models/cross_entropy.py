"""Next-token loss without a [tokens × vocabulary] tensor: logits exist for one chunk of tokens at a time.

The forward keeps one number per token (the log of the softmax's denominator); the backward computes the logits again,
turns them into their gradient in place and multiplies on. Time: one more product with the head than the plain loss.

Dimension letters: T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

IGNORED = -100  # target of tokens that carry no loss (PyTorch's default ignore_index)
CHUNK = 2048  # tokens; at a vocabulary of 131,072 in bfloat16 one chunk of logits is 0.54 GB


def linear_cross_entropy(
    hidden: Float[Tensor, "T D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "T"],
    *,
    chunk: int = CHUNK,
    count: int | None = None,
) -> Float[Tensor, "T"]:
    """Negative log-likelihood of each target under softmax(hidden · weightᵀ), in nats, float32; 0 where ignored.

    Tokens whose target is −100 are left out of every product, so a context costs no head. Gradients are exact for any
    weighting of the result, and also exist (as zeros) where no token has a target, so that no rank waits for another.

    Args:
        count: tokens with a target, where known; otherwise the host waits for the device to count them.
    """
    if count is None:
        kept = (targets != IGNORED).nonzero().squeeze(1)
    else:
        kept = (targets == IGNORED).int().argsort(stable=True)[:count]  # those with a target, in order
    nll = _LinearCrossEntropy.apply(hidden.index_select(0, kept), weight, targets.index_select(0, kept), chunk)
    return hidden.new_zeros(hidden.shape[0], dtype=torch.float32).index_copy(0, kept, nll)


class _LinearCrossEntropy(torch.autograd.Function):
    """The chunked loss of tokens that all carry a target."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        compute = weight.to(hidden.dtype)
        denominator = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
        picked = torch.empty_like(denominator)
        for rows in _chunks(hidden.shape[0], chunk):
            logits = hidden[rows] @ compute.T  # [chunk, V]
            _log_denominator(logits, targets[rows], denominator[rows], picked[rows])
        ctx.save_for_backward(hidden, weight, targets, denominator)
        ctx.chunk = chunk
        return denominator - picked

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, weight, targets, denominator = ctx.saved_tensors
        compute, scale = weight.to(hidden.dtype), upstream[0].float().contiguous()
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(compute) if ctx.needs_input_grad[1] else None
        for rows in _chunks(hidden.shape[0], ctx.chunk):
            logits = hidden[rows] @ compute.T  # [chunk, V]
            _logits_to_gradient_(logits, targets[rows], denominator[rows], scale[rows])
            torch.mm(logits, compute, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.addmm_(logits.T, hidden[rows])
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None


def _chunks(rows: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]


def _log_denominator(logits: Tensor, targets: Tensor, denominator: Tensor, picked: Tensor) -> None:
    """Write log Σ exp(logits) and the target's logit of each row, both float32 [T]."""
    if logits.is_cuda:
        from astrobio.models.kernels.cross_entropy import log_denominator

        log_denominator(logits, targets, denominator, picked)
        return
    values = logits.float()
    denominator.copy_(values.logsumexp(dim=1))
    picked.copy_(values.gather(1, targets[:, None]).squeeze(1))


def _logits_to_gradient_(logits: Tensor, targets: Tensor, denominator: Tensor, scale: Tensor) -> None:
    """Turn logits [T, V] into scale · (softmax − one-hot of the target), in place."""
    if logits.is_cuda:
        from astrobio.models.kernels.cross_entropy import logits_to_gradient_

        logits_to_gradient_(logits, targets, denominator, scale)
        return
    gradient = (logits.float() - denominator[:, None]).exp_()
    gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), -1.0))
    logits.copy_(gradient.mul_(scale[:, None]))
