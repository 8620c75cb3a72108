"""One optimizer step: forward, one loss, backward over all micro-batches, and the guard against non-finite numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from astrobio.batch import MultiModalBatch
from astrobio.losses.combined import LossWeights, MultiModalLoss, compute_multimodal_loss, count_targets
from astrobio.system.unified import SystemOutputs, UnifiedMultiModalSystem
from astrobio.training.gradients import GradientPolicy
from astrobio.training.ranks import sum_over_ranks


@dataclass
class StepResult:
    """What a step did.

    Args:
        losses: "total" and every part, over all micro-batches. gradient_norm: before clipping.
        skipped: why the weights were left alone ("" where they were updated).
    """

    losses: dict[str, float] = field(default_factory=dict)
    gradient_norm: float = float("nan")
    skipped: str = ""


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Mixed precision of a forward pass, where `is_mixed` says so."""
    return torch.autocast(device.type, torch.bfloat16) if is_mixed(device, precision) else contextlib.nullcontext()


def is_mixed(device: torch.device, precision: str) -> bool:
    """Whether a pass computes in bf16: "auto" does on a GPU and not on a CPU."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def forward_loss(
    system: UnifiedMultiModalSystem,
    batch: MultiModalBatch,
    weights: LossWeights,
    counts: Mapping[str, Tensor | float] | None,
    precision: str,
) -> tuple[SystemOutputs, MultiModalLoss]:
    """The system's answer (mixed precision) and its loss (fp32), each part divided by its count in `counts`."""
    with autocast(batch.labels.device, precision):
        outputs = system(batch)
    return outputs, compute_multimodal_loss(outputs, batch, weights, counts)


def global_counts(batches: Sequence[MultiModalBatch]) -> dict[str, Tensor]:
    """Valid targets of each part of the loss over several batches; dividing by them makes accumulation exact."""
    each = [count_targets(batch) for batch in batches]
    return {name: torch.stack([counts[name] for counts in each]).sum(dim=0) for name in each[0]}


def train_step(
    system: UnifiedMultiModalSystem,
    policy: GradientPolicy,
    batches: Sequence[MultiModalBatch],
    weights: LossWeights,
    precision: str,
) -> StepResult:
    """One step over its micro-batches; a non-finite loss or gradient leaves the weights as they were and says why."""
    result = StepResult()
    counts = sum_over_ranks(global_counts(batches))
    policy.begin()
    for batch in batches:
        _, loss = forward_loss(system, batch, weights, counts, precision)
        parts = _numbers(loss)
        result.losses = {name: result.losses.get(name, 0.0) + value for name, value in parts.items()}
        bad = [name for name, value in parts.items() if not abs(value) < float("inf")]
        if bad:
            system.zero_grad(set_to_none=True)
            result.skipped = f"the loss is not finite ({', '.join(bad)}) in worlds {_some(batch.world_ids)}"
            return result
        loss.total.backward()
    result.gradient_norm = float(policy.finish())
    if not abs(result.gradient_norm) < float("inf"):
        result.skipped = f"the gradient is not finite in worlds {_some(batches[0].world_ids)}"
    return result


def gradient_norms(
    system: UnifiedMultiModalSystem, batch: MultiModalBatch, weights: LossWeights, precision: str
) -> dict[str, dict[str, float]]:
    """Norm of each weighted loss part's gradient in each part of the system; an encoder it doesn't reach shows 0.

    It leaves gradients and random states as they were.
    """
    devices = [batch.labels.device] if batch.labels.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        _, loss = forward_loss(system, batch, weights, None, precision)
    owners = {name: list(child.parameters()) for name, child in system.named_children()}
    out: dict[str, dict[str, float]] = {}
    scale = weights.of_parts()
    for part, value in loss.parts.items():
        if value.requires_grad:
            out[part] = {name: scale[part] * _norm_of(value, parameters) for name, parameters in owners.items()}
    return out


def _norm_of(value: Tensor, parameters: list[nn.Parameter]) -> float:
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return float(nn.utils.get_total_norm([g for g in gradients if g is not None]))


def _numbers(loss: MultiModalLoss) -> dict[str, float]:
    """Total and parts over all ranks, as floats in one transfer; a rank's NaN is so seen by all of them at once."""
    values = sum_over_ranks({"total": loss.total.detach()} | {name: v.detach() for name, v in loss.parts.items()})
    return dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))


def _some(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
