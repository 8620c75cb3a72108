"""How the making of worlds scales with worker processes.

python benchmarks/simulate_scaling.py [--workers 1 2 4 8 16] [--shards 6] [--organisms FILE]

Every count of workers builds a data set of its own, as many shards of 32 worlds for each worker. Warm is the time in
which every worker is at work and past its first shard: from the W-th finished shard to the last but W. Efficiency is
the warm rate over W times that of one worker. The control runs the highest count as independent builds of one worker
each, which share nothing but the machine: what is lost there too (clock speed, memory bandwidth, cores that are
hyperthreads) is no loss of parallelism.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from astrobio.dataset.build import SHARD, settings_of, simulate_to
from astrobio.dataset.store import PIECES, piece_path, remove

DEPTH = "jwst-50"


def build(out: Path, shards: int, workers: int, organisms: Path | None) -> None:
    """A data set of so many shards."""
    simulate_to(out, shards * SHARD, 1, workers, settings_of(DEPTH, None, None), organisms=organisms)


def finished(out: Path, shards: int) -> list[float]:
    """When each shard was finished, in order: its last piece is then written."""
    return sorted(piece_path(out, PIECES[-1], shard).stat().st_mtime for shard in range(shards))


def warm_rate(times: list[float], workers: int) -> float:
    """Worlds/s while all workers are at work and warm."""
    first, last = workers - 1, len(times) - workers - 1
    return (last - first) * SHARD / (times[last] - times[first])


def measure(folder: Path, workers: int, each: int, organisms: Path | None) -> dict[str, Any]:
    """One count of workers."""
    out, started = folder / f"worlds-{workers}", time.time()
    build(out, each * workers, workers, organisms)
    seconds = time.time() - started
    times = finished(out, each * workers)
    remove(out)
    return {
        "workers": workers, "worlds": each * workers * SHARD, "seconds": seconds,
        "first_shard_after_s": times[0] - started, "worlds_per_s": each * workers * SHARD / seconds,
        "warm_worlds_per_s": warm_rate(times, workers),
    }  # fmt: skip


def control(folder: Path, workers: int, each: int, organisms: Path | None) -> float:
    """Warm worlds/s of as many independent builds of one worker side by side."""
    places = [folder / f"alone-{number}" for number in range(workers)]
    arguments = ["--organisms", str(organisms)] if organisms else []
    running = [
        subprocess.Popen([sys.executable, __file__, "--alone", str(place), "--shards", str(each), *arguments])
        for place in places
    ]
    for process in running:
        process.wait()
    rates = [warm_rate(finished(place, each), 1) for place in places]
    for place in places:
        remove(place)
    return sum(rates)


def main() -> None:
    """Measure all counts, write `simulate_scaling.json` and print a table."""
    parser = machine.parser(str(__doc__))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--shards", type=int, default=6, help="for each worker, at least 3")
    parser.add_argument("--organisms", type=Path, help="organisms.npz of another data set [built or from the cache]")
    parser.add_argument("--alone", type=Path, help="only build into this folder with one worker, for the control")
    options = parser.parse_args()
    if options.alone:
        build(options.alone, options.shards, 1, options.organisms)
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        folder = Path(temporary)
        rows = [measure(folder, workers, options.shards, options.organisms) for workers in options.workers]
        most = max(options.workers)
        alone = control(folder, most, options.shards, options.organisms)
    for row in rows:
        row["efficiency"] = row["warm_worlds_per_s"] / (
            row["workers"] / rows[0]["workers"] * rows[0]["warm_worlds_per_s"]
        )
    against = rows[-1]["warm_worlds_per_s"] / alone
    machine.write(options.out, "simulate_scaling", {
        "cores": os.cpu_count(), "depth": DEPTH, "shards_per_worker": options.shards, "runs": rows,
        "independent": {"workers": most, "warm_worlds_per_s": alone}, "efficiency_against_independent": against,
    })  # fmt: skip
    machine.table(
        [("workers", "worlds", "seconds", "first shard after", "worlds/s", "warm worlds/s", "efficiency")]
        + [tuple(row.values()) for row in rows]
        + [(f"{most} independent", "", "", "", "", alone, "")]
    )
    print(f"warm rate of {most} workers over that of as many independent builds: {against:.3f}")


if __name__ == "__main__":
    main()
