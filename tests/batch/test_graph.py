"""Metabolic graphs as tensors; Gibbs energies by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch

from astrobio.batch import ELEMENTS, GASES, MetabolicGraph, Sample
from astrobio.batch.graph import (
    NODE_FEATURES,
    dummy_data,
    maximum_gibbs_energy,
    merge_graphs,
    minimum_gibbs_energy,
    to_data,
)
from astrobio.errors import InputError


def metabolism(sample_factory: Callable[..., Sample]) -> MetabolicGraph:
    graph = sample_factory(0).metabolism
    assert graph is not None
    return graph


def test_gibbs_energies_by_hand(sample_factory: Callable[..., Sample]) -> None:
    """CO2 + 4 H2 → CH4 + 2 H2O at −131 ± 5: products at 1 µM and substrates at 10 mM, or the other way round."""
    graph = metabolism(sample_factory)
    core = graph.reactions.index("CORE")
    rt = 8.314462618e-3 * 298.15
    low = -131 + rt * (3 * math.log(1e-6) - 5 * math.log(1e-2)) - 10
    high = -131 + rt * (3 * math.log(1e-2) - 5 * math.log(1e-6)) + 10
    assert minimum_gibbs_energy(graph)[core] == pytest.approx(low)
    assert maximum_gibbs_energy(graph)[core] == pytest.approx(high)
    data = to_data(graph)
    node = len(graph.compounds) + core
    assert data.dg_min[node].item() == pytest.approx(low, rel=1e-6)
    assert int(data.dg_known.sum()) == 1  # transports have none


@settings(max_examples=20, deadline=None)
@given(dg=st.floats(-500, 500), sd=st.floats(0, 50))
def test_lowest_never_exceeds_highest(dg: float, sd: float, sample_factory: Callable[..., Sample]) -> None:
    graph = metabolism(sample_factory)
    n = len(graph.reactions)
    graph = replace(graph, dg_prime=np.full(n, dg), dg_sd=np.full(n, sd))
    assert (minimum_gibbs_energy(graph) <= maximum_gibbs_energy(graph)).all()


def test_stoichiometry_conserves_elements_but_at_the_boundary(sample_factory: Callable[..., Sample]) -> None:
    data = to_data(metabolism(sample_factory))
    compound, reaction = data.edge_index
    balance = torch.zeros(data.num_nodes, len(ELEMENTS))
    balance.index_add_(0, reaction, data.stoichiometry[:, None] * data.elements[compound])
    participants = torch.bincount(reaction, minlength=data.num_nodes)
    assert not balance[participants > 1].any()
    assert balance[participants == 1].any(dim=1).all()


def test_tensors_have_the_documented_shapes(sample_factory: Callable[..., Sample]) -> None:
    graph = metabolism(sample_factory)
    data = to_data(graph)
    n, c = len(graph.compounds) + len(graph.reactions), len(graph.compounds)
    assert data.x.shape == (n, NODE_FEATURES)
    assert data.is_reaction.tolist() == [False] * c + [True] * (n - c)
    assert (data.edge_index[0] < c).all() and (data.edge_index[1] >= c).all()
    assert torch.equal(data.internal[:c], torch.tensor([not name.endswith("_e") for name in graph.compounds]))
    assert data.exchange[0, GASES.index("CH4")].item() == 8.0
    assert data.exchange_known[0].tolist() == [gas in ("CO2", "H2", "CH4", "H2O") for gas in GASES]


def test_strains_share_a_network(sample_factory: Callable[..., Sample]) -> None:
    graph = metabolism(sample_factory)
    warm = graph.strain(330.0)
    assert warm.growth_temperature == 330.0 and warm.network is graph.network and warm.strain(280.0).network is graph
    with pytest.raises(InputError, match=r"growth_temperature.*250–400"):
        graph.strain(30.0)  # °C


def test_answers_are_never_features(sample_factory: Callable[..., Sample]) -> None:
    graph = metabolism(sample_factory)
    silent = replace(graph, flux=None, exchange=None)
    assert torch.equal(to_data(graph).x, to_data(silent).x)
    assert not to_data(silent).flux_known.any() and not to_data(silent).exchange_known.any()


def test_unknown_formulae_become_zeros_with_a_flag(sample_factory: Callable[..., Sample]) -> None:
    graph = metabolism(sample_factory)
    elements = graph.elements.copy()
    elements[0] = np.nan
    data = to_data(replace(graph, elements=elements))
    assert torch.isfinite(data.x).all()
    assert not data.formula_known[0] and data.formula_known[1]


def test_dummies_and_graphs_batch_together(sample_factory: Callable[..., Sample]) -> None:
    """One operation a field gives what PyG's own collation gives."""
    graphs = [dummy_data(16), to_data(metabolism(sample_factory)), dummy_data(16)]
    merged, expected = merge_graphs(graphs), Batch.from_data_list(graphs)
    assert merged.num_graphs == 3 and merged.num_nodes == expected.num_nodes
    assert not merged.flux_known[merged.batch == 0].any()
    assert set(merged.keys()) == set(expected.keys())
    for name in expected.keys():  # noqa: SIM118  # a PyG batch is not a dict
        if isinstance(expected[name], torch.Tensor):
            assert torch.equal(merged[name], expected[name]) and merged[name].dtype == expected[name].dtype, name


def test_malformed_graphs_are_refused(sample_factory: Callable[..., Sample]) -> None:
    graph = metabolism(sample_factory)
    for changes, message in (
        ({"charge": np.zeros(3)}, "charge: expected shape"),
        ({"stoichiometry": graph.stoichiometry * 0}, "non-zero entries"),
        ({"edge_compound": graph.edge_compound + 100}, "edge_compound: expected indices"),
        ({"exchange": {"He": 1.0}}, "exchange: expected gases"),
        ({"flux": np.full(len(graph.reactions), np.nan)}, "flux: expected finite"),
    ):
        with pytest.raises(InputError, match=message):
            replace(graph, **changes)
