"""Blocks whose kernels the GPU launches by itself: their forward and backward are recorded once as CUDA graphs.

Small blocks are bound by the host, which takes longer to launch a kernel than the GPU to run it. A recorded block is
two launches. Every shape of its inputs has a recording of its own, which keeps activations and gradients for good.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torch.utils.hooks import RemovableHandle

SHAPES = 4  # of inputs for which a block is recorded; with others it runs as usual


def replay_blocks(blocks: Mapping[str, nn.Module]) -> None:
    """Let each block record itself in training when it first meets a shape, and replay the recording from then on.

    A block returns one tensor, draws no random numbers, is run once before each of its backwards, and its weights stay
    where they are; what it is given beside tensors is part of the "shape".
    """
    for block in blocks.values():
        # What `nn.Module.compile` sets too: names of weights, and hooks on other modules, know nothing of it.
        block._compiled_call_impl = _Replayed(block)


class _Replayed:
    """Stands where `nn.Module.__call__` looks for a compiled forward."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._plain: Callable[..., Any] = block._compiled_call_impl or block._call_impl
        self._recorded: dict[Hashable, Callable[..., Tensor]] = {}
        self._hooks: list[RemovableHandle] = []
        self._ends: list[Any] = []  # of the graph of autograd, kept alive

    def __call__(self, *arguments: Any) -> Tensor:
        if not (self._block.training and torch.is_grad_enabled()):
            return self._plain(*arguments)
        leaves, spec = tree_flatten(arguments)
        key = (spec, tuple(_kind(leaf) for leaf in leaves))
        if key not in self._recorded:
            if len(self._recorded) == SHAPES:
                return self._plain(*arguments)
            self._recorded[key] = self._record(leaves, spec)
        return self._recorded[key](*(leaf for leaf in leaves if isinstance(leaf, Tensor)))

    @property
    def _weights(self) -> list[nn.Parameter]:
        return [p for p in self._block.parameters() if p.requires_grad]

    def _record(self, leaves: list[Any], spec: TreeSpec) -> Callable[..., Tensor]:
        for hook in self._hooks:
            hook.remove()
        samples = tuple(
            leaf.detach().clone().requires_grad_(leaf.requires_grad) for leaf in leaves if isinstance(leaf, Tensor)
        )
        # Gradients reach `.grad` on the stream that saw the weight first: not on the recording's own.
        self._ends = [p.view_as(p).grad_fn.next_functions[0][0] for p in self._weights]  # pyright: ignore
        kind = "cuda"
        # Weights that autocast holds ready in another type are gone at the next replay.
        with torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False):
            recorded = torch.cuda.make_graphed_callables(
                _OfTensors(self._block, self._plain, leaves, spec), samples, allow_unused_input=True
            )
        # A gradient lies in the recording's own memory, which the next replay writes to: `.grad` may not take it over.
        self._hooks = [p.register_hook(torch.clone) for p in self._weights]
        return recorded  # pyright: ignore[reportReturnType]


class _OfTensors(nn.Module):
    """A block as a function of the tensors among its arguments, whose weights are found as parameters."""

    def __init__(self, block: nn.Module, call: Callable[..., Tensor], leaves: list[Any], spec: TreeSpec) -> None:
        super().__init__()
        self.block, self._call, self._spec = block, call, spec
        self._constants = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]

    def forward(self, *tensors: Tensor) -> Tensor:
        rest = iter(tensors)
        leaves = [next(rest) if constant is None else constant[0] for constant in self._constants]
        return self._call(*tree_unflatten(leaves, self._spec))


def _kind(leaf: Any) -> Hashable:
    """What a recording depends on: all of a constant; of a tensor everything but its values."""
    if not isinstance(leaf, Tensor):
        return leaf
    return (tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.requires_grad)
