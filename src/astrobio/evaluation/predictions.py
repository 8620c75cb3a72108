"""What a system says of every world of a split.

Dimension letters: N worlds, C world states, D embedding width.
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
    """

    world_ids: tuple[str, ...]
    groups: np.ndarray
    labels: Int[np.ndarray, "N"]
    logits: Float[np.ndarray, "N C"]
    present: np.ndarray
    embeddings: dict[str, Float[np.ndarray, "N D"]]
    unimodal: Float[np.ndarray, "N 4 C"]

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
    found: list[tuple[MultiModalBatch, Tensor, dict[str, Tensor]]] = []
    unimodal: list[Tensor] = []
    batches = sweep(store, size, batch_size=batch_size, modalities=modalities, permute=permute)
    for batch in track(batches, label, total=-(-size // batch_size), disable=not label, transient=True):
        with torch.inference_mode(), autocast(store.device, precision):
            outputs = system(batch)
        embeddings = {name: value.float().cpu() for name, value in outputs.embeddings.items()}
        found.append((batch, outputs.state_logits.float().cpu(), embeddings))
        unimodal.append(outputs.unimodal_logits.float().cpu())
    return Predictions(
        world_ids=tuple(name for batch, _, _ in found for name in batch.world_ids),
        groups=np.array([store[index].group for index in range(size)]),
        labels=torch.cat([batch.labels for batch, _, _ in found]).cpu().numpy(),
        logits=torch.cat([logits for _, logits, _ in found]).numpy().astype(np.float64),
        present=torch.cat([batch.present for batch, _, _ in found]).cpu().numpy(),
        embeddings={name: torch.cat([e[name] for _, _, e in found]).numpy() for name in found[0][2]},
        unimodal=torch.cat(unimodal).numpy().astype(np.float64),
    )
