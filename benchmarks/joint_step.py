"""The whole 16.8-billion-parameter system's training step: text, spectra, climates and metabolisms, one backward.

    python benchmarks/joint_step.py --only resident_bf16 resident_fp8 streamed_bf16 [--batches FILE]

`resident`: step in the backward, one micro-batch of 16 worlds × 512 tokens. `accumulated`: 32 micro-batches, gradients
kept. `streamed`: weights and moments in host memory, the process held to 24 GiB of the GPU. Each variant runs in a
process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from astrobio.batch import MultiModalBatch
from astrobio.losses.combined import LossWeights
from astrobio.system.config import SystemConfig
from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import Prepared, prepare
from astrobio.training.step import forward_loss, train_step
from machine import parser, run_variant, table, write
from worlds import TEXT, WORLDS, load_batches

VARIANTS = ("resident_bf16", "resident_fp8", "accumulated_bf16", "accumulated_fp8", "streamed_bf16")
FRACTION_BYTES = 24 * 2**30
LIMIT = 300.0  # seconds a variant may take


def execution(variant: str, activation_gib: float) -> ExecutionConfig:
    """How a variant uses the card."""
    kind, _, precision = variant.partition("_")
    return ExecutionConfig(
        optimizer="adamw8bit", weights="bf16", float8=precision == "fp8", compile=True, activation_gib=activation_gib,
        gradients="stochastic" if kind == "accumulated" else "backward", offload=kind == "streamed",
    )  # fmt: skip


def make_shallow(config: SystemConfig) -> SystemConfig:
    """The same blocks, few of each: compiles all kernels of the whole and fills the compiler's cache."""
    return replace(
        config,
        decoder=replace(config.decoder, layers=config.decoder.bridge_every),
        metabolic_vae=replace(config.metabolic_vae, layers=1, node_layers=1),
        climate_cnn=replace(config.climate_cnn, blocks=(1, 1, 1)),
    )


def open_gates(system: nn.Module) -> None:
    """Set the bridges' gates to 0.1, so that every part gets gradient from the language loss from the first step."""
    for name, parameter in system.named_parameters():
        if name.endswith("_gate"):
            nn.init.constant_(parameter, 0.1)


def run_steps(
    prepared: Prepared, batches: list[MultiModalBatch], accumulation: int, steps: int
) -> tuple[list[float], list[float], list[str]]:
    """Seconds, total loss and reasons of skipping of each step."""
    times, losses, skipped = [], [], []
    for step in range(steps):
        chosen = [batches[(step * accumulation + micro) % len(batches)] for micro in range(accumulation)]
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = train_step(prepared.system.train(), prepared.policy, chosen, LossWeights(), "fp32")
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        losses.append(result.losses["total"])
        skipped.append(result.skipped)
        peak = torch.cuda.max_memory_allocated()
        line = f"step {step}: {times[-1]:.2f} s, loss {losses[-1]:.4f}, {peak / 1e9:.1f} GB {result.skipped}"
        print(line, file=sys.stderr, flush=True)
    return times, losses, skipped


def parts_seconds(prepared: Prepared, batch: MultiModalBatch) -> dict[str, float]:
    """Seconds of forward and backward of each part alone, gradients dropped (its optimizer step not counted)."""
    system = prepared.system

    def climate() -> torch.Tensor:
        return system._encode_climate(batch).tokens.float().square().mean()

    def metabolism() -> torch.Tensor:
        found = system.metabolic_vae(batch.graph)
        return found.tokens.float().square().mean() + found.fluxes.float().square().mean()

    def spectrum() -> torch.Tensor:
        return system._encode_spectrum(batch).float().square().mean()

    def text() -> torch.Tensor:
        return system.decoder(batch.input_ids, batch.lm_labels)[1].mean()

    out = {}
    for name, part in (
        ("climate_cnn", climate),
        ("graph_vae", metabolism),
        ("spectrum_encoder", spectrum),
        ("decoder", text),
    ):
        times = []
        for _ in range(3):
            torch.cuda.synchronize()
            start = time.perf_counter()
            part().backward()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
            prepared.policy.begin()
        out[name] = min(times)
    return out


def gradient_reaches(system: nn.Module, batch: MultiModalBatch) -> dict[str, bool]:
    """Whether each part's weights would change: the sum of |gradient| of one of its tensors, seen by a hook."""
    seen: dict[str, bool] = {}
    handles = []
    for name, child in system.named_children():
        parameter = max(child.parameters(), key=lambda p: p.numel())

        def note(gradient: torch.Tensor, name: str = name) -> None:
            seen[name] = bool(gradient.float().abs().sum() > 0)

        handles.append(parameter.register_hook(note))
    _, loss = forward_loss(system, batch, LossWeights(), None, "fp32")  # pyright: ignore[reportArgumentType]
    loss.total.backward()
    for handle in handles:
        handle.remove()
    return seen


def profile(prepared: Prepared, batch: MultiModalBatch) -> dict[str, float]:
    """Milliseconds on the device of one step by kernel, the 25 longest, and all together."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as found:
        train_step(prepared.system.train(), prepared.policy, [batch], LossWeights(), "fp32")
        torch.cuda.synchronize()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_device_time_total)
    out = {row.key[:90]: row.self_device_time_total / 1e3 for row in rows[:25]}
    return out | {"all": sum(row.self_device_time_total for row in rows) / 1e3}


def measure(
    variant: str,
    file: Path | None,
    accumulation: int,
    steps: int,
    gib: float,
    name: str,
    extras: bool,
    shallow: bool,
    world_steps: int,
) -> dict[str, Any]:
    """Median step after warm-up, peak memory, losses, and (where it keeps gradients) each part alone."""
    torch.manual_seed(0)
    device, how = torch.device("cuda", 0), execution(variant, gib)
    if how.offload:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(FRACTION_BYTES / total, device)
    accumulation = accumulation if variant.startswith("accumulated") else 1
    batches = [batch.to(device) for batch in load_batches(None, 4)]
    graph = batches[0].graph
    shape = BatchShape(WORLDS, TEXT, graph.num_nodes, graph.edge_index.shape[1])
    start = time.perf_counter()
    config = make_shallow(preset(name)) if shallow else preset(name)
    print(f"{variant}: preparing", file=sys.stderr, flush=True)
    prepared = prepare(config, how, TrainingConfig(lr=1e-5, clip=1.0), device, shape)
    open_gates(prepared.system)
    torch.cuda.synchronize()
    built = time.perf_counter() - start
    print(f"{variant}: prepared in {built:.1f} s", file=sys.stderr, flush=True)
    reset = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times, losses, skipped = run_steps(prepared, batches, accumulation, steps)
    peak = torch.cuda.max_memory_allocated()
    warm = sorted(times[max(2, len(times) // 4) if len(times) > 2 else 1 :])
    step_seconds = warm[len(warm) // 2]
    tokens = accumulation * WORLDS * TEXT
    result: dict[str, Any] = {
        "parameters": sum(p.numel() for p in prepared.system.parameters()),
        "peak_bytes": peak, "build_peak_bytes": reset,
        "reserved_bytes": torch.cuda.max_memory_reserved(), "tok_s": tokens / step_seconds,
        "step_seconds": step_seconds, "build_seconds": built, "all_seconds": times, "losses": losses,
        "skipped": [reason for reason in skipped if reason], "accumulation": accumulation, "tokens": tokens,
        "labelled": sum(int((b.lm_labels >= 0).sum()) for b in batches) / len(batches),
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    if not how.offload and extras:
        try:
            if file is not None and accumulation == 1:
                worlds = [batch.to(device) for batch in load_batches(file, 4)]
                _, losses, skipped = run_steps(prepared, worlds, 1, world_steps)
                result["real_worlds"] = {"losses": losses, "skipped": [reason for reason in skipped if reason]}
                print(json.dumps(result), flush=True)
            result["gradient_reaches"] = gradient_reaches(prepared.system, batches[0])
            prepared.policy.begin()
            result["parts_seconds"] = parts_seconds(prepared, batches[0])
            prepared.policy.begin()
            result["profile_ms"] = profile(prepared, batches[0])  # one micro-batch and one update
        except RuntimeError as error:  # the steps above are the result; what follows must not lose it
            result["parts_error"] = str(error)[:300]
    return result


def main() -> None:
    """Run one variant, or several."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--variant", choices=VARIANTS)
    arguments.add_argument("--only", nargs="*", default=list(VARIANTS))
    arguments.add_argument("--batches", type=Path, default=None, help="file of benchmarks/worlds.py")
    arguments.add_argument("--accumulation", type=int, default=32)
    arguments.add_argument("--steps", type=int, default=8)
    arguments.add_argument("--activation-gib", type=float, default=0.0)
    arguments.add_argument("--preset", default="full_16_8b")
    arguments.add_argument("--limit", type=float, default=LIMIT)
    arguments.add_argument("--world-steps", type=int, default=20, help="steps on real worlds, if given")
    arguments.add_argument("--bare", action="store_true", help="steps only: no real worlds, parts or profile")
    arguments.add_argument("--shallow", action="store_true", help="few blocks of each kind: to fill compile caches")
    o = arguments.parse_args()
    if o.variant:
        found = measure(
            o.variant,
            o.batches,
            o.accumulation,
            o.steps,
            o.activation_gib,
            o.preset,
            not o.bare,
            o.shallow,
            o.world_steps,
        )
        print(json.dumps(found), flush=True)
        return
    passed = [f"--accumulation={o.accumulation}", f"--steps={o.steps}", f"--activation-gib={o.activation_gib}"]
    passed += [f"--preset={o.preset}"] + ([f"--batches={o.batches}"] if o.batches else [])
    variants: dict[str, dict[str, Any]] = {}
    for variant in o.only:
        variants[variant] = run_variant(sys.argv[0], variant, passed, o.limit, o.out / "joint_step.log")
        write(o.out, "joint_step", {"variants": variants})
    table([("joint", "tok/s", "s/step", "GB")] + [
        (name, found.get("tok_s", found.get("error", "")[-300:]), found.get("step_seconds", "–"),
         found.get("peak_bytes", 0) / 1e9)
        for name, found in variants.items()
    ])  # fmt: skip


if __name__ == "__main__":
    main()
