"""Variational autoencoder of a metabolism: bipartite message passing in, edges, fluxes and gas exchange out.

Dimension letters: B graphs, N nodes, M stoichiometric entries, H node width, D core width, Q tokens, Z latent, G gases,
E edge width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from astrobio.batch.collate import DEFAULT_ENCODINGS
from astrobio.batch.graph import NODE_FEATURES
from astrobio.batch.sample import GASES
from astrobio.models.bipartite import GraphBatch, Incidence, gather_messages, hidden_nodes, pad_graphs, per_graph_sum
from astrobio.models.blocks import EncoderBlock, Pooling, RMSNorm

GOLDEN = 0.6180339887498949  # fractional parts of its multiples fill [0, 1) evenly (Kronecker sequence)
HIDE_PROBABILITY = 0.15  # of a growth temperature in training: most organisms of a database lack one
LOGVAR_RANGE = 8.0  # |log variance| bound; e^±8 spans any useful posterior and cannot overflow


@dataclass(frozen=True)
class MetabolicVAEConfig:
    """Shape of the autoencoder: many narrow nodes, then a wide core on few tokens.

    Args:
        node_width, node_layers, node_inner: message passing. width, layers, heads, inner_width: the core.
        tokens: pooled tokens a graph. latent: width of z. edge_width: of the link predictor.
    """

    node_width: int
    node_layers: int
    node_inner: int
    width: int
    layers: int
    heads: int
    inner_width: int
    tokens: int
    latent: int
    edge_width: int


class MetabolismOutputs(NamedTuple):
    """What the autoencoder says of a batch of graphs.

    Args:
        tokens: [B, Q + 1, D] pooled nodes and one token of z.
        mu, logvar: [B, Z] of the posterior. z: [B, Z] a draw in training, the mean otherwise.
        edge_logits, edge_targets: [2M] of stoichiometric entries, then of as many drawn pairs; target 1 = such an
            entry exists. edge_graph: [2M] their graph.
        fluxes: [N] asinh(v / `FLUX_SCALE`), 0 on compounds. exchange: [B, G] in the same scale.
    """

    tokens: Float[Tensor, "B Q D"]
    mu: Float[Tensor, "B Z"]
    logvar: Float[Tensor, "B Z"]
    z: Float[Tensor, "B Z"]
    edge_logits: Float[Tensor, "M2"]
    edge_targets: Float[Tensor, "M2"]
    edge_graph: Int[Tensor, "M2"]
    fluxes: Float[Tensor, "N"]
    exchange: Float[Tensor, "B G"]


class MessageLayer(nn.Module):
    """Each node reads its substrate-side and product-side neighbours and updates itself."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.expand = nn.Linear(3 * width, inner_width)
        self.contract = nn.Linear(inner_width, width)

    def forward(self, nodes: Float[Tensor, "N H"], incidence: Incidence) -> Float[Tensor, "N H"]:
        own = self.norm(nodes)
        read = torch.cat([own, gather_messages(own, incidence)], dim=-1)  # [N, 3H]
        return nodes + self.contract(functional.silu(self.expand(read)))


class GraphDecoder(nn.Module):
    """From z and the nodes back to links, fluxes and gas exchange.

    z scales and shifts every node, and the exchange is read from z alone: a collapsed posterior cannot satisfy it.
    """

    def __init__(self, config: MetabolicVAEConfig) -> None:
        super().__init__()
        width = config.node_width
        self.norm = RMSNorm(width)
        self.film = nn.Linear(config.latent, 2 * width)
        self.compound_side = nn.Linear(width, config.edge_width)
        self.reaction_side = nn.Linear(width, 2 * config.edge_width)  # one vector a role
        self.flux_expand = nn.Linear(width, width)
        self.flux_head = nn.Linear(width, 1)
        self.exchange_expand = nn.Linear(config.latent, 4 * config.latent)
        self.exchange_head = nn.Linear(4 * config.latent, len(GASES))
        self.edge_width = config.edge_width

    def condition(self, nodes: Float[Tensor, "N H"], z: Float[Tensor, "B Z"], graph: Tensor) -> Float[Tensor, "N H"]:
        """Nodes scaled and shifted by the z of their graph (FiLM, arXiv:1709.07871)."""
        scale, shift = functional.embedding(graph, self.film(z)).chunk(2, dim=-1)  # [N, H] each
        return self.norm(nodes) * (1 + scale) + shift

    def links(
        self,
        nodes: Float[Tensor, "N H"],
        compound: Int[Tensor, "L"],
        reaction: Int[Tensor, "L"],
        role: Int[Tensor, "L"],
    ) -> Float[Tensor, "L"]:
        """Logits that the compound takes part in the reaction in that role."""
        compounds = functional.embedding(compound, self.compound_side(nodes))  # [L, E]
        by_role = self.reaction_side(nodes).reshape(-1, self.edge_width)  # [N, 2E] → [2N, E]
        reactions = functional.embedding(2 * reaction + role, by_role)
        return (compounds * reactions).sum(-1) * self.edge_width**-0.5

    def fluxes(self, nodes: Float[Tensor, "N H"], is_reaction: Bool[Tensor, "N"]) -> Float[Tensor, "N"]:
        out = self.flux_head(functional.silu(self.flux_expand(nodes)))[:, 0]
        return torch.where(is_reaction, out, 0.0)

    def exchange(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B G"]:
        return self.exchange_head(functional.silu(self.exchange_expand(z)))


class MetabolicVAE(nn.Module):
    """Graph encoder, latent and decoder in one."""

    def __init__(self, config: MetabolicVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(NODE_FEATURES + DEFAULT_ENCODINGS + 1, config.node_width)
        self.layers = nn.ModuleList(
            MessageLayer(config.node_width, config.node_inner) for _ in range(config.node_layers)
        )
        self.pool = Pooling(config.width, config.node_width, config.tokens, config.heads, config.inner_width)
        self.growth = nn.Linear(3, config.width)
        self.core = nn.ModuleList(
            EncoderBlock(config.width, config.heads, config.inner_width) for _ in range(config.layers)
        )
        self.norm = RMSNorm(config.width)
        self.posterior = nn.Linear(config.width, 2 * config.latent)
        self.latent_token = nn.Linear(config.latent, config.width)
        self.decoder = GraphDecoder(config)

    def forward(
        self,
        graph: GraphBatch,
        growth: Float[Tensor, "B"],
        growth_mask: Bool[Tensor, "B"],
        largest: int | None = None,
    ) -> MetabolismOutputs:
        """Encode and decode a batch of graphs made by `astrobio.batch.graph.to_data`, grown at these temperatures.

        Args:
            largest: nodes of the largest graph, where known.
        """
        nodes = self._encode_nodes(graph)
        tokens = self._pool_nodes(nodes, graph, self._growth(growth, growth_mask), largest)
        mu, logvar = self.posterior(tokens.mean(1)).chunk(2, dim=-1)
        logvar = LOGVAR_RANGE * torch.tanh(logvar / LOGVAR_RANGE)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp() if self.training else mu
        conditioned = self.decoder.condition(nodes, z, graph.batch)
        logits, targets, owner = self._decode_edges(conditioned, graph)
        return MetabolismOutputs(
            tokens=torch.cat([tokens, self.latent_token(z)[:, None]], dim=1),
            mu=mu, logvar=logvar, z=z, edge_logits=logits, edge_targets=targets, edge_graph=owner,
            fluxes=self.decoder.fluxes(conditioned, graph.is_reaction), exchange=self.decoder.exchange(z),
        )  # fmt: skip

    def silent(self, graph: GraphBatch) -> MetabolismOutputs:
        """What stands for the answer where the autoencoder does not run: zeros, and no links."""
        graphs, config = len(graph.ptr) - 1, self.config
        zero = graph.stoichiometry.new_zeros(graphs, config.latent)
        none = graph.stoichiometry.new_zeros(0)
        return MetabolismOutputs(
            tokens=zero.new_zeros(graphs, 1, config.width), mu=zero, logvar=zero, z=zero, edge_logits=none,
            edge_targets=none, edge_graph=graph.batch[:0], fluxes=zero.new_zeros(len(graph.x)),
            exchange=zero.new_zeros(graphs, len(GASES)),
        )  # fmt: skip

    def _encode_nodes(self, graph: GraphBatch) -> Float[Tensor, "N H"]:
        features = torch.cat([graph.x, graph.encodings, graph.is_reaction[:, None].float()], dim=-1)
        nodes = self.embed(features.to(self.embed.weight.dtype))
        incidence = Incidence.build(graph.edge_index, graph.stoichiometry, len(nodes), hidden_nodes(graph))
        for layer in self.layers:
            nodes = layer(nodes, incidence)
        return nodes

    def _growth(self, growth: Float[Tensor, "B"], known: Bool[Tensor, "B"]) -> Float[Tensor, "B D"]:
        """What the growth temperature adds to every token; in training it is hidden from some graphs."""
        if self.training:
            known = known & (torch.rand(len(known), device=known.device) >= HIDE_PROBABILITY)
        features = torch.stack([torch.ones_like(growth), growth, growth.square()], dim=-1)
        return self.growth((features * known[:, None]).to(self.growth.weight.dtype))

    def _pool_nodes(
        self, nodes: Float[Tensor, "N H"], graph: GraphBatch, growth: Float[Tensor, "B D"], largest: int | None
    ) -> Float[Tensor, "B Q D"]:
        tokens = self.pool(*pad_graphs(nodes, graph.ptr, largest, hidden_nodes(graph))) + growth[:, None]
        for block in self.core:
            tokens = block(tokens)
        return self.norm(tokens)

    def _decode_edges(self, nodes: Float[Tensor, "N H"], graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, targets and graphs of all entries, then of one drawn compound for each entry's reaction and role."""
        compound, reaction = graph.edge_index
        role = (graph.stoichiometry > 0).long()
        drawn = draw_compounds(graph, random=self.training)
        exists = _are_entries(compound, reaction, role, drawn, len(nodes))
        logits = self.decoder.links(nodes, torch.cat([compound, drawn]), reaction.repeat(2), role.repeat(2))
        targets = torch.cat([torch.ones_like(exists, dtype=torch.float32), exists.float()])
        return logits, targets, graph.batch[reaction].repeat(2)


def draw_compounds(graph: GraphBatch, *, random: bool) -> Int[Tensor, "M"]:
    """A compound of the same graph for each entry: at random, or for evaluation by a fixed even sequence per graph."""
    owner = graph.batch[graph.edge_index[1]]
    graphs = len(graph.ptr) - 1
    compounds = per_graph_sum((~graph.is_reaction).long(), graph.batch, graphs)
    if random:
        place = torch.rand(len(owner), device=owner.device)
    else:
        entries = per_graph_sum(torch.ones_like(owner), owner, graphs)
        rank = torch.arange(1, len(owner) + 1, device=owner.device) - (entries.cumsum(0) - entries)[owner]
        place = (rank.double() * GOLDEN % 1.0).float()
    count = compounds[owner]
    return graph.ptr[owner] + torch.minimum((place * count).long(), count - 1)


def _are_entries(compound: Tensor, reaction: Tensor, role: Tensor, drawn: Tensor, nodes: int) -> Bool[Tensor, "M"]:
    """Whether each drawn pair is itself a stoichiometric entry of that role."""
    slot = (2 * reaction + role) * nodes
    known = torch.sort(slot + compound).values
    place = torch.searchsorted(known, slot + drawn).clamp_max(len(known) - 1)
    return known[place] == slot + drawn
