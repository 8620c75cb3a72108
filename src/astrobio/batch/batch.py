"""`MultiModalBatch`: what every model, loss and metric speaks.

Dimension letters: B worlds, S text positions, L spectral points, V variables, T time steps, P levels, Y latitudes,
X longitudes, K physics targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_geometric.data import Batch

from astrobio.batch.sample import MODALITIES
from astrobio.errors import InputError

GROWTH_SCALE = (288.0, 15.0)  # K: middle and spread of temperatures at which organisms grow
IGNORED = -100  # label of positions and worlds that carry no target (PyTorch's default ignore_index)


class Sizes(NamedTuple):
    """What a forward pass must know on the host: nodes of the largest graph, text positions that predict a label."""

    nodes: int
    targets: int


@dataclass
class MultiModalBatch:
    """A batch of worlds, padded and normalised; validated on construction.

    Args:
        input_ids: [B, S] context tokens, then assessment tokens, then padding.
        attention_mask: [B, S] True on real tokens.
        context_mask: [B, S] True on context positions, the only ones that fusion and pooling may read.
        lm_labels: [B, S] the token itself on assessment positions, −100 elsewhere (the loss shifts by one).
        spectrum: [B, L, 3] log wavelength (µm), (value − weighted mean) / 100 ppm, σ / 100 ppm.
        spectrum_mask: [B, L]. spectrum_width: [B, L] log of Δλ/λ. spectrum_mean: [B] log10 of the mean depth in ppm.
        spectrum_kind: [B] index into `SPECTRUM_KINDS`.
        climate: [B, V, T, P, Y, X] normalised. climate_mask: [B, V] variable present.
        climate_levels: [B, P] log10 Pa. latitude: [B, Y], longitude: [B, X] degrees. time_kind: [B] index.
        graph: PyG batch of B graphs (see `astrobio.batch.graph.to_data`).
        present: [B, 4] which of text, spectrum, climate, metabolism is there.
        labels: [B] index into `WORLD_STATES`, −100 unknown.
        physics: [B, K] normalised truths. physics_mask: [B, K] known.
        physics_mean, physics_std: [B, K] of the normalisation, so that losses can speak in physical units.
        toa_net: [B] W/m², global mean ASR − OLR of the cube itself (0 where unknown, see `toa_net_mask` [B]).
        habitat: [B] mean temperature of the cube's ice-free surface, less 288 K, in 15 K (`GROWTH_SCALE`; 0
            where unknown, see `habitat_mask` [B]).
        growth: [B] the candidate organism's growth temperature on the same scale, with `growth_mask` [B].
        world_ids: B identifiers.

    `sizes` is what `note_sizes` found, None before; a copy by `replace` or `to` forgets it.
    """

    input_ids: Int[Tensor, "B S"]
    attention_mask: Bool[Tensor, "B S"]
    context_mask: Bool[Tensor, "B S"]
    lm_labels: Int[Tensor, "B S"]
    spectrum: Float[Tensor, "B L 3"]
    spectrum_mask: Bool[Tensor, "B L"]
    spectrum_width: Float[Tensor, "B L"]
    spectrum_mean: Float[Tensor, "B"]
    spectrum_kind: Int[Tensor, "B"]
    climate: Float[Tensor, "B V T P Y X"]
    climate_mask: Bool[Tensor, "B V"]
    climate_levels: Float[Tensor, "B P"]
    latitude: Float[Tensor, "B Y"]
    longitude: Float[Tensor, "B X"]
    time_kind: Int[Tensor, "B"]
    graph: Batch
    present: Bool[Tensor, "B 4"]
    labels: Int[Tensor, "B"]
    physics: Float[Tensor, "B K"]
    physics_mask: Bool[Tensor, "B K"]
    physics_mean: Float[Tensor, "B K"]
    physics_std: Float[Tensor, "B K"]
    toa_net: Float[Tensor, "B"]
    toa_net_mask: Bool[Tensor, "B"]
    habitat: Float[Tensor, "B"]
    habitat_mask: Bool[Tensor, "B"]
    growth: Float[Tensor, "B"]
    growth_mask: Bool[Tensor, "B"]
    world_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        self.sizes: Sizes | None = None
        size = self.input_ids.shape[0]
        for name in ("attention_mask", "context_mask", "lm_labels"):
            self._check(name, tuple(self.input_ids.shape))
        self._check("spectrum_mask", tuple(self.spectrum.shape[:2]))
        self._check("climate_mask", tuple(self.climate.shape[:2]))
        self._check("present", (size, len(MODALITIES)))
        self._check("labels", (size,))
        for name in ("spectrum", "climate", "physics", "toa_net", "habitat", "growth"):
            found = getattr(self, name).shape[0]
            if found != size:
                raise InputError(f"MultiModalBatch.{name}: expected {size} worlds, found {found}")
        if self.graph.num_graphs != size:
            raise InputError(f"MultiModalBatch.graph: expected {size} graphs, found {self.graph.num_graphs}")

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        found = tuple(getattr(self, name).shape)
        if found != shape:
            raise InputError(f"MultiModalBatch.{name}: expected shape {shape}, found {found}")

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MultiModalBatch:
        """The same batch on another device."""
        moved = {}
        for item in fields(self):
            value = getattr(self, item.name)
            moved[item.name] = value if isinstance(value, tuple) else value.to(device, non_blocking=non_blocking)
        return MultiModalBatch(**moved)

    def pin_memory(self) -> MultiModalBatch:
        """The same batch in page-locked host memory (called by a `DataLoader` with `pin_memory=True`)."""
        pinned = {}
        for item in fields(self):
            value = getattr(self, item.name)
            pinned[item.name] = value if isinstance(value, tuple) else value.pin_memory()
        return MultiModalBatch(**pinned)


def note_sizes(batches: Sequence[MultiModalBatch]) -> None:
    """Fill `sizes` of all batches in one transfer, so that no forward pass has to wait for its device."""
    unknown = [batch for batch in batches if batch.sizes is None]
    counts = []
    for batch in unknown:
        graph: Any = batch.graph  # no static type knows its fields
        counts.append(torch.stack([graph.ptr.diff().max(), (batch.lm_labels[:, 1:] != IGNORED).sum()]))
    for batch, count in zip(unknown, torch.stack(counts).tolist() if counts else [], strict=True):
        batch.sizes = Sizes(*count)
