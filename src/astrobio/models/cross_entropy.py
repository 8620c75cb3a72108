"""Next-token loss without a [tokens × vocabulary] tensor: logits exist for one chunk of tokens at a time.

The loss is a sum, so its gradients are known up to one factor as soon as the logits are: each chunk of logits is turned
into its gradient in place and multiplied on in the forward already (as Liger's fused loss does, Hsu et al. 2024,
arXiv:2410.10989), and the backward scales. Nothing is computed twice: three products with the head, as the plain loss.

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
) -> tuple[Float[Tensor, ""], Float[Tensor, "T"]]:
    """Negative log-likelihood of all targets under softmax(hidden · weightᵀ), in nats, float32.

    Tokens whose target is −100 are left out of every product, so a context costs no head. Gradients also exist (as
    zeros) where no token has a target, so that no rank waits for another.

    Args:
        count: tokens with a target, where known; otherwise the host waits for the device to count them.

    Returns:
        The sum over tokens, and each token's share of it without a gradient, 0 where ignored.
    """
    if count is None:
        kept = (targets != IGNORED).nonzero().squeeze(1)
    else:
        kept = (targets == IGNORED).int().argsort(stable=True)[:count]  # those with a target, in order
    device = hidden.device.type
    compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    chosen = hidden.index_select(0, kept).to(compute)
    total, nll = _LinearCrossEntropy.apply(
        chosen, weight, targets.index_select(0, kept), chunk, torch.is_grad_enabled()
    )
    return total, hidden.new_zeros(hidden.shape[0], dtype=torch.float32).index_copy(0, kept, nll)


class _LinearCrossEntropy(torch.autograd.Function):
    """The chunked loss of tokens that all carry a target."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, learning: bool
    ) -> tuple[Tensor, Tensor]:
        compute = weight.to(hidden.dtype)
        denominator = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
        picked = torch.empty_like(denominator)
        of_hidden = torch.empty_like(hidden) if learning and ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(compute) if learning and ctx.needs_input_grad[1] else None
        for rows in _chunks(hidden.shape[0], chunk):
            logits = hidden[rows] @ compute.T  # [chunk, V]
            _log_denominator(logits, targets[rows], denominator[rows], picked[rows])
            if of_hidden is None and of_weight is None:
                continue
            _logits_to_gradient_(logits, targets[rows], denominator[rows])
            if of_hidden is not None:
                torch.mm(logits, compute, out=of_hidden[rows])
            if of_weight is not None:
                of_weight.addmm_(logits.T, hidden[rows])
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.weight_type = weight.dtype
        nll = denominator - picked
        ctx.mark_non_differentiable(nll)
        return nll.sum(), nll

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        of_hidden = None if of_hidden is None else of_hidden * upstream[0]
        of_weight = None if of_weight is None else (of_weight * upstream[0]).to(ctx.weight_type)
        return of_hidden, of_weight, None, None, None


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


def _logits_to_gradient_(logits: Tensor, targets: Tensor, denominator: Tensor) -> None:
    """Turn logits [T, V] into softmax − one-hot of the target, in place."""
    if logits.is_cuda:
        from astrobio.models.kernels.cross_entropy import logits_to_gradient_

        logits_to_gradient_(logits, targets, denominator)
        return
    gradient = (logits.float() - denominator[:, None]).exp_()
    gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), -1.0))
    logits.copy_(gradient)
