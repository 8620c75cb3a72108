"""Validation during training, and the weights that did best in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from astrobio.batch import IGNORED
from astrobio.losses import count_targets
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.checkpoint import save_weights, write_json
from astrobio.training.config import RunConfig
from astrobio.training.feed import Store
from astrobio.training.monitor import Monitor
from astrobio.training.parallel import Prepared
from astrobio.training.ranks import by_first_rank, keep_together, sum_over_ranks
from astrobio.training.share import own_sweep
from astrobio.training.step import forward_loss


@dataclass
class Progress:
    """Where a run stands, besides its weights; the same on every rank."""

    step: int = 0
    best: float = float("inf")
    skipped: int = 0
    skipped_in_a_row: int = 0


def keep_if_best(
    prepared: Prepared, store: Store, config: RunConfig, run_dir: Path, progress: Progress, monitor: Monitor
) -> None:
    """Validate, and keep the weights if they are the best so far; every rank must call it."""
    scores = validate(prepared.system, store, config)
    prepared.save_barrier()
    monitor.record(progress.step, "validation", scores)
    monitor.say(
        f"step {progress.step}: validation accuracy {scores['accuracy']:.3f}, "
        f"classification {scores.get('classification', float('nan')):.3f}, total {scores['total']:.3f}"
    )
    score = scores.get(config.training.select, scores["total"])
    if score < progress.best:
        progress.best = score
        if config.training.keep == 0:
            return
        save_weights(prepared.system, run_dir / "model.safetensors")
        by_first_rank(lambda: write_json(run_dir / "best.json", {"step": progress.step, **scores}))


@torch.no_grad()
def validate(system: UnifiedMultiModalSystem, store: Store, config: RunConfig) -> dict[str, float]:
    """Every loss part over the whole split, and the accuracy, with the run's modalities and no dropout.

    Each rank takes its share of the batches; sums and counts are then added up.

    Raises:
        InputError: on every rank, if one cannot read its worlds.
    """
    settings = config.training
    system.eval()
    weights = config.loss.of_parts()
    sums = {name: torch.zeros((), device=store.device) for name in weights}
    counts = {f"{name} count": torch.zeros((), device=store.device) for name in weights}
    right, known = (torch.zeros((), device=store.device) for _ in range(2))
    for batch in keep_together(own_sweep(store, settings.batch_size, settings.modalities)):
        with torch.compiler.set_stance("force_eager"):  # not worth compiling once more: no gradients, other shapes
            outputs, loss = forward_loss(system, batch, config.loss, dict.fromkeys(weights, 1.0), config.precision)
        for name, count in count_targets(batch).items():
            sums[name] += loss.parts.get(name, 0.0)
            counts[f"{name} count"] += count
        labelled = batch.labels != IGNORED
        right += (outputs.state_logits.argmax(dim=-1) == batch.labels)[labelled].sum()
        known += labelled.sum()
    found = sum_over_ranks(sums | counts | {"right": right, "known": known})
    parts = {
        name: float(found[name] / found[f"{name} count"].clamp_min(1.0)) for name, weight in weights.items() if weight
    }
    total = sum(weights[name] * value for name, value in parts.items())
    return {"total": total, **parts, "accuracy": float(found["right"] / found["known"].clamp_min(1.0))}
