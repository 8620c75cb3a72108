"""Catalogue rows: what sets one aside, what only warns, and how fast."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from astrobio.quality import check_record, screen
from astrobio.quality.catalogue import Table, check_catalogue, read_catalogue
from astrobio.quality.examine import examine
from astrobio.sources.record import Licence, Provenance, Record


def _check(text: str, tmp_path: Path):
    path = tmp_path / "planets.csv"
    path.write_text(text)
    report = examine(path)
    assert report.kind == "catalogue"
    return report


def test_a_sound_catalogue_is_accepted(samples: dict[str, Path]) -> None:
    report = examine(samples["catalogue"])
    assert report.verdict == "accept" and report.findings == []
    assert report.rows is not None and report.rows.accepted == 4


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("0.92,0.69", "heavy,0.69", "CAT-002"),
        ("0.92,0.69", "-0.92,0.69", "CAT-003"),
        ("346.62,-5.04", "346.62,-95.04", "CAT-003"),
        ("346.62,-5.04", "346.62,inf", "CAT-002"),
        ("2017,12.43", "2017.5,12.43", "CAT-002"),
        ("K2-18 b,", "trappist-1  e,", "CAT-004"),
        ("K2-18 b,", ",", "CAT-008"),
        ("32.9,", "32,9,", "CAT-007"),
    ],
)
def test_an_error_sets_only_its_row_aside(
    old: str, new: str, rule: str, samples: dict[str, Path], tmp_path: Path
) -> None:
    report = _check(samples["catalogue"].read_text().replace(old, new, 1), tmp_path)
    assert report.rows is not None and report.verdict == "quarantine"
    assert [f.rule for f in report.findings if f.severity == "error"] == [rule]
    assert len(report.rows.reasons) == 1
    (why,) = report.rows.reasons.values()
    assert why[0].startswith(rule)


@pytest.mark.parametrize(
    ("old", "new", "rule"), [("0.92,0.69", "0.92,300", "CAT-005"), ("0.69,250", "0.69,2500", "CAT-006")]
)
def test_physics_warns_but_keeps_the_row(
    old: str, new: str, rule: str, samples: dict[str, Path], tmp_path: Path
) -> None:
    report = _check(samples["catalogue"].read_text().replace(old, new, 1), tmp_path)
    assert [f.rule for f in report.findings] == [rule] and report.verdict == "accept"
    assert "TRAPPIST-1 e (row 1)" in report.findings[0].location


def test_catalogues_without_a_key_or_with_a_column_twice_are_rejected(tmp_path: Path) -> None:
    assert [f.rule for f in check_catalogue(Table(["x"], pd.DataFrame({"x": ["1"]})))[0]] == ["CAT-001"]
    report = _check("pl_name,pl_rade,pl_rade\na,1,2\n", tmp_path)
    assert [f.rule for f in report.findings] == ["CAT-001"] and report.verdict == "reject"


def test_an_open_exoplanet_catalogue_system_becomes_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.xml"
    path.write_text(
        "<system><name>S</name><distance>10</distance><star><mass>0.09</mass><radius>0.12</radius>"
        "<temperature>2566</temperature><planet><name>S b</name><mass>0.003</mass><radius>0.1</radius>"
        "<period>6</period></planet><planet><name>S c</name><radius>-1</radius></planet></star></system>"
    )
    row = read_catalogue(path).frame.iloc[0]
    assert float(row["pl_rade"]) == pytest.approx(1.1209, abs=1e-3)
    assert float(row["pl_bmasse"]) == pytest.approx(0.9535, abs=1e-3)
    report = examine(path)
    assert (report.verdict, [f.rule for f in report.findings]) == ("quarantine", ["CAT-003"])


def test_10_000_rows_take_less_than_5_seconds(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    rows = [f"W{n} b,{10 + n % 300},{0.5 + n % 7},{1 + n % 9},{n % 360},{n % 90},5000,1,1" for n in range(10_000)]
    path.write_text("pl_name,pl_orbper,pl_rade,pl_bmasse,ra,dec,st_teff,st_rad,st_mass\n" + "\n".join(rows) + "\n")
    examine(path)  # imports
    started = time.process_time()
    report = examine(path)
    assert time.process_time() - started < 5.0
    assert report.rows is not None and report.rows.total == report.rows.accepted == 10_000


def _record(payload, identifier: str, modality: str = "catalogue") -> Record:
    provenance = Provenance("https://example.org", "q", "2026-01-01", "0" * 64, 1)
    return Record("archive", identifier, modality, payload, provenance, Licence("CC0", "https://example.org"))  # type: ignore[arg-type]


def test_records_are_screened_with_reasons(tmp_path: Path) -> None:
    good = _record({"pl_name": "A b", "pl_rade": 1.0}, "A b")
    bad = _record({"pl_name": "B b", "pl_rade": -1.0}, "B b")
    twin = _record({"pl_name": "A b", "pl_rade": 1.0}, "A b")
    attack = _record(b'<!DOCTYPE s [<!ENTITY a "x">]><sbml/>', "m", "metabolism")
    accepted, aside = screen([good, bad, twin, attack])
    assert accepted == [good]
    assert [a["reason"].split()[0] for a in aside] == ["CAT-003", "CAT-004", "FILE-005"]
    assert check_record(good) == [] and [f.rule for f in check_record(bad)] == ["CAT-003"]
