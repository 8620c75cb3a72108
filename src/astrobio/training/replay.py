"""Blocks whose kernels the GPU launches by itself: their forward and backward are recorded once as CUDA graphs.

Small blocks are bound by the host, which takes longer to launch a kernel than the GPU to run it. A recorded block is
two launches. Every shape of its inputs has a recording of its own, which keeps activations and gradients for good.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

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
        self._block, self._compiled = block, block._compiled_call_impl
        self._recorded: dict[Hashable, Callable[..., Tensor]] = {}
        self._weights: dict[str, nn.Parameter] = {}  # those that are trained, once anything is recorded

    def __call__(self, *arguments: Any) -> Tensor:
        if self._block.training and torch.is_grad_enabled():
            leaves, spec = tree_flatten(arguments)
            key = (spec, tuple(_kind(leaf) for leaf in leaves))
            if key not in self._recorded and len(self._recorded) < SHAPES:
                self._recorded[key] = self._record(leaves, spec)
            if key in self._recorded:
                tensors = (leaf for leaf in leaves if isinstance(leaf, Tensor))
                return self._recorded[key](*tensors, *self._weights.values())
        plain: Callable[..., Any] = self._compiled or self._block._call_impl
        return plain(*arguments)

    def _record(self, leaves: list[Any], spec: TreeSpec) -> Callable[..., Tensor]:
        if not self._weights:
            self._weights = {name: p for name, p in self._block.named_parameters() if p.requires_grad}
            for weight in self._weights.values():
                # A gradient lies in the recording's memory, which the next replay writes to: `.grad` may not own it.
                weight.register_hook(torch.clone)
        constants = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]

        def call(*tensors: Tensor) -> Tensor:
            rest = iter(tensors)
            arguments = tree_unflatten([next(rest) if c is None else c[0] for c in constants], spec)
            return functional_call(self._block, dict(zip(self._weights, rest, strict=True)), arguments)

        samples = [
            leaf.detach().clone().requires_grad_(leaf.requires_grad) for leaf in leaves if isinstance(leaf, Tensor)
        ]
        # The same memory under other names: what autograd notes of a weight while recording would bind its gradients to
        # the recording's stream.
        samples += [nn.Parameter(weight.detach()) for weight in self._weights.values()]
        self._block._compiled_call_impl = self._compiled
        try:
            with _for_recording():
                recorded = torch.cuda.make_graphed_callables(call, tuple(samples), allow_unused_input=True)
        finally:
            self._block._compiled_call_impl = self
        return recorded  # pyright: ignore[reportReturnType]


@contextmanager
def _for_recording() -> Iterator[None]:
    """Autocast without its store of weights in another type, which would be gone at the next replay."""
    kind = "cuda"
    uncached = torch.autocast(
        kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False
    )
    with uncached, warnings.catch_warnings():
        # PyTorch warms up on one stream and records on another, and then warns of just that.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream", UserWarning)
        yield


def _kind(leaf: Any) -> Hashable:
    """What a recording depends on: all of a constant; of a tensor everything but its values."""
    if not isinstance(leaf, Tensor):
        return leaf
    return (tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.requires_grad)
