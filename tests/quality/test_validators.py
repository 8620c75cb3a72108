"""The community's validators are called, and what they say arrives as findings."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from astrobio.batch import ClimateCube
from astrobio.formats.climate import write_climate
from astrobio.quality.examine import Options, examine
from astrobio.quality.fields import slabs, summarise
from astrobio.quality.validators import check_model


def rules(report, *severities: str) -> list[str]:
    return [f.rule for f in report.findings if f.severity in severities]


def test_a_written_cube_is_accepted_and_read_back(samples: dict[str, Path]) -> None:
    report = examine(samples["netcdf"])
    assert report.verdict == "accept", report.findings
    assert "compliance-checker" in report.checks[0]
    assert report.facts["cube"]["shape"] == [8, 2, 10, 32, 64]
    assert report.facts["asr_w_m2"] == pytest.approx(238.0, abs=1.0)


def _edit(source: Path, target: Path, change: Callable[[xr.Dataset], xr.Dataset]) -> Path:
    with xr.open_dataset(source, decode_times=False) as data:
        change(data.load()).to_netcdf(target)
    return target


def test_a_wrong_unit_is_an_error_though_the_score_stays_high(samples: dict[str, Path], tmp_path: Path) -> None:
    def change(data: xr.Dataset) -> xr.Dataset:
        data["ts"].attrs["units"] = "m"
        return data

    report = examine(_edit(samples["netcdf"], tmp_path / "unit.nc", change))
    assert {"CF-1", "CLIM-004"} <= set(rules(report, "error")) and report.verdict == "quarantine"


def test_celsius_called_kelvin_and_infinity_are_found(samples: dict[str, Path], tmp_path: Path) -> None:
    def change(data: xr.Dataset) -> xr.Dataset:
        data["ts"] = (data["ts"] - 273.15).assign_attrs(data["ts"].attrs)
        data["ua"][0, 3, 4, 5] = np.inf
        return data

    report = examine(_edit(samples["netcdf"], tmp_path / "celsius.nc", change))
    assert {"CLIM-003", "CLIM-005"} <= set(rules(report, "error"))


def test_a_reversed_time_and_a_wide_latitude_are_found(samples: dict[str, Path], tmp_path: Path) -> None:
    def change(data: xr.Dataset) -> xr.Dataset:
        return data.assign_coords(lat=data["lat"] * 2, lon=data["lon"].values[::-1].copy() * 0)

    assert {"CLIM-001", "CLIM-002"} <= set(
        rules(examine(_edit(samples["netcdf"], tmp_path / "axes.nc", change)), "error")
    )


def test_an_unbalanced_climate_is_set_aside(new_cube: Callable[..., ClimateCube], tmp_path: Path) -> None:
    write_climate(new_cube(imbalance=70.0), tmp_path / "hot.nc")
    assert rules(examine(tmp_path / "hot.nc"), "error") == ["CLIM-008"]


def test_slabs_cover_an_array_once() -> None:
    for shape, chunks in (((7, 5, 3), None), ((7, 5, 3), (2, 5, 3)), ((3, 50), (1, 7)), ((100,), None), ((), None)):
        seen = np.zeros(shape, int)
        for piece in slabs(shape, chunks, limit=10):
            seen[piece] += 1
        assert (seen == 1).all()


def test_a_summary_in_slabs_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrobio.quality.fields.slabs.__defaults__", (50,))
    values = np.random.default_rng(0).normal(5, 2, (6, 8, 9))
    values[2, 3, 4] = np.nan
    summary = summarise(xr.DataArray(values, dims=("time", "lat", "lon")), "lat")
    assert (summary.count, summary.missing, summary.infinite) == (432, 1, 0)
    assert summary.low == np.nanmin(values) and summary.high == np.nanmax(values)
    assert values[summary.high_at] == summary.high
    assert summary.median == pytest.approx(np.nanmedian(values))
    np.testing.assert_allclose(summary.by_latitude, np.nanmean(values, axis=(0, 2)))


def test_the_core_model_of_e_coli(samples: dict[str, Path]) -> None:
    report = examine(samples["sbml"])
    assert report.verdict == "accept" and rules(report, "error", "fatal") == []
    assert {c.split()[0] for c in report.checks} == {"python-libsbml", "cobra", "memote"}
    assert report.facts["unbalanced"] == 0 and report.facts["graph"]["exchange"]["O2"] < 0


def test_sbml_without_a_species_is_libsbmls_to_find(samples: dict[str, Path], tmp_path: Path) -> None:
    text = gzip.decompress(samples["sbml"].read_bytes()).decode()
    path = tmp_path / "broken.xml"
    path.write_text(text.replace('species="M_glc__D_e"', 'species="M_nowhere"', 1))
    report = examine(path)
    assert report.verdict != "accept" and "SBML-1" in rules(report, "error", "fatal")


@pytest.fixture(scope="module")
def model():
    import cobra.io

    return cobra.io.load_model("textbook")


def test_memote_finds_an_inconsistent_reaction(model) -> None:
    with model:
        free_lunch = model.reactions.get_by_id("PFK").copy()
        free_lunch.id = "LUNCH"
        free_lunch.add_metabolites({model.metabolites.get_by_id("h2o_c"): 1.0})
        model.add_reactions([free_lunch])
        found, facts, _ = check_model(model)
    assert {"MET-001", "MET-004"} <= {f.rule for f in found} and facts["unbalanced"] == 1


def test_fractions_that_memote_misjudges_are_not_reported(model) -> None:
    """memote sums floats and compares with 0: three tenths of a balanced reaction is unbalanced to it."""
    from memote.support.consistency import find_mass_unbalanced_reactions

    with model:
        scaled = model.reactions.get_by_id("PFK").copy()
        scaled.id = "PFK_tenth"
        scaled *= 0.1
        model.add_reactions([scaled])
        judged = find_mass_unbalanced_reactions([model.reactions.get_by_id("PFK_tenth")])
        found, _, _ = check_model(model)
    assert [r.id for r in judged] == ["PFK_tenth"]  # the day this fails, the confirmation can go
    assert not {"MET-001", "MET-002"} & {f.rule for f in found}


def test_votable_warnings_are_astropys(samples: dict[str, Path], tmp_path: Path) -> None:
    assert examine(samples["votable"]).verdict == "accept"
    path = tmp_path / "odd.vot"
    path.write_text(samples["votable"].read_text().replace('datatype="double"', 'datatype="complex"', 1))
    assert any(rule.startswith(("VOT", "FILE")) for rule in rules(examine(path), "fatal", "error"))
    path.write_text(samples["votable"].read_text().replace('unit="um"', 'unit="%%"', 1))
    assert "VOT-2" in rules(examine(path), "warning")


def test_a_dialect_is_allowed_for_unless_strict(samples: dict[str, Path], tmp_path: Path) -> None:
    def change(data: xr.Dataset) -> xr.Dataset:
        data["realization"].attrs["standard_name"] = "timestep_of_year"
        return data

    path = _edit(samples["netcdf"], tmp_path / "dialect.nc", change)
    lenient, strict = examine(path), examine(path, Options(strict=True))
    assert lenient.verdict == "accept" and "CF-4" in rules(lenient, "warning")
    assert strict.verdict == "quarantine" and "CF-1" in rules(strict, "error")


def test_a_missing_validator_is_said(samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrobio.quality.validators.load", lambda module: None)
    assert "FILE-010" in rules(examine(samples["netcdf"]), "note")
    assert "FILE-010" in rules(examine(samples["json"]), "note")
    monkeypatch.setitem(sys.modules, "defusedxml", None)
    assert rules(examine(samples["sbml"]), "fatal") == ["FILE-005"]  # no XML without the guard
