"""The processes of one run: joining them, and sums over all of them. With one process everything here does nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

WAIT = timedelta(minutes=20)  # before a collective that a rank never joins is an error instead of a hang


def join_ranks(device: torch.device) -> torch.device:
    """Join the other ranks if a launcher (torchrun, Slurm) started several; returns this rank's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=WAIT)
    return device


def leave_ranks() -> None:
    """End the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number among the ranks."""
    return dist.get_rank() if dist.is_initialized() else 0


def sum_over_ranks(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same scalars, each summed over all ranks, in one collective."""
    if world_size() == 1:
        return dict(values)
    total = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(total)
    return dict(zip(values, total.unbind(), strict=True))
