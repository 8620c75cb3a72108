"""The rehearsal of the benchmark on several GPUs, on CPUs: it must work the first time that it meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sharded_step.py"


@pytest.mark.slow
def test_the_benchmark_runs_on_two_cpu_ranks_and_finds_them_equal_to_one(tmp_path: Path) -> None:
    options = [
        "--device",
        "cpu",
        "--ranks",
        "2",
        "--out",
        str(tmp_path),
        "--steps",
        "4",
        "--only",
        "equal",
        "bare",
        "kill",
    ]
    found = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=500, check=False
    )
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / "sharded_step_cpu.json").read_text())
    runs = result["runs"]
    assert result["command"] and runs["equal_2"]["ranks"] == 2
    assert runs["equal_2"]["difference"] < 1e-5
    assert runs["kill_2"]["difference"] == 0.0 and runs["kill_2"]["first_step"] == 3
    assert len(runs["bare_2"]["losses"]) == 2
