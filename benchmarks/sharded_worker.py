"""One build of a system on the ranks that torchrun started (or on one), and several phases of steps with it.

    torchrun --standalone --nproc-per-node 2 benchmarks/sharded_worker.py --result FILE.json \\
        --phases equal:20:2 speed:2:32 profile bare:2:2

A phase is NAME:STEPS:ACCUMULATION, micro-batches counted over all ranks; in `bare` the last rank's worlds all lack the
climate; `profile` is one step of one micro-batch on each rank, by kernel; `parts` times each part alone, on one rank,
beside the steps of `speed`. Micro-batch n of a phase has the same worlds
and random numbers on any number of ranks. With `--checkpoints` the run continues from the newest one there. FILE is
written whole after every few steps, so that a run that is stopped leaves what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import worlds
from astrobio.batch import IGNORED, MODALITIES, MultiModalBatch
from astrobio.losses.combined import LossWeights
from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape, block_costs, empty_system
from astrobio.training.checkpoint import restore_checkpoint, save_checkpoint, write_json
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.optim import learning_rate, set_learning_rate
from astrobio.training.parallel import Prepared, prepare
from astrobio.training.plan import GPUS, forecast, make_plan, step_seconds
from astrobio.training.ranks import gather, join_ranks, leave_ranks, rank, world_size
from astrobio.training.share import seed_of
from astrobio.training.step import train_step
from joint_step import against_parts, parts_seconds
from machine import describe, profile

DISTINCT = 4  # random micro-batches that a phase's numbers go round
EVERY = 4  # steps after which the result is written


def arguments() -> argparse.Namespace:
    """What a launch may set."""
    out = argparse.ArgumentParser(description=__doc__)
    out.add_argument("--result", type=Path, required=True)
    out.add_argument("--phases", nargs="+", required=True)
    out.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    out.add_argument("--preset", default="full_16_8b")
    out.add_argument("--accumulation", type=int, default=32, help="micro-batches a step for which the plan is made")
    out.add_argument("--activation-gib", type=float, default=None, help="in place of the plan's")
    out.add_argument("--gather", choices=("block", "step"), default=None, help="in place of the plan's")
    out.add_argument("--reduce", choices=("micro_batch", "step"), default=None, help="in place of the plan's")
    out.add_argument("--lr", type=float, default=1e-5)
    out.add_argument("--warmup", type=int, default=20, help="steps over which the learning rate rises to --lr")
    out.add_argument("--float8", action="store_true")
    out.add_argument("--offload", action="store_true")
    out.add_argument("--plain", action="store_true", help="without compilation")
    out.add_argument("--small", action="store_true", help="few small worlds, for CPUs")
    out.add_argument("--limit-gib", type=float, default=0.0, help="GPU memory that a process may use")
    out.add_argument("--kill", type=int, default=0, help="step after which the last rank kills itself, once")
    out.add_argument("--checkpoints", type=Path)
    out.add_argument("--save-at", type=int, default=0)
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


def card(o: argparse.Namespace) -> str:
    """The card under its name in `astrobio plan`."""
    if o.limit_gib:
        return "24gib"
    name = torch.cuda.get_device_name() if o.device == "cuda" else ""
    return next((key for key in ("h200", "h100-80") if key[:4].upper() in name), "h200")


def execution_of(o: argparse.Namespace, shape: BatchShape) -> tuple[ExecutionConfig, bool]:
    """The settings of `astrobio plan` for these cards and whether they fit; plain float32 on CPUs."""
    if o.device == "cpu":
        shared = {"gather": o.gather or "block", "reduce": o.reduce or "micro_batch"}
        return ExecutionConfig(optimizer="adamw8bit", offload=o.offload, **shared), True
    own = -(-o.accumulation // world_size())
    plan = make_plan(preset(o.preset), card(o), world_size(), accumulation=own, float8=o.float8, shape=shape)
    how = ExecutionConfig(**plan.execution)
    if o.activation_gib is not None and not how.offload:
        how = replace(how, activation_gib=o.activation_gib)
    if o.gather is not None and world_size() > 1 and not how.offload:
        how = replace(how, gather=o.gather, reduce=o.reduce or "micro_batch")
    alone = world_size() == 1 and how.gradients == "host"  # possible, but no measure of one card's speed
    return replace(how, compile=how.compile and not o.plain), plan.fits and not alone


def foretold(o: argparse.Namespace, how: ExecutionConfig, shape: BatchShape) -> dict[str, Any]:
    """Forecast of exactly this execution, for a step of `--accumulation` micro-batches."""
    own = -(-o.accumulation // world_size())
    system = empty_system(preset(o.preset), torch.bfloat16)
    costs = block_costs(system, shape, compiled=how.compile)
    found = forecast(system, costs, how, shape, world_size(), own)
    seconds = step_seconds(system, found, GPUS[card(o)], world_size(), own, shape)
    return {
        "card": card(o), "peak_bytes": found.peak, "bytes": found.bytes, "host_bytes": found.host,
        "step_seconds": seconds, "recomputed_blocks": len(found.recomputed), "blocks": len(costs),
    }  # fmt: skip


class Launch:
    """The system, and the result that grows with every phase; only rank 0 writes and speaks."""

    def __init__(self, o: argparse.Namespace, device: torch.device) -> None:
        self.o, self.device, self.taken = o, device, 0
        self.made: dict[tuple[int, bool], MultiModalBatch] = {}
        self.training = TrainingConfig(lr=o.lr, warmup_steps=o.warmup, steps=100_000)
        self.result: dict[str, Any] = {"ranks": world_size(), "preset": o.preset, "phases": {}}

    def write(self) -> None:
        """What is known so far, whole or not at all."""
        if rank() == 0:
            write_json(self.o.result, self.result)

    def build(self) -> bool:
        """The system ready to train; False, and why, where the card is too small."""
        graph: Any = worlds.random_batch(0).graph
        shape = BatchShape(worlds.WORLDS, worlds.TEXT, int(graph.num_nodes), graph.edge_index.shape[1], worlds.TIMES)
        how, fits = execution_of(self.o, shape)
        self.result["machine"] = describe()
        if not fits:
            self.result["skipped"] = f"{world_size()} × {card(self.o)} cannot hold {self.o.preset} with its gradients"
            say(self.result["skipped"])
            self.write()
            return False
        self.result |= {"execution": asdict(how), "forecast": foretold(self.o, how, shape)}
        self.write()
        torch.manual_seed(0)
        began = time.perf_counter()
        self.prepared: Prepared = prepare(preset(self.o.preset), how, self.training, self.device, shape)
        if self.o.checkpoints:
            found = restore_checkpoint(self.o.checkpoints, self.prepared.system, self.prepared.optimizer)
            self.taken = found[0] if found else 0
        wait(self.device)
        self.result["build_seconds"] = time.perf_counter() - began
        self.result["built"] = peaks(self.device)
        say(f"built in {self.result['build_seconds']:.1f} s, {self.result['built']['peak_bytes'] / 1e9:.1f} GB")
        self.write()
        return True

    def phase(self, text: str) -> None:
        """One entry of `--phases`."""
        name, *numbers = text.split(":")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if name == "profile":
            self.result["profile"] = profile(lambda: self.step(0, world_size())[0], self.device.type == "cuda")
            say(f"profile: {json.dumps({k: v for k, v in self.result['profile'].items() if k != 'kernels'})}")
        elif name == "parts":
            self.parts()
        else:
            self.steps(name, *map(int, numbers))
        self.write()

    def parts(self) -> None:
        """Each part's forward and backward alone, and the step of `speed` over their sum; the weights move on."""
        speed, batch = self.result["phases"]["speed"], self.made[0, False]
        for found in parts_seconds(self.prepared, batch):
            self.result["parts"] = against_parts(found, speed["step_seconds"], speed["accumulation"])
        say(f"parts: {json.dumps({k: v for k, v in self.result['parts'].items() if k.startswith('ratio')})}")

    def steps(self, name: str, count: int, accumulation: int) -> None:
        """Steps up to number `count` of a phase, from where a checkpoint stood."""
        first = self.taken if self.o.checkpoints and not self.result["phases"] else 0
        found: dict[str, Any] = {"accumulation": accumulation, "first_step": first + 1, "losses": [],
                                 "gradient_norms": [], "all_seconds": []}  # fmt: skip
        self.result["phases"][name] = found
        bare = name == "bare" and rank() == world_size() - 1
        for step in range(first, count):
            seconds, loss, norm = self.step(step, accumulation, bare)
            found["all_seconds"].append(seconds)
            found["losses"].append(loss)
            found["gradient_norms"].append(norm)
            warm = statistics.median(found["all_seconds"][len(found["all_seconds"]) > 1 and name != "speed" :])
            tokens = accumulation * worlds.WORLDS * worlds.TEXT
            found |= {"step_seconds": warm, "tok_s": tokens / warm} | all_peaks(self.device)
            say(f"{name} {step + 1}/{count}: loss {loss:.5f}, norm {norm:.3g}, {seconds:.2f} s, "
                f"{tokens / seconds:,.0f} tok/s, {found['peak_bytes'] / 1e9:.1f} GB")  # fmt: skip
            if (step - first) % EVERY == 0 or seconds > EVERY:
                self.write()
            self.save_or_die(step + 1)

    def step(self, step: int, accumulation: int, bare: bool = False) -> tuple[float, float, float]:
        """Seconds, loss and gradient norm of one step; its learning rate counts all steps of the launch."""
        numbers = [step * accumulation + place for place in range(rank(), accumulation, world_size())]
        vocabulary = self.prepared.system.config.decoder.vocabulary
        keys = [(number % DISTINCT, bare) for number in numbers]
        for key in set(keys) - set(self.made):
            self.made[key] = micro_batch(key[0], self.device, vocabulary, bare)
        set_learning_rate(self.prepared.optimizer, learning_rate(self.taken, self.training))
        self.taken += 1
        wait(self.device)
        began = time.perf_counter()
        result = train_step(
            self.prepared.system.train(), self.prepared.policy, [self.made[key] for key in keys], LossWeights(),
            "fp32", [seed_of(0, number) for number in numbers],
        )  # fmt: skip
        wait(self.device)
        assert not result.skipped, result.skipped
        return time.perf_counter() - began, result.losses["total"], result.gradient_norm

    def save_or_die(self, step: int) -> None:
        """The checkpoint after step `--save-at`, and the death after step `--kill` of the first start."""
        if self.o.checkpoints and step == self.o.save_at:
            began = time.perf_counter()
            self.prepared.save_barrier()
            save_checkpoint(self.o.checkpoints, step, self.prepared.system, self.prepared.optimizer, {}, keep=1)
            self.result["saved_in_seconds"] = time.perf_counter() - began
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if step == self.o.kill and rank() == world_size() - 1 and first:
            os.kill(os.getpid(), signal.SIGKILL)


def say(text: str) -> None:
    """A line for people, from rank 0; `sharded_step.py` shows those that begin so."""
    if rank() == 0:
        print(f"> {text}", flush=True)


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peaks(device: torch.device) -> dict[str, int]:
    """Largest bytes since the phase began: this rank's tensors and reserved memory; of the host, since the start.

    `pinned_bytes` are those that PyTorch itself page-locked, which the host's count may or may not include.
    """
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type != "cuda":
        return {"peak_bytes": 0, "reserved_bytes": 0, "host_peak_bytes": host, "pinned_bytes": 0}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    pinned = int(getattr(torch.cuda, "host_memory_stats", dict)().get("allocated_bytes.peak", 0))
    return {"peak_bytes": allocated, "reserved_bytes": reserved, "host_peak_bytes": host, "pinned_bytes": pinned}


def all_peaks(device: torch.device) -> dict[str, int]:
    """The largest of all ranks' peaks."""
    every = [json.loads(text) for text in gather(json.dumps(peaks(device)))]
    return {name: max(found[name] for found in every) for name in every[0]}


def main() -> None:
    """Build, then every phase in turn."""
    o = arguments()
    device = join_ranks(torch.device(o.device, 0) if o.device == "cuda" else torch.device("cpu"))
    if o.small:
        make_small()
        torch.set_num_threads(1)
    if o.limit_gib:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(o.limit_gib * 2**30 / total, device)
    launch = Launch(o, device)
    if launch.build():
        for text in o.phases:
            launch.phase(text)
        launch.result["graphs_compiled"] = torch._dynamo.utils.counters["stats"].get("unique_graphs", 0)
        launch.result["done"] = True
        launch.write()
    leave_ranks()


if __name__ == "__main__":
    main()
