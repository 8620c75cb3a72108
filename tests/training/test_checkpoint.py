"""Checkpoints are whole or absent, hold everything, and the oldest go."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from astrobio.errors import InputError
from astrobio.training import checkpoint
from astrobio.training.checkpoint import (
    checkpoints,
    load_run,
    load_weights,
    restore_checkpoint,
    save_checkpoint,
    save_weights,
    write_json,
)


def trained(steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small system whose optimizer has moments."""
    system = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(system.parameters(), lr=0.1)
    for _ in range(steps):
        system(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return system, optimizer


def test_checkpoint_brings_back_weights_and_moments(tmp_path: Path):
    system, optimizer = trained()
    save_checkpoint(tmp_path, 2, system, optimizer, {"best": 0.5}, keep=2)
    fresh, other = trained(steps=1)
    assert restore_checkpoint(tmp_path, fresh, other) == (2, {"best": 0.5})
    for one, two in zip(system.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    before, after = optimizer.state_dict(), other.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for index, values in before["state"].items():
        assert all(torch.equal(value, after["state"][index][name]) for name, value in values.items())


def test_only_safe_formats_are_written(tmp_path: Path):
    save_checkpoint(tmp_path, 1, *trained(), {}, keep=1)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".safetensors", ".json"}


def test_oldest_checkpoints_go(tmp_path: Path):
    system, optimizer = trained()
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, step, system, optimizer, {}, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000003", "step-00000010"]


@pytest.mark.parametrize("killed_at", ["named_weights", "optimizer_tensors", "write_json", "replace"])
def test_checkpoint_killed_while_writing_is_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
):
    system, optimizer = trained()
    save_checkpoint(tmp_path, 1, system, optimizer, {}, keep=2)

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint.os if killed_at == "replace" else checkpoint, killed_at, kill)
        save_checkpoint(tmp_path, 2, system, optimizer, {}, keep=1)
    found = restore_checkpoint(tmp_path, *trained())
    assert found is not None and found[0] == 1
    save_checkpoint(tmp_path, 2, system, optimizer, {}, keep=1)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if not p.name.startswith(".")] == ["step-00000002"]


def test_weights_killed_while_writing_keep_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, (system, _) = tmp_path / "model.safetensors", trained()
    save_weights(system, path)
    before = path.read_bytes()

    def half(name: Path, _: object) -> None:
        name.write_bytes(before[: len(before) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_whole", half)
    with pytest.raises(KeyboardInterrupt):
        save_weights(trained()[0], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_weights_and_other_architectures_are_named(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_weights(nn.Linear(3, 4), path)
    with pytest.raises(InputError, match="expected the weights of this configuration"):
        load_weights(nn.Linear(3, 5), path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_weights(nn.Linear(3, 4), path)


def test_folder_that_is_no_run_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"expected a run folder with config\.json"):
        load_run(tmp_path)
    write_json(tmp_path / "config.json", {})
    (tmp_path / "config.json").write_text("{")
    for name in ("tokenizer.json", "statistics.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="expected JSON"):
        load_run(tmp_path)
