"""Supervised terms. Each returns the sum over its valid targets in float32; who calls divides by their number.

Dimension letters: B worlds, S text positions, L links, N nodes, Z latent, G gases, K physics targets.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from astrobio.batch import IGNORED
from astrobio.batch.graph import FLUX_SCALE

FREE_NATS = (
    0.05  # a latent dimension's information that costs nothing (free bits, Kingma et al. 2016, arXiv:1606.04934)
)


@cache
def indices(values: tuple[int, ...], device: torch.device) -> Int[Tensor, "n"]:
    """Constant positions on a device, made once: a list as an index would wait for the device every time."""
    with torch.inference_mode(mode=False):  # gradients may need it later
        return torch.tensor(values, device=device)


def classification(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """Cross-entropy in nats, summed over labelled worlds."""
    return functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")


def links(logits: Float[Tensor, "L"], targets: Float[Tensor, "L"], valid: Bool[Tensor, "L"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of links and drawn pairs."""
    loss = functional.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    return masked_sum(loss, valid)


def fluxes(predicted: Float[Tensor, "*n"], truth: Float[Tensor, "*n"], valid: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Smooth L1 between predicted asinh(v / `FLUX_SCALE`) and true v in mmol/gDW/h; for exchanges too."""
    target = torch.asinh(torch.where(valid, truth, 0.0) / FLUX_SCALE)
    return masked_sum(functional.smooth_l1_loss(predicted.float(), target, reduction="none", beta=0.1), valid)


def kl_divergence(
    mu: Float[Tensor, "B Z"], logvar: Float[Tensor, "B Z"], valid: Bool[Tensor, "B"]
) -> Float[Tensor, ""]:
    """KL(q‖N(0, 1)) in nats a latent dimension, not below `FREE_NATS` in any: below, collapsing gains nothing."""
    mu, logvar = mu.float(), logvar.float()
    divergence = 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)
    return masked_sum(divergence.clamp_min(FREE_NATS).mean(-1), valid)


def regression(
    predicted: Float[Tensor, "B K"], truth: Float[Tensor, "B K"], weight: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Weighted smooth L1 in normalised units (weight 0 where unknown)."""
    loss = functional.smooth_l1_loss(predicted.float(), truth.float(), reduction="none")
    return masked_sum(loss * weight, weight > 0)


def masked_sum(values: Float[Tensor, "*n"], valid: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Sum of the valid values; what is not valid neither counts nor spoils the gradient."""
    return torch.where(valid, values, 0.0).sum()
