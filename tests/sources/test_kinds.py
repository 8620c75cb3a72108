"""Pagers, jobs, files and partial results, against servers that behave as the databases' documentation says."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pds.api_client.models.pds_products import PdsProducts
from pytest_httpserver import HTTPServer
from werkzeug import Request as WebRequest
from werkzeug import Response as WebResponse

from astrobio.errors import InputError
from astrobio.sources import ALL_SOURCES, OfflineError, PayloadError, SourceError, fetch
from astrobio.sources.client import Settings

CDS_QUERY = 'reanalysis-era5 {"variable": ["2m_temperature"], "year": ["2024"]}'


@pytest.mark.parametrize("source", ALL_SOURCES.values(), ids=list(ALL_SOURCES))
def test_every_database_says_what_it_is_and_makes_its_example_request(source) -> None:
    query = "<OBJECT>Planet" if source.example.startswith("@") else source.example
    request = source.request(query)
    assert request.method in ("GET", "POST") and request.url.startswith(source.url(""))
    assert source.licence.name and source.licence.url.startswith("http") and source.citation and source.tested_by.detail
    assert source.rate[0] >= 1 and source.rate[1] > 0


def test_no_database_takes_more_than_forty_lines() -> None:
    """A declaration that speaks a known protocol is short."""
    for name in ("exoplanets", "spectra", "climate", "metabolism", "literature"):
        text = (Path(__file__).parents[2] / "src" / "astrobio" / "sources" / f"{name}.py").read_text()
        for declaration in re.findall(r"^[A-Z_0-9]+ = \w+\(\n(?:.*\n)*?^\)", text, re.MULTILINE):
            assert declaration.count("\n") < 40, declaration[:60]


@pytest.mark.parametrize("query", ["", "   ", "x" * 200_000])
@pytest.mark.parametrize(
    "name", ["arxiv", "gaia", "esgf", "pangaea", "copernicus-cds", "ges-disc", "modelseed", "mast"]
)
def test_unusable_queries_are_refused_before_anything_is_sent(name: str, query: str, settings: Settings) -> None:
    with pytest.raises(InputError, match=name):
        fetch(ALL_SOURCES[name], query, settings=settings)


def test_a_name_can_not_end_its_string() -> None:
    adql = ALL_SOURCES["nasa-exoplanet-archive"].adql("x' OR '1'='1")
    assert "pl_name = 'x'' OR ''1''=''1'" in adql


def pds_product(number: int) -> dict:
    """A product as the registry's published models describe it."""
    harvested = f"2024-01-01T00:00:{number:02d}Z"
    return {
        "id": f"urn:nasa:pds:bundle:data::{number}.0", "type": "Product_Observational", "title": f"Product {number}",
        "metadata": {"label_url": "https://example.org/x.xml", "update_date_time": "2020", "version": "1.0"},
        "properties": {"ops:Harvest_Info.ops:harvest_date_time": [harvested]},
    }  # fmt: skip


def test_pds_goes_on_after_the_last_sort_value(httpserver: HTTPServer, local, settings: Settings) -> None:
    def page(request: WebRequest) -> WebResponse:
        after = request.args.get("search-after", "")
        rest = [p for p in map(pds_product, range(7)) if p["properties"][request.args["sort"]][0] > after]
        summary = {"hits": 7, "took": 1, "q": request.args["q"], "properties": []}
        body = {"summary": summary, "data": rest[: int(request.args["limit"])]}
        assert len(PdsProducts.from_dict(body).data) == len(body["data"]), "the official client's models take it"
        return WebResponse(json.dumps(body))

    httpserver.expect_request("/products").respond_with_handler(page)
    source = local("pds", httpserver.url_for(""), pager=replace(ALL_SOURCES["pds"].pager, size=3))
    answer = fetch(source, 'pds:name eq "Mars"', settings=settings)
    assert [r.identifier[-3:-2] for r in answer.records] == list("0123456") and answer.complete
    assert len(httpserver.log) == 3


@pytest.mark.parametrize(
    ("name", "rows", "pages"), [("gtdb", "rows", 3), ("mgnify", "items", 3), ("zenodo", "hits.hits", 3)]
)
def test_page_numbers_count_up_to_a_short_page(
    name, rows, pages, httpserver: HTTPServer, local, settings: Settings
) -> None:
    pager = replace(ALL_SOURCES[name].pager, size=4)
    columns = {"gtdbTaxonomy": "d__Archaea", "ncbiTaxonomy": "d__Archaea", "isGtdbSpeciesRep": True}

    def page(request: WebRequest) -> WebResponse:
        first = (int(request.args[pager.start_name]) - 1) * 4
        part = [{"gid": f"G{n}", "accession": f"G{n}", "id": n, **columns} for n in range(first, min(first + 4, 10))]
        return WebResponse(json.dumps({"hits": {"hits": part}} if "." in rows else {rows: part, "totalRows": 10}))

    httpserver.expect_request(re.compile(".*")).respond_with_handler(page)
    answer = fetch(local(name, httpserver.url_for(""), pager=pager), "Methanosarcina", settings=settings)
    assert len(answer.records) == 10 and len(httpserver.log) == pages and answer.complete


def test_psg_sends_a_form_and_reads_a_table(httpserver: HTTPServer, local, settings: Settings) -> None:
    body = "# Planetary spectrum\n# Wave/freq Total Noise\n1.0 2.0e-3 1e-5\n1.1 2.1e-3 1e-5\n"
    httpserver.expect_request("/api.php", method="POST").respond_with_data(body)
    answer = fetch(
        local("psg", httpserver.url_for("")),
        "<OBJECT>Planet",
        settings=replace(settings, secrets={"psg": "key-of-psg"}),
    )
    assert [r.payload["Wave/freq"] for r in answer.records] == [1.0, 1.1]
    assert httpserver.log[0][0].form.to_dict() == {
        "type": "rad",
        "whdr": "y",
        "file": "<OBJECT>Planet",
        "key": "key-of-psg",
    }


def test_records_that_arrived_before_an_error_are_kept_with_a_note(
    httpserver: HTTPServer, local, settings, tmp_path
) -> None:
    docs = [{"bibcode": f"2024X{n}", "title": ["t"], "year": "2024"} for n in range(3)]
    httpserver.expect_ordered_request("/search/query").respond_with_json({"response": {"docs": docs}})
    for _ in range(3):
        httpserver.expect_ordered_request("/search/query").respond_with_data("down", status=503)
    source = local("ads", httpserver.url_for(""), pager=replace(ALL_SOURCES["ads"].pager, size=3))
    answer = fetch(source, "a planet", settings=replace(settings, secrets={"ads": "token-of-ads"}))
    assert len(answer.records) == 3 and not answer.complete
    assert "kept 3 records that arrived before" in answer.notes[0] and "HTTP 503" in answer.notes[0]
    saved = json.loads((answer.save(tmp_path / "out") / "answer.json").read_text())
    assert saved["complete"] is False and saved["records"] == 3 and saved["notes"] == answer.notes


def test_records_that_arrived_before_an_interruption_are_kept(httpserver: HTTPServer, local, settings) -> None:
    docs = [{"bibcode": f"2024X{n}", "title": ["t"], "year": "2024"} for n in range(3)]
    httpserver.expect_request("/search/query").respond_with_json({"response": {"docs": docs}})

    def impatient(what: str, done: int, total: int | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with_token = replace(settings, secrets={"ads": "token-of-ads"})
    answer = fetch(local("ads", httpserver.url_for("")), "a planet", settings=with_token, progress=impatient)
    assert len(answer.records) == 2 and not answer.complete and "interrupted" in answer.notes[0]


def test_rows_of_wrong_type_are_set_aside_with_their_reason(httpserver: HTTPServer, local, settings: Settings) -> None:
    docs = [
        {"bibcode": "A", "title": ["t"], "year": "2024"},
        {"title": ["no name"]},
        {"bibcode": "B", "title": 7},
        "text",
        None,
    ]
    httpserver.expect_request("/search/query").respond_with_json({"response": {"docs": docs}})
    answer = fetch(
        local("ads", httpserver.url_for("")), "q", settings=replace(settings, secrets={"ads": "token-of-ads"})
    )
    assert [r.identifier for r in answer.records] == ["A"] and len(answer.quarantined) == 4
    assert "expected an identifier in 'bibcode'" in answer.quarantined[0]["reason"]
    assert "title: Input should be a valid list" in answer.quarantined[1]["reason"]


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/else", "//evil.example/x", 7])
def test_a_next_page_on_another_host_is_not_followed(target, httpserver: HTTPServer, local, settings: Settings) -> None:
    from astrobio.sources.kinds.rest import NextLink

    page = {"rows": [{"gid": "G1"}], "next": target}
    httpserver.expect_request("/search/gtdb").respond_with_json(page)
    answer = fetch(local("gtdb", httpserver.url_for(""), pager=NextLink("next")), "x", settings=settings)
    assert len(answer.records) == 1 and "next page: expected" in answer.notes[0]


def test_pages_in_a_circle_end(httpserver: HTTPServer, local, settings: Settings) -> None:
    from astrobio.sources.kinds.rest import NextLink

    httpserver.expect_request("/search/gtdb").respond_with_json({"rows": [{"gid": "G1"}], "next": "/search/gtdb?p=2"})
    answer = fetch(local("gtdb", httpserver.url_for(""), pager=NextLink("next")), "x", settings=settings)
    assert len(answer.records) == 2 and "leads back to an earlier one" in answer.notes[0]


def queue(server: HTTPServer, states: list[str], *, body: bytes = b"CDF file", md5: str = "", **status: object) -> None:
    """A Copernicus queue: submission, states one after the other, result, file."""
    left = iter(states)
    job = server.url_for("/retrieve/v1/jobs/j1")
    server.expect_request("/retrieve/v1/processes/reanalysis-era5/execution", method="POST").respond_with_json(
        {"jobID": "j1", "status": "accepted"}, status=201, headers={"Location": job}
    )
    server.expect_request("/retrieve/v1/jobs/j1").respond_with_handler(
        lambda r: WebResponse(json.dumps({"status": next(left), **status}))
    )
    value = {
        "href": server.url_for("/files/x.nc"),
        "file:checksum": md5 or hashlib.md5(body).hexdigest(),
        "file:size": len(body),
    }
    server.expect_request("/retrieve/v1/jobs/j1/results").respond_with_json({"asset": {"value": value}})
    server.expect_request("/files/x.nc").respond_with_data(body)


@pytest.fixture
def cds(local, httpserver: HTTPServer):
    """Copernicus on this machine, polled quickly."""
    return local("copernicus-cds", httpserver.url_for(""), poll=(0.01, 0.02))


@pytest.fixture
def with_key(settings: Settings) -> Settings:
    return replace(settings, secrets={"cds": "key-of-cds", "jgi": "token-of-jgi"})


def test_a_job_is_submitted_polled_and_downloaded(httpserver: HTTPServer, cds, with_key: Settings) -> None:
    queue(httpserver, ["accepted", "running", "successful"])
    record = fetch(cds, CDS_QUERY, settings=with_key).records[0]
    assert record.payload.read_bytes() == b"CDF file" and record.provenance.method == "POST"
    assert record.provenance.sha256 == hashlib.sha256(b"CDF file").hexdigest()
    assert all(r.headers["PRIVATE-TOKEN"] == "key-of-cds" for r, _ in httpserver.log)
    sent = httpserver.log[0][0].get_json()
    assert sent == {"inputs": {"variable": ["2m_temperature"], "year": ["2024"]}}
    asked = len(httpserver.log)
    again = fetch(cds, CDS_QUERY, settings=replace(with_key, offline=True)).records[0]
    assert again.provenance.from_cache and len(httpserver.log) == asked


def test_a_failed_job_says_why(httpserver: HTTPServer, cds, with_key: Settings) -> None:
    queue(httpserver, ["failed"], message="no data for this year")
    with pytest.raises(SourceError, match="the job ended as 'failed': no data for this year"):
        fetch(cds, CDS_QUERY, settings=with_key)
    assert not list(with_key.cache_dir.rglob("*.job")), "a failed job is submitted anew next time"


def test_an_impatient_wait_goes_on_later_with_the_same_job(httpserver: HTTPServer, cds, with_key: Settings) -> None:
    queue(httpserver, ["running"] * 2 + ["successful"] * 2)
    with pytest.raises(SourceError, match="job still 'running' after 0 s; run again to go on waiting"):
        fetch(replace(cds, patience=0.0), CDS_QUERY, settings=with_key)
    assert fetch(cds, CDS_QUERY, settings=with_key).records[0].payload.read_bytes() == b"CDF file"
    assert sum(r.method == "POST" for r, _ in httpserver.log) == 1


def test_a_file_with_another_checksum_is_refused(httpserver: HTTPServer, cds, with_key: Settings) -> None:
    queue(httpserver, ["successful"], md5="0" * 32)
    with pytest.raises(PayloadError, match=r"expected md5:0{32}, found md5:"):
        fetch(cds, CDS_QUERY, settings=with_key)
    assert not list(with_key.cache_dir.rglob("*.nc"))


@pytest.mark.parametrize("query", ["era5", "era5 [1]", "era5 {bad", "../x {}"])
def test_requests_that_are_no_json_objects_are_refused(query: str, cds, with_key: Settings) -> None:
    with pytest.raises(InputError, match="copernicus-cds"):
        fetch(cds, query, settings=with_key)


def test_jgi_brings_a_file_back_from_tape(httpserver: HTTPServer, local, with_key: Settings, monkeypatch) -> None:
    states = iter(["pending", "ready"])
    status = httpserver.url_for("/request_archived_files/requests/220699")
    httpserver.expect_request("/request_archived_files/", method="POST").respond_with_json(
        {"updated_count": 0, "restored_count": 1, "request_id": 220699, "request_status_url": status}
    )
    httpserver.expect_request("/request_archived_files/requests/220699").respond_with_handler(
        lambda r: WebResponse(json.dumps({"status": next(states)}))
    )
    httpserver.expect_request("/download_files/615a383dcc4ff44f36ca5ba2/").respond_with_data(b"genome")
    monkeypatch.setattr("astrobio.sources.metabolism.JGI_DOWNLOADS", httpserver.url_for("").rstrip("/"))
    source = local("jgi", httpserver.url_for(""), poll=(0.01, 0.02))
    record = fetch(source, "615a383dcc4ff44f36ca5ba2", settings=with_key).records[0]
    assert record.payload.read_bytes() == b"genome"
    assert all(r.headers["Authorization"] == "token-of-jgi" for r, _ in httpserver.log)


class Flaky(ThreadingHTTPServer):
    """A file server that cuts the connection after `cut` bytes, then honours ranges."""

    body = bytes(range(256)) * 4000
    cut, tag = 262_144, '"v1"'
    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Flaky)
        wanted = self.headers.get("Range", "")
        server.asked.append(wanted)
        same = self.headers.get("If-Range") == server.tag
        start = int(wanted[6:-1]) if wanted and same else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(server.body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.end_headers()
        self.wfile.write(server.body[start : start + server.cut])

    def log_message(self, *args: object) -> None:
        """Silent."""


@pytest.fixture
def flaky():
    server = Flaky()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_interrupted_download_goes_on_where_it_stopped(flaky: Flaky, local, settings: Settings) -> None:
    source = local("bigg", f"http://127.0.0.1:{flaky.server_port}")
    with pytest.raises(SourceError, match=r"cut off at 786432 bytes .*; run again to resume"):
        fetch(source, "model", settings=settings)
    seen = []
    answer = fetch(source, "model", settings=settings, progress=lambda what, done, total: seen.append((done, total)))
    assert answer.records[0].payload.read_bytes() == Flaky.body
    assert flaky.asked == ["", "bytes=262144-", "bytes=524288-", "bytes=786432-"]
    assert (len(Flaky.body), len(Flaky.body)) in seen and not list(settings.cache_dir.rglob("*.part*"))


def test_a_file_that_changed_meanwhile_is_fetched_anew(flaky: Flaky, local, settings: Settings) -> None:
    source = local("bigg", f"http://127.0.0.1:{flaky.server_port}")
    with pytest.raises(SourceError, match="cut off"):
        fetch(source, "model", settings=replace(settings, attempts=1))
    flaky.tag, flaky.body, flaky.cut = '"v2"', b"new content" * 100_000, 10**9
    assert fetch(source, "model", settings=settings).records[0].payload.read_bytes() == flaky.body


def test_a_file_that_was_changed_on_disk_is_noticed(httpserver: HTTPServer, local, settings: Settings) -> None:
    httpserver.expect_request("/model.xml.gz").respond_with_data(b"content")
    source = local("bigg", httpserver.url_for(""))
    path = fetch(source, "model", settings=settings).records[0].payload
    assert fetch(source, "model", settings=replace(settings, offline=True)).records[0].provenance.from_cache
    path.write_bytes(b"tampered")
    with pytest.raises(PayloadError, match="was changed since it was downloaded"):
        fetch(source, "model", settings=settings)


def test_a_file_larger_than_allowed_is_refused_before_it_is_fetched(
    httpserver: HTTPServer, local, settings: Settings
) -> None:
    httpserver.expect_request("/model.xml.gz").respond_with_data(b"x" * 10_000)
    with pytest.raises(PayloadError, match="file of 10000 bytes exceeds the limit of 100"):
        fetch(local("bigg", httpserver.url_for("")), "model", settings=replace(settings, max_file_bytes=100))


@pytest.mark.parametrize("query", ["../../etc/passwd", "/etc/passwd", "a b", "compounds.tsv/../x", "genes.tsv"])
def test_files_outside_the_set_are_refused(query: str, settings: Settings) -> None:
    with pytest.raises(InputError, match="modelseed: expected one of"):
        fetch(ALL_SOURCES["modelseed"], query, settings=settings)


def test_files_are_missing_offline(settings: Settings) -> None:
    with pytest.raises(OfflineError, match=r"cache lacks GET http://bigg.*iJO1366\.xml\.gz"):
        fetch(ALL_SOURCES["bigg"], "iJO1366", settings=replace(settings, offline=True))
