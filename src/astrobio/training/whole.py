"""Gradients of sharded weights that add up whole on each rank, to be shared once a step (`execution.reduce=step`).

FSDP2 shares each micro-batch's gradients as they come: beside the products, which are slower for it, and by work of the
host for every group of weights. Where a card has room for all gradients, that is needed in a step's last backward only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from astrobio.training.eight_bit import AdamW8bit
from astrobio.training.gradients import GradientPolicy, add_stochastically_
from astrobio.training.ranks import rank


class WholeGradients:
    """A policy over a sharded system that shows `inner` the sums over all ranks and micro-batches, once a step.

    bfloat16 sums are rounded at random, by numbers of each rank's own. It needs weights that stay whole for all of a
    step (`gather=step`), on which it keeps the sums.
    """

    steps_in_backward = False

    def __init__(self, system: nn.Module, inner: GradientPolicy, optimizer: AdamW8bit) -> None:
        assert isinstance(system, FSDPModule)
        self._system, self._inner, self._optimizer, self._last = system, inner, optimizer, True
        self._sums: dict[int, Tensor] = {}  # by place among the whole weights
        self._hooked: dict[int, nn.Parameter] = {}  # by id; FSDP2 keeps the whole weights' own tensors for good
        self._draws: Counter[int] = Counter()

    @property
    def watching(self) -> bool:
        return self._inner.watching

    @watching.setter
    def watching(self, value: bool) -> None:
        self._inner.watching = value

    @property
    def norms(self) -> Mapping[nn.Parameter, Tensor]:
        return self._inner.norms

    def begin(self) -> None:
        """Forget what an aborted step may have left."""
        self._sums.clear()
        self._draws.clear()
        self._inner.begin()

    def before_backward(self, last: bool) -> None:
        """Gradients of this backward stay here, those of the last one take the sums along to the other ranks."""
        self._last = last
        for place, parameter in enumerate(self._system.parameters()):  # the whole weights, after any forward
            if id(parameter) not in self._hooked and parameter.requires_grad:
                self._hooked[id(parameter)] = parameter
                parameter.register_post_accumulate_grad_hook(self._hook(place))
        self._system.set_requires_gradient_sync(last)

    def _hook(self, place: int):
        def add(parameter: nn.Parameter) -> None:
            if not self.watching:
                return
            total, gradient = self._sums.pop(place, None), parameter.grad
            assert gradient is not None
            if total is None:
                total = gradient
            elif total.dtype == torch.bfloat16:
                self._draws[place] += 1  # with the updates, the same numbers after resuming
                seed = hash((self._optimizer.updates, place, self._draws[place], rank()))
                add_stochastically_(total, gradient, seed)
            else:
                total.add_(gradient)
            parameter.grad = total if self._last else None
            if not self._last:
                self._sums[place] = total

        return add

    def finish(self) -> Tensor:
        """The inner policy's update."""
        assert not self._sums, "a parameter without a gradient in the last backward would lose its others"
        return self._inner.finish()
