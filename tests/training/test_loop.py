"""The whole loop on a tiny system: exact resuming, guards, and what a run folder holds."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from astrobio.errors import InputError
from astrobio.training import launcher, loop
from astrobio.training.checkpoint import checkpoints, load_run
from astrobio.training.config import PARTS, RunConfig
from astrobio.training.execution import ExecutionConfig, GradientKind, OptimizerKind
from astrobio.training.loop import train
from astrobio.training.step import StepResult

pytestmark = pytest.mark.usefixtures("worlds")
NUMBERS = ("total", "classification", "language", "gradient_norm", "lr")


class Stopped(Exception):
    """Stands for a killed process."""


def quiet() -> Console:
    return Console(quiet=True)


def logged(run_dir: Path, kind: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [
        {"step": line["step"], **{n: line[n] for n in NUMBERS if n in line}} for line in lines if line["kind"] == kind
    ]


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the run after it reported `step`, between checkpoints."""
    report = loop.report

    def stopping(result: StepResult, progress: loop.Progress, *rest: object) -> None:
        report(result, progress, *rest)  # pyright: ignore[reportArgumentType]
        if progress.step == step:
            raise Stopped

    monkeypatch.setattr(loop, "report", stopping)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_interrupted_and_resumed_equals_uninterrupted(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: OptimizerKind
):
    tiny_run = replace(tiny_run, execution=ExecutionConfig(optimizer=optimizer))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(tiny_run, "data", whole, console=quiet())
    for step in (2, 5):  # before the first checkpoint, and in the middle of an epoch after it
        with monkeypatch.context() as patched, pytest.raises(Stopped):
            stop_after(step, patched)
            train(tiny_run, "data", cut, console=quiet())
    progress = train(tiny_run, "data", cut, console=quiet())
    assert progress.step == 6
    for name in ("model.safetensors", "checkpoints/step-00000006/model.safetensors"):
        one, other = load_file(whole / name), load_file(cut / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items()), name
    for kind, count in (("train", 6), ("validation", 3)):
        assert logged(whole, kind) == logged(cut, kind) and len(logged(cut, kind)) == count


def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(
    tiny_run: RunConfig, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    note = loop.note_skipped

    def signal_at_two(result: StepResult, progress: loop.Progress, *rest: object) -> None:
        note(result, progress, *rest)  # pyright: ignore[reportArgumentType]
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "note_skipped", signal_at_two)
    with pytest.raises(
        launcher.Stopped, match=f"stopped after step 2 of 6; the same command continues {run_dir}"
    ) as stop:
        train(tiny_run, "data", run_dir, console=quiet())
    assert stop.value.code == 143
    assert [path.name for path in checkpoints(run_dir)] == ["step-00000002"]


def test_run_folder_holds_all_that_inference_needs(tiny_run: RunConfig, run_dir: Path):
    train(tiny_run, "data", run_dir, console=quiet())
    run = load_run(run_dir)
    assert run.config == tiny_run
    assert not run.system.training
    best = json.loads((run_dir / "best.json").read_text())
    assert best["classification"] == min(line["classification"] for line in logged(run_dir, "validation"))
    assert [p.name for p in checkpoints(run_dir)] == ["step-00000003", "step-00000006"]
    assert any(p.name.startswith("events.") for p in (run_dir / "tensorboard").iterdir())
    parts = {part for part, weight in tiny_run.loss.of_parts().items() if weight}
    first = json.loads((run_dir / "log.jsonl").read_text().splitlines()[0])
    assert parts <= first.keys(), "every part of the loss is logged"


@pytest.mark.parametrize("gradients", ["keep", "backward"])
def test_a_trial_keeps_nothing_but_its_log(tiny_run: RunConfig, run_dir: Path, gradients: GradientKind):
    """With `keep=0` nothing of the size of the weights is written; the log has a gradient for every part."""
    training = replace(tiny_run.training, keep=0, validate_every=None, gradient_norms_every=0, accumulation=1)
    how = ExecutionConfig(optimizer="adamw8bit", weights="bf16", gradients=gradients, activation_gib=0.0)
    train(replace(tiny_run, training=training, execution=how), "data", run_dir, console=quiet())
    assert not (run_dir / "checkpoints").exists() and not list(run_dir.glob("*.safetensors"))
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train"] * 6
    norms = [line[f"gradient_norm_of/{name}"] for line in lines for name in (*PARTS, "projectors")]
    assert min(norms) > 0


def test_finished_run_is_not_trained_again(tiny_run: RunConfig, run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    tiny_run = replace(tiny_run, training=replace(tiny_run.training, steps=2))
    train(tiny_run, "data", run_dir, console=quiet())
    monkeypatch.setattr(loop, "train_step", lambda *_: pytest.fail("no step is left to take"))
    train(tiny_run, "data", run_dir, console=quiet())


def test_bad_steps_are_said_counted_and_finally_stop_the_run(
    tiny_run: RunConfig, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    step, calls = loop.train_step, []

    def sometimes(*arguments: object) -> StepResult:
        calls.append(1)
        good = step(*arguments)  # pyright: ignore[reportArgumentType]
        bad = StepResult(good.losses, skipped="the loss is not finite (language) in worlds w1")
        return good if len(calls) in (1, 3) else bad

    monkeypatch.setattr(loop, "train_step", sometimes)
    config = replace(tiny_run, training=replace(tiny_run.training, max_bad_steps=3))
    console = Console(record=True, width=200, file=io.StringIO())
    with pytest.raises(InputError, match=r"3 steps in a row were not finite.*lower training\.lr"):
        train(config, "data", run_dir, console=console)
    said = re.findall(r"step (\d+) skipped: the loss is not finite \(language\)", console.export_text())
    assert said == ["2", "4", "5", "6"], "one bad step between good ones does not count towards the row"
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert [line["count"] for line in lines if line["kind"] == "skipped"] == [1, 2, 3, 4]


def test_run_of_other_settings_is_refused(tiny_run: RunConfig, run_dir: Path):
    short = replace(tiny_run, training=replace(tiny_run.training, steps=2))
    train(short, "data", run_dir, console=quiet())
    train(replace(short, training=replace(short.training, log_every=5)), "data", run_dir, console=quiet())
    other = replace(short, training=replace(short.training, lr=0.5))
    with pytest.raises(InputError, match=r"holds a run with training\.lr=0\.001, found 0\.5; give another --out"):
        train(other, "data", run_dir, console=quiet())


def test_empty_data_folder_is_one_sentence(
    tiny_run: RunConfig, run_dir: Path, monkeypatch: pytest.MonkeyPatch, worlds: dict[str, object]
):
    monkeypatch.setattr(loop, "WorldDataset", lambda *_: [])
    with pytest.raises(
        InputError, match="data: expected worlds in the train split, found none; run `astrobio simulate`"
    ):
        train(tiny_run, "data", run_dir, console=quiet())
    assert not (run_dir / "config.json").exists()
