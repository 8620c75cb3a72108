"""The page holds the answer, stands alone, and is well-formed, whatever was given."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from astrobio.assess.command import print_assessment
from astrobio.assess.predict import Assessment, assess
from astrobio.assess.report import VERDICTS, percent, render_report, signed, subscripts, verdict, write_report

VOID = {"meta", "br", "img", "link", "input", "hr"}


class _Balance(HTMLParser):
    """Fails on a tag that closes what isn't open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def _parsed(page: str) -> _Balance:
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    return parser


@pytest.fixture
def assessment(run_folder: Path, files: dict[str, Path]) -> Assessment:
    return assess(run_folder, **files, text="star <b>M8</b> & co")


def test_the_page_stands_alone_and_holds_the_numbers(assessment: Assessment, tmp_path: Path) -> None:
    write_report(assessment, tmp_path / "deep" / "report.html")
    page = (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    links = _parsed(page).links
    assert all(link.startswith(("#", "data:")) for link in links) and "<script" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert f">{percent(assessment.inhabited)}<small>" in page.replace("&lt;", "<").replace("&gt;", ">")
    for probability in assessment.state_probabilities.values():
        assert f"{percent(probability)}%" in page.replace("&lt;", "<").replace("&gt;", ">")
    assert page.count('role="img" aria-label=') == 3  # the scale, the spectrum, the map
    assert assessment.provenance["files"]["climate"]["sha256"] in page
    assert "never exceeds level 1" in page and "prefers-color-scheme: dark" in page
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_identifiers_are_unique_across_figures(assessment: Assessment) -> None:
    identifiers = re.findall(r'\sid="([^"]+)"', render_report(assessment))
    assert len(identifiers) == len(set(identifiers))


def test_stand_in_colours_all_become_page_colours(assessment: Assessment) -> None:
    page = render_report(assessment)
    assert not re.search(r"#(010203|040506|070809|0a0b0c|0d0e0f)", page, re.IGNORECASE) and "var(--life)" in page


@pytest.mark.parametrize("name", ["text", "spectrum", "climate", "metabolism"])
def test_a_page_of_one_input(run_folder: Path, files: dict[str, Path], name: str) -> None:
    given = {name: {**files, "text": "star M8"}[name]}
    page = render_report(assess(run_folder, **given))  # pyright: ignore
    _parsed(page)
    assert ("<h2>Spectrum</h2>" in page) == (name == "spectrum")
    assert ("<h2>Climate</h2>" in page) == (name == "climate")


def test_what_the_model_writes_cannot_break_the_page(assessment: Assessment) -> None:
    page = render_report(replace(assessment, assessment_text="</main><script>alert(1)</script>"))
    _parsed(page)
    assert "<script" not in page


def test_ranges_are_written_and_drawn_on_page_and_terminal(assessment: Assessment) -> None:
    physics = dict.fromkeys(assessment.physics, -4.2) | {"surface_temperature": 281.4, "log10_O3": -10.3}
    ranges = {"surface_temperature": (260.2, 300.4), "log10_CO2": (-6.0, 0.0), "log10_O3": (-12.0, -9.0)}
    plain, ranged = (replace(assessment, physics=physics, physics_range=each) for each in ({}, ranges))
    page = render_report(ranged)
    _parsed(page)
    assert "281 K<br>" in page and "90%: 260 to 300 K" in page
    assert "63 ppm, 10<sup>−4.2</sup>" in page and "90%: 10<sup>−6.0</sup> to 1</span>" in page
    assert '<i style="left:50.0%;right:0.0%"></i><b style="left:65.0%"></b>' in page, "CO2 on the axis from 1e-12 to 1"
    assert page.count('quiet">90%: ') == 3 and "without error bars" not in page
    assert 'quiet">90%: ' not in render_report(plain) and "without error bars" in render_report(plain)
    for answer, said in ((ranged, True), (plain, False)):
        console = Console(record=True, width=120, file=io.StringIO())
        print_assessment(answer, console)
        text = console.export_text()
        assert ("260 to 300 K" in text) == ("10^−12.0 to 10^−9.0" in text) == said


def test_numbers_are_said_honestly() -> None:
    assert (percent(0.0), percent(0.5), percent(0.9999)) == ("<1", "50", ">99")
    assert (signed(-0.5), signed(12.3), signed(0.0)) == ("−0.50", "+12", "+0.00")
    assert subscripts("CO2") == "CO₂"
    assert [verdict(least) for least, _ in VERDICTS] == [sentence for _, sentence in VERDICTS]
