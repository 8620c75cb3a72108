"""What every benchmark shares: the machine's description, timing, memory, and result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PROFILED = 15  # kernels that a profile names
TALK = ("nccl", "gloo", "c10d")  # in the names of what communicates


def describe() -> dict[str, Any]:
    """Device, software, commit and command: what a number needs to be believed."""
    gpu = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if gpu else "none",
        "gpu_bytes": torch.cuda.get_device_properties(0).total_memory if gpu else 0,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": os.environ.get("ASTROBIO_COMMIT") or _commit(),
        "command": " ".join(_without_folder(argument) for argument in sys.argv),
    }


def _without_folder(argument: str) -> str:
    """An argument without the folders of this machine: `/a/b/c` → `c`, `name=/a/b/c` → `name=c`."""
    key, equals, value = argument.rpartition("=")
    return key + equals + (Path(value).name if value.startswith("/") else value)


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return found.stdout.strip() or "unknown"


def seconds(step: Callable[[], Any], *, warmup: int = 2, repeats: int = 5) -> float:
    """Median seconds of one call, everything it launched included."""
    for _ in range(warmup):
        step()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def profile(step: Callable[[], float], on_gpu: bool = True) -> dict[str, Any]:
    """Where the time of one step goes, in seconds; `step` says how many it took.

    `busy` is the time in which any kernel runs, `exposed_communication` that in which only communication does, `idle`
    the rest of the step, in which the GPU waits for the host.
    """
    wanted = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[wanted], acc_events=True) as found:  # noting the host's work would slow it
        wall = step()
    kernels, total = [], {}
    for event in found.events() or []:
        if str(event.device_type).endswith("CPU") == on_gpu or getattr(event, "is_user_annotation", False):
            continue
        start, end = event.time_range.start / 1e6, event.time_range.end / 1e6
        kernels.append((start, end, any(mark in event.name.lower() for mark in TALK)))
        total[event.name] = total.get(event.name, 0.0) + (end - start if on_gpu else event.self_cpu_time_total / 1e6)
    everything, work = covered(kernels), covered([kernel for kernel in kernels if not kernel[2]])
    talk = sum(end - start for start, end, talks in kernels if talks)
    longest = sorted(total, key=lambda name: -total[name])[:PROFILED]
    return {
        "wall": wall, "launches": len(kernels), "kernels_sum": sum(total.values()), "busy": everything,
        "idle": wall - everything, "communication": talk, "exposed_communication": everything - work,
        "communication_share": talk / wall, "kernels": {name[:80]: round(total[name], 5) for name in longest},
    }  # fmt: skip


def covered(intervals: list[tuple[float, float, bool]]) -> float:
    """Length of the union of intervals."""
    length, reached = 0.0, float("-inf")
    for start, end, _ in sorted(intervals):
        length += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return length


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments that all benchmarks take."""
    out = argparse.ArgumentParser(description=description)
    out.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    out.add_argument("--result", type=Path, default=None, help="the result file itself")
    return out


def write(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Write `name`.json with the machine beside the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(describe() | result, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def run_variant(
    script: str,
    variant: str,
    arguments: list[str],
    limit: float,
    log: Path,
    note: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """One variant in a process of its own (clean memory); the last line that it prints is its JSON result.

    It prints one after every step, so that a variant that is stopped at its limit keeps what it had.

    Args:
        limit: seconds. note: is told every result as it comes.
    """
    command = [sys.executable, script, "--variant", variant, *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with log.open("a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        clock = threading.Timer(limit, process.kill)
        clock.start()
        assert process.stdout is not None
        for line in process.stdout:
            found = json.loads(line)
            note(found)
        process.wait()
        clock.cancel()
    if process.returncode:
        found["error"] = f"exit {process.returncode}, see {log.name}: {log.read_text()[-600:]}"
    return found


def table(rows: list[tuple[Any, ...]]) -> None:
    """Print rows in aligned columns."""
    text = [[f"{cell:,.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in text) for column in range(len(text[0]))]
    for row in text:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
