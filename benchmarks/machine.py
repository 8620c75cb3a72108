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
