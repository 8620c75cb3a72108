"""The rehearsal of the benchmark on several GPUs, on CPUs: it must work the first time that it meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sharded_step.py"


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--ranks", "2", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def _file(path: Path, name: str, ranks: int, losses: list[float], tok_s: float) -> str:
    phases = {
        "equal": {"accumulation": 2, "first_step": 1, "losses": losses},
        "speed": {"accumulation": 32, "tok_s": tok_s, "peak_bytes": 95, "first_step": 1, "losses": [1.0]},
    }
    run = {"ranks": ranks, "phases": phases, "forecast": {"peak_bytes": 100, "recomputed_blocks": 3}}
    path.write_text(json.dumps({"runs": {name: run}}))
    return str(path)


def test_results_of_separate_launches_are_put_together(tmp_path: Path) -> None:
    one = _file(tmp_path / "one.json", "bf16_1", 1, [4.0, 2.0, 3.0], 100.0)
    two = _file(tmp_path / "two.json", "bf16_2", 2, [4.0, 2.01], 190.0)
    found = _run("--merge", one, two, "--result", str(tmp_path / "all.json"))
    assert found.returncode == 0, found.stderr
    pair: dict[str, Any] = json.loads((tmp_path / "all.json").read_text())["compared"]["bf16_2"]
    assert pair["efficiency"] == pytest.approx(0.95) and pair["peak_over_plan"] == pytest.approx(0.95)
    assert pair["difference"] == pytest.approx(0.005) and pair["steps_compared"] == 2
    assert pair["within_1e-3"] is False
    assert "0.95" in found.stdout


@pytest.mark.slow
def test_the_benchmark_runs_on_two_cpu_ranks_and_finds_them_equal_to_one(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    found = _run("--result", str(result), "--steps", "3", "--only", "bf16_1", "bf16", "kill")
    assert found.returncode == 0, found.stderr
    written = json.loads(result.read_text())
    runs, compared = written["runs"], written["compared"]
    assert written["commit"] and runs["bf16_2"]["ranks"] == 2
    assert compared["bf16_2"]["difference"] < 1e-5 and compared["bf16_2"]["steps_compared"] == 3
    assert runs["bf16_2"]["profile"]["communication"] > 0.0 and len(runs["bf16_2"]["phases"]["bare"]["losses"]) == 2
    assert compared["kill_2"]["difference"] == 0.0 and runs["kill_2"]["phases"]["survive"]["first_step"] == 3


@pytest.mark.slow
def test_a_launch_that_is_stopped_at_its_limit_leaves_what_it_has(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    found = _run("--result", str(result), "--steps", "10000", "--only", "bf16_1", "--limit", "40")
    assert found.returncode == 0, found.stderr
    run = json.loads(result.read_text())["runs"]["bf16_1"]
    assert run["stopped"] == "time limit" and run["phases"]["equal"]["losses"]
