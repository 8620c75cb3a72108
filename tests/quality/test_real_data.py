"""Real files: what is sound passes, what is odd is named. Skipped where the folder of real data is absent."""

from __future__ import annotations

import tarfile
from importlib import import_module
from pathlib import Path

import pytest

from astrobio.quality.examine import Options, examine


def rules(report, *severities: str) -> set[str]:
    return {f.rule for f in report.findings if f.severity in severities}


def test_a_climate_model_that_still_cools(data: Path) -> None:
    report = examine(data / "climate/exoplasim/trappist1e_like_t21_year4.nc")
    assert report.verdict == "accept" and {"CLIM-007", "CF-4"} <= rules(report, "warning")
    assert report.facts["asr_w_m2"] - report.facts["olr_w_m2"] == pytest.approx(-6.4, abs=0.2)
    assert report.facts["cube"]["shape"] == [8, 12, 10, 32, 64]


def test_strictness_sees_the_dialect(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("astrobio.quality.examine"), "CUBE_LIMIT", 0)
    report = examine(data / "climate/exoplasim/earth_t21_year3.nc", Options(strict=True))
    assert report.verdict == "quarantine" and "CF-1" in rules(report, "error")
    assert report.facts["asr_w_m2"] == pytest.approx(237.5, abs=0.3) and "not read" in report.facts["cube"]


@pytest.mark.parametrize(
    ("name", "verdict"), [("ostia_monthly", "accept"), ("A1B_north_america", "accept"), ("rotated_pole", "quarantine")]
)
def test_met_office_samples(name: str, verdict: str, data: Path) -> None:
    report = examine(data / f"climate/iris/{name}.nc")
    assert report.verdict == verdict and "CLIM-011" in rules(report, "warning")


def test_spectra_of_wasp_39b(data: Path) -> None:
    files = sorted((data / "spectra/wasp-39b_niriss/data/ts").iterdir())
    reports = {f.name: examine(f) for f in files}
    assert len(reports) == 14 and all(r.verdict == "accept" for r in reports.values())
    latin = [name for name, r in reports.items() if "FILE-008" in rules(r, "warning")]
    assert latin == ["LPC-WASP_39b_NIRISS_transmission_spectrum_highres.csv"]


def test_the_exoplanet_archive(data: Path) -> None:
    report = examine(data / "catalogues/nasa_pscomppars_16col.csv.xz")
    assert report.verdict == "accept" and report.rows is not None and report.rows.accepted == 6087
    markup = examine(data / "catalogues/nasa_pscomppars_sptype.csv.xz")  # upper limits exported as HTML
    assert markup.rows is not None and len(markup.rows.reasons) == 3629 and rules(markup, "error") == {"CAT-002"}


def test_the_open_exoplanet_catalogue(data: Path, tmp_path: Path) -> None:
    with tarfile.open(data / "catalogues/open_exoplanet_catalogue.tar.xz") as archive:
        members = [m for m in archive if m.name.endswith(".xml")][:40]
        archive.extractall(tmp_path, members, filter="data")
    reports = [examine(p) for p in sorted(tmp_path.rglob("*.xml"))]
    assert len(reports) == 40 and {r.kind for r in reports} == {"catalogue"}
    assert sum(r.verdict == "accept" for r in reports) >= 36


def test_genomes_and_kegg_entries(data: Path) -> None:
    genomes = examine(data / "metabolism/aerobot_KOCounts.csv.xz")
    assert genomes.verdict == "accept" and genomes.facts["genomes"] == 272
    entries = examine(data / "payloads/biopython/KEGG/compound.sample")
    assert (entries.kind, entries.verdict, entries.facts["entries"]) == ("kegg", "accept", 8)
    maps = examine(data / "payloads/biopython/KEGG/ko00010.xml")
    assert rules(maps, "fatal") == {"FILE-005"}
