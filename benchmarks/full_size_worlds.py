"""Steps of the full-size system on real worlds, by `astrobio train` itself: losses, gradient norms and memory, by part.

    python benchmarks/full_size_worlds.py --data DATASET [--steps 20] [--result FILE]

Weights and moments stay on the card and each tensor takes its step in the backward; nothing of 34 GB is written. Where
the compiled run does not finish in its time, the same is begun anew without compilation.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from machine import parser, table, write

EXECUTION = ("optimizer=adamw8bit", "weights=bf16", "gradients=backward", "activation_gib=0")
OTHERS = ("step", "kind", "lr", "gradient_norm", "worlds_per_second", "peak_gpu_bytes")
WINDOW = 5  # steps at either end whose mean loss is compared


def overrides(options: Namespace, compiled: bool) -> list[str]:
    """Settings of the run; those of `--set` come last."""
    training = {
        "steps": options.steps, "batch_size": options.batch_size, "lr": options.lr, "warmup_steps": 5, "log_every": 1,
        "keep": 0, "validate_every": "none", "gradient_norms_every": 0, "modality_dropout": 0.0, "cache": "memory",
    }  # fmt: skip
    found = [f"execution.{value}" for value in (*EXECUTION, f"compile={str(compiled).lower()}")]
    return [*found, *(f"training.{key}={value}" for key, value in training.items()), *options.set]


def worker(options: Namespace) -> None:
    """What `astrobio train` does."""
    from rich.console import Console

    from astrobio.evaluation.evaluate import train_and_calibrate

    train_and_calibrate(options.preset, options.settings, options.data, options.run, Console(stderr=True))


def attempt(options: Namespace, compiled: bool, limit: float, folder: Path) -> dict[str, Any]:
    """One run in a process of its own, followed through its log and stopped at `limit` seconds."""
    run = Path(tempfile.mkdtemp()) / "run"
    command = [sys.executable, __file__, "--worker", f"--preset={options.preset}", f"--data={options.data}"]
    command += [f"--run={run}", "--settings", *overrides(options, compiled)]
    begun, seen, arrivals = time.perf_counter(), 0, []
    errors = (folder / "full_size_worlds.log").open("a")
    process = subprocess.Popen(command, stdout=errors, stderr=errors)
    try:
        while process.poll() is None and time.perf_counter() - begun < limit:
            rows = read_log(run / "log.jsonl")
            for row in rows[seen:]:
                arrivals.append(time.perf_counter() - begun)
                shown = {"step": row["step"], "at": round(arrivals[-1], 1), "total": row["total"]}
                print(json.dumps(shown), flush=True)
            seen = len(rows)
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    rows = read_log(run / "log.jsonl")
    arrivals += [time.perf_counter() - begun] * (len(rows) - len(arrivals))
    seconds = [b - a for a, b in itertools.pairwise(arrivals)]
    found = summary(rows) | {
        "compiled": compiled, "settings": overrides(options, compiled), "preset": options.preset,
        "first_step_at_seconds": arrivals[0] if arrivals else None, "seconds": seconds,
        "step_seconds": statistics.median(seconds) if seconds else None,
    }  # fmt: skip
    if len(rows) < options.steps:
        found["error"] = f"{len(rows)} of {options.steps} steps in {time.perf_counter() - begun:.0f} s"
        print((folder / "full_size_worlds.log").read_text()[-1500:], flush=True)
    return found


def read_log(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a run's log that tell of steps; a skipped step has a line of its own kind."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row for row in rows if row["kind"] == "train"]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses and gradient norms by part, over the steps, and what they show."""
    norms = [name for name in (rows[0] if rows else {}) if name.startswith("gradient_norm_of/")]
    parts = [name for name in (rows[0] if rows else {}) if name not in OTHERS and name not in norms]
    losses = {name: [row[name] for row in rows] for name in parts}
    gradients = {name.partition("/")[2]: [row[name] for row in rows] for name in norms}
    finite = all(abs(value) < float("inf") for values in (*losses.values(), *gradients.values()) for value in values)
    total = losses.get("total", [])
    return {
        "steps": len(rows), "losses": losses, "gradient_norms": gradients,
        "peak_bytes": max((row.get("peak_gpu_bytes", 0) for row in rows), default=0),
        "finite": finite and bool(rows), "every_part_gets_gradient": bool(rows) and all(map(all, gradients.values())),
        "first_losses": {name: statistics.mean(values[:WINDOW]) for name, values in losses.items()},
        "last_losses": {name: statistics.mean(values[-WINDOW:]) for name, values in losses.items()},
        "loss_falls": len(total) > WINDOW and statistics.mean(total[-WINDOW:]) < statistics.mean(total[:WINDOW]),
    }  # fmt: skip


def main() -> None:
    """The compiled run and, if it did not finish, the plain one."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--preset", default="full_16_8b")
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--batch-size", type=int, default=16)
    arguments.add_argument("--lr", type=float, default=2e-5)
    arguments.add_argument("--limit", type=float, default=200.0, help="seconds for the compiled run; 0 leaves it out")
    arguments.add_argument("--plain-limit", type=float, default=120.0, help="seconds for the one without compilation")
    arguments.add_argument("--set", action="append", default=[], help="KEY=VALUE as of `astrobio train`")
    for name in ("--worker", "--run", "--settings"):
        kind: dict[str, Any] = {"--worker": {"action": "store_true"}, "--run": {"type": Path}}.get(name, {"nargs": "*"})
        arguments.add_argument(name, **kind)
    options = arguments.parse_args()
    if options.worker:
        worker(options)
        return
    result = options.result or options.out / "full_size_worlds.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"error": "not run"}
    for compiled, limit in ((True, options.limit), (False, options.plain_limit)):
        if limit > 0 and "error" in found:
            before = {"failed": found} if compiled is False and options.limit > 0 else {}
            found = attempt(options, compiled, limit, result.parent) | before
            write(result.parent, result.stem, found)
    last, norms = found["last_losses"], found["gradient_norms"]
    rows = [(name, value, last[name], "") for name, value in found["first_losses"].items()]
    rows += [(name, "", "", f"{min(values):.3g} … {max(values):.3g}") for name, values in norms.items()]
    table([("part", "first", "last", "gradient"), *rows])
    shown = ("steps", "step_seconds", "peak_bytes", "finite", "every_part_gets_gradient", "loss_falls", "error")
    print({key: found.get(key) for key in shown})


if __name__ == "__main__":
    main()
