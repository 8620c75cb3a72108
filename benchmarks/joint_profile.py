"""Where the joint step's time goes: by part of the system, forward, backward and update, and by kernel.

    python benchmarks/joint_profile.py --out FOLDER [--activation-gib 0] [--fp8]
    python benchmarks/joint_profile.py --out FOLDER --tiny          # rehearsal on a CPU

Writes `joint_profile.json` after every piece, so that a run that is stopped keeps what it had, and the trace of one
step (`joint_trace.json.gz`, to be opened in a trace viewer). Times of parts are those between events on the device.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import worlds
from astrobio.batch import MultiModalBatch
from astrobio.losses.combined import LossWeights
from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import Prepared, prepare
from astrobio.training.step import train_step
from joint_step import open_gates
from machine import parser, table, write

PARTS = ("spectrum_encoder", "climate_cnn", "metabolic_vae", "decoder", "fusion")
INSIDE = (
    "climate_cnn.stem", "climate_cnn.stages.0", "climate_cnn.halves.0", "climate_cnn.stages.1", "climate_cnn.halves.1",
    "climate_cnn.stages.2", "climate_cnn.pool", "metabolic_vae.pool", "metabolic_vae.norm",
    "metabolic_vae.decoder.film", "metabolic_vae.decoder.compound_side", "decoder.model.norm",
)  # fmt: skip
TOP = 25


class Timeline:
    """Marks on the device's and the host's clock, in the order in which they were set."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[tuple[str, Any, float]] = []
        self.on = False

    def mark(self, label: str) -> None:
        """Set one now, if switched on."""
        if not self.on:
            return
        event = torch.cuda.Event(enable_timing=True) if self.cuda else None
        if event is not None:
            event.record()
        self.marks.append((label, event, time.perf_counter()))

    def spans(self) -> Iterator[tuple[str, str, float, float]]:
        """(label before, label after, device ms, host ms) between neighbouring marks."""
        if self.cuda:
            torch.cuda.synchronize()
        for (before, first, start), (after, second, end) in zip(self.marks, self.marks[1:], strict=False):
            host = (end - start) * 1e3
            yield before, after, first.elapsed_time(second) if first is not None else host, host


def watch(prepared: Prepared, timeline: Timeline) -> None:
    """Mark the ends of every part's forward, and of every parameter's update inside the backward."""
    for name in (*PARTS, *INSIDE):
        module = prepared.system.get_submodule(name)
        module.register_forward_pre_hook(_marker(timeline, f">{name}"))
        module.register_forward_hook(_marker(timeline, f"<{name}"))
    names = {parameter: name for name, parameter in prepared.system.named_parameters()}
    update: Callable[..., None] = prepared.optimizer.update  # pyright: ignore[reportAttributeAccessIssue]

    def marked(parameter: nn.Parameter, *rest: Any) -> None:
        name = names[parameter]
        timeline.mark(f"+{name}")
        with torch.profiler.record_function(f"update {name}") if timeline.on else contextlib.nullcontext():
            update(parameter, *rest)
        timeline.mark(f"-{name}")

    prepared.optimizer.update = marked  # pyright: ignore[reportAttributeAccessIssue]


def _marker(timeline: Timeline, label: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        timeline.mark(label)

    return hook


def part_of(parameter: str) -> str:
    """Part, and inside the encoders the group of blocks, of a parameter."""
    words = [word for word in parameter.split(".") if word not in ("model", "_checkpoint_wrapped_module")]
    deep = 3 if words[:2] in (["climate_cnn", "stages"], ["climate_cnn", "halves"]) else 2
    return ".".join(words[:deep]) if words[0] in ("climate_cnn", "metabolic_vae", "decoder") else words[0]


def by_part(timeline: Timeline) -> dict[str, dict[str, list[float]]]:
    """[device ms, host ms] by phase ("forward", "backward", "update") and part or place."""
    out: dict[str, dict[str, list[float]]] = {
        kind: defaultdict(lambda: [0.0, 0.0]) for kind in ("forward", "backward", "update")
    }
    for before, after, device, host in timeline.spans():
        if after.startswith("-"):
            kind, key = "update", part_of(after[1:]).split(".")[0]
        elif after.startswith("+"):
            kind, key = "backward", part_of(after[1:])
        else:
            kind, key = "forward", f"{before} {after}"
        out[kind][key][0] += device
        out[kind][key][1] += host
    return {kind: dict(found) for kind, found in out.items()}


def kernels(profile: Any) -> list[tuple[str, int, float]]:
    """(name, calls, device ms) of the kernels that took longest, then of all together."""
    rows = [row for row in profile.key_averages() if not str(row.device_type).endswith("CPU")]
    rows = [row for row in rows if not getattr(row, "is_user_annotation", False)]
    rows.sort(key=lambda row: -row.self_device_time_total)
    found = [(row.key[:110], row.count, row.self_device_time_total / 1e3) for row in rows]
    return [*found[:TOP], ("all", sum(row[1] for row in found), sum(row[2] for row in found))]


def _compiled() -> dict[str, dict[str, int]]:
    """What the compiler counted, its reasons to break a graph among it."""
    return {
        str(kind): {str(key)[:200]: int(count) for key, count in found.most_common(20)}
        for kind, found in torch._dynamo.utils.counters.items()
    }


class Run:
    """One prepared system, its batch, and the result file."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.device = torch.device("cpu") if options.tiny else torch.device("cuda", 0)
        self.result: dict[str, Any] = {"fp8": options.fp8, "activation_gib": options.activation_gib}
        self.name = "joint_profile_fp8" if options.fp8 else "joint_profile"
        if options.tiny:
            worlds.WORLDS, worlds.TEXT, worlds.POINTS = 2, 32, 24
        self.batches: list[MultiModalBatch] = [worlds.random_batch(seed).to(self.device) for seed in range(2)]
        graph: Any = self.batches[0].graph
        shape = BatchShape(worlds.WORLDS, worlds.TEXT, graph.num_nodes, graph.edge_index.shape[1])
        config = preset("mini" if options.tiny else "full_16_8b")
        if options.tiny:
            config = replace(config, decoder=replace(config.decoder, vocabulary=4096))
        how = ExecutionConfig(
            optimizer="adamw8bit", weights="bf16", gradients="backward", float8=options.fp8,
            compile=not options.tiny, activation_gib=options.activation_gib,
        )  # fmt: skip
        start = time.perf_counter()
        self.prepared = prepare(config, how, TrainingConfig(lr=1e-5, clip=1.0), self.device, shape)
        open_gates(self.prepared.system)
        self.timeline = Timeline(self.device)
        watch(self.prepared, self.timeline)
        self.note(build_seconds=time.perf_counter() - start, tokens=worlds.WORLDS * worlds.TEXT)

    def note(self, **values: Any) -> None:
        """Add to the result file."""
        self.result |= values
        write(self.options.out, self.name, self.result)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def step(self, index: int) -> float:
        """Seconds of one step."""
        self.synchronize()
        start = time.perf_counter()
        batch = self.batches[index % len(self.batches)]
        self.timeline.mark("start")
        found = train_step(self.prepared.system.train(), self.prepared.policy, [batch], LossWeights(), "fp32")
        self.timeline.mark("end")
        self.synchronize()
        seconds = time.perf_counter() - start
        print(f"step {index}: {seconds:.3f} s, loss {found.losses['total']:.4f} {found.skipped}", flush=True)
        self.result.setdefault("losses", []).append(found.losses["total"])
        return seconds

    def timings(self) -> None:
        """Steps without anything watching."""
        times = []
        for index in range(self.options.steps):
            times.append(self.step(index))
            warm = times[2:] or times
            median = statistics.median(warm)
            self.note(all_seconds=times, step_seconds=median, tok_s=self.result["tokens"] / median, steps=len(warm))
            if index == 0:
                self.note(compiled=_compiled())
            if self.device.type == "cuda":
                peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
                retries = torch.cuda.memory_stats().get("num_alloc_retries", 0)
                self.note(peak_bytes=peak, reserved_bytes=reserved, alloc_retries=retries)
        print(
            {key: self.result.get(key) for key in ("step_seconds", "tok_s", "peak_bytes", "alloc_retries")}, flush=True
        )

    def parts(self) -> None:
        """One step with marks."""
        self.timeline.on = True
        seconds = self.step(len(self.result["all_seconds"]))
        self.timeline.on = False
        found = by_part(self.timeline)
        self.note(marked_seconds=seconds, parts_ms=found)
        for kind, rows in found.items():
            total = [sum(row[column] for row in rows.values()) for column in (0, 1)]
            shown = sorted(rows.items(), key=lambda item: -item[1][0])[:18]
            table([(kind, "device ms", "host ms"), ("all", *total), *((key, *times) for key, times in shown)])
            print(flush=True)

    def kernels(self) -> None:
        """One step under the profiler."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.timeline.on = True  # names the updates in the trace
        with torch.profiler.profile(activities=activities, acc_events=True) as profile:
            seconds = self.step(len(self.result["all_seconds"]) + 1)
        self.timeline.on = False
        profile.export_chrome_trace(str(self.options.out / f"{self.name.replace('profile', 'trace')}.json.gz"))
        print("trace written", flush=True)
        rows = kernels(profile)
        self.note(profiled_seconds=seconds, kernels_ms=rows)
        table([("kernel", "calls", "ms"), *rows])


def main() -> None:
    """Timing, parts, kernels; a later piece that fails does not lose an earlier one."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--steps", type=int, default=7)
    arguments.add_argument("--activation-gib", type=float, default=0.0)
    arguments.add_argument("--fp8", action="store_true")
    arguments.add_argument("--bare", action="store_true", help="timing only")
    arguments.add_argument("--tiny", action="store_true", help="rehearse on a CPU")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(options)
    for piece in (run.timings,) if options.bare else (run.timings, run.parts, run.kernels):
        try:
            piece()
        except Exception:
            run.note(**{f"error_{piece.__name__}": traceback.format_exc()[-1500:]})
            print(traceback.format_exc()[-1500:], flush=True)


if __name__ == "__main__":
    main()
