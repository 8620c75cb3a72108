"""The full-size system's joint step under FSDP2 on the GPUs of one host, against one GPU.

    torchrun --standalone --nproc-per-node 2 benchmarks/sharded_step.py [--float8] [--limit-gib 24 --offload]
    python benchmarks/sharded_step.py                      # the same on one GPU: the base of the efficiency

Each rank takes its share of the same 32 micro-batches. `--limit-gib` holds every process to so much memory.
`--bare-rank N` removes the climate from all worlds of rank N: no collective may wait for it. Results are merged into
sharded_step.json by number of GPUs.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import Any

import torch

from astrobio.batch import MODALITIES, MultiModalBatch
from astrobio.losses.combined import LossWeights
from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import prepare
from astrobio.training.plan import make_plan
from astrobio.training.ranks import join_ranks, leave_ranks, rank, world_size
from astrobio.training.step import train_step
from machine import parser, table, write
from worlds import TEXT, WORLDS, random_batch


def without_climate(batch: MultiModalBatch) -> MultiModalBatch:
    """The same worlds with the climate absent."""
    present = batch.present.clone()
    present[:, MODALITIES.index("climate")] = False
    return replace(batch, present=present, climate=torch.zeros_like(batch.climate))


def measure(options: Any, device: torch.device) -> dict[str, Any]:
    """Seconds, losses and peak memory of this rank's steps."""
    ranks = world_size()
    if options.accumulation % ranks:
        raise SystemExit(f"--accumulation: expected a multiple of {ranks} ranks, found {options.accumulation}")
    mine = options.accumulation // ranks
    batches = [random_batch(rank() * mine + index).to(device) for index in range(min(mine, options.distinct))]
    if rank() == options.bare_rank:
        batches = [without_climate(batch) for batch in batches]
    graph = batches[0].graph
    shape = BatchShape(WORLDS, TEXT, graph.num_nodes, graph.edge_index.shape[1])
    execution = ExecutionConfig(
        optimizer="adamw8bit", weights="bf16", gradients="keep" if options.offload else "stochastic",
        float8=options.float8, compile=True, activation_gib=options.activation_gib, offload=options.offload,
    )  # fmt: skip
    torch.manual_seed(0)
    prepared = prepare(preset(options.preset), execution, TrainingConfig(lr=1e-5), device, shape)
    torch.cuda.reset_peak_memory_stats()
    times, losses = [], []
    for _ in range(options.steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        chosen = [batches[index % len(batches)] for index in range(mine)]
        losses.append(
            train_step(prepared.system.train(), prepared.policy, chosen, LossWeights(), "fp32").losses["total"]
        )
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    step_seconds = sorted(times[1:] or times)[len(times[1:]) // 2]
    plan = make_plan(preset(options.preset), options.gpu, ranks, accumulation=mine, float8=options.float8, shape=shape)
    return {
        "gpus": ranks, "step_seconds": step_seconds, "tok_s": options.accumulation * WORLDS * TEXT / step_seconds,
        "peak_bytes": torch.cuda.max_memory_allocated(), "planned_bytes": plan.peak_bytes, "losses": losses,
        "all_seconds": times, "execution": asdict(execution), "bare_rank": options.bare_rank,
    }  # fmt: skip


def main() -> None:
    """Measure on this number of ranks and merge with what other numbers gave."""
    arguments = parser(__doc__ or "")
    for name, kind, value in (
        ("accumulation", int, 32), ("distinct", int, 4), ("steps", int, 3), ("bare-rank", int, -1),
        ("activation-gib", float, 0.0), ("limit-gib", float, 0.0), ("preset", str, "full_16_8b"), ("gpu", str, "h200"),
    ):  # fmt: skip
        arguments.add_argument(f"--{name}", type=kind, default=value)
    arguments.add_argument("--float8", action="store_true")
    arguments.add_argument("--offload", action="store_true")
    options = arguments.parse_args()
    device = join_ranks(torch.device("cuda", 0))
    if options.limit_gib:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(options.limit_gib * 2**30 / total, device)
    found = measure(options, device)
    if rank() == 0:
        path = options.out / "sharded_step.json"
        runs = json.loads(path.read_text()).get("runs", {}) if path.is_file() else {}
        key = f"{world_size()}{'_fp8' if options.float8 else ''}{'_offload' if options.offload else ''}"
        runs[key] = found
        base = runs.get("1_fp8" if options.float8 else "1")
        if base:
            found["efficiency"] = found["tok_s"] / (base["tok_s"] * found["gpus"])
        write(options.out, "sharded_step", {"runs": runs})
        table([("run", "tok/s", "s/step", "GB")] + [
            (name, run["tok_s"], run["step_seconds"], run["peak_bytes"] / 1e9) for name, run in runs.items()
        ])  # fmt: skip
    leave_ranks()


if __name__ == "__main__":
    main()
