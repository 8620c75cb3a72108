"""A run scored from end to end, its report, and the command line's sentences."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.cli import app
from astrobio.errors import InputError
from astrobio.evaluation import baselines, evaluate, language
from astrobio.evaluation.calibrate import Calibration
from astrobio.evaluation.evaluate import evaluate_run, physics_table
from astrobio.evaluation.language import named_state
from astrobio.training import loop
from astrobio.training.config import RunConfig


@pytest.fixture
def trained(tiny_run: RunConfig, worlds: dict[str, object], run_dir: Path) -> Path:
    """A run of two steps."""
    config = replace(tiny_run, training=replace(tiny_run.training, steps=2))
    loop.train(config, "data", run_dir, console=Console(quiet=True))
    return run_dir


def test_report_has_the_promised_keys_and_baselines_are_kept(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(language, "MAX_NEW_TOKENS", 3)
    monkeypatch.setattr(baselines, "BOOSTING_ROUNDS", 5)
    report = evaluate_run(trained, "data", console=Console(quiet=True), device="cpu")
    assert set(report) == {"unified", "single", "isolated_late_fusion", "gradient_boosting", "confusion", "physics"}
    assert set(report["single"]) == set(MODALITIES)
    whole = [report[name] for name in ("unified", "isolated_late_fusion", "gradient_boosting")]
    for entry in (*whole, *report["single"].values()):
        assert set(entry) == {"macro_accuracy", "ci95", "ece"}
        assert entry["ci95"][0] <= entry["macro_accuracy"] <= entry["ci95"][1]
    assert np.sum(report["confusion"]) == 6
    temperature, ozone = report["physics"]["surface_temperature"], report["physics"]["log10_O3"]
    assert temperature["unit"] == "K" and temperature["worlds"] == 6 and temperature["rmse"] > 0
    assert temperature["coverage"] is None, "six held-out worlds give no range"
    assert ozone["worlds"] == 0 and ozone["rmse"] is None, "no truth of it is known"
    details = json.loads((trained / "evaluation.json").read_text())
    assert set(details["permutation_cost"]) == set(MODALITIES)
    assert set(details["difference"]) == {*MODALITIES, "isolated_late_fusion", "gradient_boosting"}
    assert details["language"]["worlds"] == 6 and {"agrees", "gases_agree"} <= set(details["language"])
    assert sum(entry["worlds"] for entry in details["reliability"]) == 6
    assert details["split"] == "test" and all(0.0 <= rate <= 1.0 for rate in details["outliers"].values())
    conformal = Calibration.load(trained / "calibration.json").conformal
    assert set(conformal) == {1.0}, "one held-out world of a state guarantees nothing"

    monkeypatch.setattr(baselines, "train", lambda *_, **__: pytest.fail("a finished baseline was trained again"))
    assert evaluate_run(trained, "data", console=Console(quiet=True), device="cpu") == report


def test_without_baselines_their_entries_are_null(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate, "language", lambda *_, **__: {})
    report = evaluate_run(trained, "data", baselines=False, console=Console(quiet=True), device="cpu")
    assert report["single"] == dict.fromkeys(MODALITIES)
    assert report["isolated_late_fusion"] is None and report["gradient_boosting"] is None
    assert not (trained / "baselines").exists()
    options = {"split": "validation", "baselines": False, "console": Console(quiet=True), "device": "cpu"}
    evaluate_run(trained, "data", **options)
    other = json.loads((trained / "evaluation-validation.json").read_text())
    assert other["split"] == "validation" and json.loads((trained / "evaluation.json").read_text())["split"] == "test"
    evaluate_run(trained, "data", scored=Path("elsewhere"), **options)
    elsewhere = json.loads((trained / "evaluation-elsewhere-validation.json").read_text())
    assert elsewhere["confusion"] == other["confusion"], "the tests' worlds are the same wherever they are read from"


def test_enough_worlds_give_every_set_of_inputs_its_ranges(
    trained: Path, worlds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluate, "language", lambda *_, **__: {})
    worlds["validation"].samples *= 4  # 24 worlds: enough for ranges of the whole set
    options: dict[str, Any] = {"baselines": False, "console": Console(quiet=True), "device": "cpu"}
    evaluate_run(trained, "data", **options)
    assert list(Calibration.load(trained / "calibration.json").ranges) == ["text+spectrum+climate+metabolism"]
    monkeypatch.setattr(evaluate, "STATE_WORLDS", 24)
    report = evaluate_run(trained, "data", **options)
    ranges = Calibration.load(trained / "calibration.json").ranges
    assert len(ranges) == 15 and "text+metabolism" in ranges
    entry = report["physics"]["log10_CO2"]
    assert entry["ranged"] == entry["worlds"] == 6 and 0.0 <= entry["coverage"] <= 1.0 and entry["median_width"] > 0
    assert sum(state["worlds"] for state in entry["by_state"].values()) == 6
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(physics_table(report["physics"]))
    text = console.export_text()
    assert f"{entry['coverage']:.3f} [" in text and "dex" in text and "no range" in text  # the last for ozone


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("State: lifeless-reducing; not inhabited. Gases: CO2 1e-1.", "lifeless-reducing"),
        ("An Oxygenic Biosphere, rather than an anoxic-biosphere.", "oxygenic-biosphere"),
        ("Nothing is known.", None),
        *((f"This world is {name}.", name) for name in WORLD_STATES),
    ],
)
def test_state_is_read_back_from_text(text: str, state: str | None):
    assert named_state(text) == state


def test_command_line_mistakes_are_one_sentence(tmp_path: Path):
    run = CliRunner().invoke
    arguments = ["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--set", "training.learning=1"]
    with pytest.raises(InputError, match=r"training\.learning: unknown configuration key"):
        run(app, arguments, catch_exceptions=False)
    with pytest.raises(InputError, match="expected a run folder"):
        run(app, ["evaluate", str(tmp_path), "--data", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(InputError, match=str(tmp_path)):
        run(app, ["train", "--data", str(tmp_path), "--out", str(tmp_path / "run")], catch_exceptions=False)
