"""What physics forbids, as penalties. Each returns the sum over what it judges, in float32.

Dimension letters: B worlds or graphs, N nodes, M stoichiometric entries, E elements, G gases.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from astrobio.batch import ELEMENTS, GASES
from astrobio.batch.graph import FLUX_SCALE
from astrobio.losses.terms import indices, masked_sum

GraphBatch = Any  # a PyG `Batch` of graphs by `astrobio.batch.graph.to_data`, whose fields no static type knows
ENERGY_SCALE = 10.0  # W/m²; an imbalance that matters beside the few W/m² that real and simulated climates show
FLUX_FLOOR = 0.1  # mmol/gDW/h; below a hundredth of `FLUX_SCALE` a turnover counts as none
LARGEST = 6.0  # of asinh(v / scale): 2,000 mmol/gDW/h, above the bounds of genome-scale models
BALANCED_ELEMENTS = ("C", "H", "N", "O", "S")
CHARGE_FEATURE = len(ELEMENTS)  # column of the charge among the node features
NH3 = GASES.index("NH3")
GAS_FORMULAE = {
    "H2": {"H": 2}, "CO2": {"C": 1, "O": 2}, "CH4": {"C": 1, "H": 4}, "O2": {"O": 2}, "CO": {"C": 1, "O": 1},
    "N2": {"N": 2}, "N2O": {"N": 2, "O": 1}, "H2S": {"H": 2, "S": 1}, "H2O": {"H": 2, "O": 1}, "NH3": {"N": 1, "H": 3},
}  # fmt: skip


def global_energy(
    asr: Float[Tensor, "B"], olr: Float[Tensor, "B"], net: Float[Tensor, "B"], weight: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Smooth L1 of predicted ASR − OLR against the cube's own net (all W/m²), in `ENERGY_SCALE`."""
    error = functional.smooth_l1_loss((asr - olr) / ENERGY_SCALE, net / ENERGY_SCALE, reduction="none")
    return masked_sum(error * weight, weight > 0)


def to_flux(scaled: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """asinh(v / `FLUX_SCALE`) → v, mmol/gDW/h."""
    return FLUX_SCALE * torch.sinh(scaled.float().clamp(-LARGEST, LARGEST))


def flux_balance(scaled: Float[Tensor, "N"], graph: GraphBatch, valid: Bool[Tensor, "N"]) -> Float[Tensor, ""]:
    """Σ over valid compounds of the squared share of turnover that does not balance, (S·v / Σ|S·v|)², each in 0…1."""
    compound, reaction = graph.edge_index
    terms = graph.stoichiometry * to_flux(scaled)[reaction]
    zero = torch.zeros_like(scaled, dtype=torch.float32)
    net = zero.index_add(0, compound, terms)
    turnover = zero.index_add(0, compound, terms.abs())
    return masked_sum((net / (turnover + FLUX_FLOOR)).square(), valid)


def second_law(scaled: Float[Tensor, "N"], graph: GraphBatch, valid: Bool[Tensor, "N"]) -> Float[Tensor, ""]:
    """Σ over valid reactions of the squared flux (asinh scale) that runs where no concentration makes ΔG′ < 0.

    Forward flux is forbidden where even the lowest ΔG′ is positive, backward flux where even the highest is negative.
    """
    flux = scaled.float()
    forward = torch.where(graph.dg_min > 0, flux.clamp_min(0), 0.0)
    backward = torch.where(graph.dg_max < 0, flux.clamp_max(0), 0.0)
    return masked_sum(forward.square() + backward.square(), valid & graph.dg_known)


def is_constrained(graph: GraphBatch) -> Bool[Tensor, "N"]:
    """Reactions whose direction the second law decides."""
    return graph.dg_known & ((graph.dg_min > 0) | (graph.dg_max < 0))


@cache
def gas_elements(device: torch.device) -> Float[Tensor, "G E"]:
    """Atoms of `ELEMENTS` in each of `GASES`."""
    rows = [[GAS_FORMULAE[gas].get(element, 0) for element in ELEMENTS] for gas in GASES]
    with torch.inference_mode(mode=False):  # gradients may need it later
        return torch.tensor(rows, dtype=torch.float32, device=device)


def external_gases(graph: GraphBatch) -> Bool[Tensor, "N G"]:
    """Which external compound is which of `GASES`, by formula and charge; ammonium counts as NH3, its base."""
    neutral = gas_elements(graph.elements.device)
    ammonium = neutral[NH3].clone()
    ammonium[ELEMENTS.index("H")] += 1
    charge = graph.x[:, CHARGE_FEATURE]
    same = (graph.elements[:, None] == neutral).all(-1) & (charge == 0)[:, None]
    same[:, NH3] |= (graph.elements == ammonium).all(-1) & (charge > 0)
    outside = graph.formula_known & ~graph.internal & ~graph.is_reaction
    return same & outside[:, None]


def has_external_gas(graph: GraphBatch) -> Bool[Tensor, "B"]:
    """Graphs that state any gas outside the cell."""
    found = torch.zeros(len(graph.ptr) - 1, device=graph.batch.device)
    return found.index_add(0, graph.batch, external_gases(graph).any(-1).float()) > 0


def element_balance(
    scaled: Float[Tensor, "N"], exchange: Float[Tensor, "B G"], graph: GraphBatch, valid: Bool[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Σ over valid graphs and `BALANCED_ELEMENTS` of the squared share of atoms that the predicted exchange loses.

    Atoms in gases exchanged, plus those in other external compounds, plus those that reactions drain into biomass, must
    sum to 0. As S·v conserves atoms reaction by reaction, that is: the atoms in the predicted gas exchange are those
    in the gases that the predicted fluxes release (reactions with one participant are the boundary, not release).
    """
    compound, reaction = graph.edge_index
    size = len(graph.x)
    ones = torch.ones_like(graph.stoichiometry)
    participants = ones.new_zeros(size).index_add(0, reaction, ones)
    species = external_gases(graph).float()  # [N, G]
    inner = participants[reaction] > 1
    terms = torch.where(inner, graph.stoichiometry * to_flux(scaled)[reaction], 0.0)
    released = terms.new_zeros(size).index_add(0, compound, terms)  # [N] mmol/gDW/h
    columns = tuple(ELEMENTS.index(element) for element in BALANCED_ELEMENTS)
    gases = gas_elements(species.device)[:, indices(columns, species.device)]  # [G, E]
    by_gas = species.new_zeros(exchange.shape).index_add(0, graph.batch, released[:, None] * species)  # [B, G]
    flux = to_flux(exchange)
    gross = (flux.abs() + by_gas.abs()) @ gases
    share = ((flux - by_gas) @ gases) / (gross + FLUX_FLOOR)
    return masked_sum(share.square().sum(-1), valid)
