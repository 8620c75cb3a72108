"""Running a climate model: when it ends, how it goes on after an interruption, what is said when it can't."""

import importlib.util
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from astrobio.errors import InputError
from astrobio.worlds import exoplasim
from astrobio.worlds.exoplasim import (
    EXECUTABLE,
    RunSettings,
    RunSpec,
    Year,
    climate_folder,
    draw_specs,
    ice_heat,
    read_specs,
    run,
    run_all,
    settled,
)
from astrobio.worlds.gcm_runs import KEPT, RunParameters, read_runs

LISTED = KEPT / "parameters.json"
installed = importlib.util.find_spec("exoplasim") is not None and shutil.which("gfortran") is not None


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASTROBIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(exoplasim, "_version", lambda: "3.4.2")
    return tmp_path / "cache" / "exoplasim"


@pytest.fixture
def spec() -> RunSpec:
    return read_specs(LISTED)[0]


def year(temperature: float, residual: float = 0.0, ice: float = 2.0) -> Year:
    return Year(temperature, temperature + 30, 210.0 + residual, 210.0, ice)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[int]:
    """A climate model that cools to 250 K by halves; the list tells the years that were really run."""
    ran: list[int] = []

    def prepare(spec: RunSpec, work: Path) -> None:
        work.mkdir(parents=True)

    def one_year(spec: RunSpec, work: Path, number: int, settings: RunSettings) -> None:
        ran.append(number)
        shutil.copyfile(KEPT / "trappist-1100.nc", work / "year.nc")
        (work / "plasim_restart").write_text(str(number))

    monkeypatch.setattr(exoplasim, "_prepare", prepare)
    monkeypatch.setattr(exoplasim, "_one_year", one_year)
    monkeypatch.setattr(exoplasim, "_means", lambda path: year(250 + 8 / 2 ** len(ran), -8 / 2 ** len(ran)))
    return ran


def test_a_climate_has_settled_once_it_neither_drifts_nor_has_a_residual_beyond_its_ice():
    settings = RunSettings(fewest=2, steady=2)
    thickening = [year(276.9, ice=2.0), year(276.8, residual=-2.0, ice=2.2)]
    assert ice_heat(thickening) == pytest.approx(0.2 * 917 * 3.337e5 / (360 * 86400))  # 1.97 W/m²
    assert settled(thickening, settings)
    assert not settled([thickening[0], replace(thickening[1], ice=2.0)], settings)
    assert not settled([year(278.0), year(277.0)], settings), "it drifts"
    assert not settled(thickening, RunSettings(fewest=3, steady=2)), "too short"
    halting = [year(257.7), year(257.4), year(257.3)]
    assert not settled(halting, RunSettings(fewest=3)) and settled(halting[1:], settings), "a halt, not an end"
    assert not settled(thickening[:1], settings)


def test_a_climate_that_swings_has_settled_once_ten_years_show_no_trend():
    settings = RunSettings()
    swinging = [year(280.0 + 0.7 * (-1) ** n) for n in range(11)]
    assert settled(swinging, settings) and not settled(swinging[1:], settings)
    assert not settled([year(280.0 + 0.7 * (-1) ** n - 0.5 * n) for n in range(11)], settings), "it cools"
    assert not settled([replace(each, absorbed=each.absorbed + 2.0) for each in swinging], settings), "it warms"


def test_a_run_ends_when_settled_and_an_interrupted_one_goes_on_where_it_stood(
    spec: RunSpec, model: list[int], monkeypatch: pytest.MonkeyPatch
):
    real = exoplasim._one_year

    def dies_in_year_three(spec: RunSpec, work: Path, number: int, settings: RunSettings) -> None:
        if number == 3:
            raise KeyboardInterrupt
        real(spec, work, number, settings)

    monkeypatch.setattr(exoplasim, "_one_year", dies_in_year_three)
    with pytest.raises(KeyboardInterrupt):
        run(spec, RunSettings())
    monkeypatch.setattr(exoplasim, "_one_year", real)
    told: list[int] = []
    years = run(spec, RunSettings(), lambda so_far: told.append(len(so_far)))
    assert model == [1, 2, 3, 4, 5, 6, 7] and told == [3, 4, 5, 6, 7], "250.06 K after 250.25 and 250.13 K"
    assert run(spec, RunSettings()) == years and len(model) == 7, "finished years are never run again"
    assert len(run(spec, RunSettings(balance=0.05))) == 8, "a stricter balance runs on"


def test_a_run_out_of_years_says_that_it_has_not_settled_and_more_years_continue_it(
    spec: RunSpec, model: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run_all([spec], tmp_path / "runs", RunSettings(years=2), Console(width=200))
    assert "NOT settled after 2 years; raise --years" in capsys.readouterr().out
    (found,) = read_runs(tmp_path / "runs").runs
    assert found.name == "trappist-1100" and found.model == "ExoPlaSim 3.4.2"
    assert found.provenance["settled"] is False and found.provenance["years"] == 2
    run_all([spec], tmp_path / "runs", RunSettings(years=9), Console(quiet=True))
    assert model == [1, 2, 3, 4, 5, 6, 7]
    assert read_runs(tmp_path / "runs").runs[0].provenance["settled"] is True


def test_runs_are_kept_by_all_that_decides_them_but_their_length(spec: RunSpec):
    changed = replace(spec.parameters, CO2=0.04)
    others = [replace(spec, parameters=changed), replace(spec, days=10), replace(spec, start=spec)]
    assert len({one.digest for one in [spec, *others]}) == 4
    assert replace(spec, name="other").digest == spec.digest


def test_the_kept_runs_list_says_how_to_make_them_again():
    specs = {one.name: one for one in read_specs(LISTED)}
    for kept in read_runs(KEPT).runs:
        assert specs[kept.name].parameters == kept.parameters
        start = specs[kept.name].start
        assert kept.provenance["start"] == (start.name if start else None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "expected a JSON list of runs, found 'JSONDecodeError'"),
        ("[]", r"expected a JSON list of runs, found \[\]"),
        ('[{"name": "a"}]', "run 1: expected name, parameters and perhaps start"),
        ('[{"name": "../a", "parameters": {}}]', "run 1: name: expected one of its own of letters"),
        ('[{"name": "a", "start": "b", "parameters": {}}]', "run 1: start: expected null or one of"),
        ('[{"name": "a", "parameters": {}}]', r"run 1 \(a\): parameters: expected"),
    ],
)
def test_a_wrong_list_of_runs_is_named(text: str, sentence: str, tmp_path: Path):
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_specs(path)


def test_drawn_runs_are_ones_that_the_model_can_make():
    specs = draw_specs(1)
    assert len({one.name for one in specs}) == len(specs) == 4
    for one in specs:
        RunParameters.from_dict(vars(one.parameters), one.name)
    assert [one.parameters for one in draw_specs(1)] == [one.parameters for one in specs]


def test_what_a_command_line_means_by_climate(tmp_path: Path):
    assert climate_folder("clero", 0) is None
    assert climate_folder("kept", 0) == KEPT
    assert climate_folder(str(KEPT), 0) == KEPT
    with pytest.raises(InputError, match="expected GCM runs"):
        climate_folder(str(tmp_path / "nowhere"), 0)
    with pytest.raises(InputError, match="--climate clero: --gcm-runs, --gcm-parameters, --years and --balance need"):
        climate_folder("clero", 0, years=3)
    with pytest.raises(InputError, match="--years: expected at least 1, found 0"):
        climate_folder("exoplasim", 0, years=0)
    with pytest.raises(InputError, match="--balance: expected"):
        climate_folder("exoplasim", 0, balance=-1.0)


def test_a_missing_package_or_compiler_is_one_sentence_with_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exoplasim.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"package exoplasim, found none; pip install 'astrobio\[gcm\]'"):
        climate_folder("exoplasim", 0)
    monkeypatch.setattr(exoplasim.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(exoplasim.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="compiler gfortran, found none; install it, such as by `apt-get"):
        climate_folder("exoplasim", 0)


@pytest.mark.parametrize(
    ("program", "minutes", "sentence"),
    [
        ("kill -FPE $$", 1.0, r"expected it to end well, found that the model crashed \(exit status -8\)"),
        ("exit 0", 1.0, r"crashed \(exit status 0\)"),
        ("touch plasim_status Abort_Message", 1.0, "crashed"),
        ("exec sleep 20", 0.002, "expected at most 0.002 minutes, found more"),
    ],
)
def test_a_crash_and_an_endless_year_are_one_sentence(
    program: str, minutes: float, sentence: str, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
):
    def prepare(spec: RunSpec, work: Path) -> None:
        work.mkdir(parents=True)
        (work / EXECUTABLE).write_text(f"#!/bin/sh\n{program}\n")
        os.chmod(work / EXECUTABLE, 0o755)

    monkeypatch.setattr(exoplasim, "_prepare", prepare)
    with pytest.raises(InputError, match="ExoPlaSim run trappist-1100, year 1: .*" + sentence):
        run(spec, RunSettings(minutes=minutes))


@pytest.mark.slow
@pytest.mark.skipif(not installed, reason="needs the extra gcm and the compiler gfortran")
def test_the_real_model_compiles_runs_and_gives_a_climate(spec: RunSpec, tmp_path: Path):
    short = replace(spec, days=10)
    run_all([short], tmp_path / "runs", RunSettings(years=1), Console(quiet=True))
    onward = replace(short, name="onward", start=short)
    run_all([onward], tmp_path / "runs", RunSettings(years=1), Console(quiet=True))
    pool = read_runs(tmp_path / "runs")
    first, second = (next(one for one in pool.runs if one.name == name) for name in ("trappist-1100", "onward"))
    for found in (first, second):
        warmest, mean = found.surface
        assert 230 < mean < 290 and 260 < warmest < 320
        assert mean == pytest.approx(found.provenance["surface_temperature_k"], abs=0.5)
        light = found.cube.fields["toa_net_downward_shortwave_flux"].mean(axis=0)[0]  # [Y, X]
        row, column = np.unravel_index(light.argmax(), light.shape)
        assert abs(found.cube.longitude[column]) < 45 and abs(found.cube.latitude[row]) < 45
    assert not np.array_equal(first.cube.fields["air_temperature"], second.cube.fields["air_temperature"])
    assert json.loads((tmp_path / "runs" / "onward.json").read_text())["provenance"]["start"] == "trappist-1100"
