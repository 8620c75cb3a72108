"""The full-size system under FSDP2 on the GPUs of one host: is it the same, how fast is it, what does it survive?

    python benchmarks/sharded_step.py --ranks 2                    # all cases on two GPUs (and one, to compare with)
    python benchmarks/sharded_step.py --ranks 8 --only speed       # one case; sharded_step.json keeps the others
    python benchmarks/sharded_step.py --ranks 2 --device cpu       # a rehearsal: mini system, gloo, minutes

equal    20 steps on one rank and on several, the same global batch: losses within 1e-3
speed    accumulation 32: tokens/s, efficiency against one rank, peak memory against `astrobio plan`, profile
speed_fp8  the same in 8-bit floating point
bare     a rank whose worlds all lack a climate: nobody waits for it
kill     a rank kills itself after a checkpoint; torchrun starts all again and the losses go on as if nothing was
reshard  a checkpoint of several ranks continued by one, and the other way round
offload  every process held to 24 GiB of its GPU, weights and moments in host memory (on CPUs without the limit)
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from machine import parser, table, write

WORKER = Path(__file__).with_name("sharded_worker.py")
LAUNCHER_FAILED = 'Traceback (most recent call last):\n  File "<frozen runpy>"'  # torchrun's own, below the worker's
CASES = ("equal", "speed", "speed_fp8", "bare", "kill", "reshard", "offload")
EQUAL_STEPS, SAVED, KILLED, CONTINUED = 20, 2, 3, 4  # steps of `equal`; of `kill` and `reshard`


def launch(o: Namespace, name: str, ranks: int, flags: list[str], restarts: int = 0) -> dict[str, Any]:
    """One run of the worker under torchrun: what it wrote, or the end of what it said."""
    result, log = o.work / f"{name}.json", o.work / f"{name}.log"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
        "--max-restarts", str(restarts), str(WORKER), "--result", str(result), "--device", o.device,
        "--preset", o.preset, "--gpu", o.gpu, "--lr", str(o.lr), *(["--small"] if o.device == "cpu" else []), *flags,
    ]  # fmt: skip
    print(f"{name}: {ranks} ranks …", file=sys.stderr, flush=True)
    began = time.perf_counter()
    with log.open("w") as output:
        try:
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=o.limit, check=False)
        except subprocess.TimeoutExpired:
            output.write(f"stopped after {o.limit} s\n")
    seconds = time.perf_counter() - began
    if not result.is_file():
        said = log.read_text(errors="replace").split(LAUNCHER_FAILED)[0]
        return {"error": said[-1500:], "wall_seconds": seconds}
    return json.loads(result.read_text()) | {"wall_seconds": seconds}


def difference(found: dict[str, Any], base: dict[str, Any]) -> float | None:
    """Largest relative difference of the losses of the steps that both took; None where there are none."""
    if "losses" not in found or "losses" not in base:
        return None
    first = {base["first_step"] + i: loss for i, loss in enumerate(base["losses"])}
    shared = [(loss, first.get(found["first_step"] + i)) for i, loss in enumerate(found["losses"])]
    return max((abs(a - b) / abs(b) for a, b in shared if b is not None), default=None)


def equal(o: Namespace, runs: dict[str, Any]) -> None:
    """The same steps on one rank and on several."""
    flags = ["--steps", str(o.steps or EQUAL_STEPS), "--accumulation", str(o.ranks)]
    base, found = (launch(o, f"equal_{ranks}", ranks, flags) for ranks in (1, o.ranks))
    runs[f"equal_1_of_{o.ranks}"] = base
    runs[f"equal_{o.ranks}"] = found | {"difference": difference(found, base)}


def speed(o: Namespace, runs: dict[str, Any], float8: bool = False) -> None:
    """Tokens a second on one rank, measured once for all numbers of ranks, and on several."""
    end = "_fp8" if float8 else ""
    flags = ["--steps", str(o.speed_steps), "--accumulation", str(o.accumulation), "--profile"]
    flags += ["--float8"] if float8 else []
    for ranks in (1, o.ranks):
        key = f"speed_{ranks}{end}"
        if ranks > 1 or "tok_s" not in runs.get(key, {}):
            runs[key] = launch(o, key, ranks, flags)
        found, base = runs[key], runs.get(f"speed_1{end}", {})
        if "tok_s" in found and "tok_s" in base:
            found["efficiency"] = found["tok_s"] / (base["tok_s"] * ranks)
        if found.get("planned_bytes"):
            found["peak_over_plan"] = found["peak_bytes"] / found["planned_bytes"]


def bare(o: Namespace, runs: dict[str, Any]) -> None:
    """Rank 1 has no climate at all."""
    flags = ["--steps", "2", "--accumulation", str(o.ranks), "--bare-rank", "1"]
    runs[f"bare_{o.ranks}"] = launch(o, "bare", o.ranks, flags)


def kill(o: Namespace, runs: dict[str, Any]) -> None:
    """Rank 1 kills itself after step 3; torchrun starts all again from the checkpoint of step 2."""
    flags = [*_continued(o, "kill"), "--steps", str(CONTINUED), "--save-at", str(SAVED), "--kill", str(KILLED)]
    found = launch(o, "kill", o.ranks, flags, restarts=1)
    runs[f"kill_{o.ranks}"] = found | {"difference": difference(found, _uninterrupted(o, runs))}


def reshard(o: Namespace, runs: dict[str, Any]) -> None:
    """A checkpoint moves between one rank and several."""
    whole = _uninterrupted(o, runs)
    for writers, readers in ((o.ranks, 1), (1, o.ranks)):
        name = f"reshard_{writers}_to_{readers}"
        flags = _continued(o, name)
        first = launch(o, f"{name}_write", writers, [*flags, "--steps", str(SAVED), "--save-at", str(SAVED)])
        found = launch(o, f"{name}_read", readers, [*flags, "--steps", str(CONTINUED)])
        runs[name] = found | {"difference": difference(found, whole), "written_in_seconds": first["wall_seconds"]}
        shutil.rmtree(o.work / name, ignore_errors=True)


def offload(o: Namespace, runs: dict[str, Any]) -> None:
    """Weights and moments in host memory, each GPU held to 24 GiB."""
    flags = ["--steps", "2", "--accumulation", str(o.ranks), "--offload"]
    flags += ["--limit-gib", "24"] if o.device == "cuda" else []
    found = launch(o, "offload", o.ranks, flags)
    runs[f"offload_{o.ranks}"] = found | {"difference": difference(found, runs.get(f"equal_{o.ranks}", {}))}


def _continued(o: Namespace, name: str) -> list[str]:
    return ["--accumulation", str(o.ranks), "--checkpoints", str(o.work / name)]


def _uninterrupted(o: Namespace, runs: dict[str, Any]) -> dict[str, Any]:
    """The run of `equal` on several ranks, or a short one in its place."""
    name = f"equal_{o.ranks}"
    if "losses" not in runs.get(name, {}):
        runs[name] = launch(o, name, o.ranks, ["--steps", str(CONTINUED), "--accumulation", str(o.ranks)])
    return runs[name]


def options() -> Namespace:
    """The command line; on CPUs everything is small unless said otherwise."""
    out = parser(__doc__ or "")
    out.add_argument("--ranks", type=int, default=2)
    out.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    out.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    out.add_argument("--preset", default=None, help="[full_16_8b, on CPUs mini]")
    out.add_argument("--gpu", default="h200", help="card, as `astrobio plan` names it")
    out.add_argument("--accumulation", type=int, default=None, help="of `speed` [32, on CPUs 4]")
    out.add_argument("--steps", type=int, default=None, help=f"of `equal` [{EQUAL_STEPS}]")
    out.add_argument("--speed-steps", type=int, default=3)
    out.add_argument("--lr", type=float, default=1e-5)
    out.add_argument("--limit", type=float, default=560.0, help="seconds that one run may take")
    out.add_argument("--work", type=Path, default=None, help="folder for checkpoints (full size: 70 GB) and logs")
    found = out.parse_args()
    cpu = found.device == "cpu"
    found.preset = found.preset or ("mini" if cpu else "full_16_8b")
    found.accumulation = found.accumulation or (4 if cpu else 32)
    return found


def main() -> None:
    """Run the cases and keep each result as soon as it is there."""
    o = options()
    with tempfile.TemporaryDirectory(prefix="sharded-") as temporary:
        o.work = o.work or Path(temporary)
        o.work.mkdir(parents=True, exist_ok=True)
        name = "sharded_step" if o.device == "cuda" else "sharded_step_cpu"
        path = o.out / f"{name}.json"
        runs: dict[str, Any] = json.loads(path.read_text()).get("runs", {}) if path.is_file() else {}
        cases = {"equal": equal, "speed": speed, "bare": bare, "kill": kill, "reshard": reshard, "offload": offload}
        for case in o.only:
            if case == "speed_fp8":
                if o.device == "cuda":  # 8-bit products exist on GPUs only
                    speed(o, runs, float8=True)
            else:
                cases[case](o, runs)
            write(o.out, name, {"runs": runs})
    table([("run", "ranks", "tok/s", "GB", "loss differs by", "efficiency"), *map(_row, runs.items())])


def _row(named: tuple[str, dict[str, Any]]) -> tuple[Any, ...]:
    """One run as a line of the table."""
    name, run = named
    if "error" in run:
        said = run["error"].strip().splitlines()
        return (name, "–", said[-1][:60] if said else "no output", "–", "–", "–")
    return (
        name, run["ranks"], run["tok_s"], run["peak_bytes"] / 1e9, _shown(run, "difference"), _shown(run, "efficiency"),
    )  # fmt: skip


def _shown(run: dict[str, Any], name: str) -> Any:
    value = run.get(name)
    return "–" if value is None else f"{value:.2g}"


if __name__ == "__main__":
    main()
