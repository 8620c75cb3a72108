"""Where gradients live between a backward pass and the optimizer's step, and how they are clipped.

Four policies with the same two methods. `keep` leaves them on their parameters. `stochastic` sums micro-batches in
bfloat16 with random rounding, so that 32 of them lose nothing on average. `backward` takes each tensor's step as soon
as its gradient exists and drops it: one micro-batch a step, for cards that cannot hold gradients. `host` sums them in
page-locked host memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from astrobio.errors import InputError
from astrobio.training.eight_bit import (
    AdamW8bit,
    clip_factor,
    local,
    random_bits,
    round_to_bfloat16,
    tensor_norm,
)
from astrobio.training.execution import GradientKind
from astrobio.training.mover import Mover, pinned_empty
from astrobio.training.offload import BlockStreamer

K = TypeVar("K")


class GradientPolicy(Protocol):
    """What a training step needs: `begin`, then `before_backward` each micro-batch's own, then `finish`.

    While `watching` is False, gradients stay on their parameters, to be looked at. Where `steps_in_backward`, a
    backward updates weights, so that its loss must be judged before.
    """

    steps_in_backward: bool

    @property
    def watching(self) -> bool: ...

    @watching.setter
    def watching(self, value: bool) -> None: ...

    @property
    def norms(self) -> Mapping[nn.Parameter, Tensor]:
        """Of this rank's rows of each gradient of the last step, unclipped, [] float32; until the next `begin`."""
        ...

    def begin(self) -> None:
        """Start a step."""

    def before_backward(self, last: bool) -> None:
        """A micro-batch's backward follows: the step's last one, or not."""

    def finish(self) -> Tensor:
        """Clip, update and drop the gradients; returns their global norm before clipping, [] float32."""
        ...


class _Local:
    """Policies to which all backwards of a step are alike."""

    def before_backward(self, last: bool) -> None:
        """Nothing to do."""


def gradient_policy(
    kind: GradientKind, optimizer: torch.optim.Optimizer, limit: float, streamer: BlockStreamer | None = None
) -> GradientPolicy:
    """The policy `kind` over an optimizer's parameters, clipping at `limit`.

    Args:
        streamer: of the blocks whose weights live in host memory; they allow `backward` only.

    Raises:
        InputError: a policy other than `keep` with an optimizer that cannot update one tensor at a time; a limit of 0.
    """
    if limit <= 0:
        raise InputError(f"training.clip: expected a positive bound (inf leaves gradients as they are), found {limit}")
    if kind == "keep":
        return KeptGradients(optimizer, limit)
    if not isinstance(optimizer, AdamW8bit):
        raise InputError(
            f"execution.gradients: {kind!r} needs the 8-bit optimizer; set execution.optimizer=adamw8bit, "
            f"found {type(optimizer).__name__}"
        )
    if kind == "backward" or streamer is not None:
        return StepInBackward(optimizer, limit, streamer)
    kinds = {"stochastic": StochasticGradients, "host": HostGradients}
    return kinds[kind](optimizer, limit)


def global_norm(gradients: Iterable[Tensor]) -> Tensor:
    """[] float32 norm over all gradients, over all shards where they are sharded; 0 where there is none."""
    found = list(gradients)
    return whole_norm(dict(enumerate(found)), own_norms(dict(enumerate(found))))


def own_norms(gradients: Mapping[K, Tensor]) -> dict[K, Tensor]:
    """[] float32 norm of this rank's rows of each gradient."""
    found = [local(gradient) for gradient in gradients.values()]
    norms = torch._foreach_norm(found, 2.0, torch.float32) if found else ()  # pyright: ignore[reportPrivateImportUsage]
    return dict(zip(gradients, norms, strict=True))


def whole_norm(tensors: Mapping[K, Tensor], norms: Mapping[K, Tensor]) -> Tensor:
    """[] the norm over all shards from this rank's `norms` of `tensors`; 0 where there is none."""
    return over_shards(torch.stack(list(norms.values())), tensors.values()) if norms else torch.zeros(())


def over_shards(norms: Tensor, tensors: Iterable[Tensor]) -> Tensor:
    """[] the norm over all shards from this rank's norms of its own; `tensors` are what they are norms of."""
    total = norms.square().sum()
    mesh = next((tensor.device_mesh for tensor in tensors if isinstance(tensor, DTensor)), None)
    if mesh is not None:
        torch.distributed.all_reduce(total, group=mesh.get_group("shard"))
    return total.sqrt()


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _draw_seed(optimizer: AdamW8bit, index: int, draws: Counter[int]) -> int:
    """A seed for the next sum of parameter `index` in this step, the same after resuming."""
    draws[index] += 1
    return hash((optimizer.updates, index, draws[index]))


class KeptGradients(_Local):
    """Gradients stay on their parameters and micro-batches add up there (`.grad`)."""

    steps_in_backward = False

    def __init__(self, optimizer: torch.optim.Optimizer, limit: float) -> None:
        self.optimizer, self.limit, self.watching = optimizer, limit, True
        self.norms: dict[nn.Parameter, Tensor] = {}

    def begin(self) -> None:
        """Nothing to prepare."""

    def finish(self) -> Tensor:
        """One update with the global norm bounded; a step whose norm is not finite changes nothing."""
        gradients = {p: p.grad for p in _parameters(self.optimizer) if p.grad is not None}
        self.norms = self._own_norms(gradients)
        norm = whole_norm(gradients, self.norms)
        factor = clip_factor(norm, self.limit)
        if isinstance(self.optimizer, AdamW8bit):
            self.optimizer.step(factor=factor)
        elif bool(torch.isfinite(factor)):
            for parameter in _parameters(self.optimizer):
                if parameter.grad is not None:
                    gradient = local(parameter.grad)
                    gradient.mul_(factor.to(gradient.device))
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm.float()

    def _own_norms(self, gradients: dict[nn.Parameter, Tensor]) -> dict[nn.Parameter, Tensor]:
        """Gradients in host memory visit the device for it: a processor would take seconds over billions of them."""
        first = next(iter(gradients), None)
        mover = self.optimizer.mover_of(first) if isinstance(self.optimizer, AdamW8bit) and first is not None else None
        if mover is None:
            return own_norms(gradients)
        visitors = _visit(mover, [local(gradient) for gradient in gradients.values()])
        return {p: tensor_norm(fetched[0]) for p, fetched in zip(gradients, visitors, strict=True)}


class StochasticGradients(_Local):
    """Micro-batches add up in bfloat16, each sum rounded at random so that its expected value is exact."""

    steps_in_backward = False

    def __init__(self, optimizer: AdamW8bit, limit: float) -> None:
        self.optimizer, self.limit, self.watching = optimizer, limit, True
        self.norms: dict[nn.Parameter, Tensor] = {}
        self._sums: dict[nn.Parameter, Tensor] = {}
        self._draws: Counter[int] = Counter()
        for index, parameter in enumerate(_parameters(optimizer)):
            parameter.register_post_accumulate_grad_hook(self._hook(index))

    def begin(self) -> None:
        """Forget what an aborted step may have left."""
        self._sums.clear()
        self._draws.clear()

    def _hook(self, index: int):
        def add(parameter: nn.Parameter) -> None:
            if not self.watching:
                return
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            if parameter not in self._sums or gradient.dtype != torch.bfloat16:
                total = self._sums.get(parameter)
                self._sums[parameter] = gradient if total is None else total.add_(gradient)
                return
            seed = _draw_seed(self.optimizer, index, self._draws)
            add_stochastically_(local(self._sums[parameter]), local(gradient), seed)

        return add

    def finish(self) -> Tensor:
        """One update with the global norm bounded, then the sums are dropped."""
        self.norms = own_norms(self._sums)
        norm = whole_norm(self._sums, self.norms)
        factor = clip_factor(norm, self.limit)
        self.optimizer.begin_step()
        for parameter, total in self._sums.items():
            self.optimizer.update(parameter, total, factor)
        self._sums.clear()
        return norm.float()


class StepInBackward(_Local):
    """Each tensor is updated the moment its gradient exists, clipped by its own norm, and the gradient dropped.

    Accumulation is impossible; the global norm cannot be known in time, so each tensor's is bounded by `limit`.

    Args:
        streamer: runs blocks that take their own steps, where weights live in host memory.
    """

    steps_in_backward = True

    def __init__(self, optimizer: AdamW8bit, limit: float, streamer: BlockStreamer | None = None) -> None:
        self.optimizer, self.limit, self._streamer, self.watching = optimizer, limit, streamer, True
        streamed = set() if streamer is None else streamer.parameters
        own = [parameter for parameter in _parameters(optimizer) if parameter not in streamed]
        device = own[0].device if own or streamer is None else streamer.device
        # To stack a thousand scalars would take 20 ms. Four columns: every norm starts at 16 bytes, as the kernel's
        # other arguments do.
        self._norms = torch.zeros(len(own), 4, device=device)
        self._slots = dict(zip(own, self._norms[:, 0].unbind(), strict=True))
        for parameter in own:
            parameter.register_post_accumulate_grad_hook(self.take)

    def begin(self) -> None:
        """Count the step that the coming backward takes."""
        self._norms.zero_()
        if self._streamer is not None:
            self._streamer.norms.clear()
        self.optimizer.begin_step()

    def take(self, parameter: nn.Parameter) -> None:
        """Update one parameter from its `.grad` and drop that."""
        if not self.watching:
            return
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        norm = self._slots[parameter]
        torch.linalg.vector_norm(gradient, dtype=torch.float32, out=norm)
        self.optimizer.update(parameter, gradient, norm, self.limit)

    def finish(self) -> Tensor:
        """The global norm of the gradients taken; everything else happened in the backward."""
        streamed = {} if self._streamer is None else self._streamer.norms
        return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(self._norms), *streamed.values()]))

    @property
    def norms(self) -> dict[nn.Parameter, Tensor]:
        """Each tensor's, by which it was clipped."""
        return self._slots | ({} if self._streamer is None else self._streamer.norms)


class HostGradients(_Local):
    """Micro-batches add up in page-locked host memory; the sum visits the device one tensor at a time."""

    steps_in_backward = False

    def __init__(self, optimizer: AdamW8bit, limit: float) -> None:
        self.optimizer, self.limit, self.watching = optimizer, limit, True
        self._sums: dict[nn.Parameter, Tensor] = {}
        self.norms: dict[nn.Parameter, Tensor] = {}
        self._started: set[nn.Parameter] = set()
        self._draws: Counter[int] = Counter()
        parameters = list(_parameters(optimizer))
        self._mover = Mover(local(parameters[0]).device)
        for index, parameter in enumerate(parameters):
            shard = local(parameter)
            self._sums[parameter] = pinned_empty(shard.shape, shard.dtype, shard.device)
            parameter.register_post_accumulate_grad_hook(self._hook(index))

    def begin(self) -> None:
        """Start from zero sums."""
        self._started.clear()
        self._draws.clear()

    def _hook(self, index: int):
        def add(parameter: nn.Parameter) -> None:
            if not self.watching:
                return
            gradient, parameter.grad = local(parameter.grad), None  # pyright: ignore[reportArgumentType]
            total = self._sums[parameter]
            if parameter in self._started:
                held = self._mover.fetch([total]).wait()[0]
                if held.dtype == torch.bfloat16:
                    add_stochastically_(held, gradient, _draw_seed(self.optimizer, index, self._draws))
                else:
                    held.add_(gradient)
                gradient = held
            self._started.add(parameter)
            self._mover.store([gradient.contiguous()], [total])

        return add

    def finish(self) -> Tensor:
        """Two passes over the host's sums: their norm, then the update."""
        used = [p for p in self._sums if p in self._started]
        sums = [self._sums[p] for p in used]
        self.norms = {p: tensor_norm(fetched[0]) for p, fetched in zip(used, _visit(self._mover, sums), strict=True)}
        norm = whole_norm({p: p for p in used}, self.norms)
        factor = clip_factor(norm, self.limit)
        self.optimizer.begin_step()
        for parameter, fetched in zip(used, _visit(self._mover, sums), strict=True):
            state = self.optimizer.local_state(parameter)
            self.optimizer.update_local(parameter, local(parameter.data), fetched[0], state, factor)
        self._mover.synchronize()
        return norm


def _visit(mover: Mover, hosts: list[Tensor]) -> Iterator[list[Tensor]]:
    """Each host tensor on the device in turn, the next one already on its way."""
    ahead = mover.fetch(hosts[:1])
    for index in range(len(hosts)):
        now = ahead
        ahead = mover.fetch(hosts[index + 1 : index + 2])
        if now.event is not None:
            now.event.synchronize()  # a host far ahead would reserve memory for all of them at once
        yield now.wait()


def add_stochastically_(total: Tensor, gradient: Tensor, seed: int) -> None:
    """total += gradient, both bfloat16, rounded at random so that the expected sum is exact."""
    if total.is_cuda and total.numel():  # a shard may have no rows
        from astrobio.training.kernels import accumulate_

        accumulate_(total, gradient, seed & 0x7FFFFFFF)
        return
    exact = total.float() + gradient.float()
    bits = random_bits(exact.numel(), seed & 0x7FFFFFFF, exact.device).view(exact.shape)
    total.copy_(round_to_bfloat16(exact, bits))
