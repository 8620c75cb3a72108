"""The whole 16.8-billion-parameter system's training step: text, spectra, climates and metabolisms, one backward.

    python benchmarks/joint_step.py --only resident_bf16 resident_fp8 streamed_bf16 [--steps 7] [--result FILE]
    python benchmarks/joint_step.py --tiny                # rehearsal of all variants on a CPU

`resident`: step in the backward, one micro-batch of 16 worlds × 512 tokens. `accumulated`: 32 micro-batches, gradients
kept, and each part by itself in the same process. `streamed`: weights and moments in host memory, the process held to
24 GiB of the GPU. Each variant runs in a process of its own, prints its result after every step, and is stopped at its
limit. `planned` is what `astrobio plan` foretells of the same execution. FILE is added to: card → variant → numbers.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import worlds
from astrobio.batch import MultiModalBatch
from astrobio.losses.combined import LossWeights
from astrobio.models.fusion import thermal_suitability
from astrobio.system.config import SystemConfig
from astrobio.system.presets import preset
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.activations import BatchShape, block_costs, empty_system
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import Prepared, prepare
from astrobio.training.plan import GPUS, forecast, step_seconds
from astrobio.training.step import norms_by_part, train_step
from machine import describe, parser, run_variant, table

VARIANTS = ("resident_bf16", "resident_fp8", "accumulated_bf16", "accumulated_fp8", "streamed_bf16")
FRACTION_BYTES = 24 * 2**30
LIMIT = 300.0  # seconds a variant may take
BATCHES = 4  # different micro-batches
WARM = 2  # steps before those that count


def execution(variant: str, activation_gib: float, compiled: bool) -> ExecutionConfig:
    """How a variant uses the card."""
    kind, _, precision = variant.partition("_")
    return ExecutionConfig(
        optimizer="adamw8bit", weights="bf16", float8=precision == "fp8", compile=compiled,
        activation_gib=activation_gib, gradients="stochastic" if kind == "accumulated" else "backward",
        offload=kind == "streamed",
    )  # fmt: skip


def shape_of(batch: MultiModalBatch) -> BatchShape:
    """What the forecast needs to know of a micro-batch."""
    graph: Any = batch.graph
    return BatchShape(worlds.WORLDS, worlds.TEXT, graph.num_nodes, graph.edge_index.shape[1])


def planned(config: SystemConfig, how: ExecutionConfig, shape: BatchShape, accumulation: int) -> dict[str, Any]:
    """Forecast of peak memory and seconds of a step on this card, if it is one that the plan knows."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    card = "24gib" if how.offload else next((key for key in ("h100-80", "h200") if key[:4].upper() in name), "h100-80")
    system = empty_system(config, torch.bfloat16)
    found = forecast(system, block_costs(system, shape, compiled=how.compile), how, shape, 1, accumulation)
    seconds = step_seconds(system, found, GPUS[card], 1, accumulation, shape)
    return {"card": card, "peak_bytes": found.peak, "host_bytes": found.host, "step_seconds": seconds}


def open_gates(system: nn.Module) -> None:
    """Set the bridges' gates to 0.1, so that every part gets gradient from the language loss from the first step."""
    for name, parameter in system.named_parameters():
        if name.endswith("_gate"):
            nn.init.constant_(parameter, 0.1)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peaks() -> dict[str, int]:
    """Bytes at most so far: of the GPU, allocated and reserved, and of this process in host memory."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if not torch.cuda.is_available():
        return {"peak_bytes": 0, "reserved_bytes": 0, "host_peak_bytes": host}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak_bytes": allocated, "reserved_bytes": reserved, "host_peak_bytes": host}


def say(result: dict[str, Any]) -> None:
    """One line, the last of which is the variant's result."""
    print(json.dumps(result), flush=True)


def steps(
    prepared: Prepared, batches: list[MultiModalBatch], accumulation: int, count: int
) -> Iterator[dict[str, Any]]:
    """Everything that is known after each step; the first, which compiles, has one micro-batch a batch only."""
    times: list[float] = []
    losses: list[float] = []
    skipped: list[str] = []
    for step in range(count):
        micro_batches = min(accumulation, len(batches)) if step == 0 else accumulation
        chosen = [batches[(step + micro) % len(batches)] for micro in range(micro_batches)]
        synchronize()
        start = time.perf_counter()
        result = train_step(prepared.system.train(), prepared.policy, chosen, LossWeights(), "fp32")
        synchronize()
        times.append(time.perf_counter() - start)
        losses.append(result.losses["total"])
        skipped += [result.skipped] if result.skipped else []
        warm = times[min(WARM if accumulation == 1 else 1, len(times) - 1) :]
        middle, tokens = statistics.median(warm), accumulation * worlds.WORLDS * worlds.TEXT
        yield {
            "tok_s": tokens / middle, "step_seconds": middle, "steps": len(warm), "all_seconds": times,
            "losses": losses, "skipped": skipped, "tokens": tokens, **peaks(),
            "gradient_norms": norms_by_part(prepared.system, prepared.policy),
        }  # fmt: skip


def part_losses(system: UnifiedMultiModalSystem, batch: MultiModalBatch) -> dict[str, Callable[[], Tensor]]:
    """A loss of each part by itself, on inputs that the others computed before. `decoder_alone` has no bridges."""
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        spectrum, climate = system._encode_spectrum(batch), system._encode_climate(batch).tokens
        found = {
            "spectrum": spectrum,
            "climate": climate,
            "metabolism": system.metabolic_vae(batch.graph, batch.growth, batch.growth_mask).tokens,
        }
        others = {name: value.detach().requires_grad_() for name, value in system._project(found).items()}
        context, visible = system._decoder_context(others, batch.present)
        hidden = system.decoder.encode(batch.input_ids, context, visible).hidden
    context, hidden = context.detach().requires_grad_(), hidden.detach().requires_grad_()
    suited = thermal_suitability(batch.growth, batch.habitat, batch.growth_mask & batch.habitat_mask)

    def fusion() -> Tensor:
        tokens = {"text": system.projectors["text"](hidden)} | others
        shown = {name: torch.ones(value.shape[:2], dtype=torch.bool, device=value.device)
                 for name, value in tokens.items()} | {"text": batch.context_mask}  # fmt: skip
        out = system.fusion(tokens, shown, system.absent, batch.present, hidden.mean(1), suited)
        return out.state_logits.float().square().mean() + out.physics.float().square().mean()

    def metabolism() -> Tensor:
        out = system.metabolic_vae(batch.graph, batch.growth, batch.growth_mask)
        return out.tokens.float().square().mean() + out.edge_logits.float().square().mean()

    return {
        "spectrum_encoder": lambda: system._encode_spectrum(batch).float().square().mean(),
        "climate_cnn": lambda: system._encode_climate(batch).tokens.float().square().mean(),
        "graph_vae": metabolism,
        "decoder": lambda: system.decoder(batch.input_ids, batch.lm_labels, context, visible)[1].total,
        "decoder_alone": lambda: system.decoder(batch.input_ids, batch.lm_labels)[1].total,
        "fusion": fusion,
    }


def parts_seconds(prepared: Prepared, batch: MultiModalBatch) -> Iterator[dict[str, float]]:
    """Seconds of a micro-batch's forward and backward of each part alone, its gradient added to a sum as in a step.

    The median of five after two; `update` is the optimizer's step over all sums.
    """
    out: dict[str, float] = {}
    prepared.policy.begin()
    for name, part in part_losses(prepared.system.train(), batch).items():
        times = []
        for _ in range(7):
            synchronize()
            start = time.perf_counter()
            part().backward()
            synchronize()
            times.append(time.perf_counter() - start)
        out[name] = statistics.median(times[2:])
        yield out
    start = time.perf_counter()
    prepared.policy.finish()
    synchronize()
    yield out | {"update": time.perf_counter() - start}


def against_parts(parts: dict[str, float], seconds: float, accumulation: int) -> dict[str, Any]:
    """A joint step over the sum of its parts, every micro-batch and the one update counted."""
    update = parts.get("update", 0.0)
    sums = {}
    for name, left_out in (("sum", ("decoder_alone", "update")), ("sum_without_bridges", ("decoder", "update"))):
        micro_batch = sum(value for part, value in parts.items() if part not in left_out)
        sums[f"parts_{name}_seconds"] = accumulation * micro_batch + update
    ratio = {f"ratio_{key[6:-8]}": seconds / value for key, value in sums.items() if value}
    return {"parts_seconds": parts, **sums, **ratio}


def add(path: Path, variant: str, found: dict[str, Any]) -> None:
    """Put one variant's result into the file: card → variant → numbers, and the machine that they come from."""
    result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"cards": {}}
    own = describe()
    name = next((key for key in ("H100", "H200") if key in own["gpu"]), own["gpu"])
    result["cards"].setdefault(name, {})[variant] = own | {"parts_seconds": None} | found
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def measure(variant: str, o: Namespace) -> None:
    """Steps, then each part alone where gradients are kept; a line of JSON after each."""
    torch.manual_seed(0)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    config = preset(o.preset)
    if o.tiny:
        worlds.WORLDS, worlds.TEXT, worlds.POINTS = 2, 32, 24
        config = replace(config, decoder=replace(config.decoder, vocabulary=4096))
    how = execution(variant, o.activation_gib if variant.startswith("accumulated") else 0.0, not o.plain)
    if how.offload and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(FRACTION_BYTES / total, device)
    accumulation = o.accumulation if variant.startswith("accumulated") else 1
    batches = [batch.to(device) for batch in worlds.load_batches(None, BATCHES)]
    shape = shape_of(batches[0])
    result: dict[str, Any] = {
        "planned": planned(config, how, shape, accumulation), "accumulation": accumulation,
        "activation_gib": how.activation_gib, "compiled": how.compile,
    }  # fmt: skip
    say(result)
    start = time.perf_counter()
    prepared = prepare(config, how, TrainingConfig(lr=1e-5, clip=1.0), device, shape)
    open_gates(prepared.system)
    synchronize()
    result["build_seconds"] = time.perf_counter() - start
    result["parameters"] = sum(p.numel() for p in prepared.system.parameters())
    say(result)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for found in steps(prepared, batches, accumulation, o.steps):
        result |= found
        say(result)
    if variant.startswith("accumulated"):
        for parts in parts_seconds(prepared, batches[0]):
            result |= against_parts(parts, result["step_seconds"], accumulation)
            say(result)


def brief(found: dict[str, Any]) -> str:
    """What to show of a variant's result while it runs."""
    times = found.get("all_seconds", [found.get("build_seconds", 0.0)])
    shown = {"seconds": round(times[-1], 3), "tok_s": round(found.get("tok_s", 0.0)), "losses": found.get("losses")}
    shown |= {key: round(found[key] / 1e9, 1) for key in ("peak_bytes", "host_peak_bytes") if key in found}
    shown |= {key: found[key] for key in ("parts_seconds", "ratio_sum") if key in found}
    return json.dumps(shown)


def main() -> None:
    """Run one variant, or several."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--variant", choices=VARIANTS)
    arguments.add_argument("--only", nargs="*", default=list(VARIANTS))
    arguments.add_argument("--accumulation", type=int, default=32)
    arguments.add_argument("--steps", type=int, default=7)
    arguments.add_argument("--activation-gib", type=float, default=16.0, help="of the accumulated variants")
    arguments.add_argument("--preset", default="full_16_8b")
    arguments.add_argument("--limit", type=float, nargs="*", default=[LIMIT], help="seconds, of each variant or of all")
    arguments.add_argument("--plain", action="store_true", help="without compilation")
    arguments.add_argument("--tiny", action="store_true", help="rehearse with small sizes")
    o = arguments.parse_args()
    if o.tiny:
        o.preset, o.plain = "mini", True
    if o.variant:
        measure(o.variant, o)
        return
    passed = [f"--accumulation={o.accumulation}", f"--steps={o.steps}", f"--activation-gib={o.activation_gib}"]
    passed += [f"--preset={o.preset}", *(f"--{name}" for name in ("plain", "tiny") if getattr(o, name))]
    path = o.result or o.out / "joint_step.json"
    variants: dict[str, dict[str, Any]] = {}
    for place, variant in enumerate(o.only):

        def note(found: dict[str, Any], variant: str = variant) -> None:
            print(variant, brief(found), flush=True)
            variants[variant] = found
            add(path, variant, found)

        limit = o.limit[min(place, len(o.limit) - 1)]
        note(run_variant(sys.argv[0], variant, passed, limit, path.with_suffix(".log"), note))
    table([("joint", "tok/s", "s/step", "GB", "planned s", "planned GB", "joint/parts")] + [
        (name, found.get("tok_s", found.get("error", "")[-300:]), found.get("step_seconds", "–"),
         found.get("peak_bytes", 0) / 1e9, found.get("planned", {}).get("step_seconds", "–"),
         found.get("planned", {}).get("peak_bytes", 0) / 1e9, found.get("ratio_sum", "–"))
        for name, found in variants.items()
    ])  # fmt: skip


if __name__ == "__main__":
    main()
