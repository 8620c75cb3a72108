"""The processes of one run: joining them, sums over all of them, and acting together.

With one process everything here does nothing. Decisions travel between host memories (gloo), so that no GPU waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from astrobio.errors import InputError
from astrobio.training.launcher import restarts

WAIT = timedelta(minutes=20)  # before a collective that a rank never joins is an error instead of a hang
LOST = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "socket closed", "gloo")
T = TypeVar("T")


def join_ranks(device: torch.device) -> torch.device:
    """Join the other ranks if a launcher (torchrun, Slurm) started several; returns this rank's device."""
    if launched_ranks() <= 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=WAIT, **_own_store())
    return device


def _own_store() -> dict[str, Any]:
    """Arguments that give this start of the processes names of its own in the store that torchrun keeps.

    That store outlives a restart, and new processes could meet at the addresses of dead ones (PyTorch's issue 135712).
    Agents of several hosts may count restarts differently: there torchrun must not share its store
    (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), as `deploy/slurm.sbatch` has it.
    """
    one_agent = os.environ.get("GROUP_WORLD_SIZE") == "1"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or not one_agent:
        return {}
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    shared = dist.TCPStore(address, port, launched_ranks(), is_master=False, timeout=WAIT)  # pyright: ignore[reportPrivateImportUsage]
    store = PrefixStore(f"start-{restarts()}", shared)
    return {"store": store, "rank": int(os.environ["RANK"]), "world_size": launched_ranks()}


def leave_ranks() -> None:
    """End the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def launched_ranks() -> int:
    """Number of processes that the launcher started, known before they join."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def world_size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number among the ranks."""
    return dist.get_rank() if dist.is_initialized() else 0


def sum_over_ranks(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same scalars (or tensors of one shape), each summed over all ranks, in one collective."""
    if world_size() == 1:
        return dict(values)
    total = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(total)
    return dict(zip(values, total.unbind(), strict=True))


def meet(error: InputError | None = None, flag: bool = False) -> bool:
    """Wait for all ranks; returns whether any raised its flag.

    Raises:
        InputError: on every rank, if any came with an error: that of the first such rank.
    """
    if world_size() == 1:
        if error is not None:
            raise error
        return flag
    votes = torch.tensor([float(error is not None), float(flag)])
    dist.all_reduce(votes)
    if votes[0] > 0:
        raise InputError(next(text for text in gather("" if error is None else str(error)) if text))
    return bool(votes[1] > 0)


def attempt(action: Callable[[], T]) -> tuple[T | None, InputError | None]:
    """What an action returned, or the user's mistake that it met (a file that cannot be written is one)."""
    try:
        return action(), None
    except InputError as error:
        return None, error
    except OSError as error:
        return None, InputError(f"{error.filename or 'files'}: {error.strerror or error}; mend that and start again")


def together(action: Callable[[], T]) -> T:
    """Do something on every rank; if any meets a user's mistake, all raise it instead of waiting for that rank.

    Raises:
        InputError: that mistake; also where a file cannot be read or written.
    """
    value, error = attempt(action)
    meet(error)
    return value  # pyright: ignore[reportReturnType]  # None only where the action returns it: errors were raised


def keep_together(items: Iterator[T]) -> Iterator[T]:
    """The same items, equally many on every rank; if one meets a user's mistake in getting its next, all raise it."""
    while True:
        found, error = attempt(lambda: list(islice(items, 1)))
        meet(error)
        if not found:
            return
        yield found[0]


def by_first_rank(action: Callable[[], T]) -> T:
    """Do something on rank 0 alone and give every rank what it returned (a plain value)."""
    found = together(action if rank() == 0 else lambda: None)
    if world_size() == 1:
        return found  # pyright: ignore[reportReturnType]
    box = [found]
    dist.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]  # pyright: ignore[reportReturnType]


def gather(value: str) -> list[str]:
    """Every rank's text, in order of ranks."""
    if world_size() == 1:
        return [value]
    out: list[str] = [""] * world_size()
    dist.all_gather_object(out, value)
    return out


def is_loss_of_a_rank(error: BaseException) -> bool:
    """Whether an error says that another rank is gone."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(mark in text for mark in LOST))


def keep_shards_only(system: nn.Module) -> None:
    """Drop whole weights: those kept for all of a step, or left behind by a pass without a backward.

    Until then, `system.parameters()` are those whole weights, which the optimizer does not know.
    """
    for module in system.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def shard_place(tensor: Tensor) -> tuple[int, bool]:
    """(first row of this rank's shard in the whole tensor, whether this rank speaks for it among equal copies)."""
    if not isinstance(tensor, DTensor):
        return 0, rank() == 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, start = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None
    return start[0], all(place == 0 for place in coordinate[:-1])
