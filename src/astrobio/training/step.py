"""One optimizer step: forward, one loss, backward over all micro-batches, and the guard against non-finite numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from astrobio.batch import MultiModalBatch, note_sizes
from astrobio.losses.combined import LossWeights, MultiModalLoss, compute_multimodal_loss, count_targets
from astrobio.system.unified import SystemOutputs, UnifiedMultiModalSystem
from astrobio.training.gradients import GradientPolicy, global_norm, whole_norm
from astrobio.training.ranks import gather, keep_shards_only, sum_over_ranks, world_size


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
    seeds: Sequence[int] = (),
) -> StepResult:
    """One step over its micro-batches; a non-finite loss or gradient leaves the weights as they were and says why.

    Args:
        batches: this rank's, as many as every other rank's. seeds: one for each, of what its forward pass draws.

    Losses are looked at once, after the last backward (before it, where that already updates weights): until then the
    host runs ahead of the device.
    """
    result = StepResult()
    note_sizes(batches)
    counts = sum_over_ranks(global_counts(batches))
    policy.begin()
    losses: list[dict[str, Tensor]] = []
    for place, batch in enumerate(batches):
        if seeds:
            torch.manual_seed(seeds[place])
        _, loss = forward_loss(system, batch, weights, counts, precision)
        losses.append(_values(loss))
        if policy.steps_in_backward:
            result.losses, result.skipped = _judge(losses, batches)
        if not result.skipped:
            policy.before_backward(place == len(batches) - 1)
            loss.total.backward()
    keep_shards_only(system)
    if not policy.steps_in_backward:
        result.losses, result.skipped = _judge(losses, batches)
    if result.skipped:
        system.zero_grad(set_to_none=True)
        return result
    result.gradient_norm = float(policy.finish())
    if not abs(result.gradient_norm) < float("inf"):
        result.skipped = f"the gradient is not finite in worlds {_some(batches[0].world_ids)}"
    return result


def norms_by_part(system: UnifiedMultiModalSystem, policy: GradientPolicy) -> dict[str, float]:
    """Norm of the last step's gradient in each part of the system, over all ranks, all of which must call it."""
    norms, found = policy.norms, {}
    for name, child in system.named_children():
        own = {p: norms[p] for p in child.parameters() if p in norms}
        found[name] = whole_norm({p: p for p in own}, own)
    return {name: float(norm) for name, norm in found.items()}


def gradient_norms(
    system: UnifiedMultiModalSystem, policy: GradientPolicy, batch: MultiModalBatch, weights: LossWeights,
    precision: str, seed: int = 0,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Norm of each weighted loss part's gradient in each part of the system; an encoder it doesn't reach shows 0.

    It leaves weights, gradients and random states as they were. Every rank must call it, with a batch of its own: the
    gradients are those of all ranks' batches together.
    """
    counts, scale = sum_over_ranks(count_targets(batch)), weights.of_parts()
    measure = _norms_of_shards if world_size() > 1 else _norms_of_wholes
    with torch.random.fork_rng(devices=[batch.labels.device] if batch.labels.is_cuda else []):

        def parts() -> dict[str, Tensor]:
            torch.manual_seed(seed)
            loss = forward_loss(system, batch, weights, counts, precision)[1]
            return {name: scale[name] * value for name, value in loss.parts.items()}

        policy.watching = False
        try:
            # A compiled forward frees what a second backward through it would need.
            with torch.compiler.set_stance("force_eager"):
                return measure(system, [name for name, weight in scale.items() if weight != 0.0], parts)
        finally:
            policy.watching = True


def _norms_of_wholes(
    system: UnifiedMultiModalSystem, names: Sequence[str], parts: Callable[[], dict[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """From one forward pass; no gradient stays on its parameter."""
    out: dict[str, dict[str, float]] = {}
    losses = parts()
    for part in [name for name in names if losses[name].requires_grad]:
        out[part] = {}
        for name, child in system.named_children():
            found = torch.autograd.grad(losses[part], list(child.parameters()), retain_graph=True, allow_unused=True)
            out[part][name] = float(global_norm(g for g in found if g is not None))
    return out


def _norms_of_shards(
    system: UnifiedMultiModalSystem, names: Sequence[str], parts: Callable[[], dict[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """From one pass a part: only a whole backward hands every rank its shards of the gradients."""
    out: dict[str, dict[str, float]] = {}
    for part in names:
        parts()[part].backward()
        keep_shards_only(system)
        out[part] = {
            name: float(global_norm(p.grad for p in child.parameters() if p.grad is not None))
            for name, child in system.named_children()
        }
        system.zero_grad(set_to_none=True)
    return out


def _values(loss: MultiModalLoss) -> dict[str, Tensor]:
    """Total and parts, [] float32, without their graph."""
    return {name: value.detach().float() for name, value in ({"total": loss.total} | loss.parts).items()}


def _judge(losses: Sequence[dict[str, Tensor]], batches: Sequence[MultiModalBatch]) -> tuple[dict[str, float], str]:
    """Losses over all micro-batches and ranks, in one transfer, and what is wrong with the first bad micro-batch.

    A rank's NaN is so seen by all of them at once.
    """
    names = list(losses[0])
    own = torch.stack([value for values in losses for value in values.values()])
    rows = sum_over_ranks({"losses": own})["losses"].view(len(losses), len(names)).tolist()
    for place, row in enumerate(rows):
        bad = [name for name, value in zip(names, row, strict=True) if not abs(value) < float("inf")]
        if bad:
            reason = f"the loss is not finite ({', '.join(bad)}) in worlds {_guilty(losses[place], batches[place])}"
            return dict(zip(names, row, strict=True)), reason
    return {name: sum(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}, ""


def _guilty(values: Mapping[str, Tensor], batch: MultiModalBatch) -> str:
    """Names of the worlds on the ranks whose own loss is not finite."""
    bad = not bool(torch.isfinite(torch.stack(list(values.values()))).all())
    return ", ".join(text for text in gather(_some(batch.world_ids) if bad else "") if text)


def _some(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
