"""Steps of one system on the ranks that torchrun started; what `sharded_step.py` runs for each of its cases.

    torchrun --standalone --nproc-per-node 2 benchmarks/sharded_worker.py --result FILE.json [--device cpu --small …]

Micro-batch n of the run has the same worlds and random numbers on any number of ranks. With `--checkpoints` the run
continues from the newest one there and writes one after step `--save-at`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import worlds
from astrobio.batch import IGNORED, MODALITIES, MultiModalBatch
from astrobio.losses.combined import LossWeights
from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape
from astrobio.training.checkpoint import restore_checkpoint, save_checkpoint, write_json
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import Prepared, prepare
from astrobio.training.plan import Plan, make_plan
from astrobio.training.ranks import join_ranks, leave_ranks, rank, world_size
from astrobio.training.share import seed_of
from astrobio.training.step import train_step

DISTINCT = 4  # random micro-batches that the run's numbers go round
PROFILED = 15  # kernels that the profile names


def arguments() -> argparse.Namespace:
    """What a case may set."""
    out = argparse.ArgumentParser(description=__doc__)
    out.add_argument("--result", type=Path, required=True)
    out.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    out.add_argument("--preset", default="full_16_8b")
    out.add_argument("--gpu", default="h200", help="card of the plan whose settings are used")
    out.add_argument("--steps", type=int, default=3)
    out.add_argument("--accumulation", type=int, default=32, help="micro-batches a step over all ranks")
    out.add_argument("--lr", type=float, default=1e-5)
    out.add_argument("--float8", action="store_true")
    out.add_argument("--offload", action="store_true")
    out.add_argument("--small", action="store_true", help="few small worlds, for CPUs")
    out.add_argument("--limit-gib", type=float, default=0.0, help="GPU memory that a process may use")
    out.add_argument("--bare-rank", type=int, default=-1, help="rank whose worlds all lack a climate")
    out.add_argument("--kill", type=int, default=0, help="step after which rank 1 kills itself, once")
    out.add_argument("--checkpoints", type=Path)
    out.add_argument("--save-at", type=int, default=0)
    out.add_argument("--profile", action="store_true")
    return out.parse_args()


def make_small() -> None:
    """Worlds that two CPU cores can train on."""
    worlds.WORLDS, worlds.TEXT, worlds.POINTS, worlds.TIMES = 2, 32, 24, 1
    worlds.COMPOUNDS, worlds.REACTIONS, worlds.ENTRIES = 20, 25, 100


def micro_batch(number: int, device: torch.device, vocabulary: int, bare: bool = False) -> MultiModalBatch:
    """Micro-batch `number`, without its climates if asked."""
    batch = worlds.random_batch(number % DISTINCT)
    ids = batch.input_ids % vocabulary
    batch = replace(batch, input_ids=ids, lm_labels=torch.where(batch.lm_labels == IGNORED, IGNORED, ids))
    if bare:
        batch.present[:, MODALITIES.index("climate")] = False
        batch.climate.zero_()
    return batch.to(device)


def plan_of(o: argparse.Namespace, shape: BatchShape) -> Plan:
    """What `astrobio plan` proposes for these cards and this step."""
    card = "24gib" if o.limit_gib else o.gpu
    own = -(-o.accumulation // world_size())
    return make_plan(preset(o.preset), card, world_size(), accumulation=own, float8=o.float8, shape=shape)


def execution_of(o: argparse.Namespace, plan: Plan) -> ExecutionConfig:
    """The plan's settings on GPUs; plain float32 without compilation on CPUs."""
    if o.device == "cuda":
        return ExecutionConfig(**plan.execution)
    return ExecutionConfig(optimizer="adamw8bit", offload=o.offload)


def run_steps(o: argparse.Namespace, prepared: Prepared, device: torch.device, start: int) -> dict[str, Any]:
    """Losses and seconds of each step from `start` on."""
    own, vocabulary = range(rank(), o.accumulation, world_size()), prepared.system.config.decoder.vocabulary
    made: dict[int, MultiModalBatch] = {}
    losses, norms, times = [], [], []
    for step in range(start, o.steps):
        numbers = [step * o.accumulation + place for place in own]
        for number in numbers:
            made.setdefault(number % DISTINCT, micro_batch(number, device, vocabulary, rank() == o.bare_rank))
        wait(device)
        began = time.perf_counter()
        result = train_step(
            prepared.system.train(), prepared.policy, [made[n % DISTINCT] for n in numbers], LossWeights(), "fp32",
            [seed_of(0, number) for number in numbers],
        )  # fmt: skip
        wait(device)
        times.append(time.perf_counter() - began)
        losses.append(result.losses["total"])
        norms.append(result.gradient_norm)
        assert not result.skipped, result.skipped
        if rank() == 0:
            print(f"step {step + 1}: loss {losses[-1]:.5f}, {times[-1]:.2f} s", flush=True)
        if o.checkpoints and step + 1 == o.save_at:
            prepared.save_barrier()
            save_checkpoint(o.checkpoints, step + 1, prepared.system, prepared.optimizer, {}, keep=1)
        if step + 1 == o.kill and rank() == 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
    return {"first_step": start + 1, "losses": losses, "gradient_norms": norms, "all_seconds": times}


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def profile(o: argparse.Namespace, prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """Seconds of one micro-batch's step by kernel on this rank, and the share of communication."""
    vocabulary = prepared.system.config.decoder.vocabulary
    batch, wanted = micro_batch(rank(), device, vocabulary), [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        wanted = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=wanted) as found:
        train_step(prepared.system.train(), prepared.policy, [batch], LossWeights(), "fp32", [0])
        wait(device)
    on_gpu = device.type == "cuda"
    spent = {row.key: (row.self_device_time_total if on_gpu else row.self_cpu_time_total) / 1e6
             for row in found.key_averages()}  # fmt: skip
    longest = sorted(spent, key=lambda name: -spent[name])[:PROFILED]
    talk = sum(value for name, value in spent.items() if any(mark in name.lower() for mark in ("nccl", "gloo", "c10d")))
    return {"seconds": {name[:90]: spent[name] for name in longest}, "all": sum(spent.values()), "communication": talk}


def peak_bytes(device: torch.device) -> int:
    """Largest memory so far: the GPU's tensors, or the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(o: argparse.Namespace) -> dict[str, Any]:
    """Everything about this number of ranks."""
    device = join_ranks(torch.device(o.device, 0) if o.device == "cuda" else torch.device("cpu"))
    if o.small:
        make_small()
        torch.set_num_threads(1)
    if o.limit_gib:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(o.limit_gib * 2**30 / total, device)
    graph: Any = worlds.random_batch(0).graph
    shape = BatchShape(worlds.WORLDS, worlds.TEXT, int(graph.num_nodes), graph.edge_index.shape[1], worlds.TIMES)
    plan = plan_of(o, shape)
    execution = execution_of(o, plan)
    torch.manual_seed(0)
    began = time.perf_counter()
    prepared = prepare(preset(o.preset), execution, TrainingConfig(lr=o.lr, warmup_steps=0), device, shape)
    restored = restore_checkpoint(o.checkpoints, prepared.system, prepared.optimizer) if o.checkpoints else None
    built = time.perf_counter() - began
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = run_steps(o, prepared, device, restored[0] if restored else 0)
    peak = peak_bytes(device)
    warm = sorted(found["all_seconds"][1:] or found["all_seconds"])
    seconds = warm[len(warm) // 2] if warm else float("nan")
    return {
        "ranks": world_size(), "preset": o.preset, "accumulation": o.accumulation, "build_seconds": built,
        "step_seconds": seconds, "tok_s": o.accumulation * worlds.WORLDS * worlds.TEXT / seconds,
        "peak_bytes": peak, "planned_bytes": plan.peak_bytes if device.type == "cuda" else None,
        "plan": {"fits": plan.fits, "strategy": plan.strategy, "step_seconds": plan.step_seconds},
        "execution": asdict(execution), **found,
        "profile": profile(o, prepared, device) if o.profile else None,
    }  # fmt: skip


def main() -> None:
    """Measure; rank 0 writes the result."""
    o = arguments()
    found = measure(o)
    if rank() == 0:
        write_json(o.result, json.loads(json.dumps(found)))
    leave_ranks()


if __name__ == "__main__":
    main()
