"""What each block of a system keeps for its backward, counted without running it: on the meta device.

Dimension letters: B worlds, S text positions, D width, Q tokens, N nodes, M stoichiometric entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from astrobio.models.bipartite import Incidence
from astrobio.models.climate_cnn import ConvBlock
from astrobio.models.decoder import Bridge, DecoderLayer
from astrobio.models.metabolic_vae import MessageLayer
from astrobio.system.config import SystemConfig
from astrobio.system.unified import UnifiedMultiModalSystem

COMPILED_SHARE = (
    0.39  # of an eager block's kept activations that a compiled one keeps (decoder layer, 133.2 GB on one H200)
)
SMALLEST_GROUP = 25_000_000  # weights of a block that ranks gather by itself; each group costs the host a millisecond
LARGEST_REPLAYED = 150_000_000  # weights of a block that CUDA graphs pay for: products of larger ones outlast launches
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


@dataclass(frozen=True)
class BatchShape:
    """The size of one micro-batch on one device.

    Args:
        worlds, text: B and S. nodes, entries: compounds + reactions and stoichiometric entries of all graphs together.
        times: time steps of a cube. grid: (P, Y, X) of a cube.
    """

    worlds: int = 16
    text: int = 512
    nodes: int = 16 * 1800
    entries: int = 16 * 5000
    times: int = 4
    grid: tuple[int, int, int] = (10, 32, 64)

    @property
    def tokens(self) -> int:
        """Text tokens of the micro-batch."""
        return self.worlds * self.text


def empty_system(config: SystemConfig, dtype: torch.dtype) -> UnifiedMultiModalSystem:
    """A system without weights (on the meta device) whose weights will have one type."""
    with torch.device("meta"):
        return UnifiedMultiModalSystem(config).to(dtype)


def blocks_of(system: nn.Module) -> dict[str, nn.Module]:
    """Name → block: the members of all lists of modules, what is recomputed, compiled, sharded and streamed."""
    found: dict[str, nn.Module] = {}
    for name, module in system.named_modules():
        if not isinstance(module, CONTAINERS) or any(name.startswith(f"{b}.") for b in found):
            continue
        for key, child in module.named_children():
            if not isinstance(child, (*CONTAINERS, nn.Linear)):
                found[f"{name}.{key}"] = child
    return found


def gathered_blocks(system: nn.Module) -> dict[str, nn.Module]:
    """The blocks that sharded ranks gather one by one; smaller ones are gathered with the rest of their part."""
    sizes = {name: sum(p.numel() for p in block.parameters()) for name, block in blocks_of(system).items()}
    return {name: block for name, block in blocks_of(system).items() if sizes[name] >= SMALLEST_GROUP}


def replayed_blocks(system: nn.Module, recomputed: Iterable[str]) -> dict[str, nn.Module]:
    """The blocks that CUDA graphs are recorded of: small, of the same shapes in every batch, and not recomputed."""
    again = set(recomputed)
    return {
        name: block
        for name, block in blocks_of(system).items()
        if name not in again
        and not isinstance(block, MessageLayer)  # another number of rows in each batch
        and sum(p.numel() for p in block.parameters()) <= LARGEST_REPLAYED
    }


def block_inputs(system: UnifiedMultiModalSystem, shape: BatchShape) -> dict[str, tuple[Any, ...]]:
    """Arguments on the meta device of every block of the decoder, the climate network and the metabolic core."""
    dtype = system.absent.dtype
    out: dict[str, tuple[Any, ...]] = {}
    for name, block in blocks_of(system).items():
        arguments = _decoder_inputs(system, block, shape, dtype) or _encoder_inputs(system, name, block, shape, dtype)
        if arguments is not None:
            out[name] = arguments
    return out


def _decoder_inputs(
    system: UnifiedMultiModalSystem, block: nn.Module, shape: BatchShape, dtype: torch.dtype
) -> tuple[Any, ...] | None:
    config, other = system.config.decoder, system.config
    if isinstance(block, Bridge):
        tokens = other.spectrum_encoder.tokens + other.climate_cnn.tokens + other.metabolic_vae.tokens + 6
        context = _meta(shape.worlds, tokens, config.context_width, dtype=dtype)  # 3 summaries, 3 absent tokens more
        visible = torch.empty(shape.worlds, tokens, dtype=torch.bool, device="meta")
        return (_meta(shape.worlds, shape.text, config.width, dtype=dtype), context, visible)
    if not isinstance(block, DecoderLayer):
        return None
    table = _meta(shape.worlds, 1, shape.text, config.width // config.heads, dtype=dtype)
    return (_meta(shape.worlds, shape.text, config.width, dtype=dtype), (table, table))


def _encoder_inputs(
    system: UnifiedMultiModalSystem, name: str, block: nn.Module, shape: BatchShape, dtype: torch.dtype
) -> tuple[Any, ...] | None:
    if isinstance(block, ConvBlock):
        return (_meta(*_stage_shape(system, int(name.split(".")[2]), shape), dtype=dtype),)
    config = system.config.metabolic_vae
    if isinstance(block, MessageLayer):
        return (_meta(shape.nodes, config.node_width, dtype=dtype), _meta_incidence(shape))
    if name.startswith("metabolic_vae.core"):
        return (_meta(shape.worlds, config.tokens, config.width, dtype=dtype),)
    return None


def _stage_shape(system: UnifiedMultiModalSystem, stage: int, shape: BatchShape) -> tuple[int, ...]:
    config = system.config.climate_cnn
    p, y, x = (size // patch for size, patch in zip(shape.grid, config.patch, strict=True))
    batch = shape.worlds * (shape.times if stage == 0 else 1)  # the first stage runs on each time step
    return batch, config.widths[stage], p, y >> stage, x >> stage


def _meta_incidence(shape: BatchShape) -> Incidence:
    index = torch.empty(2 * shape.entries, dtype=torch.int64, device="meta")
    starts = torch.empty(2 * shape.nodes, dtype=torch.int64, device="meta")
    return Incidence(index, index, _meta(2 * shape.entries, dtype=torch.float32), starts)


def _meta(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)


def saved_bytes(block: nn.Module, arguments: tuple[Any, ...]) -> int:
    """Bytes that autograd keeps between a meta block's forward and backward, its weights not counted."""
    weights = {id(p) for p in block.parameters()}
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # keeps storages alive, so that their identities stay apart

    def note(tensor: Tensor) -> Tensor:
        base = tensor._base if tensor._base is not None else tensor
        if id(base) not in weights and id(tensor) not in weights:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), torch.enable_grad():
        block(*arguments)
    return sum(kept.values())


def input_bytes(arguments: tuple[Any, ...]) -> int:
    """Bytes of a block's first argument, which is what a recomputed block keeps."""
    first = next(leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))
    return first.numel() * first.element_size()


@dataclass(frozen=True)
class BlockCost:
    """Bytes that one block keeps if nothing is recomputed, and if it is."""

    kept: int
    recomputed: int


def block_costs(system: UnifiedMultiModalSystem, shape: BatchShape, compiled: bool = False) -> dict[str, BlockCost]:
    """Activation bytes of every block that matters; blocks of one kind and input are run once.

    Args:
        system: on the meta device, with weights of the type that the forward computes in.
        compiled: blocks that are compiled (all but message passing) keep `COMPILED_SHARE` of what eager ones do.
    """
    blocks, seen, out = blocks_of(system), {}, {}
    for name, arguments in block_inputs(system, shape).items():
        shapes = tuple(tuple(leaf.shape) for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))
        key = (type(blocks[name]), shapes)
        if key not in seen:
            share = COMPILED_SHARE if compiled and not isinstance(blocks[name], MessageLayer) else 1.0
            seen[key] = BlockCost(int(saved_bytes(blocks[name], arguments) * share), input_bytes(arguments))
        out[name] = seen[key]
    return out


def recomputed_blocks(costs: dict[str, BlockCost], budget: float | None) -> Iterator[str]:
    """Names of the blocks to compute again so that all together keep at most `budget` bytes; None keeps all.

    Blocks that save most go first: their inputs are small against what they keep.
    """
    if budget is None:
        return
    total = sum(cost.kept for cost in costs.values())
    for name, cost in sorted(costs.items(), key=lambda item: item[1].recomputed - item[1].kept):
        if total <= budget and budget > 0:
            return
        total -= cost.kept - cost.recomputed
        yield name
