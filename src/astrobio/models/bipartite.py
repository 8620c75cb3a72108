"""Message passing on a compound–reaction graph without a tensor of edges × features.

Every stoichiometric entry is used both ways with the same weight, so the operator and its transpose read one sorted
list: forward and backward are each one segmented sum (`embedding_bag`), on CPUs and GPUs alike.

Dimension letters: N nodes, M stoichiometric entries, H node width, B graphs, Q longest graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

GraphBatch = Any  # a PyG `Batch` of graphs by `astrobio.batch.graph.to_data`, whose fields no static type knows


@dataclass(frozen=True)
class Incidence:
    """Both directions of all entries, sorted by (receiving node, role), role 0 = substrate, 1 = product.

    Args:
        sender: [2M] sending node. slot: [2M] 2 · sender + role. weight: [2M] √|s| / √(degree · degree), the same both
            ways. starts: [2N] first entry of each (node, role).
    """

    sender: Int[Tensor, "M2"]
    slot: Int[Tensor, "M2"]
    weight: Float[Tensor, "M2"]
    starts: Int[Tensor, "N2"]

    @classmethod
    def build(
        cls,
        edge_index: Int[Tensor, "2 M"],
        stoichiometry: Float[Tensor, "M"],
        nodes: int,
        hidden: Bool[Tensor, "N"] | None = None,
    ) -> Incidence:
        """Entries of hidden nodes keep their places, so that no shape depends on them, but count and weigh nothing."""
        sender, receiver = torch.cat([edge_index, edge_index.flip(0)], dim=1)  # [2M] each
        role = (stoichiometry > 0).long().repeat(2)
        key, order = torch.sort(2 * receiver + role)
        there = torch.ones_like(receiver) if hidden is None else ~(hidden[sender] | hidden[receiver])
        degree = torch.zeros(nodes, device=key.device).index_add_(0, receiver, there.float())
        degrees = (degree[sender] * degree[receiver]).clamp_min(1)  # 0 where all entries of a node are hidden
        weight = there * stoichiometry.abs().sqrt().repeat(2) * degrees.rsqrt()
        starts = torch.searchsorted(key, torch.arange(2 * nodes, device=key.device))
        sender = sender[order]
        return cls(sender, 2 * sender + role[order], weight[order], starts)


def gather_messages(nodes: Float[Tensor, "N H"], incidence: Incidence) -> Float[Tensor, "N HH"]:
    """[N, 2H] weighted sums over each node's substrate-side, then product-side neighbours."""
    return _Gather.apply(nodes, incidence.sender, incidence.slot, incidence.weight.to(nodes.dtype), incidence.starts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nodes: Tensor, sender: Tensor, slot: Tensor, weight: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(slot, weight, starts)
        sums = functional.embedding_bag(sender, nodes, starts, mode="sum", per_sample_weights=weight)  # [2N, H]
        return sums.reshape(len(nodes), -1)  # [N, 2H]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        slot, weight, starts = ctx.saved_tensors
        grad = grad_outputs[0].reshape(len(starts), -1)  # [2N, H]
        # A node's entries of both roles are neighbours in the list: its own gradient is one longer segment.
        bounds = starts[::2].contiguous()
        summed = functional.embedding_bag(slot, grad, bounds, mode="sum", per_sample_weights=weight)
        return summed, None, None, None, None


def pad_graphs(
    nodes: Float[Tensor, "N H"],
    bounds: Int[Tensor, "B1"],
    largest: int | None = None,
    hidden: Bool[Tensor, "N"] | None = None,
) -> tuple[Float[Tensor, "B Q H"], Bool[Tensor, "B Q"]]:
    """Nodes of each graph as one padded row, and which are real and not hidden; `bounds`: B + 1 limits of the graphs.

    `largest` is the size of the largest graph, where known; otherwise the host waits for the device to find it.
    """
    sizes = bounds.diff()
    column = torch.arange(int(sizes.max()) if largest is None else largest, device=nodes.device)
    visible = column < sizes[:, None]  # [B, Q]
    index = torch.where(visible, bounds[:-1, None] + column, 0)
    padded = functional.embedding(index, nodes)  # [B, Q, H]
    return padded, visible if hidden is None else visible & ~hidden[index]


def hidden_nodes(graph: GraphBatch) -> Bool[Tensor, "N"] | None:
    """What `astrobio.batch.graph.hide_reactions` keeps from the encoder's sight; None where it did nothing."""
    return graph.hidden if "hidden" in graph else None


def per_graph_sum(values: Shaped[Tensor, "N *rest"], graph: Int[Tensor, "N"], graphs: int) -> Shaped[Tensor, "B *rest"]:
    """Sum of node (or edge) values over each graph."""
    return values.new_zeros(graphs, *values.shape[1:]).index_add_(0, graph, values)
