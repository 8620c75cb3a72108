"""Any subset of inputs gives an answer that adds up; files leave their traces."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from astrobio.assess import predict
from astrobio.assess.attribute import shown_only
from astrobio.assess.predict import assess, assess_sample
from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.errors import InputError
from astrobio.evaluation.calibrate import Calibration, OutlierModel
from astrobio.training.checkpoint import load_run

WORDS = "star M8 radius 0.9 transits 4"


def _check(assessment: predict.Assessment, given: set[str]) -> None:
    assert list(assessment.state_probabilities) == list(WORLD_STATES)
    assert sum(assessment.state_probabilities.values()) == pytest.approx(1.0)
    assert set(assessment.attribution) == given
    odds = np.log(assessment.inhabited / (1 - assessment.inhabited))
    assert assessment.prior + sum(assessment.attribution.values()) == pytest.approx(odds, abs=1e-6)
    low, high = assessment.inhabited_range
    assert low <= assessment.inhabited <= high


def test_every_subset_of_inputs(run_folder: Path, files: dict[str, Path]) -> None:
    run = load_run(run_folder)
    world, _, _ = predict.read_world(**files, text=WORDS)
    for size in range(1, 5):
        for names in combinations(MODALITIES, size):
            _check(assess_sample(shown_only(world, names), run), set(names))


def test_a_folder_gives_the_same_answer_twice_with_provenance(run_folder: Path, files: dict[str, Path]) -> None:
    first, second = (assess(run_folder, **files, text=WORDS) for _ in range(2))
    assert first.to_dict()["state_probabilities"] == second.to_dict()["state_probabilities"]
    assert first.sample.world_id == second.sample.world_id
    sha = hashlib.sha256(files["spectrum"].read_bytes()).hexdigest()
    assert first.provenance["files"]["spectrum"]["sha256"] == sha and sha in json.dumps(first.to_dict())
    assert first.provenance["model"]["run"] == "run" and not first.provenance["model"]["calibrated"]
    assert first.notes["spectrum"]["rows"] == 60 and first.notes["climate"]["time_kind"] == "months"
    assert first.exchange is not None and first.prediction_set is None
    assert any("not calibrated" in warning for warning in first.warnings)


def test_calibration_sets_sharpness_prediction_set_and_outliers(run_folder: Path, files: dict[str, Path]) -> None:
    plain = assess(run_folder, spectrum=files["spectrum"])
    width = load_run(run_folder).config.system.fusion.alignment_width
    rng = np.random.default_rng(0)
    narrow = OutlierModel.fit(rng.normal(0, 1e-3, (40, width)), rng.normal(0, 1e-3, (40, width)))
    Calibration((0.25,) * 5, (1.0,) * 5 + (0.0,), {"spectrum": narrow}).save(run_folder / "calibration.json")
    calibrated = assess(run_folder, spectrum=files["spectrum"])
    assert max(calibrated.state_probabilities.values()) < max(plain.state_probabilities.values())
    assert calibrated.prediction_set == WORLD_STATES[:5]
    assert calibrated.outliers["spectrum"] > 1
    assert any("spectrum lies outside" in warning for warning in calibrated.warnings)
    assert any("Nothing was given as text, climate, metabolism" in warning for warning in calibrated.warnings)


def test_ranges_follow_the_inputs_and_old_calibrations_have_none(run_folder: Path, files: dict[str, Path]) -> None:
    path, pooled = run_folder / "calibration.json", {"any": (-1.5, 0.5)}
    Calibration((1.0,) * 5, (1.0,) * 6, {}).save(path)
    assert assess(run_folder, spectrum=files["spectrum"]).physics_range == {}
    ranges = {"surface_temperature": pooled, "asr": pooled | dict.fromkeys(WORLD_STATES, (2.0, 3.0))}
    Calibration((1.0,) * 5, (1.0,) * 6, {}, {"spectrum": ranges}).save(path)
    ranged = assess(run_folder, spectrum=files["spectrum"])
    temperature, asr = ranged.physics["surface_temperature"], ranged.physics["asr"]
    assert ranged.physics_range["surface_temperature"] == pytest.approx((temperature - 1.5, temperature + 0.5))
    assert ranged.physics_range["asr"] == pytest.approx((asr + 2, asr + 3)), "the likeliest state's own come first"
    said = json.loads(json.dumps(ranged.to_dict()))
    assert said["predicted_physics_range"]["asr"] == list(ranged.physics_range["asr"])
    assert said["physics_units"]["asr"] == "W/m2" and "log10_CO2" not in said["predicted_physics_range"]
    assert assess(run_folder, text=WORDS).physics_range == {}, "no held-out worlds were shown words alone"
    data = json.loads(path.read_text())
    del data["physics_ranges"]
    path.write_text(json.dumps(data))
    old = assess(run_folder, spectrum=files["spectrum"])
    assert old.physics_range == {} and old.physics == ranged.physics


def test_nothing_given_and_no_model_say_what_to_do(monkeypatch, tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(InputError, match="at least one of --spectrum, --climate, --metabolism, --text"):
        assess(run_folder, text="  ")
    monkeypatch.setattr(predict, "PACKAGED_RUN", tmp_path / "none")
    with pytest.raises(InputError, match="astrobio train --preset mini"):
        assess(None, text=WORDS)
    monkeypatch.setattr(predict, "PACKAGED_RUN", run_folder)
    assert assess(None, text=WORDS).provenance["model"]["run"] == "shipped with astrobio"
