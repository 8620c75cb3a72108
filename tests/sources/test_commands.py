"""The commands as a person calls them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from typer.testing import CliRunner

from astrobio.cli_sources import app
from astrobio.errors import InputError
from astrobio.sources import ALL_SOURCES, LicenceError
from astrobio.sources.commands import check_sources, read_query

RUN = CliRunner()


@pytest.fixture
def here(httpserver: HTTPServer, local, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """Every database stands on this machine for the test."""
    for name, source in list(ALL_SOURCES.items()):
        monkeypatch.setitem(ALL_SOURCES, name, local(source, httpserver.url_for("")))
    return httpserver


def test_list_names_every_database_and_how_it_was_tested() -> None:
    rows = json.loads(RUN.invoke(app, ["list", "--json"]).stdout)
    assert len(rows) == len(ALL_SOURCES) >= 16 and {row["name"] for row in rows} == set(ALL_SOURCES)
    kinds = {row["kind"] for row in rows}
    assert kinds == {"tap", "rest", "job", "grid", "stac", "oaipmh", "fileset"}
    proven = [row["name"] for row in rows if row["tested_by"] != "mock contract"]
    assert len(proven) >= 13, proven
    mocked = {row["name"] for row in rows if row["tested_by"] == "mock contract"}
    assert {"psg", "copernicus-cds", "biocyc", "jgi", "mgnify"} <= mocked
    assert "nasa-exoplanet-archive" in RUN.invoke(app, ["list"]).stdout


def test_the_documentation_lists_every_database_as_it_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    for source in ALL_SOURCES.values():
        assert re.search(rf"\| `{source.name}` \| {source.kind} \|.*\| {source.tested_by.kind}", text), source.name


def test_fetch_writes_records_provenance_and_licence(here: HTTPServer, tmp_path: Path) -> None:
    feed = b"""<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/abs/1</id><title>A</title></entry></feed>"""
    here.expect_request("/query").respond_with_data(feed)
    done = RUN.invoke(app, ["fetch", "arxiv", "life", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "1 records of arXiv" in done.stdout and "licence: metadata CC0" in done.stdout
    record = json.loads((tmp_path / "out" / "records.jsonl").read_text())
    assert record["payload"]["title"] == "A" and record["licence"]["name"] == "metadata CC0"
    assert len(record["provenance"]["sha256"]) == 64 and record["provenance"]["query"] == "life"
    again = RUN.invoke(app, ["fetch", "arxiv", "life", "--out", str(tmp_path / "out")])
    assert again.exit_code == 0, "the folder of an earlier fetch is replaced"


def test_fetch_keeps_files(here: HTTPServer, tmp_path: Path) -> None:
    here.expect_request("/x.xml.gz").respond_with_data(b"model")
    assert RUN.invoke(app, ["fetch", "bigg", "x", "--out", str(tmp_path / "out")]).exit_code == 0
    assert (tmp_path / "out" / "files" / "x.xml.gz").read_bytes() == b"model"


def test_a_folder_with_other_files_is_left_alone(here: HTTPServer, tmp_path: Path) -> None:
    here.expect_request("/x.xml.gz").respond_with_data(b"model")
    (tmp_path / "thesis.txt").write_text("precious")
    result = RUN.invoke(app, ["fetch", "bigg", "x", "--out", str(tmp_path)])
    assert isinstance(result.exception, InputError) and "found other files" in str(result.exception)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_licence_is_accepted_on_the_command_line(here: HTTPServer, tmp_path: Path) -> None:
    here.expect_request("/list/reaction").respond_with_data("R00001\tone\nR00002\ttwo\n")
    refused = RUN.invoke(app, ["fetch", "kegg", "list/reaction", "--out", str(tmp_path / "o")])
    assert isinstance(refused.exception, LicenceError)
    accepted = RUN.invoke(
        app, ["fetch", "kegg", "list/reaction", "--out", str(tmp_path / "o"), "--accept-licence", "kegg"]
    )
    assert accepted.exit_code == 0 and "2 records" in accepted.stdout


def test_show_request_sends_nothing(here: HTTPServer) -> None:
    shown = RUN.invoke(app, ["show-request", "copernicus-cds", 'era5 {"year": ["2024"]}']).stdout
    assert "POST" in shown and "/retrieve/v1/processes/era5/execution" in shown and '"2024"' in shown and "***" in shown
    assert not here.log


def test_check_says_what_failed_and_goes_on(here: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    here.expect_request("/query").respond_with_data(b'<feed xmlns="http://www.w3.org/2005/Atom"></feed>')
    said: list[str] = []
    assert check_sources(["arxiv", "biocyc", "gtdb"], said.append) == 1
    assert said[0].startswith("arxiv: ok") and "biocyc: failed" in said[1] and "gtdb: failed" in said[2]


def test_unknown_names_get_a_proposal() -> None:
    result = RUN.invoke(app, ["show-request", "zenod", "x"])
    assert isinstance(result.exception, InputError) and "did you mean zenodo" in str(result.exception)


def test_queries_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "planet.cfg").write_text("<OBJECT>Planet")
    assert read_query(f"@{tmp_path}/planet.cfg") == "<OBJECT>Planet"
    with pytest.raises(InputError, match="expected a text file"):
        read_query(f"@{tmp_path}/absent.cfg")


def test_auth_set_does_not_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    done = RUN.invoke(app, ["auth", "set", "ads"], input="typed-secret-2\n")
    assert done.exit_code == 0 and "stored ads" in done.stdout and "typed-secret-2" not in done.stdout
    assert "required, from file" in RUN.invoke(app, ["auth", "status", "--json"]).stdout
