"""Runs on disk: safetensors and JSON only, written beside and then renamed, so that nothing half-written is read.

RUN/config.json  tokenizer.json  statistics.json   what the run is
RUN/checkpoints/step-00000200/                     where it stands: model, optimizer (a file a rank), state.json
RUN/model.safetensors  best.json                   the weights that validated best
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from astrobio.batch import Statistics
from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.errors import InputError
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.config import RunConfig
from astrobio.training.optimizer_state import group_values, optimizer_tensors, set_group_values
from astrobio.training.ranks import by_first_rank, together
from astrobio.training.shards import named_weights, read_shards, write_shards, write_whole

STEP_FOLDER = re.compile(r"step-(\d{8})")


@dataclass
class LoadedRun:
    """A trained system with what its inputs must go through."""

    system: UnifiedMultiModalSystem
    tokenizer: WorldTokenizer
    statistics: Statistics
    config: RunConfig


def load_run(run_dir: Path | str, device: torch.device | str = "cpu") -> LoadedRun:
    """The best weights of a run, in evaluation mode.

    Raises:
        InputError: no run there, a run without a validated model yet, or unreadable files.
    """
    run_dir = Path(run_dir)
    config, tokenizer, statistics = read_run(run_dir)
    system = UnifiedMultiModalSystem(config.system)
    weights = run_dir / "model.safetensors"
    if not weights.is_file():
        raise InputError(
            f"{weights}: expected trained weights, found none; let `astrobio train --out {run_dir}` finish"
        )
    load_weights(system, weights)
    return LoadedRun(system.to(device).eval(), tokenizer, statistics, config)


def read_run(run_dir: Path) -> tuple[RunConfig, WorldTokenizer, Statistics]:
    """What a run is, without its weights.

    Raises:
        InputError: no run there, or unreadable files.
    """
    for name in ("config.json", "tokenizer.json", "statistics.json"):
        if not (run_dir / name).is_file():
            raise InputError(
                f"{run_dir}: expected a run folder with {name}, found none; make one with `astrobio train`"
            )
    return (
        RunConfig.from_dict(read_json(run_dir / "config.json")),
        WorldTokenizer.load(run_dir / "tokenizer.json"),
        Statistics.from_dict(read_json(run_dir / "statistics.json")),
    )


def load_weights(system: nn.Module, path: Path) -> None:
    """Read weights into a system of the same configuration.

    Raises:
        InputError: a damaged file, or weights of another architecture.
    """
    try:
        load_model(system, path)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: expected the weights of this configuration, found {reason}; train anew") from None


def save_weights(system: nn.Module, path: Path) -> None:
    """Write all weights, gathered from all ranks, whole or not at all; every rank must call it.

    Raises:
        InputError: on every rank, if rank 0 cannot write.
    """
    with _replacing(path) as temporary:
        together(lambda: write_whole(temporary, named_weights(system)))


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    with _replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, found {error}; delete the folder and start again") from None


def save_checkpoint(
    run_dir: Path, step: int, system: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any], keep: int
) -> None:
    """Everything that continuing exactly needs, as `checkpoints/step-…`; the oldest beyond `keep` go.

    Every rank calls it and writes its share; rank 0 publishes the folder once all have. No random state is kept: the
    loop seeds each micro-batch by its number.

    Args:
        progress: JSON values of the loop that come back from `restore_checkpoint`.

    Raises:
        InputError: on every rank, if one cannot write.
    """
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    temporary = folder.with_name(f".{folder.name}.partial")
    by_first_rank(lambda: _make_empty(temporary))

    def write_share() -> None:
        write_shards(temporary, "model", named_weights(system))
        write_shards(temporary, "optimizer", optimizer_tensors(optimizer))

    together(write_share)
    by_first_rank(lambda: _publish(temporary, folder, step, optimizer, progress, keep))


def _make_empty(folder: Path) -> None:
    """An empty folder, in place of those that interrupted runs left half-written."""
    for old in folder.parent.glob(".step-*.partial"):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)


def _publish(
    temporary: Path, folder: Path, step: int, optimizer: torch.optim.Optimizer, progress: dict[str, Any], keep: int
) -> None:
    """Give a folder that all ranks have written its name, which makes it a checkpoint, and drop the oldest."""
    write_json(temporary / "state.json", {"step": step, "progress": progress, "groups": group_values(optimizer)})
    if folder.exists():  # the same step of the same run: it is whole, and never missing for a moment
        shutil.rmtree(temporary)
        return
    os.replace(temporary, folder)
    for old in checkpoints(folder.parent.parent)[:-keep]:
        shutil.rmtree(old)


def checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in (run_dir / "checkpoints").glob("step-*") if STEP_FOLDER.fullmatch(path.name))


def restore_checkpoint(
    run_dir: Path, system: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]] | None:
    """Continue from the newest checkpoint: (steps done, progress), or None where there is none.

    Any number of ranks reads what any other has written; every rank must call it.

    Raises:
        InputError: a checkpoint that can't be read.
    """
    newest = by_first_rank(lambda: [path.name for path in checkpoints(run_dir)][-1:])
    if not newest:
        return None
    folder = run_dir / "checkpoints" / newest[0]

    def read_share() -> dict[str, Any]:
        state = read_json(folder / "state.json")
        if "groups" not in state:
            raise InputError(f"{folder}: written by an older version; delete {folder.parent} to start anew")
        read_shards(folder, "model", named_weights(system))
        read_shards(folder, "optimizer", optimizer_tensors(optimizer))
        return state

    state = together(read_share)
    set_group_values(optimizer, state["groups"])
    return state["step"], state["progress"]


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        if temporary.exists():  # ranks other than the first write nothing of what is gathered
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
