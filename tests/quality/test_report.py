"""Reports, quarantine and the command: what leaves the machine is complete, honest and harmless."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from astrobio.errors import InputError
from astrobio.quality import RULES, FileReport, QualityReport, finding, set_aside, validate_files
from astrobio.quality.report import SCHEMA


@pytest.fixture(scope="module")
def report(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> QualityReport:
    folder = tmp_path_factory.mktemp("files")
    bad = folder / "bad.csv"
    bad.write_text(samples["catalogue"].read_text().replace("0.92,0.69", "-0.92,0.69"))
    copy = folder / "copy.csv"
    copy.write_bytes(samples["catalogue"].read_bytes())
    attack = folder / "<img src=x onerror=alert(1)>.xml"
    attack.write_text('<!DOCTYPE s [<!ENTITY a "x">]><sbml/>')
    return validate_files([samples["catalogue"], copy, bad, attack], by="A. Tester", isolated=False)


def test_verdicts_and_exit_codes(report: QualityReport) -> None:
    assert [f.verdict for f in report.files] == ["accept", "accept", "quarantine", "reject"]
    assert report.exit_code == 2
    assert QualityReport(report.files[:1]).exit_code == 0 and QualityReport(report.files[:3]).exit_code == 1
    assert [f.rule for f in report.files[1].findings] == ["FILE-009"]


def test_json_round_trip_and_provenance(report: QualityReport, tmp_path: Path) -> None:
    report.write_json(tmp_path / "deep" / "report.json")
    data = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert data["schema"] == SCHEMA and data["provenance"]["by"] == "A. Tester"
    assert data["provenance"]["software"].startswith("astrobio ") and any(
        "cobra" in t for t in data["provenance"]["tools"]
    )
    assert all(len(f["sha256"]) == 64 for f in data["files"])
    assert data["files_by_verdict"] == {"accept": 2, "quarantine": 1, "reject": 1}
    again = FileReport.from_dict(data["files"][2])
    assert again == report.files[2] and again.rows is not None and list(again.rows.reasons) == [1]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    odd = FileReport("x", facts={"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": (float("-inf"),)}})
    QualityReport([odd]).write_json(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["files"][0]["facts"] == {
        "a": None,
        "b": [1.0, None],
        "c": {"d": [None]},
    }


def test_the_page_is_complete_and_escapes_hostile_names(report: QualityReport, tmp_path: Path) -> None:
    report.write_html(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "<img" not in page and "&lt;img" in page and "<script" not in page
    for text in ("A. Tester", "CAT-003", "FILE-005", report.files[2].sha256, RULES["CAT-003"].title, "quarantined"):
        assert text in page
    assert 'src="http' not in page and "@import" not in page


def test_quarantine_keeps_rows_and_reasons(report: QualityReport, tmp_path: Path) -> None:
    names = sorted(p.name.split("-", 1)[1] for p in set_aside(report, tmp_path / "aside"))
    assert names == ["<img src=x onerror=alert(1)>.xml.reason.json", "bad.csv.reason.json", "bad.csv.rows.csv"]
    (rows,) = (tmp_path / "aside").glob("*.rows.csv")
    with open(rows) as stream:
        (row,) = csv.DictReader(stream)
    assert row["row"] == "1" and row["reasons"].startswith("CAT-003") and row["pl_name"] == "TRAPPIST-1 e"
    assert set_aside(report, tmp_path / "aside")  # again, over what is there


def test_quarantine_copies_other_files_whole(samples: dict[str, Path], tmp_path: Path) -> None:
    one = FileReport(str(samples["csv"]), "spectrum", 1, "ab" * 32, [finding("SPEC-001", "row 1", "x")])
    set_aside(QualityReport([one]), tmp_path)
    assert (tmp_path / f"{'ab' * 6}-spectrum.csv").read_bytes() == samples["csv"].read_bytes()


def test_messages_of_hostile_files_stay_short_and_on_one_line() -> None:
    long = finding("FILE-003", "a\nb\x1b[31m", "x" * 10_000)
    assert "\n" not in long.location and "\x1b" not in long.location and len(long.message) <= 600


def test_the_command(samples: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from astrobio.cli import app
    from astrobio.quality import command, report

    monkeypatch.setattr(
        command, "validate_files", lambda *a, **k: report.validate_files(*a, **{**k, "isolated": False})
    )
    (tmp_path / "bad.csv").write_text("no,such,kind\na,b,c\n")
    run = CliRunner().invoke
    out = [str(tmp_path / name) for name in ("r.json", "r.html", "aside")]
    options = ["--json", out[0], "--html", out[1], "--quarantine", out[2]]
    accepted = run(app, ["validate", str(samples["catalogue"]), *options])
    assert accepted.exit_code == 0 and "accept" in accepted.output
    rejected = run(app, ["validate", str(samples["catalogue"]), str(tmp_path / "bad.csv"), *options])
    assert rejected.exit_code == 2 and "FILE-002" in rejected.output
    assert json.loads(Path(out[0]).read_text())["verdict"] == "reject" and Path(out[1]).stat().st_size > 5000
    listed = run(app, ["validate", "--rules"])
    assert listed.exit_code == 0 and all(rule in listed.output for rule in RULES)
    assert isinstance(run(app, ["validate"]).exception, InputError)
