"""How fast files are validated, and in how much memory: 10,000 catalogue rows, a climate file of 200 MB.

Run: python benchmarks/validate_throughput.py [--megabytes 200] [--rows 10000]
Writes benchmarks/results/validate_throughput.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

TARGET_SECONDS = 5.0  # for 10,000 rows
COLUMNS = ["pl_name", "hostname", "disc_year", "sy_dist", "ra", "dec", "pl_orbper", "pl_rade", "pl_bmasse", "pl_eqt",
           "st_teff", "st_rad", "st_mass"]  # fmt: skip
RESULT = Path(__file__).parent / "results" / "validate_throughput.json"


def write_catalogue(path: Path, rows: int) -> None:
    """Planets drawn around real ones' sizes and orbits; one in a hundred has an error."""
    rng = np.random.default_rng(1)
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in range(rows):
            mass = rng.uniform(0.1, 1.2)
            period, radius = 10 ** rng.uniform(0, 2.5), 10 ** rng.uniform(-0.2, 1.0)
            dec = 123.0 if row % 100 == 0 else rng.uniform(-90, 90)
            writer.writerow([f"World {row} b", f"World {row}", rng.integers(1995, 2027), rng.uniform(2, 900),
                             rng.uniform(0, 360), dec, period, radius, radius**3.0, rng.uniform(200, 400),
                             3000 + 2700 * mass, mass**0.9, mass])  # fmt: skip


def write_climate(path: Path, megabytes: int) -> None:
    """A CF file of 64 × 128 cells, monthly, float32, unpacked, of about this size; written step by step."""
    import netCDF4

    steps = megabytes * 10**6 // (4 * 64 * 128 * 4)
    rng = np.random.default_rng(2)
    fields = {"ts": ("surface_temperature", "K", 288, 12), "rst": ("toa_net_downward_shortwave_flux", "W m-2", 238, 40),
              "rlut": ("toa_outgoing_longwave_flux", "W m-2", 238, 20),
              "psl": ("air_pressure_at_mean_sea_level", "Pa", 1e5, 500)}  # fmt: skip
    with netCDF4.Dataset(path, "w") as data:
        data.Conventions, data.title, data.history, data.source = "CF-1.8", "Benchmark", "made for a benchmark", "noise"
        for name, size, units, values in (
            ("time", steps, "days since 2000-01-01", np.arange(steps) * 30.0),
            ("lat", 64, "degrees_north", np.linspace(-88.6, 88.6, 64)),
            ("lon", 128, "degrees_east", np.arange(128) * 2.8125),
        ):
            data.createDimension(name, size)
            axis = data.createVariable(name, "f8", (name,))
            axis.units, axis.standard_name, axis.long_name = (
                units,
                {"lat": "latitude", "lon": "longitude"}.get(name, name),
                name,
            )
            axis[:] = values
        data["time"].calendar = "360_day"
        for name, (standard, units, mean, spread) in fields.items():
            field = data.createVariable(name, "f4", ("time", "lat", "lon"))
            field.standard_name, field.units, field.long_name = standard, units, standard.replace("_", " ")
            for start in range(0, steps, 64):
                count = min(64, steps - start)
                field[start : start + count] = rng.normal(mean, spread, (count, 64, 128))


def _measure(path: str, small: str, pipe: Any) -> None:
    """Examine a small file, then the big one twice, in a fresh process.

    Sends the seconds of both, and how far the big file raised the peak memory that the small one had left.
    """
    from astrobio.quality import examine

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    examine(small)  # loads the libraries
    idle, times, cpu, report = peak(), [], [], None
    for _ in range(2):
        started, used = time.perf_counter(), time.process_time()
        report = examine(path)
        times.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    assert report is not None
    pipe.send({
        "file_bytes": os.stat(path).st_size, "seconds_first": round(times[0], 3), "seconds_again": round(times[1], 3),
        "cpu_seconds_first": round(cpu[0], 3), "cpu_seconds_again": round(cpu[1], 3), "peak_rss_bytes": peak(),
        "idle_rss_bytes": idle, "growth_bytes": peak() - idle, "verdict": report.verdict,
        "rows": report.rows and report.rows.total, "rows_set_aside": report.rows and len(report.rows.reasons),
        "findings": sorted({f.rule for f in report.findings}),
    })  # fmt: skip


def measure(path: Path, small: Path) -> dict[str, Any]:
    """`_measure` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measure, args=(str(path), str(small), there))
    process.start()
    answer = here.recv()
    process.join()
    return answer


def main() -> None:
    """Write both files, validate them, say and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalogue, climate = Path(folder) / "catalogue.csv", Path(folder) / "climate.nc"
        write_catalogue(catalogue, arguments.rows)
        write_climate(climate, arguments.megabytes)
        few, short = Path(folder) / "few.csv", Path(folder) / "short.nc"
        write_catalogue(few, 100)
        write_climate(short, 2)
        results = {"catalogue": measure(catalogue, few), "climate": measure(climate, short)}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    document = {
        "benchmark": "validate_throughput", "target_seconds_10000_rows": TARGET_SECONDS, "results": results,
        "machine": {"system": platform.platform(terse=True), "processor": platform.machine(), "cores": os.cpu_count(),
                    "load_average": os.getloadavg(), "python": platform.python_version()},
        "commit": commit, "command": " ".join(["python", *sys.argv]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
