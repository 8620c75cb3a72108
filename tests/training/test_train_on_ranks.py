"""`astrobio train` under torchrun: two ranks learn what one does, stop, continue and die without losing anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from astrobio.system import SystemConfig
from astrobio.training.checkpoint import checkpoints, load_run
from astrobio.training.config import RunConfig
from astrobio.training.loop import train

COMMAND = Path(__file__).with_name("train_command.py")
SETTINGS = {
    "steps": 4, "batch_size": 3, "accumulation": 2, "warmup_steps": 2, "log_every": 1, "checkpoint_every": 2,
    "gradient_norms_every": 3,
}  # fmt: skip


def command(folder: Path, system: SystemConfig, *faults: str, **settings: object) -> list[str]:
    """Arguments of one `astrobio train` into FOLDER/run."""
    file = folder / "system.json"
    file.write_text(json.dumps(system.to_dict()))
    sets = [f"--set=training.{key}={value}" for key, value in (SETTINGS | settings).items()]
    return [str(COMMAND), str(file), *faults, "--", "train", "--data", "D", "--out", str(folder / "run"), *sets]


def run(arguments: list[str], ranks: int, restarts: int = 0) -> tuple[int, str]:
    """(exit status, all that was said) of the command on some ranks; a hang fails."""
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        f"--max-restarts={restarts}",
    ]
    whole = [sys.executable, *(launcher if ranks > 1 else []), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "500"}
    try:
        found = subprocess.run(
            whole,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"it hangs: {error.output}")
    return found.returncode, found.stdout


def lines(run_dir: Path) -> list[dict]:
    """The log without speeds."""
    found = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "worlds_per_second"} for line in found]


def assert_same(found: Path, expected: Path, tolerance: float) -> None:
    """The same log, and weights that differ by less than a step of the optimizer would (exactly equal if 0)."""
    for one, other in zip(lines(found), lines(expected), strict=True):
        kind = other.pop("kind")
        assert one.pop("kind") == kind
        for name, value in other.items():  # norms are float32 sums over many shards
            rough = 10.0 if kind == "gradient_norms" or name.startswith("gradient_norm") else 1.0
            assert one.pop(name) == pytest.approx(value, rel=rough * tolerance, abs=tolerance), name
        assert not one
    ours, theirs = (load_file(run_dir / "model.safetensors") for run_dir in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0.0, atol=tolerance, msg=name)


@pytest.mark.usefixtures("worlds")
def test_two_ranks_learn_what_one_does(tiny_run: RunConfig, tmp_path: Path) -> None:
    settings = replace(tiny_run.training, **SETTINGS, cache="auto", modality_dropout=0.15)  # pyright: ignore
    train(replace(tiny_run, training=settings), "D", tmp_path / "alone", console=Console(quiet=True))
    status, said = run(command(tmp_path, tiny_run.system), ranks=2)
    assert status == 0, said
    assert said.count("4 steps; best at step") == 1 and "Warning" not in said
    assert_same(tmp_path / "run", tmp_path / "alone", 1e-5)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best.json", "calibration.json", "checkpoints", "config.json", "log.jsonl", "model.safetensors",
        "statistics.json", "tensorboard", "tokenizer.json",
    }  # fmt: skip
    assert len(list(checkpoints(tmp_path / "run")[-1].glob("model.rank-*"))) == 2
    load_run(tmp_path / "run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders of uninterrupted runs by number of ranks."""
    return {ranks: tmp_path_factory.mktemp(f"ranks-{ranks}") for ranks in (1, 2)}


def uninterrupted(whole: dict[int, Path], ranks: int, system: SystemConfig) -> Path:
    """The run folder, trained at the first call."""
    if not (whole[ranks] / "run").exists():
        status, said = run(command(whole[ranks], system), ranks)
        assert status == 0, said
    return whole[ranks] / "run"


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_a_stopped_run_continues_on_any_number_of_ranks(
    whole: dict[int, Path], tiny_system: SystemConfig, tmp_path: Path, before: int, after: int
) -> None:
    status, said = run(command(tmp_path, tiny_system, f"term:{before - 1}:3"), before)
    assert status != 0
    assert said.count("stopped after step 3 of 4; the same command continues") == 1
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000003"
    status, said = run(command(tmp_path, tiny_system), after)
    assert status == 0 and said.count("resuming") == 1, said
    assert_same(tmp_path / "run", uninterrupted(whole, before, tiny_system), 0.0 if before == after else 1e-5)


@pytest.mark.slow
def test_a_killed_rank_costs_the_steps_since_the_checkpoint(
    whole: dict[int, Path], tiny_system: SystemConfig, tmp_path: Path
) -> None:
    status, said = run(command(tmp_path, tiny_system, "kill:1:3"), ranks=2, restarts=1)
    assert status == 0, said
    assert said.count("a rank of this run is gone") == 1
    assert f"resuming {tmp_path / 'run'} after step 2" in said.replace("\n", "")
    assert_same(tmp_path / "run", uninterrupted(whole, 2, tiny_system), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bad", "unreadable"])
def test_one_ranks_bad_data_ends_all_with_one_sentence(tiny_system: SystemConfig, tmp_path: Path, kind: str) -> None:
    first_epoch = np.random.default_rng([0, 0]).permutation(12)
    world = int(first_epoch[3]) if kind == "bad" else 4  # in the second micro-batch, which is rank 1's; of validation
    status, said = run(command(tmp_path, tiny_system, f"{kind}:1:{world}"), ranks=2, restarts=2)
    assert status != 0
    assert said.count(f"error: world {world}: expected a spectrum, found noise; build the data again") == 1
    assert "astrobio/training" not in said, "no traceback of ours"


@pytest.mark.slow
def test_ranks_without_a_micro_batch_wait_and_nothing_changes(tiny_system: SystemConfig, tmp_path: Path) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    for folder, ranks in ((alone, 1), (both, 2)):
        folder.mkdir()
        status, said = run(command(folder, tiny_system, accumulation=1), ranks)
        assert status == 0, said
        assert said.count("a multiple of 2 uses all") == ranks - 1
    assert_same(both / "run", alone / "run", 1e-5)


@pytest.mark.slow
def test_a_checkpoint_that_one_rank_did_not_finish_is_not_taken(
    whole: dict[int, Path], tiny_system: SystemConfig, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(uninterrupted(whole, 2, tiny_system), run_dir)
    last = checkpoints(run_dir)[-1]
    partial = last.with_name(f".{last.name}.partial")
    last.rename(partial)
    (partial / "optimizer.rank-00001.safetensors").unlink()
    status, said = run(command(tmp_path, tiny_system), ranks=2)
    assert status == 0 and "after step 2" in said.replace("\n", " "), said
    assert not partial.exists()
    assert_same(run_dir, uninterrupted(whole, 2, tiny_system), 0.0)
