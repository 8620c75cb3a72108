"""Message passing against a dense reference, links, latent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from astrobio.batch import Sample
from astrobio.batch.graph import dummy_data, merge_graphs, to_data
from astrobio.models.bipartite import Incidence, gather_messages, pad_graphs
from astrobio.models.initialise import init_weights
from astrobio.models.metabolic_vae import MetabolicVAE, MetabolicVAEConfig, MetabolismOutputs, draw_compounds

CONFIG = MetabolicVAEConfig(
    node_width=8, node_layers=2, node_inner=12, width=16, layers=1, heads=2, inner_width=16, tokens=3, latent=4,
    edge_width=4,
)  # fmt: skip


def encode(network: MetabolicVAE, graph: Any, growth: float | None = None) -> MetabolismOutputs:
    """The network's answer, all graphs grown at one temperature."""
    size = len(graph.ptr) - 1
    return network(graph, torch.full((size,), growth or 0.0), torch.full((size,), growth is not None))


@pytest.fixture
def network() -> MetabolicVAE:
    network = MetabolicVAE(CONFIG)
    init_weights(network, 3)
    return network


@pytest.fixture
def graphs(sample_factory: Callable[..., Sample]) -> list[Data]:
    found = (sample_factory(index).metabolism for index in range(3))
    return [to_data(graph) for graph in found if graph is not None]


@pytest.fixture
def graph(graphs: list[Data]) -> Any:
    return merge_graphs(graphs)


def test_messages_equal_a_dense_product(graph: Any) -> None:
    n = len(graph.x)
    incidence = Incidence.build(graph.edge_index, graph.stoichiometry, n)
    dense = torch.zeros(2, n, n, dtype=torch.float64)  # role, receiver, sender
    degree = torch.bincount(graph.edge_index.flatten(), minlength=n)
    for (c, r), s in zip(graph.edge_index.T.tolist(), graph.stoichiometry.tolist(), strict=True):
        value = abs(s) ** 0.5 / float(degree[c] * degree[r]) ** 0.5
        dense[int(s > 0), c, r] += value
        dense[int(s > 0), r, c] += value
    nodes = torch.randn(n, 5, requires_grad=True)
    found = gather_messages(nodes, incidence)
    expected = torch.cat([dense[0].float() @ nodes, dense[1].float() @ nodes], dim=1)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    (a,), (b,) = (torch.autograd.grad((x * weight).sum(), nodes) for x in (found, expected))
    torch.testing.assert_close(a, b)


def test_padding_graphs_keeps_their_nodes(graph: Any) -> None:
    padded, visible = pad_graphs(graph.x, graph.ptr)
    known, _ = pad_graphs(graph.x, graph.ptr, int(graph.ptr.diff().max()))
    assert torch.equal(known, padded)
    assert torch.equal(padded[visible], graph.x)
    assert visible.sum(1).tolist() == graph.ptr.diff().tolist()


def test_graphs_of_a_batch_do_not_touch_each_other(network: MetabolicVAE, graphs: list[Data], graph: Any) -> None:
    network.eval()
    alone = [encode(network, merge_graphs([data])) for data in graphs]
    together = encode(network, graph)
    torch.testing.assert_close(together.mu, torch.cat([one.mu for one in alone]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.fluxes, torch.cat([one.fluxes for one in alone]), rtol=1e-4, atol=1e-5)


def test_direction_of_a_reaction_matters(network: MetabolicVAE, graph: Any) -> None:
    network.eval()
    before = encode(network, graph).mu
    graph.stoichiometry = -graph.stoichiometry
    assert not torch.allclose(encode(network, graph).mu, before, atol=1e-5)


@pytest.mark.parametrize("random", [True, False])
def test_drawn_compounds_are_compounds_of_the_same_graph(graph: Any, random: bool) -> None:
    drawn = draw_compounds(graph, random=random)
    assert not graph.is_reaction[drawn].any()
    assert torch.equal(graph.batch[drawn], graph.batch[graph.edge_index[1]])


def test_drawn_pairs_that_exist_are_called_links(network: MetabolicVAE, graph: Any) -> None:
    out = encode(network, graph)
    entries = graph.edge_index.shape[1]
    assert out.edge_targets[:entries].all()
    network.eval()
    drawn, targets = draw_compounds(graph, random=False), encode(network, graph).edge_targets[entries:]
    known = {
        (int(c), int(r), s > 0) for (c, r), s in zip(graph.edge_index.T, graph.stoichiometry.tolist(), strict=True)
    }
    for c, r, s, target in zip(
        drawn.tolist(), graph.edge_index[1].tolist(), graph.stoichiometry.tolist(), targets, strict=True
    ):
        assert bool(target) == ((c, r, s > 0) in known)
    assert 0 < float(targets.mean()) < 0.9


def test_only_reactions_carry_flux_and_evaluation_is_deterministic(network: MetabolicVAE, graph: Any) -> None:
    network.eval()
    first, second = encode(network, graph), encode(network, graph)
    assert not first.fluxes[~graph.is_reaction].any()
    assert torch.equal(first.z, first.mu)
    assert torch.equal(first.edge_logits, second.edge_logits)
    network.train()
    assert not torch.equal(encode(network, graph).z, encode(network, graph).z)


def test_the_stand_in_graph_passes(network: MetabolicVAE) -> None:
    out = encode(network, merge_graphs([dummy_data(16)] * 2))
    assert torch.isfinite(out.edge_logits).all()
    assert out.tokens.shape == (2, 4, 16)


def test_growth_temperature_is_read_where_known_and_hidden_at_times(network: MetabolicVAE, graph: Any) -> None:
    network.eval()
    unknown, cold, warm = (encode(network, graph, growth).mu for growth in (None, -1.0, 1.0))
    assert not torch.allclose(cold, warm) and not torch.allclose(unknown, warm)
    torch.manual_seed(0)
    added = network.train()._growth(torch.ones(400), torch.ones(400, dtype=torch.bool))
    bias_only = (added == network.growth.bias).all(-1)
    assert 0.05 < bias_only.float().mean() < 0.3
