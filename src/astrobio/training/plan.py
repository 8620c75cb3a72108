"""Will it fit, and how long will it take: a forecast from shapes alone, before anything is loaded.

Everything is counted on the meta device. Rates are those that `benchmarks/` measured; a card that was not measured is
scaled by its data sheet, and the forecast says so.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from astrobio.errors import InputError
from astrobio.models.cross_entropy import CHUNK
from astrobio.system.config import SystemConfig
from astrobio.system.presets import preset
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.activations import (
    BatchShape,
    BlockCost,
    block_costs,
    blocks_of,
    empty_system,
    gathered_blocks,
    recomputed_blocks,
    replayed_blocks,
)
from astrobio.training.eight_bit import block_size
from astrobio.training.execution import ExecutionConfig

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A card, in bytes, FLOP/s and bytes/s.

    Args:
        memory: what the driver reports. matmul: dense bfloat16. copy: device memory, read and written both counted.
        link: the card's own to the host, one way. measured: whether the rates were measured by `benchmarks/`.
    """

    memory: float
    matmul: float
    copy: float
    link: float
    measured: bool


# H100 and H200: copy rate and product of 8192³ random matrices as measured; their link is a lead, and `HOST_RATE` is
# below it. The others: data sheets, times the share of its own that the H100 reached (0.80 of 989 TFLOP/s, 0.9 of
# 3.35 TB/s).
GPUS = {
    "h100-80": Gpu(85.0e9, 790e12, 2.96e12, 50e9, True),
    "h200": Gpu(150.1e9, 790e12, 4.3e12, 50e9, True),
    "a100-80": Gpu(85.0e9, 0.80 * 312e12, 0.9 * 2.04e12, 22e9, False),
    "a100-40": Gpu(42.3e9, 0.80 * 312e12, 0.9 * 1.56e12, 22e9, False),
    "a5000-24": Gpu(25.4e9, 0.80 * 111e12, 0.9 * 0.77e12, 22e9, False),
    "rtx4090-24": Gpu(25.2e9, 0.80 * 165e12, 0.9 * 1.01e12, 22e9, False),
    "24gib": Gpu(24 * GIB, 790e12, 2.96e12, 50e9, True),  # an H100 held to 24 GiB
}
CONTEXT = 0.7e9  # bytes that the driver and libraries take before the first tensor
SLACK = 0.96  # of the memory that fragmentation leaves usable
# of it where whole weights come and go, and whole gradients too: bf16_2_reduce_micro_batch and bf16_2 reserved 118.9 GB
# for 110.1 and 148.4 for 127.1
GATHERED_SLACK, WHOLE_SLACK = 0.92, 0.86
# The rates below come from the full system on H200s (`benchmarks/results/`): at 58194cf `parts` and `speed` of
# sharded_step.json's bf16_1 and fp8_1, the profiles of its bf16_2_reduce_micro_batch and fp8_2_reduce_micro_batch, and
# streamed_bf16 of joint_step.json; at 907b065 `speed` of its bf16_2 and fp8_2.
EFFICIENCY = 0.8535  # of `matmul`, in the decoder with its bridges: what lies between its products is included
FLOAT8_GAIN = 1.449  # decoder in BF16 over decoder in FP8: 1.189 s over 0.821 s
ENCODER_SECONDS = 0.096 / 16  # a world and micro-batch, beyond all products, mostly launches: 1.306 s less the products
ENCODERS = 3.703e9  # weights of the two encoders with which that was measured
FORWARD = 1 / 3  # of the encoders' launches, which run once more where they are recomputed (joint_profile.json)
COLLECTIVE_RATE = 195e9  # bytes/s that a rank receives over NVLink: 184 to 209 in three of four collectives profiled
HOOK_SECONDS = 1.8e-3  # each group of weights costs ranks in a micro-batch: bf16_2_… and fp8_2_… over one card's
# The same where gradients stay whole until a step's end: bf16_2 and fp8_2 take 1.52 and 0.86 s more than half of one
# card's step, of which what is carried is 0.18 s, and the mean of the rest goes to 16 micro-batches × 80 groups.
WHOLE_HOOK_SECONDS = 0.8e-3
OPTIMIZER_SHARE = 0.62  # of `copy` that the 8-bit update with its norms reaches (optimizer_step.json)
HOST_RATE = 41e9  # bytes/s each way that a host gives its cards together: 94 GB go in within a streamed step of 2.36 s
PARTS = 6  # groups beside the large blocks: five parts and the system (`parallel.shard`)
HOST_PROCESS = 2.7e9  # bytes of a process that keeps all on its card (host_peak_bytes of bf16_1)


@dataclass(frozen=True)
class Plan:
    """What a configuration needs on each card, and how fast a step is.

    Args:
        parameters: of decoder, graph_vae, climate_cnn, the rest and total. bytes: per card, by kind.
        peak_bytes: their sum. host_bytes: of the host, a card's process. fits: whether both fit.
        strategy: "keep", "stochastic", "backward", "offload", or "none" where nothing fits.
        execution: the settings that carry it out. step_seconds: of one optimizer step.
        tokens_per_second: text tokens over all cards. days: for the token budget asked.
        note: what the numbers rest on, or what to do where nothing fits.
    """

    parameters: dict[str, int]
    bytes: dict[str, float]
    peak_bytes: float
    host_bytes: float
    fits: bool
    strategy: str
    execution: dict[str, Any]
    step_seconds: float
    tokens_per_second: float
    days: float
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def make_plan(
    config: SystemConfig, gpu: str, gpus: int = 1, *, accumulation: int = 1, float8: bool = False,
    shape: BatchShape | None = None, tokens: float = 1e9, host_bytes: float = 120e9,
) -> Plan:  # fmt: skip
    """The fastest strategy that fits `gpus` cards, or the nearest one with `fits` False.

    Args:
        accumulation: micro-batches a step. tokens: text tokens of the whole training, for `days`.
        host_bytes: memory of the host that offloading may take for each card.

    Raises:
        InputError: an unknown card, or no card at all.
    """
    if gpu not in GPUS:
        raise InputError(f"--gpu: expected one of {sorted(GPUS)}, found {gpu!r}")
    if gpus < 1 or accumulation < 1:
        raise InputError(f"--gpus, --accumulation: expected at least 1, found {gpus}, {accumulation}")
    shape = shape or BatchShape()
    system = empty_system(config, torch.bfloat16)
    costs = block_costs(system, shape, compiled=True)
    card, forecasts = GPUS[gpu], []
    for execution in candidates(accumulation, gpus, float8):
        found = [
            _fit_activations(system, costs, how, shape, card, gpus, accumulation)
            for how in _sharings(execution, gpus, accumulation)
        ]
        forecasts += found
        fitting = [one for one in found if one.peak <= room(card, one.execution) and one.host <= host_bytes]
        if fitting:
            best = min(fitting, key=lambda one: step_seconds(system, one, card, gpus, accumulation, shape))
            return _plan(system, best, card, gpus, accumulation, shape, tokens, True)
    nearest = min(forecasts, key=lambda forecast: forecast.peak)
    return _plan(system, nearest, card, gpus, accumulation, shape, tokens, False)


def candidates(accumulation: int, gpus: int, float8: bool) -> list[ExecutionConfig]:
    """Strategies from fastest to most frugal."""
    base = ExecutionConfig(optimizer="adamw8bit", weights="bf16", float8=float8, compile=True)
    kept = replace(base, gradients="stochastic" if accumulation > 1 else "keep")
    if gpus > 1:
        return [kept, replace(base, offload=True)]
    if accumulation > 1:
        return [kept, replace(base, gradients="host")]
    return [kept, replace(base, gradients="backward"), replace(base, gradients="backward", offload=True)]


def _sharings(execution: ExecutionConfig, gpus: int, accumulation: int) -> list[ExecutionConfig]:
    """The ways in which ranks may share weights and gradients in one strategy."""
    if gpus == 1 or execution.offload:
        return [execution]
    once = replace(execution, gather="step")
    return [execution, once, *([replace(once, reduce="step")] if accumulation > 1 else [])]


def room(card: Gpu, execution: ExecutionConfig) -> float:
    """Bytes that tensors may take on a card."""
    gathered = WHOLE_SLACK if execution.reduce == "step" else GATHERED_SLACK
    return card.memory * (gathered if execution.gather == "step" else SLACK) - CONTEXT


@dataclass(frozen=True)
class Forecast:
    """Bytes of one execution on one card."""

    execution: ExecutionConfig
    bytes: dict[str, float]
    host: float
    recomputed: frozenset[str]

    @property
    def peak(self) -> float:
        """All kinds together."""
        return sum(self.bytes.values())


def _fit_activations(
    system: UnifiedMultiModalSystem, costs: dict[str, BlockCost], execution: ExecutionConfig, shape: BatchShape,
    card: Gpu, gpus: int, accumulation: int,
) -> Forecast:  # fmt: skip
    """The forecast that recomputes as little as the card allows."""
    least = forecast(system, costs, replace(execution, activation_gib=0.0), shape, gpus, accumulation)
    free = room(card, execution) - least.peak
    if execution.offload or free <= 0:
        return least
    budget = math.floor((least.bytes["activations"] + free) / GIB * 10) / 10
    whole = forecast(system, costs, replace(execution, activation_gib=None), shape, gpus, accumulation)
    if whole.peak <= room(card, execution):
        return whole
    return forecast(system, costs, replace(execution, activation_gib=budget), shape, gpus, accumulation)


def forecast(
    system: UnifiedMultiModalSystem, costs: dict[str, BlockCost], execution: ExecutionConfig, shape: BatchShape,
    gpus: int = 1, accumulation: int = 1,
) -> Forecast:  # fmt: skip
    """Bytes per card of one execution.

    Args:
        system: on the meta device. costs: its `block_costs`.
    """
    shards = gpus if execution.shards == 0 else min(execution.shards, gpus)
    size = 2 if execution.weights == "bf16" else 4
    blocks = {name: sum(p.numel() for p in block.parameters()) for name, block in blocks_of(system).items()}
    total = sum(p.numel() for p in system.parameters())
    largest, resident = max(blocks.values()), total - sum(blocks.values())
    tensor = max(p.numel() for p in system.parameters())
    moments = _moment_bytes(system, execution)
    streamed = execution.offload
    on_card = resident / total if streamed and gpus == 1 else (0.0 if streamed else 1.0 / shards)
    budget = None if execution.activation_gib is None else execution.activation_gib * GIB
    again = frozenset(costs) if streamed else frozenset(recomputed_blocks(costs, budget))
    whole, arriving = _gradient_bytes(execution, total, largest, tensor, accumulation, size, shards)
    work, head = float(max((costs[name].kept for name in again), default=0)), _head_bytes(system, shape, size)
    out = {
        "weights": total * size * on_card,
        "moments": moments * on_card,
        "gradients": whole + sum(arriving),
        "activations": float(sum(cost.recomputed if name in again else cost.kept for name, cost in costs.items())),
        "working": work + head,
    }
    if execution.graphs:
        kept = replayed_blocks(system, again).values()
        out["graphs"] = float(sum(p.numel() for block in kept for p in block.parameters()) * size)
    if streamed and gpus == 1:
        # In a block's backward its weights and moments are there, the next one's arrive and the last one's leave; the
        # head's gradient is gone by then, and while it is there only one block's weights are.
        in_block = (largest * size, work, 3 * largest * (size + moments / total))
        in_head = (tensor * size, head, largest * size)
        out["gradients"], out["working"], out["streaming"] = max(in_block, in_head, key=sum)
    elif gpus > 1:
        out["unsharded"] = _whole_weights(system, execution, total, largest, tensor)
    host = _host_bytes(system, execution, moments, size, gpus, 1 - on_card)
    return Forecast(execution, out, host, again)


def _whole_weights(
    system: UnifiedMultiModalSystem, execution: ExecutionConfig, total: int, largest: int, tensor: int
) -> float:
    """What sharded ranks gather, in bf16, and the float32 gradients of one block on their way to all ranks.

    Whole at once: all weights and two blocks that arrive; or two blocks, embedding, head and all small blocks.
    """
    if execution.gather == "step":
        return (total + 2 * largest) * 2.0 + largest * 4.0
    apart, blocks = gathered_blocks(system), blocks_of(system)
    small = sum(p.numel() for name, block in blocks.items() if name not in apart for p in block.parameters())
    return (2 * largest + 2 * tensor + small) * 2.0 + largest * 4.0


def _moment_bytes(system: UnifiedMultiModalSystem, execution: ExecutionConfig) -> float:
    if execution.optimizer == "adamw":
        return 8.0 * sum(p.numel() for p in system.parameters())
    blocks = ((p.numel(), block_size(p.shape)) for p in system.parameters())
    return sum(count * (2.0 + 8.0 / block) if block else 8.0 * count for count, block in blocks)


def _gradient_bytes(
    execution: ExecutionConfig, total: int, largest: int, tensor: int, accumulation: int, size: int, shards: int
) -> tuple[float, tuple[float, float]]:
    """Kept gradients, and one block's and the largest tensor's that arrive beside them."""
    arriving = largest * size / shards, tensor * size / shards
    if execution.gradients in ("backward", "host") or execution.offload:  # offloading sends gradients home too
        return 0.0, arriving
    if execution.reduce == "step" and shards > 1:  # in bf16, in which the forward computes
        return total * 2.0, (largest * 2.0, tensor * 2.0)
    return total * size / shards, arriving if accumulation > 1 else (0.0, 0.0)


def _host_bytes(
    system: UnifiedMultiModalSystem, execution: ExecutionConfig, moments: float, size: int, gpus: int, away: float
) -> float:
    """Host memory of each rank's process where any of the training lives there; `away` is the share not on the card.

    FSDP page-locks weights and gradients by PyTorch's allocator, which rounds every tensor up to a power of two.
    """
    total = sum(p.numel() for p in system.parameters())
    if execution.offload and gpus > 1:
        rows = ((-(-p.shape[0] // gpus) if p.ndim else 1, math.prod(p.shape[1:])) for p in system.parameters())
        locked = sum(1 << max(count * width * size - 1, 0).bit_length() for count, width in rows)
        return HOST_PROCESS + 2.0 * locked + moments / gpus
    held = (total * size + moments) * away if execution.offload else 0.0
    if execution.gradients == "host":
        held += total * size / gpus
    return HOST_PROCESS + held if held else 0.0


def _head_bytes(system: UnifiedMultiModalSystem, shape: BatchShape, size: int) -> float:
    """One chunk of logits, the states that enter and leave the head, and its gradient before it is scaled."""
    config = system.config.decoder
    kept = config.vocabulary * config.width * 2.0
    return min(CHUNK, shape.tokens) * config.vocabulary * 2.0 + 3.0 * shape.tokens * config.width * 2.0 + kept


def micro_batch_flops(system: UnifiedMultiModalSystem, shape: BatchShape, recomputed: frozenset[str]) -> float:
    """Floating-point operations of one forward and backward, recomputation included."""
    config, out = system.config, 0.0
    positions = {"decoder": shape.tokens, "metabolic_vae.layers": shape.nodes}
    positions["metabolic_vae.core"] = shape.worlds * config.metabolic_vae.tokens
    p, y, x = (size // patch for size, patch in zip(shape.grid, config.climate_cnn.patch, strict=True))
    for stage in range(3):
        steps = shape.times if stage == 0 else 1
        positions[f"climate_cnn.stages.{stage}"] = shape.worlds * steps * p * (y >> stage) * (x >> stage)
    for name, block in blocks_of(system).items():
        rows = next((count for start, count in positions.items() if name.startswith(start)), 0)
        weights = sum(parameter.numel() for parameter in block.parameters())
        out += rows * weights * (8.0 if name in recomputed else 6.0)
    attention = 6.0 * config.decoder.layers * shape.text * config.decoder.width * shape.tokens
    return out + attention + _head_flops(system, shape)


def _head_flops(system: UnifiedMultiModalSystem, shape: BatchShape) -> float:
    """Of the logits, where every token is a target."""
    return 6.0 * system.config.decoder.vocabulary * system.config.decoder.width * shape.tokens


def step_seconds(
    system: UnifiedMultiModalSystem, found: Forecast, card: Gpu, gpus: int, accumulation: int, shape: BatchShape
) -> float:
    """Forecast of one optimizer step."""
    execution = found.execution
    rate = card.matmul * EFFICIENCY * (FLOAT8_GAIN if execution.float8 else 1.0)
    head = _head_flops(system, shape) / rate
    encoders = _encoder_seconds(system, found.recomputed, card, shape)
    forward = (micro_batch_flops(system, shape, frozenset()) / rate - head) / 3 + encoders * FORWARD
    compute = accumulation * (micro_batch_flops(system, shape, found.recomputed) / rate + encoders)
    weights = sum(p.numel() for p in system.parameters()) * (2 if execution.weights == "bf16" else 4)
    moments = _moment_bytes(system, execution)
    traffic = weights * 3 + 2 * moments  # weight and gradient read, weight written, moments both ways
    update = traffic / (card.copy * OPTIMIZER_SHARE) / gpus
    if gpus > 1:
        compute += _sharing_seconds(system, execution, gpus, accumulation)
    link = min(card.link, HOST_RATE / gpus)
    if execution.gradients == "host":
        compute = max(compute, (accumulation - 1) * 2 * weights / gpus / link)
        update += 2 * weights / gpus / link
    if execution.offload and gpus == 1:
        blocks = sum(p.numel() for block in blocks_of(system).values() for p in block.parameters())
        away = blocks / sum(p.numel() for p in system.parameters())
        back = max(compute - forward - head + update, (weights + moments) * away / link)
        return head + max(forward, weights * away / link) + back  # nothing is carried in the head
    if execution.offload:
        return _offloaded_seconds(compute, accumulation * forward, update, weights, moments, gpus, link, accumulation)
    return compute + update


def _encoder_seconds(
    system: UnifiedMultiModalSystem, recomputed: frozenset[str], card: Gpu, shape: BatchShape
) -> float:
    """What a micro-batch's launches in the encoders cost beyond products; recomputed blocks have more of them."""
    names = ("metabolic_vae", "climate_cnn")
    sizes = {name: sum(p.numel() for p in block.parameters()) for name, block in blocks_of(system).items()}
    own = {name: count for name, count in sizes.items() if name.startswith(names)}
    again = sum(count for name, count in own.items() if name in recomputed) / max(sum(own.values()), 1)
    others = sum(system.count_parameters()[name] for name in ("graph_vae", "climate_cnn")) / ENCODERS
    once = ENCODER_SECONDS * shape.worlds * others * GPUS["h200"].matmul / card.matmul
    return once * (1 + FORWARD * again)


def _sharing_seconds(
    system: UnifiedMultiModalSystem, execution: ExecutionConfig, gpus: int, accumulation: int
) -> float:
    """What ranks lose to each other in a step: bf16 weights come in, gradients go out.

    A collective beside products costs its whole time: they are slower by about as much. The hooks around each group of
    weights keep the host from launching, less where no micro-batch but the last shares its gradients.
    """
    shards = min(execution.shards or gpus, gpus)
    foreign = sum(p.numel() for p in system.parameters()) * (shards - 1) / shards
    gathers = 1 if execution.gather == "step" else 2 * accumulation
    size = 2 if execution.weights == "bf16" and gpus == shards == 2 else 4  # as `parallel.sum_type` has it
    reduces, hook = (1, WHOLE_HOOK_SECONDS) if execution.reduce == "step" else (accumulation, HOOK_SECONDS)
    groups = len(gathered_blocks(system)) + PARTS
    return foreign * (gathers * 2 + reduces * size) / COLLECTIVE_RATE + accumulation * groups * hook


def _offloaded_seconds(
    compute: float, forward: float, update: float, weights: float, moments: float, gpus: int, link: float,
    accumulation: int,
) -> float:  # fmt: skip
    """A step of ranks whose shards live in host memory, each phase bound by the slower of card and link.

    A rank's weights go in for every forward and again for every backward, in which gradients go out; from the second
    micro-batch on the processor adds them up (read twice, written once). Then gradients go in for their norm, and once
    more with weights and moments for the update.
    """
    weights, moments = weights / gpus, moments / gpus
    carried = accumulation * weights / link
    sums = (accumulation - 1) * 3 * weights / link
    visits = weights / link + max(update, (2 * weights + moments) / link)
    return max(forward, carried) + max(compute - forward, carried) + sums + visits


def _plan(
    system: UnifiedMultiModalSystem, found: Forecast, card: Gpu, gpus: int, accumulation: int, shape: BatchShape,
    tokens: float, fits: bool,
) -> Plan:  # fmt: skip
    seconds = step_seconds(system, found, card, gpus, accumulation, shape)
    rate = shape.tokens * accumulation * gpus / seconds
    execution = found.execution
    note = "rates measured on this card" if card.measured else "rates scaled from the card's data sheet, not measured"
    if not fits:
        missing = found.peak - room(card, execution)
        note = f"{missing / 1e9:.1f} GB too much on each card, even so; use more or larger cards, or a smaller preset"
        if missing <= 0:
            note = f"the host's memory is too small: {found.host / 1e9:.0f} GB are needed"
    strategy = "offload" if execution.offload else execution.gradients
    return Plan(
        parameters=system.count_parameters(), bytes=found.bytes, peak_bytes=found.peak, host_bytes=found.host,
        fits=fits,
        strategy=strategy if fits else "none", execution=asdict(execution), step_seconds=seconds,
        tokens_per_second=rate, days=tokens / rate / 86400, note=note,
    )  # fmt: skip


def require_fit(config: SystemConfig, execution: ExecutionConfig, shape: BatchShape, memory: float, gpus: int) -> None:
    """Refuse an execution that a card of `memory` bytes cannot hold.

    Raises:
        InputError: with the forecast and what would make it fit.
    """
    system = empty_system(config, torch.bfloat16)
    costs = block_costs(system, shape, compiled=execution.compile)
    found = forecast(system, costs, execution, shape, gpus)
    if found.peak + CONTEXT > memory:
        raise InputError(
            f"execution: {(found.peak + CONTEXT) / 1e9:.1f} GB are needed on each GPU ({_largest(found)}), found "
            f"{memory / 1e9:.1f} GB; `astrobio plan` lists settings that fit"
        )


def _largest(found: Forecast) -> str:
    kinds = sorted(found.bytes.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {size / 1e9:.1f}" for name, size in kinds)


def describe(plan: Plan) -> list[tuple[str, str]]:
    """Rows of a table for people."""
    rows = [(f"parameters, {name}", f"{count / 1e9:.3f} B") for name, count in plan.parameters.items()]
    rows += [(f"bytes, {name}", f"{size / 1e9:.1f} GB") for name, size in plan.bytes.items()]
    rows += [
        ("peak a card", f"{plan.peak_bytes / 1e9:.1f} GB"), ("host memory", f"{plan.host_bytes / 1e9:.1f} GB"),
        ("fits", "yes" if plan.fits else "no"), ("strategy", plan.strategy),
        ("step", f"{plan.step_seconds:.2f} s"), ("text tokens", f"{plan.tokens_per_second:,.0f} /s"),
        ("training", f"{plan.days:.1f} days"), ("note", plan.note),
    ]  # fmt: skip
    changed = {k: v for k, v in plan.execution.items() if v != asdict(ExecutionConfig())[k]}
    rows.append(("set", " ".join(f"--set execution.{key}={value}" for key, value in changed.items())))
    return rows


def run_plan(
    preset_name: str, gpu: str, gpus: int, accumulation: int, float8: bool, tokens: float, host_bytes: float,
    as_json: bool,
) -> int:  # fmt: skip
    """Print a plan; returns 0 where it fits and 2 where nothing does."""
    found = make_plan(
        preset(preset_name), gpu, gpus, accumulation=accumulation, float8=float8, tokens=tokens, host_bytes=host_bytes
    )
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        table = Table("what", "how much", title=f"{preset_name} on {gpus} × {gpu}")
        for row in describe(found):
            table.add_row(*row)
        Console().print(table)
    return 0 if found.fits else 2
