"""Weights and optimizer states that live in host memory and visit the device only while they are used.

`stream_blocks` turns the blocks of a system into streamed ones: a block's weights arrive on a copy stream while the
block before it computes; its activations are computed again in the backward, where its optimizer states arrive too,
its step is taken at once, and weights and states travel home while the next block computes. What the device holds at
any time is three blocks, the parameters that belong to no block, and one activation per block boundary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from astrobio.training.eight_bit import AdamW8bit, fresh_state, tensor_norm
from astrobio.training.mover import Fetched, Mover, pinned_empty


@dataclass
class _Block:
    """One streamed block: its parameters, their homes, and the moments' homes."""

    module: nn.Module
    forward: Callable[..., Any]
    parameters: list[nn.Parameter]
    states: list[dict[str, Tensor]]
    homes: list[Tensor] = field(default_factory=list)


class BlockStreamer:
    """Runs blocks whose weights and 8-bit moments live in host memory; made by `stream_blocks`.

    Each block must be used once in a forward pass, and return tensors in lists, tuples or dicts.
    """

    def __init__(self, optimizer: AdamW8bit, device: torch.device, limit: float) -> None:
        self.optimizer, self.device, self.limit = optimizer, device, limit
        self.norms: dict[nn.Parameter, Tensor] = {}
        self._mover = Mover(device, in_flight=2)
        self._computed: deque[torch.Event] = deque()
        self._blocks: list[_Block] = []
        self._order: list[int] = []  # of the first forward pass
        self._weights: dict[int, Fetched] = {}
        self._moments: dict[int, Fetched] = {}
        self._anchor = torch.zeros((), device=device, requires_grad=True)

    @property
    def parameters(self) -> set[nn.Parameter]:
        """Those that live in host memory."""
        return {parameter for block in self._blocks for parameter in block.parameters}

    def add(self, module: nn.Module, compiled: bool) -> None:
        """Move a block's weights home and make its forward a streamed one, compiled inside if asked."""
        settle(module, self.device)
        forward = torch.compile(module.forward, dynamic=False) if compiled else module.forward
        block = _Block(module, forward, list(module.parameters()), [])
        for parameter in block.parameters:
            block.homes.append(parameter.data)
            state = {}
            for name, zeros in fresh_state(parameter.data).items():
                state[name] = pinned_empty(zeros.shape, zeros.dtype, self.device).zero_()
            block.states.append(state)
            self.optimizer.state[parameter] = state
        index = len(self._blocks)
        self._blocks.append(block)
        module.forward = lambda *args, **kwargs: self._run(index, args, kwargs)

    def synchronize(self) -> None:
        """Wait until the host holds every updated weight (before saving or evaluating on the host)."""
        self._mover.synchronize()
        self._weights.clear()
        self._moments.clear()

    def _run(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves, structure = tree_flatten((args, kwargs))
        box: dict[str, Any] = {}
        if not torch.is_grad_enabled():
            with self._on_device(index, +1):
                return self._blocks[index].forward(*args, **kwargs)
        outputs = _Streamed.apply(self, index, structure, box, self._anchor, *leaves)
        return tree_unflatten(list(outputs), box["structure"])

    @contextmanager
    def _on_device(self, index: int, direction: int) -> Iterator[list[Tensor]]:
        """The block's weights on the device inside the context, its neighbour's on their way."""
        block = self._blocks[index]
        fetched = self._weights.get(index) or self._mover.fetch(block.homes)
        self._weights[index] = fetched
        self._look_ahead(index, direction)
        weights = fetched.wait()
        self._hold_back()
        for parameter, weight in zip(block.parameters, weights, strict=True):
            parameter.data = weight
        try:
            yield weights
        finally:
            for parameter, home in zip(block.parameters, block.homes, strict=True):
                parameter.data = home
            if self.device.type == "cuda":
                self._computed.append(torch.cuda.current_stream().record_event())

    def _hold_back(self) -> None:
        """Let the host run two blocks ahead at most, or weights that wait for their turn would fill the device."""
        while len(self._computed) > 2:
            self._computed.popleft().synchronize()

    def _look_ahead(self, index: int, direction: int) -> None:
        if direction > 0 and index not in self._order:
            self._order.append(index)
        place = self._order.index(index) if index in self._order else 0
        following = place + direction
        wanted = {index}
        if 0 <= following < len(self._order):
            neighbour = self._order[following]
            wanted.add(neighbour)
            if neighbour not in self._weights:
                self._weights[neighbour] = self._mover.fetch(self._blocks[neighbour].homes)
            if direction < 0 and neighbour not in self._moments:
                self._moments[neighbour] = self._mover.fetch(self._state_homes(neighbour))
        for other in [key for key in self._weights if key not in wanted]:
            del self._weights[other]

    def _state_homes(self, index: int) -> list[Tensor]:
        return [home for state in self._blocks[index].states for home in state.values()]

    def step(self, index: int, weights: list[Tensor]) -> None:
        """Update a block from its parameters' gradients and send it home."""
        block = self._blocks[index]
        fetched = self._moments.pop(index, None) or self._mover.fetch(self._state_homes(index))
        moments = iter(fetched.wait())
        for parameter, weight, homes in zip(block.parameters, weights, block.states, strict=True):
            state = {name: next(moments) for name in homes}
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                continue
            norm = tensor_norm(gradient)
            self.norms[parameter] = norm
            self.optimizer.update_local(parameter, weight, gradient, state, norm, self.limit)
        self._mover.store([*weights, *fetched.tensors], [*block.homes, *self._state_homes(index)])
        self._weights.pop(index, None)


class _Streamed(torch.autograd.Function):
    """A block that is computed again, and updated, in the backward."""

    @staticmethod
    def forward(
        ctx: Any, streamer: BlockStreamer, index: int, structure: Any, box: dict[str, Any], *leaves: Any
    ) -> Any:
        ctx.streamer, ctx.index, ctx.structure = streamer, index, structure
        kind = streamer.device.type
        ctx.autocast = (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        ctx.random = _random_states(kind)
        ctx.places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        ctx.others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.save_for_backward(*(leaves[place] for place in ctx.places))
        args, kwargs = tree_unflatten(list(leaves[1:]), structure)
        with streamer._on_device(index, +1):
            outputs, box["structure"] = tree_flatten(streamer._blocks[index].forward(*args, **kwargs))
        strange = [type(o).__name__ for o in outputs if not isinstance(o, Tensor | int | float | str | None)]
        assert not strange, f"a streamed block returned {strange}, whose gradients would be lost"
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        streamer, leaves, inputs = ctx.streamer, list(ctx.others), {}
        for place, saved in zip(ctx.places, ctx.saved_tensors, strict=True):
            leaves[place] = inputs[place] = saved.detach().requires_grad_(ctx.needs_input_grad[4 + place])
        args, kwargs = tree_unflatten(leaves[1:], ctx.structure)
        kind, enabled, dtype = ctx.autocast
        with streamer._on_device(ctx.index, -1) as weights:
            with torch.enable_grad(), torch.autocast(kind, dtype, enabled=enabled), _random(kind, ctx.random):
                outputs, _ = tree_flatten(streamer._blocks[ctx.index].forward(*args, **kwargs))
            pairs = [
                (o, g) for o, g in zip(outputs, upstream, strict=True)
                if isinstance(o, Tensor) and o.requires_grad and g is not None
            ]  # fmt: skip
            torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs])
            streamer.step(ctx.index, weights)
        gradients = [inputs[place].grad if place in inputs else None for place in range(len(leaves))]
        return (None, None, None, None, *gradients)


def _random_states(kind: str) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if kind == "cuda" else None


def _set_random_states(states: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1])


@contextmanager
def _random(kind: str, states: tuple[Tensor, Tensor | None]) -> Iterator[None]:
    """The random state of a block's first computation, undone afterwards."""
    before = _random_states(kind)
    _set_random_states(states)
    try:
        yield
    finally:
        _set_random_states(before)


def settle(block: nn.Module, device: torch.device) -> None:
    """Give a block's weights their home: host memory, page-locked where `device` is a GPU."""
    for parameter in block.parameters():
        if parameter.is_cuda or (device.type == "cuda" and not parameter.data.is_pinned()):
            home = pinned_empty(parameter.shape, parameter.dtype, device)
            home.copy_(parameter.data)
            parameter.data = home


def stream_blocks(
    blocks: Mapping[str, nn.Module],
    optimizer: AdamW8bit,
    device: torch.device,
    limit: float,
    compiled: tuple[str, ...] = (),
) -> BlockStreamer:
    """Keep blocks' weights and moments in host memory from now on, each tensor's gradient clipped at `limit`.

    The blocks' steps are then taken in the backward: one micro-batch a step. Everything else of the system stays
    where it is and needs a policy of its own (`StepInBackward`).

    Args:
        blocks: name → block. compiled: beginnings of the names of those to compile.
    """
    streamer = BlockStreamer(optimizer, device, limit)
    for name, block in blocks.items():
        streamer.add(block, bool(compiled) and name.startswith(compiled))
    return streamer
