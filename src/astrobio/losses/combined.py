"""The one loss: every part divided by its own number of valid targets, weighted, summed.

Dimension letters: B worlds, N nodes, M stoichiometric entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from astrobio.batch import IGNORED, MODALITIES, PHYSICS_TARGETS, MultiModalBatch
from astrobio.errors import InputError
from astrobio.losses import physics, terms
from astrobio.losses.alignment import alignment, count_alignment
from astrobio.system.outputs import DIAGNOSTICS, SystemOutputs

CLIMATE, METABOLISM = MODALITIES.index("climate"), MODALITIES.index("metabolism")


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; one of weight 0 is not computed at all.

    `graph_vae` weighs links + fluxes + exchange + `graph_kl` · KL; `graph_kl` small keeps the latent informative.
    `unimodal` asks each modality for the state by itself, `unimodal_retrieval` for the physics, where the fusion has
    heads for it (`system.fusion.physics_alone`).
    """

    classification: float = 1.0
    unimodal: float = 2.0
    language: float = 0.3
    graph_vae: float = 0.2
    graph_kl: float = 0.05
    energy: float = 0.1
    diagnostics: float = 0.1
    mass_balance: float = 0.1
    element_balance: float = 0.1
    thermodynamics: float = 0.1
    retrieval: float = 2.0
    unimodal_retrieval: float = 8.0
    alignment: float = 0.1

    def of_parts(self) -> dict[str, float]:
        """Part → its weight in the total."""
        return {
            "classification": self.classification,
            "unimodal": self.unimodal,
            "language": self.language,
            "graph_links": self.graph_vae,
            "graph_fluxes": self.graph_vae,
            "graph_exchange": self.graph_vae,
            "graph_kl": self.graph_vae * self.graph_kl,
            "energy": self.energy,
            "diagnostics": self.diagnostics,
            "mass_balance": self.mass_balance,
            "element_balance": self.element_balance,
            "thermodynamics": self.thermodynamics,
            "retrieval": self.retrieval,
            "unimodal_retrieval": self.unimodal_retrieval,
            "alignment": self.alignment,
        }


def needed(weights: LossWeights, modalities: Sequence[str]) -> LossWeights:
    """The weights without the terms that have no target where only some modalities are ever shown."""
    silent = []
    if "metabolism" not in modalities:
        silent += ["graph_vae", "mass_balance", "element_balance", "thermodynamics"]
    if "climate" not in modalities:
        silent += ["energy", "diagnostics"]
    if len(modalities) < 2:
        silent += ["alignment"]
    return replace(weights, **dict.fromkeys(silent, 0.0))


@dataclass
class MultiModalLoss:
    """`total` is the weighted sum; `parts` holds each computed part, unweighted, with its graph."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


def compute_multimodal_loss(
    outputs: SystemOutputs,
    batch: MultiModalBatch,
    weights: LossWeights | None = None,
    counts: Mapping[str, Tensor | float] | None = None,
) -> MultiModalLoss:
    """Total and named parts of the loss of one (micro-)batch.

    Args:
        weights: of the terms; the defaults are those of `LossWeights`.
        counts: number of valid targets by part over everything that one optimizer step sees (the sum of
            `count_targets` over micro-batches and ranks). Without it, this batch's own. The sum of the losses of all
            micro-batches then equals the loss of the whole, however targets are spread over them.

    A part without a valid target is exactly 0, with a gradient of 0.
    """
    counts = count_targets(batch) if counts is None else counts
    scale = {name: weight for name, weight in (weights or LossWeights()).of_parts().items() if weight != 0.0}
    parts = {name: PARTS[name](outputs, batch) / _at_least_one(counts[name]) for name in scale}
    total = outputs.state_logits.new_zeros((), dtype=torch.float32)
    for name, value in parts.items():
        total = total + scale[name] * value
    return MultiModalLoss(total, parts)


@torch.no_grad()
def count_targets(batch: MultiModalBatch) -> dict[str, Tensor]:
    """Number of valid targets of each part in a batch: float32 scalars, ready to be summed over ranks."""
    graph, alive = _graph(batch), _present_nodes(batch)
    climate, metabolism = batch.present[:, CLIMATE], batch.present[:, METABOLISM]
    counts = {
        "classification": (batch.labels != IGNORED).sum(),
        "unimodal": ((batch.labels != IGNORED)[:, None] & batch.present).sum(),
        "language": (batch.lm_labels[:, 1:] != IGNORED).sum(),
        "graph_links": 2 * alive[graph.edge_index[0]].sum(),
        "graph_fluxes": (graph.flux_known & alive).sum(),
        "graph_exchange": (graph.exchange_known & metabolism[:, None]).sum(),
        "graph_kl": metabolism.sum(),
        "energy": (batch.toa_net_mask & climate).sum(),
        "diagnostics": (_diagnosed(batch.physics_mask) & climate[:, None]).sum(),
        "mass_balance": _balanced_compounds(batch).sum(),
        "element_balance": len(physics.BALANCED_ELEMENTS) * (physics.has_external_gas(graph) & metabolism).sum(),
        "thermodynamics": (physics.is_constrained(graph) & alive).sum(),
        "retrieval": batch.physics_mask.sum(),
        "unimodal_retrieval": (batch.physics_mask.sum(1, keepdim=True) * batch.present).sum(),
        "alignment": count_alignment(batch.present, batch.labels),
    }
    return {name: value.float() for name, value in counts.items()}


_DIAGNOSED = tuple(PHYSICS_TARGETS.index(name) for name in DIAGNOSTICS)


def _diagnosed(values: Tensor) -> Tensor:
    """[B, 3] the columns of [B, K] that the climate network diagnoses."""
    return values[:, terms.indices(_DIAGNOSED, values.device)]


def _graph(batch: MultiModalBatch) -> Any:
    """The batch's graphs; no static type knows the fields that `to_data` set."""
    return batch.graph


def _at_least_one(count: Tensor | float) -> Tensor | float:
    return count.clamp_min(1.0) if isinstance(count, Tensor) else max(count, 1.0)


def _present_nodes(batch: MultiModalBatch) -> Bool[Tensor, "N"]:
    return batch.present[:, METABOLISM][_graph(batch).batch]


def _balanced_compounds(batch: MultiModalBatch) -> Bool[Tensor, "N"]:
    graph = _graph(batch)
    return graph.internal & ~graph.is_reaction & _present_nodes(batch)


def _classification(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    return terms.classification(outputs.state_logits, batch.labels)


def _unimodal(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    labels = torch.where(batch.present, batch.labels[:, None], IGNORED)  # [B, 4]
    return terms.classification(outputs.unimodal_logits.flatten(0, 1), labels.flatten())


def _language(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    return outputs.language_nll


def _graph_links(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    found = outputs.metabolism
    return terms.links(found.edge_logits, found.edge_targets, batch.present[:, METABOLISM][found.edge_graph])


def _graph_fluxes(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    return terms.fluxes(outputs.metabolism.fluxes, _graph(batch).flux, _graph(batch).flux_known & _present_nodes(batch))


def _graph_exchange(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    valid = _graph(batch).exchange_known & batch.present[:, METABOLISM, None]
    return terms.fluxes(outputs.metabolism.exchange, _graph(batch).exchange, valid)


def _graph_kl(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    return terms.kl_divergence(outputs.metabolism.mu, outputs.metabolism.logvar, batch.present[:, METABOLISM])


def _energy(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    mean, std = _diagnosed(batch.physics_mean), _diagnosed(batch.physics_std)
    _, asr, olr = (outputs.diagnostics.float() * std + mean).unbind(-1)  # W/m²
    valid = batch.toa_net_mask & batch.present[:, CLIMATE]
    return physics.global_energy(asr, olr, batch.toa_net, outputs.climate.diagnostics_weight * valid)


def _diagnostics(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    valid = _diagnosed(batch.physics_mask) & batch.present[:, CLIMATE, None]
    weight = outputs.climate.diagnostics_weight[:, None] * valid
    return terms.regression(outputs.diagnostics, _diagnosed(batch.physics), weight)


def _mass_balance(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    return physics.flux_balance(outputs.metabolism.fluxes, batch.graph, _balanced_compounds(batch))


def _element_balance(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    valid = physics.has_external_gas(batch.graph) & batch.present[:, METABOLISM]
    return physics.element_balance(outputs.metabolism.fluxes, outputs.metabolism.exchange, batch.graph, valid)


def _thermodynamics(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    return physics.second_law(outputs.metabolism.fluxes, batch.graph, _present_nodes(batch))


def _retrieval(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    return terms.regression(outputs.physics, batch.physics, batch.physics_mask.float())


def _unimodal_retrieval(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    if outputs.physics_alone is None:
        raise InputError("loss.unimodal_retrieval: expected 0 without system.fusion.physics_alone=true, found more")
    known = batch.physics_mask[:, None] & batch.present[..., None]  # [B, 4, K]
    truth = batch.physics[:, None].expand_as(outputs.physics_alone)
    return terms.regression(outputs.physics_alone.flatten(0, 1), truth.flatten(0, 1), known.flatten(0, 1).float())


def _alignment(outputs: SystemOutputs, batch: MultiModalBatch) -> Tensor:
    return alignment(outputs.embeddings, batch.present, batch.labels)


PARTS: dict[str, Callable[[SystemOutputs, MultiModalBatch], Tensor]] = {
    "classification": _classification,
    "unimodal": _unimodal,
    "language": _language,
    "graph_links": _graph_links,
    "graph_fluxes": _graph_fluxes,
    "graph_exchange": _graph_exchange,
    "graph_kl": _graph_kl,
    "energy": _energy,
    "diagnostics": _diagnostics,
    "mass_balance": _mass_balance,
    "element_balance": _element_balance,
    "thermodynamics": _thermodynamics,
    "retrieval": _retrieval,
    "unimodal_retrieval": _unimodal_retrieval,
    "alignment": _alignment,
}
