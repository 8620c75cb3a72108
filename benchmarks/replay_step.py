"""Training steps of the smaller systems with their blocks compiled, recorded as CUDA graphs, or both, against neither.

    python benchmarks/replay_step.py [--presets mini small] [--worlds 64]

One micro-batch a step, random worlds of one shape, float32 weights under autocast, AdamW of PyTorch: the settings that
`astrobio train` takes by default. The ways take turns in one process, so that they share the card's state.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch

import worlds
from astrobio.batch import IGNORED, MultiModalBatch
from astrobio.losses.combined import LossWeights
from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import Prepared, prepare
from astrobio.training.step import train_step
from machine import parser, profile, table, write

WAYS = {"plain": (False, False), "compiled": (True, False), "graphs": (False, True), "both": (True, True)}
TEXT = 192  # tokens of the simulator's texts, padded to a multiple of 64
WARM, COUNTED, ROUNDS = 3, 10, 3  # steps before those that count, steps a turn, turns


def batch_of(vocabulary: int, seed: int) -> MultiModalBatch:
    """One random micro-batch on the GPU, targets in the second half of its texts."""
    batch = worlds.random_batch(seed)
    ids = batch.input_ids % vocabulary
    return replace(batch, input_ids=ids, lm_labels=ids.where(~batch.context_mask, IGNORED)).to("cuda")


def build(name: str, way: str, batch: MultiModalBatch) -> Prepared:
    """A system ready to train in one way."""
    torch.manual_seed(0)
    graph: Any = batch.graph
    shape = BatchShape(worlds.WORLDS, worlds.TEXT, graph.num_nodes, graph.edge_index.shape[1], worlds.TIMES)
    compiled, graphs = WAYS[way]
    execution = ExecutionConfig(compile=compiled, graphs=graphs)
    return prepare(preset(name), execution, TrainingConfig(), torch.device("cuda", 0), shape)


def turn(prepared: Prepared, batches: list[MultiModalBatch], count: int) -> tuple[list[float], float]:
    """Seconds of each of `count` steps, and the last loss."""
    seconds, loss = [], float("nan")
    for step in range(count):
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = train_step(
            prepared.system.train(), prepared.policy, batches[step % 2 :][:1], LossWeights(), "bf16", (0,)
        )
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        assert not result.skipped, result.skipped
        loss = result.losses["total"]
    return seconds, loss


def measure(name: str) -> dict[str, Any]:
    """Median seconds of a step in every way, its memory, and the loss after as many steps in each."""
    vocabulary = preset(name).decoder.vocabulary
    batches = [batch_of(vocabulary, seed) for seed in range(2)]
    built, found, times = {}, {}, {way: [] for way in WAYS}
    for way in WAYS:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        built[way] = build(name, way, batches[0])
        first = turn(built[way], batches, WARM)[0]
        peak = torch.cuda.max_memory_allocated() - before
        found[way] = {"first_step_seconds": first[0], "peak_bytes": peak}
    for _ in range(ROUNDS):
        for way in WAYS:
            seconds, found[way]["loss"] = turn(built[way], batches, COUNTED)
            times[way] += seconds
    for way in WAYS:
        middle = statistics.median(times[way])
        kernels = profile(lambda way=way: turn(built[way], batches, 1)[0][0])
        found[way] |= {"step_seconds": middle, "worlds_s": worlds.WORLDS / middle}
        found[way] |= {"profile": {key: kernels[key] for key in ("launches", "busy", "kernels")}}
    for way in WAYS:
        found[way]["ratio"] = found["plain"]["step_seconds"] / found[way]["step_seconds"]
    return found


def main() -> None:
    """All presets, all ways."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--presets", nargs="+", default=["mini", "small"])
    arguments.add_argument("--worlds", type=int, default=64)
    options = arguments.parse_args()
    worlds.WORLDS, worlds.TEXT, worlds.POINTS = options.worlds, TEXT, 120
    result: dict[str, Any] = {"worlds": options.worlds, "presets": {}}
    rows: list[tuple[Any, ...]] = [("preset", "way", "ms", "ratio", "busy ms", "launches", "GB", "first s", "loss")]
    for name in options.presets:
        result["presets"][name] = measure(name)
        write(options.out, "replay_step", result)
        rows += [
            (name, way, one["step_seconds"] * 1e3, one["ratio"], one["profile"]["busy"] * 1e3,
             one["profile"]["launches"], one["peak_bytes"] / 1e9, one["first_step_seconds"],
             one["loss"])
            for way, one in result["presets"][name].items()
        ]  # fmt: skip
    table(rows)


if __name__ == "__main__":
    main()
