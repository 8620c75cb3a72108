"""What a system says of every world of a split.

Dimension letters: N worlds, C world states, D embedding width, K physics targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.progress import track
from torch import Tensor

from astrobio.batch import IGNORED, MODALITIES, MultiModalBatch
from astrobio.system.outputs import SystemOutputs
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.feed import Store, sweep
from astrobio.training.step import autocast


@dataclass(frozen=True)
class Predictions:
    """Answers of one system over one split, in the split's order.

    Args:
        world_ids: N identifiers. groups: [N] host star, the unit of resampling.
        labels: [N] index into `WORLD_STATES`, −100 unknown.
        logits: [N, C]. present: [N, 4] what the system was shown.
        embeddings: modality → [N, D] (meaningless where not present).
        unimodal: [N, 4, C] what each modality's expert adds to `logits`.
        physics, physics_truth: [N, K] predicted and true `PHYSICS_TARGETS` in their units, NaN where the truth is
            unknown; None of answers that were kept without them.
    """

    world_ids: tuple[str, ...]
    groups: np.ndarray
    labels: Int[np.ndarray, "N"]
    logits: Float[np.ndarray, "N C"]
    present: np.ndarray
    embeddings: dict[str, Float[np.ndarray, "N D"]]
    unimodal: Float[np.ndarray, "N 4 C"]
    physics: Float[np.ndarray, "N K"] | None = None
    physics_truth: Float[np.ndarray, "N K"] | None = None

    @property
    def predicted(self) -> Int[np.ndarray, "N"]:
        """[N] the likeliest state."""
        return self.logits.argmax(axis=1)

    def labelled(self) -> Predictions:
        """Only the worlds whose state is known."""
        known = self.labels != IGNORED
        return Predictions(
            tuple(name for name, k in zip(self.world_ids, known, strict=True) if k),
            self.groups[known], self.labels[known], self.logits[known], self.present[known],
            {name: values[known] for name, values in self.embeddings.items()},
            self.unimodal[known],
            None if self.physics is None else self.physics[known],
            None if self.physics_truth is None else self.physics_truth[known],
        )  # fmt: skip


def log_softmax(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Log-probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def predict(
    system: UnifiedMultiModalSystem,
    store: Store,
    *,
    batch_size: int,
    precision: str,
    modalities: Sequence[str] = MODALITIES,
    permute: str | None = None,
    limit: int | None = None,
    label: str = "",
) -> Predictions:
    """Run a system over a split without gradients.

    Args:
        modalities: those shown. permute: a modality that each world takes from another world instead, which breaks
            its link to the truth and keeps its distribution.
        limit: only the first so many worlds. label: name of the progress bar ("" hides it).
    """
    size = len(store) if limit is None else min(limit, len(store))
    system.eval()
    world_ids: list[str] = []
    answers: list[dict[str, np.ndarray]] = []
    embeddings: list[dict[str, np.ndarray]] = []
    batches = sweep(store, size, batch_size=batch_size, modalities=modalities, permute=permute)
    for batch in track(batches, label, total=-(-size // batch_size), disable=not label, transient=True):
        with torch.inference_mode(), autocast(store.device, precision):
            outputs = system(batch)
        world_ids += batch.world_ids
        answers.append(_answers(outputs, batch))  # no batch is kept: its cubes would fill the memory
        embeddings.append({name: _array(value) for name, value in outputs.embeddings.items()})
    return Predictions(
        world_ids=tuple(world_ids),
        groups=np.array([store[index].group for index in range(size)]),
        embeddings={name: np.concatenate([part[name] for part in embeddings]) for name in embeddings[0]},
        **{name: np.concatenate([part[name] for part in answers]) for name in answers[0]},
    )


def _answers(outputs: SystemOutputs, batch: MultiModalBatch) -> dict[str, np.ndarray]:
    """The fields of `Predictions` that are one array each, of one batch."""
    truth = batch.physics * batch.physics_std + batch.physics_mean
    return {
        "labels": batch.labels.cpu().numpy(),
        "present": batch.present.cpu().numpy(),
        "logits": _array(outputs.state_logits).astype(np.float64),
        "unimodal": _array(outputs.unimodal_logits).astype(np.float64),
        "physics": _array(outputs.physics.float() * batch.physics_std + batch.physics_mean),
        "physics_truth": _array(truth.masked_fill(~batch.physics_mask, torch.nan)),
    }


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
