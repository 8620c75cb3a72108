"""What is exported answers as the run does, weighs little, says what it is, and never replaces other files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from astrobio.assess import predict
from astrobio.assess.package import MOST_BYTES, export_run
from astrobio.assess.predict import assess, assess_sample
from astrobio.batch import WORLD_STATES, Sample
from astrobio.errors import InputError
from astrobio.evaluation.calibrate import Calibration
from astrobio.formats.spectra import read_spectrum
from astrobio.training.checkpoint import load_run, read_json, write_json

WORDS = "star M8 radius 0.9 transits 4"
SHIPPED = predict.PACKAGED_RUN
WASP_39B = Path(__file__).parents[2] / "../shared/data/spectra/wasp-39b_niriss/data/ts"


@pytest.fixture
def finished(run_folder: Path) -> Path:
    """A run folder with everything that training and calibration leave."""
    write_json(run_folder / "best.json", {"step": 6, "accuracy": 0.5})
    Calibration((0.7,) * 5, (0.9,) * 6, {}).save(run_folder / "calibration.json")
    return run_folder


def test_an_export_answers_as_its_run_at_half_the_size(finished: Path, files: dict[str, Path], tmp_path: Path):
    out = export_run(finished, tmp_path / "model", console=Console(quiet=True))
    names = {"config.json", "tokenizer.json", "statistics.json", "model.safetensors", "calibration.json"}
    assert {path.name for path in out.iterdir()} == {*names, "MODEL_CARD.md"}
    whole, half = ((folder / "model.safetensors").stat().st_size for folder in (finished, out))
    assert half < 0.6 * whole
    first, second = (assess(folder, **files, text=WORDS) for folder in (finished, out))
    expected, found = ([a.state_probabilities[name] for name in WORLD_STATES] for a in (first, second))
    assert found == pytest.approx(expected, abs=0.01) and found != expected
    assert export_run(finished, out) == out, "an earlier export is replaced"


def test_an_export_forgets_how_it_was_trained(finished: Path, tmp_path: Path):
    config = read_json(finished / "config.json")
    config["execution"] |= {"graphs": True}
    config["training"] |= {"cache": "memory", "device": "cpu"}
    write_json(finished / "config.json", config)
    kept = read_json(export_run(finished, tmp_path / "model") / "config.json")
    assert not kept["execution"]["graphs"]
    assert (kept["training"]["cache"], kept["training"]["device"]) == ("auto", "auto")


def test_the_card_quotes_scores_and_data(finished: Path, tmp_path: Path):
    entry = {"macro_accuracy": 0.912, "ci95": [0.90, 0.92], "ece": 0.011}
    settings = {"floor": False, "kind": "transmission", "instruments": "prism+lrs", "transits": 5000, "gcm": "um"}
    result = {
        "unified": entry, "single": {"spectrum": entry, "climate": None}, "gradient_boosting": entry,
        "language": {"right_state": 0.95, "gases_agree": 0.9, "gases_named": 0.5},
        "data": {"worlds": 20000, "seed": 7, "version": "0.1.0", "settings": settings},
    }  # fmt: skip
    write_json(tmp_path / "result.json", result)
    card = (export_run(finished, tmp_path / "model", result=tmp_path / "result.json") / "MODEL_CARD.md").read_text()
    assert "| this system | 91.2% [90.0, 92.0] | 0.011 |" in card and "spectrum alone" in card
    assert "climate alone" not in card and "20,000 simulated worlds" in card and "5,000 transits without" in card
    assert "right state in 95.0%" in card and "CoLD" in card
    bare = (export_run(finished, tmp_path / "bare") / "MODEL_CARD.md").read_text()
    assert "Not evaluated" in bare


def test_the_card_takes_the_mini_system_from_the_big_benchmark(finished: Path, tmp_path: Path):
    """Where a benchmark's headline is the larger system, the card must not claim its score."""

    def entry(mean: float) -> dict[str, object]:
        return {"macro_accuracy": mean, "ci95": [mean, mean], "ece": 0.01}

    unified = entry(0.8) | {"seeds": [0.79, 0.81]}
    systems = {"small": entry(0.99), "unified": unified, "trees-all": entry(0.7), "trees-oracle": entry(0.95)}
    deep = {"systems": systems, "language": {"unified-seed-0": {"right_state": 0.75}}, "observation": None}
    write_json(tmp_path / "result.json", {"unified": entry(0.99), "depths": {"deep": deep}})
    card = (export_run(finished, tmp_path / "model", result=tmp_path / "result.json") / "MODEL_CARD.md").read_text()
    assert "| this system | 80.0%" in card and "99.0%" not in card
    assert "Means over 2 seeds; these weights, of seed 0, reach 79.0%" in card
    assert "boosted trees on hand-made features | 70.0%" in card and "right state in 75.0%" in card


def test_what_is_unfinished_too_heavy_or_in_the_way_is_refused(finished: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"at most 0\.0 MB of model files, found"):
        export_run(finished, tmp_path / "model", most_bytes=1000)
    assert not (tmp_path / "model").exists(), "nothing half-written stays"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="expected an empty folder or an earlier export"):
        export_run(finished, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").is_file()
    (finished / "calibration.json").unlink()
    with pytest.raises(InputError, match=r"expected calibration\.json, found none; calibrate with"):
        export_run(finished, tmp_path / "model")


def test_the_package_takes_all_files_of_a_model():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["astrobio"]
    assert {"**/*.json", "**/*.safetensors", "**/*.md"} <= set(patterns)


def test_the_shipped_model_is_small_whole_and_has_a_card():
    size = sum(path.stat().st_size for path in SHIPPED.iterdir())
    assert size <= MOST_BYTES
    assert json.loads((SHIPPED / "config.json").read_text())["training"]["decoder"] is None
    assert "macro accuracy" in (SHIPPED / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_without_a_run_the_shipped_model_answers():
    answer = assess(text="M4V host, 3200 K, J 9.0, at 12.0 pc. R 1.02 ± 0.04, M 1.1 ± 0.2 Earth, P 20.1 d.")
    assert answer.provenance["model"]["run"] == "shipped with astrobio" and answer.prediction_set is not None
    assert sum(answer.state_probabilities.values()) == pytest.approx(1.0)


@pytest.mark.skipif(not WASP_39B.is_dir(), reason="the shared WASP-39b NIRISS tables are not here")
def test_a_real_giant_planet_is_said_to_lie_outside_the_training():
    run = load_run(SHIPPED)
    calibration = Calibration.load(SHIPPED / "calibration.json")
    tables = sorted(WASP_39B.iterdir())
    for path in tables:
        sample = Sample(world_id=path.stem, spectrum=read_spectrum(path)[0])
        assert assess_sample(sample, run, calibration).outliers["spectrum"] > 1, path.name
    assert len(tables) == 14
