"""`MetabolicGraph` → PyG `Data`: one homogeneous numbering, compounds first, then reactions.

Dimension letters: N = C + R nodes, M stoichiometric entries, E elements, F node features, K encodings, G gases.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from astrobio.batch.sample import ELEMENTS, GASES, MetabolicGraph
from astrobio.units import BIOCHEMICAL_TEMPERATURE, GAS_CONSTANT, METABOLITE_RANGE

EC_CLASSES = 7  # oxidoreductases, transferases, hydrolases, lyases, isomerases, ligases, translocases (IUBMB)
COMPOUND_FEATURES = len(ELEMENTS) + 3  # log1p(atoms), charge / 4, external, formula known
REACTION_FEATURES = 5 + EC_CLASSES  # ΔG′ / 100, sd / 100, ΔG′ known, reversible, log1p(degree), EC class
NODE_FEATURES = COMPOUND_FEATURES + REACTION_FEATURES
FLUX_SCALE = 10.0  # mmol/gDW/h; typical central-carbon flux, fluxes are stored as asinh(v / scale)


def minimum_gibbs_energy(graph: MetabolicGraph) -> np.ndarray:
    """[R] the lowest ΔG′ (kJ/mol) that concentrations of 1 µM–10 mM and two standard deviations allow; NaN unknown.

    A reaction whose lowest ΔG′ is still positive cannot run forwards: what the second law forbids for sure.
    """
    rt = GAS_CONSTANT * BIOCHEMICAL_TEMPERATURE / 1000.0  # kJ/mol
    low, high = (np.log(c) for c in METABOLITE_RANGE)
    spread = np.zeros(len(graph.reactions))
    products, substrates = np.maximum(graph.stoichiometry, 0), np.minimum(graph.stoichiometry, 0)
    np.add.at(spread, graph.edge_reaction, rt * (products * low + substrates * high))
    return graph.dg_prime + spread - 2.0 * graph.dg_sd


def maximum_gibbs_energy(graph: MetabolicGraph) -> np.ndarray:
    """[R] the highest ΔG′ (kJ/mol) allowed, the mirror of `minimum_gibbs_energy`: below 0, no backward flux."""
    rt = GAS_CONSTANT * BIOCHEMICAL_TEMPERATURE / 1000.0
    low, high = (np.log(c) for c in METABOLITE_RANGE)
    spread = np.zeros(len(graph.reactions))
    products, substrates = np.maximum(graph.stoichiometry, 0), np.minimum(graph.stoichiometry, 0)
    np.add.at(spread, graph.edge_reaction, rt * (products * high + substrates * low))
    return graph.dg_prime + spread + 2.0 * graph.dg_sd


def _ec_one_hot(ec: tuple[str, ...]) -> np.ndarray:
    out = np.zeros((len(ec), EC_CLASSES), dtype=np.float32)
    for row, number in enumerate(ec):
        first = number.split(".")[0]
        if first.isdigit() and 1 <= int(first) <= EC_CLASSES:
            out[row, int(first) - 1] = 1.0
    return out


def _node_features(graph: MetabolicGraph) -> np.ndarray:
    """[N, F] compound features in the first columns, reaction features in the last; never the fluxes or exchange."""
    c, r = len(graph.compounds), len(graph.reactions)
    known = np.isfinite(graph.elements).all(axis=1)
    x = np.zeros((c + r, NODE_FEATURES), dtype=np.float32)
    x[:c, : len(ELEMENTS)] = np.log1p(np.nan_to_num(graph.elements))
    x[:c, len(ELEMENTS)] = graph.charge / 4.0
    x[:c, len(ELEMENTS) + 1] = graph.external
    x[:c, len(ELEMENTS) + 2] = known
    measured = np.isfinite(graph.dg_prime) & np.isfinite(graph.dg_sd)
    degree = np.bincount(graph.edge_reaction, minlength=r)
    x[c:, COMPOUND_FEATURES] = np.clip(np.where(measured, graph.dg_prime, 0.0) / 100.0, -10, 10)
    x[c:, COMPOUND_FEATURES + 1] = np.clip(np.where(measured, graph.dg_sd, 0.0) / 100.0, 0, 10)
    x[c:, COMPOUND_FEATURES + 2] = measured
    x[c:, COMPOUND_FEATURES + 3] = graph.reversible
    x[c:, COMPOUND_FEATURES + 4] = np.log1p(degree)
    x[c:, COMPOUND_FEATURES + 5 :] = _ec_one_hot(graph.ec)
    return x


def to_data(graph: MetabolicGraph) -> Data:
    """The graph as tensors.

    Fields: x [N, F], encodings [N, K], is_reaction [N], edge_index [2, M] (compound node, reaction node), stoichiometry
    [M], elements [N, E] (0 for reactions and unknown formulae), formula_known [N], internal [N] (compounds whose
    balance must close), dg_min and dg_max [N] kJ/mol with dg_known [N], flux [N] mmol/gDW/h with flux_known [N],
    exchange [1, G] mmol/gDW/h with exchange_known [1, G]. Strains of one network give the same tensors.
    """
    c, r = len(graph.compounds), len(graph.reactions)
    known = np.asarray(np.isfinite(graph.elements).all(axis=1))
    low, high = minimum_gibbs_energy(graph), maximum_gibbs_energy(graph)
    measured = np.isfinite(low) & np.isfinite(high)
    exchange = graph.exchange or {}

    def on_compounds(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros((r, *values.shape[1:]), dtype=values.dtype)])

    def on_reactions(values: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros((c, *values.shape[1:]), dtype=values.dtype), values])

    flux = np.zeros(r) if graph.flux is None else graph.flux
    return Data(
        x=torch.from_numpy(_node_features(graph)),
        encodings=torch.from_numpy(graph.encodings.astype(np.float32)),
        is_reaction=torch.from_numpy(np.arange(c + r) >= c),
        edge_index=torch.from_numpy(np.stack([graph.edge_compound, graph.edge_reaction + c]).astype(np.int64)),
        stoichiometry=torch.from_numpy(graph.stoichiometry.astype(np.float32)),
        elements=torch.from_numpy(on_compounds(np.nan_to_num(graph.elements).astype(np.float32))),
        formula_known=torch.from_numpy(on_compounds(known)),
        internal=torch.from_numpy(on_compounds(~graph.external.astype(bool))),
        dg_min=torch.from_numpy(on_reactions(np.where(measured, low, 0.0).astype(np.float32))),
        dg_max=torch.from_numpy(on_reactions(np.where(measured, high, 0.0).astype(np.float32))),
        dg_known=torch.from_numpy(on_reactions(measured)),
        flux=torch.from_numpy(on_reactions(flux.astype(np.float32))),
        flux_known=torch.from_numpy(on_reactions(np.full(r, graph.flux is not None))),
        exchange=torch.tensor([[exchange.get(gas, 0.0) for gas in GASES]], dtype=torch.float32),
        exchange_known=torch.tensor([[gas in exchange for gas in GASES]]),
        num_nodes=c + r,
    )


def merge_graphs(graphs: Sequence[Any]) -> Batch:
    """Graphs of `to_data` → one batch, as `Batch.from_data_list` makes it, but in one operation a field.

    On a GPU that is some twenty kernels instead of several for every graph; the batch can't be taken apart again.
    """
    device = graphs[0].x.device
    sizes = torch.tensor([int(graph.num_nodes or 0) for graph in graphs])
    entries = torch.tensor([graph.stoichiometry.numel() for graph in graphs])
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    shift, owner = bounds[:-1].repeat_interleave(entries), torch.arange(len(graphs)).repeat_interleave(sizes)
    fields = [name for name in graphs[0].keys() if name not in ("num_nodes", "edge_index")]  # noqa: SIM118  # not a dict
    merged = Batch(
        **{name: torch.cat([graph[name] for graph in graphs]) for name in fields},
        edge_index=torch.cat([graph.edge_index for graph in graphs], dim=1) + shift.to(device),
        batch=owner.to(device), ptr=bounds.to(device), num_nodes=int(bounds[-1]),
    )  # fmt: skip
    merged._num_graphs = len(graphs)
    return merged


def hide_reactions(graph: Any, chosen: Tensor) -> Batch:
    """The graphs with `hidden` [N]: those of the chosen nodes [N] that are reactions, which the encoder does not see.

    Nothing is taken out: decoders and losses have the whole network, of which alone flux balance, known fluxes and
    gas exchange are true, and links to a hidden reaction must be guessed. The structural encodings stay those of the
    whole network too.
    """
    out = copy(graph)
    out.hidden = chosen.to(graph.is_reaction.device, non_blocking=True) & graph.is_reaction
    return out


def dummy_data(encodings: int) -> Data:
    """The smallest graph (A → B), which stands where a world has no metabolism; `present` masks whatever it yields."""
    one = np.zeros(1)
    graph = MetabolicGraph(
        compounds=("a", "b"), reactions=("r",), elements=np.zeros((2, len(ELEMENTS))), charge=np.zeros(2),
        external=np.zeros(2, dtype=bool), edge_compound=np.array([0, 1]), edge_reaction=np.array([0, 0]),
        stoichiometry=np.array([-1.0, 1.0]), dg_prime=np.full(1, np.nan), dg_sd=np.full(1, np.nan),
        reversible=np.zeros(1, dtype=bool), lower_bound=one, upper_bound=one, ec=("",),
        encodings=np.zeros((3, encodings)),
    )  # fmt: skip
    return to_data(graph)
