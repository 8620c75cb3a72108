"""Runs on disk: safetensors and JSON only, written beside and then renamed, so that nothing half-written is read.

RUN/config.json  tokenizer.json  statistics.json   what the run is
RUN/checkpoints/step-00000200/                     where it stands: model, optimizer, state.json
RUN/model.safetensors  best.json                   the weights that validated best
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from astrobio.batch import Statistics
from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.errors import InputError
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.config import RunConfig

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
    """Write weights whole or not at all (tensors shared between parts are written once)."""
    with _replacing(path) as temporary:
        save_model(system, str(temporary))


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

    Args:
        progress: JSON values of the loop that come back from `restore_checkpoint`.
    """
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors, plain = _flatten_optimizer(optimizer)
    random_tensors, random_state = _random_states()
    save_model(system, str(temporary / "model.safetensors"))
    save_file({**tensors, **random_tensors}, temporary / "optimizer.safetensors")
    write_json(
        temporary / "state.json", {"step": step, "progress": progress, "optimizer": plain, "random": random_state}
    )
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
    for old in checkpoints(run_dir)[:-keep]:
        shutil.rmtree(old)


def checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in (run_dir / "checkpoints").glob("step-*") if STEP_FOLDER.fullmatch(path.name))


def restore_checkpoint(
    run_dir: Path, system: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]] | None:
    """Continue from the newest checkpoint: (steps done, progress), or None where there is none.

    Raises:
        InputError: a checkpoint that can't be read.
    """
    found = checkpoints(run_dir)
    if not found:
        return None
    folder = found[-1]
    load_weights(system, folder / "model.safetensors")
    try:
        tensors = load_file(folder / "optimizer.safetensors")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder}: unreadable ({error}); delete this folder to resume from the one before") from None
    state = read_json(folder / "state.json")
    _restore_optimizer(optimizer, tensors, state["optimizer"])
    _restore_random_states(tensors, state["random"])
    return state["step"], state["progress"]


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Optimizer state → named tensors ("state.<parameter>.<name>") and JSON values."""
    whole = optimizer.state_dict()
    tensors, plain = {}, {}
    for parameter, values in whole["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"state.{parameter}.{name}"] = value.contiguous()
            else:
                plain[f"{parameter}.{name}"] = value
    return tensors, {"state": plain, "param_groups": whole["param_groups"]}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], plain: dict[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    entries = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    for key, value in {**entries, **plain["state"]}.items():
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    groups = [
        {name: tuple(value) if isinstance(value, list) and name != "params" else value for name, value in group.items()}
        for group in plain["param_groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _random_states() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The states of the generators of torch (CPU and GPUs), numpy and Python."""
    tensors = {"random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"random.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # pyright: ignore[reportAssignmentType]
    version, internal, gauss_next = random.getstate()
    return tensors, {
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def _restore_random_states(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
    torch.set_rng_state(tensors["random.torch"])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"random.cuda.{index}" in tensors:
                torch.cuda.set_rng_state(tensors[f"random.cuda.{index}"], index)
    kind, keys, position, has_gauss, gauss = plain["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = plain["python"]
    random.setstate((version, tuple(internal), gauss_next))
