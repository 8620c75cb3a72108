"""The optimizer, its schedule and clipping."""

from __future__ import annotations

import math

import torch
from torch import nn

from astrobio.training.config import TrainingConfig
from astrobio.training.eight_bit import AdamW8bit
from astrobio.training.execution import OptimizerKind


def build_optimizer(
    system: nn.Module, config: TrainingConfig, kind: OptimizerKind = "adamw", device: torch.device | None = None
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); weight decay on tensors of two or more dimensions only.

    Args:
        kind: "adamw8bit" keeps each moment in a byte and rounds bfloat16 weights at random (`AdamW8bit`).
        device: where `adamw8bit` computes, if weights live in host memory.
    """
    named = [(name, p) for name, p in system.named_parameters() if p.requires_grad]
    factors = {name: config.decoder_lr_factor if _is_decoder(name) else 1.0 for name, _ in named}
    groups = [
        {"params": [p for name, p in named if factors[name] == factor and (p.ndim >= 2) == matrix],
         "weight_decay": config.weight_decay * matrix, "lr": config.lr * factor, "lr_factor": factor}
        for factor in sorted(set(factors.values()) | {1.0}) for matrix in (True, False)
    ]  # fmt: skip
    if kind == "adamw8bit":
        return AdamW8bit(groups, lr=config.lr, betas=config.betas, eps=config.eps, seed=config.seed, device=device)
    fused = bool(named) and all(p.is_cuda for _, p in named)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of step 0, 1, …: linear warm-up, then a cosine down to `lr × min_lr_ratio` at the last step."""
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(config.steps - warmup, 1)
    low = config.min_lr_ratio
    return config.lr * (low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the rate `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)


def _is_decoder(name: str) -> bool:
    """Whether a parameter is the decoder's own, as a pretrained one has it, and not of its bridges."""
    return name.startswith("decoder.") and not name.startswith("decoder.bridges.")


def clip_gradients(system: nn.Module, limit: float) -> torch.Tensor:
    """Scale all gradients so that their global norm is at most `limit`; returns the norm before, [] fp32."""
    return nn.utils.clip_grad_norm_(system.parameters(), limit)
