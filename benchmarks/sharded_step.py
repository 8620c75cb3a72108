"""The full-size system under FSDP2 on the GPUs of one host: is it the same, how fast is it, what does it survive?

    python benchmarks/sharded_step.py --ranks 2                            # everything, one launch after the other
    python benchmarks/sharded_step.py --only bf16_1 --result one.json      # one launch; others may run beside it
    python benchmarks/sharded_step.py --merge one.json two.json            # all results in one file, and the table
    python benchmarks/sharded_step.py --ranks 2 --device cpu               # a rehearsal: mini system, gloo, minutes

A launch builds (and compiles) its system once and does several things with it:

bf16_1, bf16   20 steps of one micro-batch a rank (`equal`: the same global batch on one rank and on several, losses
               within 1e-3), steps with accumulation 32 (`speed`), the kernels of one micro-batch; one rank also each
               part alone; several ranks `bare`: the last rank's worlds all lack a climate, and nobody waits for it
fp8_1, fp8     in 8-bit floating point: `equal` with fewer steps, `speed`, kernels
offload        every process held to 24 GiB of its GPU, weights and moments in host memory (on CPUs without the limit)
survive        the steps that the next two are compared with, and `bare`; all three use `--survive-preset`, plain,
               for nothing in them depends on the size
kill           the last rank kills itself after a checkpoint; torchrun starts all again and the losses go on
reshard        a checkpoint of several ranks continued by one, and the other way round
reshard_full   the first of these with `--preset` (70 GB on disk); only when named

The learning rate rises to `--lr` over `--warmup` steps. It is small: at 1e-5 the system learns the four random batches
by heart within 20 steps, and on the way any rounding difference, also that of a second run on one card, grows beyond
1e-3.
On cards that cannot hold the gradients of the whole system, launches on one rank say so and are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("sharded_worker.py")
RESULTS = Path(__file__).parent / "results"
LAUNCHER_FAILED = 'Traceback (most recent call last):\n  File "<frozen runpy>"'  # torchrun's own, below the worker's
CASES = ("bf16_1", "bf16", "fp8_1", "fp8", "offload", "survive", "kill", "reshard", "reshard_full")
SAVED, KILLED, CONTINUED = 2, 3, 4  # steps of `survive`, `kill` and `reshard`
TOLERANCE = 1e-3  # relative difference of losses
GRACE = 15.0  # seconds that a launch may take to end when it is asked to
# Ends of the names of launches kept beside newer ones of the same case.
OLDER = ("_gather_block", "_reduce_micro_batch", "_earlier")

Runs = dict[str, dict[str, Any]]


def launch(o: Namespace, name: str, ranks: int, flags: list[str], restarts: int = 0) -> dict[str, Any]:
    """One run of the worker: what it wrote, and why it stopped if it did not come to its end."""
    result, log = o.work / f"{name}.json", o.work / f"{name}.log"
    result.unlink(missing_ok=True)
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command += ["--local-addr", "127.0.0.1", "--max-restarts", str(restarts)]
    command += [str(WORKER), "--result", str(result), "--device", o.device, "--lr", str(o.lr)]
    command += ["--warmup", str(o.warmup), "--accumulation", str(o.accumulation)]
    command += ["--activation-gib", str(o.activation_gib)] if o.activation_gib is not None else []
    command += ["--gather", o.gather] if o.gather and "--offload" not in flags else []
    command += ["--reduce", o.reduce] if o.reduce and o.gather and ranks > 1 and "--offload" not in flags else []
    command += ["--small"] if o.device == "cpu" else []
    print(f"{name}: {ranks} ranks, at most {o.limit:.0f} s", flush=True)
    began = time.perf_counter()
    code, stopped = _watch([*command, *flags], ranks, log, o.limit)
    found: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else {"ranks": ranks, "phases": {}}
    found |= {"wall_seconds": time.perf_counter() - began, "command": " ".join(flags)}
    if stopped:
        found["stopped"] = "time limit"
    elif code:
        found["error"] = log.read_text(errors="replace").split(LAUNCHER_FAILED)[0][-1500:]
        print(found["error"][-900:], flush=True)
    if "skipped" in found:
        print(f"{name}: {found['skipped']}", flush=True)
    return found


def _watch(command: list[str], ranks: int, log: Path, limit: float) -> tuple[int, bool]:
    """Run a command, showing its lines that are for people; returns its exit code and whether the limit ended it."""
    threads = str(max(1, (os.cpu_count() or 1) // (2 * ranks)))  # torchrun would give each rank one
    environment = {"OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"} | os.environ
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        _end(process)

    clock = threading.Timer(limit, stop)
    clock.start()
    assert process.stdout is not None
    with log.open("w") as output:
        for line in process.stdout:
            output.write(line)
            if line.startswith("> "):
                print(f"  {line[2:].rstrip()}", flush=True)
    code = process.wait()
    clock.cancel()
    return code, stopped.is_set()


def _end(process: subprocess.Popen[str]) -> None:
    """End a launch with all processes that it started: first politely, then not."""
    family = _descendants(process.pid)
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _descendants(pid: int) -> list[int]:
    """Processes that a process started, directly or not."""
    try:
        own = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return own + [one for child in own for one in _descendants(child)]


def joint(o: Namespace, runs: Runs, case: str) -> None:
    """`bf16` and `fp8`, on one rank or on all."""
    alone, float8 = case.endswith("_1"), case.startswith("fp8")
    if float8 and o.device == "cpu":
        print(f"{case}: 8-bit products exist on GPUs only", flush=True)
        return
    ranks, steps = (1 if alone else o.ranks), (o.fp8_steps if float8 else o.steps)
    phases = [f"equal:{steps}:{o.ranks}", f"speed:{o.speed_steps}:{o.accumulation}", "profile"]
    phases += ["parts"] if alone else [] if float8 else [f"bare:2:{o.ranks}"]
    name = f"{case.removesuffix('_1')}_{ranks}"
    flags = ["--preset", o.preset, *(["--float8"] if float8 else []), *(["--plain"] if o.plain else [])]
    runs[name] = launch(o, name, ranks, [*flags, "--phases", *phases])


def offload(o: Namespace, runs: Runs, _: str) -> None:
    """Weights and moments in host memory, each GPU held to 24 GiB."""
    flags = ["--preset", o.preset, "--offload", "--plain", "--phases", f"offload:3:{o.ranks}"]
    flags += ["--limit-gib", "24"] if o.device == "cuda" else []
    few = Namespace(**vars(o) | {"accumulation": o.ranks})
    runs[f"offload_{o.ranks}"] = launch(few, f"offload_{o.ranks}", o.ranks, flags)


def survive(o: Namespace, runs: Runs, case: str) -> None:
    """`survive`, `kill` and `reshard`: what is compared with an uninterrupted run, which they make if there is none."""
    if f"survive_{o.ranks}" not in runs or not (o.work / f"survive_{o.ranks}" / "checkpoints").is_dir():
        _survivor(o, runs, f"survive_{o.ranks}", o.ranks, f"survive_{o.ranks}", ["--save-at", str(SAVED)], bare=True)
    if case == "kill":
        flags = ["--save-at", str(SAVED), "--kill", str(KILLED)]
        _survivor(o, runs, f"kill_{o.ranks}", o.ranks, "kill", flags, restarts=1)
    if case == "reshard":
        _survivor(o, runs, f"reshard_{o.ranks}_to_1", 1, f"survive_{o.ranks}", [])
        _survivor(o, runs, "survive_1", 1, "survive_1", ["--save-at", str(SAVED)])
        _survivor(o, runs, f"reshard_1_to_{o.ranks}", o.ranks, "survive_1", [])


def _survivor(
    o: Namespace, runs: Runs, name: str, ranks: int, folder: str, flags: list[str], restarts: int = 0,
    bare: bool = False,
) -> None:  # fmt: skip
    """Steps of the small system that end at `CONTINUED`, with a folder for checkpoints."""
    few = Namespace(**vars(o) | {"accumulation": 2 * o.ranks})  # two micro-batches a rank
    phases = [f"survive:{CONTINUED}:{few.accumulation}", *([f"bare:2:{o.ranks}"] if bare else [])]
    shared = ["--preset", o.survive_preset, "--plain", "--checkpoints", str(o.work / folder), "--phases", *phases]
    runs[name] = launch(few, name, ranks, [*shared, *flags], restarts)


def reshard_full(o: Namespace, runs: Runs, _: str) -> None:
    """A checkpoint of the whole system after one step on several ranks; one rank takes the second step from it."""
    folder, name = o.work / "full", f"reshard_full_{o.ranks}_to_1"
    shared = ["--preset", o.preset, "--plain", "--checkpoints", str(folder), "--phases", f"survive:2:{o.ranks}"]
    o = Namespace(**vars(o) | {"accumulation": 2 * o.ranks, "activation_gib": 0.0})
    runs[f"survive_full_{o.ranks}"] = launch(o, f"survive_full_{o.ranks}", o.ranks, [*shared, "--save-at", "1"])
    runs[name] = launch(o, name, 1, shared)
    shutil.rmtree(folder, ignore_errors=True)


def compare(runs: Runs) -> dict[str, Any]:
    """What follows from several launches: differences of losses, efficiency, memory against the forecast."""
    out: dict[str, Any] = {}
    for name, run in runs.items():
        kind, _, ranks = _plain_name(name).rpartition("_")
        phases, foretold = run.get("phases", {}), run.get("forecast", {})
        speed, pair = phases.get("speed", {}), {}
        if peak := phases.get("speed", phases.get("offload", {})).get("peak_bytes"):
            pair["peak_over_plan"] = peak / foretold["peak_bytes"]
        base = runs.get(f"{kind}_1", {}) if ranks != "1" else {}
        alone = base.get("phases", {}).get("speed", {})
        if "tok_s" in speed and "tok_s" in alone:
            pair["efficiency"] = speed["tok_s"] / (alone["tok_s"] * run["ranks"])
            pair["same_recomputation"] = foretold["recomputed_blocks"] == base["forecast"]["recomputed_blocks"]
        other, phase = _baseline(name, runs)
        if (worst := difference(_steps(run, phase), _steps(runs.get(other, {}), phase))) is not None:
            pair |= {"losses_against": other, "steps_compared": worst[1], "difference": worst[0]}
            pair["within_1e-3"] = worst[0] <= TOLERANCE
        if pair:
            out[name] = pair
    return out


def _plain_name(name: str) -> str:
    """A launch's name without what tells it from a newer one."""
    return next((name.removesuffix(end) for end in OLDER if name.endswith(end)), name)


def _baseline(name: str, runs: Runs) -> tuple[str, str]:
    """Launch and phase with which a launch's losses are compared."""
    kind, _, ranks = _plain_name(name).rpartition("_")
    if name.endswith("_earlier"):
        return _plain_name(name), "equal"  # how far two runs of the same steps come apart
    if kind == "offload":  # it shares gradients in every micro-batch
        alike = f"bf16_{ranks}_reduce_micro_batch"
        return (alike if alike in runs else f"bf16_{ranks}"), "equal"
    if kind in ("bf16", "fp8"):
        return (f"{kind}_1" if ranks != "1" else ""), "equal"
    if name.startswith("reshard_full"):
        return next((other for other in runs if other.startswith("survive_full")), ""), "survive"
    if name.startswith("reshard"):
        return f"survive_{name.split('_')[1]}", "survive"  # of as many ranks as wrote the checkpoint
    return (f"survive_{ranks}" if kind == "kill" else "survive_1" if ranks != "1" else ""), "survive"


def _steps(run: dict[str, Any], phase: str) -> dict[int, float]:
    """Step → loss of a phase; `offload` stands for `equal`."""
    found = run.get("phases", {})
    found = found.get(phase) or (found.get("offload") if phase == "equal" else None) or {}
    return {found["first_step"] + place: loss for place, loss in enumerate(found.get("losses", []))}


def difference(found: dict[int, float], base: dict[int, float]) -> tuple[float, int] | None:
    """Largest relative difference of the losses of the steps that both took, and how many; None where none are."""
    shared = [abs(found[step] - base[step]) / abs(base[step]) for step in found if step in base]
    return (max(shared), len(shared)) if shared else None


def write(path: Path, runs: Runs, note: str = "") -> None:
    """The result file, whole or not at all; its machine is the first launch's, its commits those of all launches."""
    machines = [run["machine"] for run in runs.values() if "machine" in run]
    for run in runs.values():
        run["commit"] = run.get("machine", {}).get("commit", "unknown")
    commits = ", ".join(sorted({one["commit"] for one in machines}))
    machine = {**machines[0], "commit": commits, "command": "see each run"} if machines else {}
    machine |= {"note": note} if note else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(json.dumps(machine | {"runs": runs, "compared": compare(runs)}, indent=1) + "\n")
    os.replace(temporary, path)


def show(runs: Runs) -> None:
    """One line a launch and phase."""
    from machine import table  # it loads PyTorch, for which no launch should wait

    rows: list[tuple[Any, ...]] = [("launch", "phase", "acc", "s/step", "tok/s", "GB", "GB/plan", "differs", "effic.")]
    compared = compare(runs)
    for name, run in runs.items():
        pair = compared.get(name, {})
        for phase, found in run.get("phases", {}).items():
            speed, other = phase == "speed", phase in ("equal", "survive", "offload")
            over = pair.get("peak_over_plan", "–") if phase in ("speed", "offload") else ""
            rows.append((
                name, phase, found["accumulation"], found.get("step_seconds", "–"), round(found.get("tok_s", 0)),
                found.get("peak_bytes", 0) / 1e9, over, pair.get("difference", "–") if other else "",
                pair.get("efficiency", "–") if speed else "",
            ))  # fmt: skip
        why = next((f"{key}: {run[key]}" for key in ("skipped", "stopped", "error") if key in run), None)
        if why:
            rows.append((name, " ".join(why.split())[-70:], *[""] * 7))
    table(rows[:25])


def options() -> Namespace:
    """The command line; on CPUs everything is small unless said otherwise."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    out.add_argument("--result", type=Path, default=None, help="the result file itself [OUT/sharded_step.json]")
    out.add_argument("--merge", type=Path, nargs="+", default=None, help="result files to put together; runs nothing")
    out.add_argument("--note", default="", help="a sentence for the result file, with --merge")
    out.add_argument("--ranks", type=int, default=2)
    out.add_argument("--only", nargs="*", choices=CASES, default=[case for case in CASES if case != "reshard_full"])
    out.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    out.add_argument("--preset", default=None, help="[full_16_8b, on CPUs mini]")
    out.add_argument("--survive-preset", default=None, help="[medium, on CPUs mini]")
    out.add_argument("--accumulation", type=int, default=None, help="of `speed` [32, on CPUs 4]")
    out.add_argument("--activation-gib", type=float, default=None, help="in place of the plan's, on every rank")
    out.add_argument("--gather", choices=("block", "step"), default=None, help="in place of the plan's")
    out.add_argument("--reduce", choices=("micro_batch", "step"), default=None, help="in place of the plan's")
    out.add_argument("--steps", type=int, default=20, help="of `equal`")
    out.add_argument("--fp8-steps", type=int, default=2, help="of `equal` in 8-bit floating point")
    out.add_argument("--speed-steps", type=int, default=1)
    out.add_argument("--lr", type=float, default=1e-6)
    out.add_argument("--warmup", type=int, default=20, help="steps over which the learning rate rises")
    out.add_argument("--plain", action="store_true", help="without compilation")
    out.add_argument("--limit", type=float, default=560.0, help="seconds that one launch may take")
    out.add_argument("--work", type=Path, default=None, help="folder for checkpoints and logs")
    found = out.parse_args()
    cpu = found.device == "cpu"
    found.preset = found.preset or ("mini" if cpu else "full_16_8b")
    found.survive_preset = found.survive_preset or ("mini" if cpu else "medium")
    found.accumulation = found.accumulation or (4 if cpu else 32)
    found.result = found.result or found.out / f"sharded_step{'_cpu' if cpu else ''}.json"
    return found


def main() -> None:
    """Run the cases and keep each result as soon as it is there; or put results together."""
    o = options()
    runs: Runs = {}
    for path in o.merge or [o.result]:
        runs |= json.loads(path.read_text())["runs"] if path.is_file() else {}
    if o.merge:
        write(o.result, runs, o.note)
        show(runs)
        return
    do = {"offload": offload, "reshard_full": reshard_full} | dict.fromkeys(("survive", "kill", "reshard"), survive)
    with tempfile.TemporaryDirectory(prefix="sharded-") as temporary:
        o.work = o.work or Path(temporary)
        o.work.mkdir(parents=True, exist_ok=True)
        for case in o.only:
            do.get(case, joint)(o, runs, case)
            write(o.result, runs)
    show(runs)


if __name__ == "__main__":
    main()
