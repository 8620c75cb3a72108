"""What a user gets wrong: one clear sentence, a non-zero exit, no traceback, nothing half-written taken for whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from astrobio import cli
from astrobio.batch import Statistics
from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.formats.climate import LATITUDE, LONGITUDE
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.checkpoint import save_weights, write_json
from astrobio.training.config import RunConfig

SPECTRUM = "wavelength,depth,sigma\n1.0,5000,30\n1.5,5100,30\n2.0,5050,30\n"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line as a shell would; (exit code, standard output, standard error on one line)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["astrobio", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, " ".join(captured.err.split())

    return run


def refused(result: tuple[int, str, str], *parts: str) -> None:
    """The command said one sentence that holds these parts, and failed."""
    code, out, error = result
    assert code == 2, error
    assert error.startswith("error: ") and "Traceback" not in error + out
    for part in parts:
        assert part in error


@pytest.fixture
def spectrum(tmp_path: Path) -> Path:
    path = tmp_path / "spectrum.csv"
    path.write_text(SPECTRUM)
    return path


def _climate(path: Path, **changes: Any) -> Path:
    shape = (10, 32, 64)
    levels = np.linspace(9e4, 1e4, 10)
    fields = {
        "ts": (("lat", "lon"), np.full((32, 64), 280.0), {"units": "K"}),
        "ta": (("plev", "lat", "lon"), np.full(shape, 250.0), {"units": "K"}),
    }
    fields = {name: value for name, value in {**fields, **changes}.items() if value is not None}
    coordinates = {"plev": ("plev", levels, {"units": "Pa"}), "lat": LATITUDE, "lon": LONGITUDE}
    xr.Dataset(fields, coordinates).to_netcdf(path, engine="netcdf4")
    return path


def test_unknown_configuration_key(command, tmp_path: Path) -> None:
    result = command("train", "--data", tmp_path, "--out", tmp_path / "run", "--set", "training.learning_rate=1e-3")
    refused(result, "training.learning_rate")
    assert not (tmp_path / "run").exists()


def test_unknown_preset(command, tmp_path: Path) -> None:
    refused(command("train", "--data", tmp_path, "--out", tmp_path / "run", "--preset", "minni"), "minni", "mini")


def test_empty_data_folder(command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = command("train", "--data", tmp_path / "data", "--out", tmp_path / "run")
    refused(result, "expected a folder of worlds, found no files", "astrobio simulate")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_interrupted_simulation_is_not_a_data_set(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from astrobio.dataset import build

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_organisms", lambda *_: [])
    monkeypatch.setattr(build, "_run", interrupted)
    code, _, error = command("simulate", "--worlds", 18, "--out", tmp_path / "data")
    assert code == 130 and "Traceback" not in error
    result = command("train", "--data", tmp_path / "data", "--out", tmp_path / "run")
    refused(
        result, "expected a finished data set, found an interrupted build", "run the same `astrobio simulate` again"
    )


def test_simulating_into_a_folder_of_other_things(command, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    refused(command("simulate", "--worlds", 18, "--out", tmp_path), "expected an empty folder or a data set")


def test_spectrum_without_units_and_its_remedies(
    command, spectrum: Path, tmp_path: Path, tiny_run: RunConfig, statistics: Statistics
) -> None:
    run, out, answer = tmp_path / "run", tmp_path / "report.html", tmp_path / "answer.json"
    refused(command("assess", run, "--spectrum", spectrum, "--out", out), "'wavelength'", "--units wavelength=um")
    assert not out.exists()
    run.mkdir()
    WorldTokenizer.train(["star M8"], tiny_run.system.decoder.vocabulary).save(run / "tokenizer.json")
    write_json(run / "config.json", tiny_run.to_dict())
    write_json(run / "statistics.json", statistics.to_dict())
    save_weights(UnifiedMultiModalSystem(tiny_run.system), run / "model.safetensors")
    units = ("--units", "wavelength=um,depth=ppm")
    code, printed, _ = command("assess", run, "--spectrum", spectrum, *units, "--out", out, "--json", answer)
    assert code == 0 and "inhabited" in printed and out.exists()
    assert {"state_probabilities", "inhabited", "attribution", "assessment_text"} <= set(json.loads(answer.read_text()))
    spectrum.write_text(SPECTRUM.replace("wavelength,depth", "wavelength_um,depth_ppm"))
    assert command("assess", run, "--spectrum", spectrum)[0] == 0


def test_climate_with_a_missing_variable_or_nan(command, tmp_path: Path) -> None:
    path = _climate(tmp_path / "no_ts.nc", ts=None)
    refused(command("assess", "--climate", path), "no_ts.nc", "found no surface_temperature among ta")
    holed = np.full((10, 32, 64), 250.0)
    holed[3, 4, 5] = np.nan
    path = _climate(tmp_path / "holed.nc", ta=(("plev", "lat", "lon"), holed, {"units": "K"}))
    refused(command("assess", "--climate", path), "holed.nc: air_temperature (ta)", "found 1 NaN", "latitude")


def test_truncated_climate(command, tmp_path: Path) -> None:
    whole = _climate(tmp_path / "whole.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    refused(command("assess", "--climate", tmp_path / "cut.nc"), "cut.nc: expected a whole netCDF file")


@pytest.mark.parametrize(
    "text",
    [
        "<sbml",
        "not a model",
        '<?xml version="1.0"?><sbml xmlns="http://www.sbml.org/sbml/level3/version1/core" level="3" version="1"/>',
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><sbml>&b;</sbml>',
        '{"reactions": 3}',
    ],
)
def test_malformed_metabolic_models(command, tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.xml"
    path.write_text(text)
    refused(command("assess", "--metabolism", path), "model.xml")


def test_nothing_given_absent_files_and_no_run(command, tmp_path: Path, spectrum: Path) -> None:
    refused(command("assess"), "at least one of --spectrum, --climate, --metabolism, --text")
    for option in ("--spectrum", "--climate", "--metabolism"):
        refused(command("assess", option, tmp_path / "absent"), "absent")
    refused(command("assess", tmp_path, "--text", "star M8"), "expected a run folder with config.json")
    refused(command("assess", "--text", "star M8", "--out", tmp_path), "expected a file to write, found a folder")
    refused(command("evaluate", tmp_path / "none", "--data", tmp_path), "none")


def test_what_typer_refuses(command) -> None:
    code, _, error = command("assess", "--colour", "red")
    assert code == 2 and "No such option" in error and "Traceback" not in error
