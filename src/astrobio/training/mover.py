"""Copies between host and device beside the computation, and page-locked host memory for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SLAB = 1 << 30  # bytes of host memory page-locked at once


class _Slabs:
    """Page-locked host memory, cut from slabs: PyTorch's own allocator would round each tensor up to a power of 2."""

    def __init__(self) -> None:
        self._slab: Tensor | None = None
        self._used = 0

    def take(self, size: int) -> Tensor:
        """[size] bytes, aligned to 256."""
        size = (size + 255) // 256 * 256
        if self._slab is None or self._used + size > self._slab.numel():
            self._slab, self._used = torch.empty(max(SLAB, size), dtype=torch.uint8), 0
            runtime: Any = torch.cuda.cudart()
            status = runtime.cudaHostRegister(self._slab.data_ptr(), self._slab.numel(), 0)
            assert int(status) == 0, f"cudaHostRegister of {self._slab.numel()} bytes: {status}"
        self._used += size
        return self._slab[self._used - size : self._used]


_SLABS = _Slabs()


def pinned_empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised host tensor, page-locked where `device` is a GPU."""
    if device.type != "cuda":
        return torch.empty(tuple(shape), dtype=dtype)
    size = torch.Size(shape).numel() * dtype.itemsize
    return _SLABS.take(size)[:size].view(dtype).view(tuple(shape))


@dataclass
class Fetched:
    """Device copies on their way."""

    tensors: list[Tensor]
    event: torch.Event | None = None

    def wait(self) -> list[Tensor]:
        """The copies, once everything the current stream runs next comes after their arrival."""
        if self.event is not None:
            stream = torch.cuda.current_stream()
            stream.wait_event(self.event)
            for tensor in self.tensors:
                tensor.record_stream(stream)
        return self.tensors


class Mover:
    """Copies between host and device on two streams beside the computation; on a CPU, plain copies.

    Args:
        device: the computing device. in_flight: stores that may be under way before the host waits
            for the oldest, which bounds the device memory that they hold.
    """

    def __init__(self, device: torch.device, in_flight: int = 6) -> None:
        self.device, self.in_flight = device, in_flight
        self._on_gpu = device.type == "cuda"
        if self._on_gpu:
            self._inward, self._outward = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._leaving: deque[torch.Event] = deque()
        self._stored: dict[int, torch.Event] = {}

    def fetch(self, host: Sequence[Tensor]) -> Fetched:
        """Start copying to the device, after any store to the same host tensors."""
        if not self._on_gpu:
            return Fetched([tensor.clone() for tensor in host])
        with torch.cuda.stream(self._inward):
            for tensor in host:
                event = self._stored.pop(tensor.data_ptr(), None)
                if event is not None:
                    self._inward.wait_event(event)
            copies = [tensor.to(self.device, non_blocking=True) for tensor in host]
            return Fetched(copies, self._inward.record_event())

    def store(self, device: Sequence[Tensor], host: Sequence[Tensor]) -> None:
        """Start copying home what the current stream has computed."""
        if not self._on_gpu:
            for source, target in zip(device, host, strict=True):
                target.copy_(source)
            return
        self._outward.wait_event(torch.cuda.current_stream().record_event())
        with torch.cuda.stream(self._outward):
            for source, target in zip(device, host, strict=True):
                target.copy_(source, non_blocking=True)
                source.record_stream(self._outward)
            event = self._outward.record_event()
        for target in host:
            self._stored[target.data_ptr()] = event
        self._leaving.append(event)
        while len(self._leaving) > self.in_flight:
            self._leaving.popleft().synchronize()

    def synchronize(self) -> None:
        """Wait until every store has arrived."""
        if self._on_gpu:
            self._outward.synchronize()
        self._stored.clear()
        self._leaving.clear()
