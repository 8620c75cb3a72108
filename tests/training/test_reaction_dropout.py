"""Reactions hidden in training: drawn by seed, epoch and world; unseen by the encoder; whole for every loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from torch_geometric.data import Data

from astrobio.batch import MODALITIES, Collator, MultiModalBatch, Sample, note_sizes
from astrobio.batch.graph import hide_reactions, merge_graphs, to_data
from astrobio.errors import InputError
from astrobio.losses import compute_multimodal_loss, count_targets
from astrobio.models.bipartite import Incidence
from astrobio.models.initialise import init_weights
from astrobio.models.metabolic_vae import MetabolicVAE, MetabolismOutputs
from astrobio.system import SystemConfig, UnifiedMultiModalSystem
from astrobio.training import loop
from astrobio.training.config import RunConfig, run_config
from astrobio.training.feed import Feed, Store
from astrobio.training.loop import train

SEEN = ("tokens", "mu", "logvar", "exchange")  # what follows from the encoder alone
METABOLISM = MODALITIES.index("metabolism")


@pytest.fixture
def store(sample_factory: Callable[..., Sample], collator: Collator) -> Store:
    without = [(), ("climate",), (), ("metabolism",)]
    return Store(
        [sample_factory(i, without=without[i % 4]) for i in range(11)], collator, torch.device("cpu"), "memory"
    )


@pytest.fixture
def graphs(sample_factory: Callable[..., Sample]) -> list[Data]:
    found = (sample_factory(index).metabolism for index in range(3))
    return [to_data(graph) for graph in found if graph is not None]


@pytest.fixture
def network(tiny_system: SystemConfig) -> MetabolicVAE:
    network = MetabolicVAE(tiny_system.metabolic_vae)
    init_weights(network, 3)
    return network.eval()


def every(nodes: int, step: int) -> Tensor:
    """[N] every so many nodes."""
    return torch.arange(nodes) % step == 0


def encode(network: MetabolicVAE, graph: Any) -> MetabolismOutputs:
    size = len(graph.ptr) - 1
    return network(graph, torch.zeros(size), torch.zeros(size, dtype=torch.bool))


def taken_out(data: Data, chosen: Tensor) -> Data:
    """The graph without those of the chosen nodes that are reactions."""
    kept = ~(chosen & data.is_reaction)  # pyright: ignore[reportOptionalOperand]
    entries = kept[data.edge_index[1]]  # pyright: ignore[reportOptionalSubscript]
    number = kept.cumsum(0) - 1
    fields: dict[str, Any] = {
        name: data[name][kept]
        for name in data.keys()  # noqa: SIM118  # not a dict
        if torch.is_tensor(data[name]) and len(data[name]) == len(kept)
    }
    fields |= {name: data[name] for name in ("exchange", "exchange_known")}
    edge_index = number[data.edge_index[:, entries]]  # pyright: ignore[reportOptionalSubscript]
    return Data(
        **fields, edge_index=edge_index, stoichiometry=data.stoichiometry[entries], num_nodes=int(kept.sum())
    )  # fmt: skip


def test_hidden_reactions_never_reach_the_encoder(network: MetabolicVAE, graphs: list[Data]) -> None:
    graph = merge_graphs(graphs)
    hidden = hide_reactions(graph, every(len(graph.x), 2))
    expected, whole = encode(network, hidden), encode(network, graph)
    hidden.x, hidden.encodings = hidden.x.clone(), hidden.encodings.clone()
    hidden.x[hidden.hidden] += 5.0
    hidden.encodings[hidden.hidden] = 9.0
    hidden.stoichiometry = torch.where(
        hidden.hidden[hidden.edge_index[1]], -3 * hidden.stoichiometry, hidden.stoichiometry
    )
    found = encode(network, hidden)
    for name in SEEN:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert not torch.allclose(getattr(found, name), getattr(whole, name), atol=1e-6), name


def test_hiding_reactions_is_encoding_a_network_without_them(network: MetabolicVAE, graphs: list[Data]) -> None:
    graph = merge_graphs(graphs)
    chosen = every(len(graph.x), 3)
    parts = chosen.split(graph.ptr.diff().tolist())
    smaller = merge_graphs([taken_out(data, part) for data, part in zip(graphs, parts, strict=True)])
    found, expected = encode(network, hide_reactions(graph, chosen)), encode(network, smaller)
    for name in SEEN:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6)


def test_hiding_nothing_changes_no_bit(network: MetabolicVAE, graphs: list[Data]) -> None:
    graph = merge_graphs(graphs)
    found, expected = encode(network, hide_reactions(graph, torch.zeros(len(graph.x)) > 0)), encode(network, graph)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert "hidden" not in graph, "the graph that others share stays as it was"


def test_weights_are_finite_where_a_compound_lost_all_it_had(graphs: list[Data]) -> None:
    graph = merge_graphs(graphs)
    incidence = Incidence.build(graph.edge_index, graph.stoichiometry, len(graph.x), graph.is_reaction)
    assert not incidence.weight.any() and torch.isfinite(incidence.weight).all()


@pytest.mark.parametrize("step", [1, 2])
def test_losses_keep_the_whole_network(batch: MultiModalBatch, tiny_system: SystemConfig, step: int) -> None:
    """Finite, with a gradient everywhere, and with every target that there is without hiding."""
    graph = hide_reactions(batch.graph, every(batch.graph.num_nodes, step))
    hidden = replace(batch, graph=graph)
    note_sizes([hidden])
    system = UnifiedMultiModalSystem(tiny_system).train()
    outputs = system(hidden)
    loss = compute_multimodal_loss(outputs, hidden)
    loss.total.backward()
    assert all(torch.isfinite(value) for value in loss.parts.values())
    assert all(torch.isfinite(p.grad).all() for p in system.parameters() if p.grad is not None)
    assert count_targets(hidden) == count_targets(batch)
    assert outputs.metabolism.edge_targets[: graph.edge_index.shape[1]].all(), "hidden links are asked for"
    assert outputs.metabolism.fluxes[graph.hidden].all(), "hidden fluxes are answered"


def test_without_dropout_no_batch_knows_of_it(store: Store) -> None:
    assert all("hidden" not in b.graph for b in islice(Feed(store, 3, seed=5, dropout=0.4).stream(), 4))


def test_dropout_takes_reactions_alone_and_moves_nothing_else(store: Store) -> None:
    feed, plain = Feed(store, 11, seed=5, dropout=0.4, reaction_dropout=0.6), Feed(store, 11, seed=5, dropout=0.4)
    shares = []
    for found, expected in zip(islice(feed.stream(), 40), plain.stream(), strict=False):
        graph: Any = found.graph
        assert torch.equal(found.present, expected.present) and torch.equal(graph.x, expected.graph.x)
        assert not (graph.hidden & ~graph.is_reaction).any()
        reactions, hidden = (
            torch.zeros(11).index_add_(0, graph.batch, n.float()) for n in (graph.is_reaction, graph.hidden)
        )
        shares.append((hidden / reactions)[found.present[:, METABOLISM]])
    share = torch.cat(shares)
    assert 0.25 < float(share.mean()) < 0.35 and float(share.min()) == 0.0 and 0.5 < float(share.max()) < 1.0


def hidden_by_world(feed: Feed, start: int, stop: int) -> dict[tuple[int, str], list[bool]]:
    """(Epoch, world) → which of its nodes are hidden."""
    found = {}
    for number in range(start, stop):
        batch = next(feed.batches([number]))
        graph: Any = batch.graph
        parts = graph.hidden.split(graph.ptr.diff().tolist())
        found |= {
            (number // feed.batches_per_epoch, n): p.tolist() for n, p in zip(batch.world_ids, parts, strict=True)
        }
    return found


def test_what_is_hidden_depends_on_seed_epoch_and_world_alone(store: Store) -> None:
    def feed_of(size: int, seed: int = 5) -> Feed:
        return Feed(store, size, seed=seed, reaction_dropout=0.6)

    whole = [batch.graph.hidden for batch in islice(feed_of(3).stream(), 8)]
    for start in (1, 3, 5):
        resumed = islice(feed_of(3).stream(start), 3)
        assert all(torch.equal(a.graph.hidden, b) for a, b in zip(resumed, whole[start:], strict=False))
    by_one, by_eleven = hidden_by_world(feed_of(1), 0, 22), hidden_by_world(feed_of(11), 0, 2)
    assert by_one == by_eleven, "whatever the batch it is in"
    assert [v for (e, _), v in sorted(by_one.items()) if e == 0] != [
        v for (e, _), v in sorted(by_one.items()) if e == 1
    ]
    assert by_eleven != hidden_by_world(feed_of(11, seed=6), 0, 2)


@pytest.mark.usefixtures("worlds")
def test_a_run_with_dropout_resumes_exactly(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_run, training=replace(tiny_run.training, reaction_dropout=0.5))
    report = loop.report

    def stop_after_five(result: Any, progress: loop.Progress, *rest: Any) -> None:
        report(result, progress, *rest)
        if progress.step == 5:
            raise KeyboardInterrupt

    quiet = Console(quiet=True)
    train(config, "data", tmp_path / "whole", console=quiet)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "report", stop_after_five)
        train(config, "data", tmp_path / "cut", console=quiet)
    train(config, "data", tmp_path / "cut", console=quiet)
    train(tiny_run, "data", tmp_path / "plain", console=quiet)
    whole, cut, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut", "plain"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert not all(torch.equal(value, plain[name]) for name, value in whole.items()), "the setting reaches the feed"


@pytest.mark.parametrize("value", ["1", "-0.1", "1.5"])
def test_a_share_of_all_or_less_than_nothing_is_refused(value: str) -> None:
    with pytest.raises(InputError, match=r"training\.reaction_dropout: expected 0 ≤ p < 1, found"):
        run_config("mini", [f"training.reaction_dropout={value}"])
