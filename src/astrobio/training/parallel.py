"""The only place that knows of devices, ranks and meshes: a system goes in, one that is ready to train comes out.

Order: 8-bit floating point, recomputation, compilation, sharding (or streaming from host memory). Models know nothing
of it. Sharding is FSDP2: every large block, then every part, then the system; gradients are summed over ranks, because
each part of the loss is divided by its count of targets over all ranks (`sum_over_ranks`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from astrobio.errors import InputError
from astrobio.models.float8 import use_float8
from astrobio.models.initialise import init_parameter, init_weights
from astrobio.system.config import SystemConfig
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.activations import (
    BatchShape,
    block_costs,
    blocks_of,
    empty_system,
    gathered_blocks,
    recomputed_blocks,
    replayed_blocks,
)
from astrobio.training.config import TrainingConfig
from astrobio.training.eight_bit import AdamW8bit, local
from astrobio.training.execution import ExecutionConfig
from astrobio.training.gradients import GradientPolicy, gradient_policy
from astrobio.training.offload import BlockStreamer, settle, stream_blocks
from astrobio.training.optim import build_optimizer
from astrobio.training.plan import require_fit
from astrobio.training.ranks import keep_shards_only, shard_place, world_size
from astrobio.training.replay import replay_blocks
from astrobio.training.start import freeze
from astrobio.training.step import is_mixed
from astrobio.training.whole import WholeGradients

WEIGHT_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# The rest is small, or (message passing) gets another number of rows in each batch.
COMPILED = ("decoder.", "model.", "climate_cnn.stages.", "metabolic_vae.core.")
STREAMED_COMPILED = ("decoder.model.",)  # streaming is bound by copies: the others would gain nothing


@dataclass
class Prepared:
    """A system ready to train, its optimizer, and where its gradients go.

    Args:
        save_barrier: call before reading weights or moments: streamed ones arrive on the host, and sharded ones that a
            pass without gradients left whole are shards again. measurable: whether gradients can be looked at without
            a step being taken (streamed blocks take theirs in the backward).
    """

    system: UnifiedMultiModalSystem
    optimizer: torch.optim.Optimizer
    policy: GradientPolicy
    save_barrier: Callable[[], None]
    measurable: bool = True


def check_execution(execution: ExecutionConfig, ranks: int) -> None:
    """Refuse what cannot be done on this number of ranks; nothing needs to be loaded for it.

    On one rank all is possible, `offload` only together with `gradients=backward`. On several, gradients may be `keep`
    (both optimizers), `stochastic` or `host` (8-bit one), and `offload` goes together with `keep`.

    Raises:
        InputError: with what to set instead.
    """
    found = execution.gradients
    if ranks == 1 and execution.offload and found != "backward":
        raise InputError(
            "execution.offload: weights in host memory are updated in the backward on one GPU; set "
            f"execution.gradients=backward, found {found}"
        )
    if ranks > 1 and found == "backward":
        raise InputError(
            f"execution.gradients: a step in the backward takes one micro-batch, which would leave {ranks - 1} of "
            f"{ranks} ranks idle; expected keep, stochastic or host, found backward"
        )
    if ranks > 1 and execution.offload and found != "keep":
        raise InputError(
            "execution.offload: gradients of sharded weights in host memory add up there; set "
            f"execution.gradients=keep, found {found}"
        )
    if ranks > 1 and execution.offload and execution.gather == "step":
        raise InputError(
            "execution.offload: weights live in host memory because the GPU cannot hold them whole; set "
            "execution.gather=block, found step"
        )
    if ranks > 1 and execution.graphs:
        raise InputError(
            f"execution.graphs: recorded weights stay where they are, those of {ranks} ranks travel; set "
            "execution.graphs=false"
        )
    if ranks > 1 and execution.shards and ranks % execution.shards:
        raise InputError(f"execution.shards: expected a divisor of the {ranks} ranks, found {execution.shards}")


def prepare(
    config: SystemConfig, execution: ExecutionConfig, training: TrainingConfig, device: torch.device, shape: BatchShape,
    load: Callable[[UnifiedMultiModalSystem], None] | None = None,
) -> Prepared:  # fmt: skip
    """Build a system where it will train: a device never holds more than its share.

    Args:
        shape: of one micro-batch on one rank, for the memory budget of recomputation.
        load: fills the weights in place of their random first values. It is called before sharding, so each rank's
            host memory holds all weights once; without it, only shards ever exist.

    Raises:
        InputError: an execution that contradicts itself or the machine.
    """
    check_execution(execution, world_size())
    streamed = execution.offload and world_size() == 1
    if device.type == "cuda":
        require_fit(config, execution, shape, torch.cuda.get_device_properties(device).total_memory, world_size())
    sharded = world_size() > 1
    home = torch.device("cpu") if execution.offload or (sharded and load is not None) else device
    system = empty_system(config, WEIGHT_TYPES[execution.weights])
    if streamed:
        fill_streamed(system, device, load)
    elif not sharded or load is not None:
        fill(system, home, load)
    recomputed = () if streamed else choose_recomputed(config, execution, shape)
    transform(system, replace(execution, compile=execution.compile and not streamed), recomputed)
    if execution.graphs and device.type == "cuda":
        replay_blocks(replayed_blocks(system, recomputed))
    if sharded:
        mixed = device.type == "cuda" and is_mixed(device, training.precision)
        shard(system, make_mesh(device, execution.shards), execution, mixed)
        if load is None:
            fill_shards(system, home, device)
    freeze(system, training.frozen)
    optimizer = build_optimizer(system, training, execution.optimizer, device if execution.offload else None)
    streamer: BlockStreamer | None = None
    if streamed:
        assert isinstance(optimizer, AdamW8bit)
        streamer = stream_blocks(
            blocks_of(system), optimizer, device, training.clip, STREAMED_COMPILED if execution.compile else ()
        )
    policy = gradient_policy(execution.gradients, optimizer, training.clip, streamer)
    if sharded and execution.reduce == "step":
        assert isinstance(optimizer, AdamW8bit)
        policy = WholeGradients(system, policy, optimizer)
    barrier = (lambda: keep_shards_only(system)) if streamer is None else streamer.synchronize
    return Prepared(system, optimizer, policy, barrier, measurable=streamer is None)


def fill(
    system: UnifiedMultiModalSystem, device: torch.device, load: Callable[[UnifiedMultiModalSystem], None] | None = None
) -> None:
    """Give an empty system its weights (or its shards of them) on a device: loaded, or random."""
    system.to_empty(device=device)
    if load is None:
        system.init_weights()
    else:
        load(system)


@torch.no_grad()
def fill_shards(system: UnifiedMultiModalSystem, home: torch.device, device: torch.device) -> None:
    """First weights of a sharded system, the same whatever the number of ranks: drawn whole on `device`, one at a time.

    Args:
        home: where the shards are kept.
    """
    system.to_empty(device=home)

    def keep_own(name: str, parameter: nn.Parameter, depth: int) -> None:
        whole = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        if name == "absent":
            whole.normal_()
        else:
            init_parameter(name, whole, depth)
        own, (start, _) = local(parameter.data), shard_place(parameter.data)
        own.copy_(whole[start : start + own.shape[0]])

    for part, depth in system.part_depths().items():  # in the order of `init_weights`
        for name, parameter in system.get_submodule(part).named_parameters():
            keep_own(name, parameter, max(depth, 1))
    keep_own("absent", system.absent, 1)


def choose_recomputed(config: SystemConfig, execution: ExecutionConfig, shape: BatchShape) -> tuple[str, ...]:
    """Names of the blocks whose activations do not fit the budget."""
    if execution.activation_gib is None:
        return ()
    probe = empty_system(config, torch.bfloat16)  # what the forward computes in, whatever the weights are kept in
    costs = block_costs(probe, shape, compiled=execution.compile)
    return tuple(recomputed_blocks(costs, execution.activation_gib * 2**30))


def transform(system: nn.Module, execution: ExecutionConfig, recomputed: tuple[str, ...]) -> None:
    """8-bit floating point, recomputation and compilation, in place."""
    if execution.float8:
        use_float8(system.get_submodule("decoder") if hasattr(system, "decoder") else system)  # encoders: launches
    for name in recomputed:
        parent, _, child = name.rpartition(".")
        owner = system.get_submodule(parent)
        setattr(owner, child, checkpoint_wrapper(owner.get_submodule(child)))
    if execution.compile:
        torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)
        for name, block in blocks_of(system).items():
            if name.startswith(COMPILED):
                # PyTorch counts all blocks as one function: left to itself it would take the widths of different kinds
                # for one changing number, and compile kernels for any width, which takes it minutes in FP8.
                block.compile(dynamic=False)


def make_mesh(device: torch.device, shards: int) -> DeviceMesh:
    """One dimension over which weights are sharded, and one of replicas where `shards` is a part of all ranks."""
    ranks = world_size()
    shards = shards or ranks
    if shards == ranks:
        return init_device_mesh(device.type, (ranks,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (ranks // shards, shards), mesh_dim_names=("replicate", "shard"))


def shard(system: UnifiedMultiModalSystem, mesh: DeviceMesh, execution: ExecutionConfig, mixed: bool) -> None:
    """FSDP2 in place: every large block, every part (with its small blocks), the system.

    With `gather=step` neither forward nor backward drops whole weights: `train_step` does, after its last backward.

    Args:
        mixed: gather weights in bf16, in which the forward computes.
    """
    # Parts return views of their last tensors; nothing changes these in place, which is what the warning is about.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    in_host_memory = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    options: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if mixed else None,
            reduce_dtype=sum_type(execution, tuple(mesh.shape)) if mixed else None,
            cast_forward_inputs=False,  # the models cast what may lose precision; coordinates and masses may not
        ),
        "reshard_after_forward": None if execution.gather == "block" else False,
        "offload_policy": in_host_memory if execution.offload else OffloadPolicy(),
    }
    for block in gathered_blocks(system).values():
        fully_shard(block, **options)
    for part in (system.spectrum_encoder, system.climate_cnn, system.metabolic_vae, system.decoder, system.fusion):
        fully_shard(part, **options)
    fully_shard(system, **options)
    for module in system.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sums: the loss is already divided by counts over all ranks
            module.set_force_sum_reduction_for_comms(True)
            module.set_reshard_after_backward(execution.gather == "block", recurse=False)


def sum_type(execution: ExecutionConfig, mesh: tuple[int, ...]) -> torch.dtype:
    """In which gradients are added up over a mesh: float32, unless bf16 gives the same for half the traffic.

    The sum of two bf16 numbers is rounded once either way, when it becomes the gradient of a bf16 weight.
    """
    return torch.bfloat16 if execution.weights == "bf16" and mesh == (2,) else torch.float32


def fill_streamed(
    system: UnifiedMultiModalSystem, device: torch.device, load: Callable[[UnifiedMultiModalSystem], None] | None
) -> None:
    """Weights of blocks in host memory, all others on the device, which never holds more than one block besides."""
    if load is None:
        depths = system.part_depths()
        for name, block in blocks_of(system).items():
            block.to_empty(device=device)
            init_weights(block, max(depths[name.split(".")[0]], 1))
            settle(block, device)
    else:
        system.to_empty(device="cpu")
        load(system)
    streamed = {p for block in blocks_of(system).values() for p in block.parameters()}
    for name, child in system.named_modules():
        for key, parameter in child.named_parameters(recurse=False):
            if parameter not in streamed:
                _settle_resident(system, child, key, f"{name}.{key}".lstrip("."), device)


def _settle_resident(
    system: UnifiedMultiModalSystem, owner: nn.Module, key: str, name: str, device: torch.device
) -> None:
    """One parameter that belongs to no block, on the device: moved if it has values, else given its first ones."""
    parameter = owner.get_parameter(key)
    if not parameter.is_meta:
        parameter.data = parameter.data.to(device)
        return
    fresh = nn.Parameter(torch.empty_like(parameter, device=device))
    owner.register_parameter(key, fresh)
    if name == "absent":
        nn.init.normal_(fresh)
    else:
        init_parameter(name, fresh, max(system.part_depths()[name.split(".")[0]], 1))
