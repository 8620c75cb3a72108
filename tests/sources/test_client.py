"""The one function that touches the network: retry, limits, cache, offline mode, redirects."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request as WebRequest
from werkzeug import Response as WebResponse

from astrobio.sources import ALL_SOURCES, fetch
from astrobio.sources.client import Request, Settings
from astrobio.sources.errors import CredentialError, LicenceError, OfflineError, PayloadError, SourceError

TOKEN = "planted-token-1f9a7c"
DOCS = {"response": {"docs": [{"bibcode": "2024A", "title": ["One"], "year": "2024", "abstract": "text"}]}}


@pytest.fixture
def ads(local, httpserver: HTTPServer):
    """ADS on this machine (Bearer header, required)."""
    return local("ads", httpserver.url_for(""))


@pytest.fixture
def arxiv(local, httpserver: HTTPServer):
    """arXiv on this machine (no credential)."""
    return local("arxiv", httpserver.url_for(""))


def ask(source, settings: Settings, path: str = "x"):
    with source.session(settings) as session:
        return session.fetch(Request("GET", source.url(path)))


def test_retries_after_the_time_that_the_server_names(arxiv, httpserver: HTTPServer, settings: Settings) -> None:
    httpserver.expect_ordered_request("/x").respond_with_data("", status=429, headers={"Retry-After": "1"})
    httpserver.expect_ordered_request("/x").respond_with_data("fine")
    begin = time.monotonic()
    assert ask(arxiv, settings).text == "fine"
    assert 1.0 <= time.monotonic() - begin < 3.0


def test_retries_with_back_off_then_gives_up_with_one_sentence(
    arxiv, httpserver: HTTPServer, settings: Settings
) -> None:
    calls = []
    httpserver.expect_request("/x").respond_with_handler(lambda r: calls.append(r) or WebResponse("down", 503))
    with pytest.raises(SourceError, match="failed after 3 attempts: HTTP 503 down"):
        ask(arxiv, settings)
    assert len(calls) == 3


def test_a_long_wait_is_reported_not_waited_for(arxiv, httpserver: HTTPServer, settings: Settings) -> None:
    httpserver.expect_request("/x").respond_with_data("", status=429, headers={"Retry-After": "3600"})
    begin = time.monotonic()
    with pytest.raises(SourceError, match="come back in 3600 s"):
        ask(arxiv, settings)
    assert time.monotonic() - begin < 1


def test_retry_after_may_be_a_date(arxiv, httpserver: HTTPServer, settings: Settings) -> None:
    httpserver.expect_request("/x").respond_with_data("", 503, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"})
    with pytest.raises(SourceError, match="come back in"):
        ask(arxiv, settings)


def test_a_post_is_not_sent_again_after_a_failure_that_may_have_had_an_effect(
    arxiv, httpserver: HTTPServer, settings
) -> None:
    calls = []
    httpserver.expect_request("/x").respond_with_handler(lambda r: calls.append(r) or WebResponse("oops", 500))
    source = arxiv
    with source.session(settings) as session, pytest.raises(SourceError, match="HTTP 500"):
        session.fetch(Request("POST", source.url("x"), data={"a": "b"}), fresh=True)
    assert len(calls) == 1


def test_an_unreachable_server_is_one_clear_error(local, arxiv, settings: Settings) -> None:
    expected = r"arxiv: GET http://127.0.0.1:9/x failed after 3 attempts: ConnectionError: .*Connection refused"
    with pytest.raises(SourceError, match=expected) as caught:
        ask(local("arxiv", "http://127.0.0.1:9"), settings)
    assert "object at 0x" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["gaia", "esgf", "pangaea", "ges-disc", "cmip6-zarr", "exomol", "copernicus-cds"])
def test_no_kind_hides_that_it_is_offline(name: str, settings: Settings) -> None:
    """Clients wrap errors into ones of their own; what comes out is ours, whichever client stands between."""
    source = ALL_SOURCES[name]
    offline = replace(settings, offline=True)
    with pytest.raises(OfflineError, match=rf"^{name}: ASTROBIO_OFFLINE is on and the cache lacks (GET|POST) http"):
        fetch(source, source.example, settings=offline)


def test_answers_are_cached_and_offline_mode_serves_them_and_names_what_is_missing(ads, httpserver, settings) -> None:
    httpserver.expect_ordered_request("/search/query").respond_with_json(DOCS)
    source, with_token = ads, replace(settings, secrets={"ads": TOKEN})
    first = fetch(source, "a planet", settings=with_token, limit=1)
    second = fetch(source, "a planet", settings=with_token, limit=1)
    assert not first.records[0].provenance.from_cache
    assert second.records[0].provenance.from_cache
    assert second.records[0].provenance.sha256 == first.records[0].provenance.sha256
    stale = replace(settings, offline=True, expire_after=0.0)
    assert fetch(source, "a planet", settings=stale, limit=1).records[0].payload == first.records[0].payload
    with pytest.raises(OfflineError, match=r"cache lacks GET http.*another.*run the same command online once"):
        fetch(source, "another", settings=stale, limit=1)


def test_offline_mode_sends_nothing(arxiv, httpserver: HTTPServer, settings: Settings) -> None:
    with pytest.raises(OfflineError):
        ask(arxiv, replace(settings, offline=True))
    assert not httpserver.log


def test_the_environment_switches_offline_mode_and_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASTROBIO_OFFLINE", "1")
    monkeypatch.setenv("ASTROBIO_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("ASTROBIO_ACCEPT_LICENCES", "kegg, biocyc")
    found = Settings.from_environment()
    assert found.offline and found.cache_dir == tmp_path / "c" / "sources" and found.accepted == {"kegg", "biocyc"}


def test_an_answer_that_is_too_large_is_refused_while_it_arrives(
    arxiv, httpserver: HTTPServer, settings: Settings
) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    httpserver.expect_request("/x").respond_with_data(bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(PayloadError, match="exceeds 1000000 bytes"):
        ask(arxiv, replace(settings, max_bytes=1_000_000))


def test_an_answer_that_never_ends_is_given_up(arxiv, httpserver: HTTPServer, settings: Settings) -> None:
    def trickle(request: WebRequest) -> WebResponse:
        def drops():
            for _ in range(100):
                time.sleep(0.05)
                yield b"x" * 65_536

        return WebResponse(drops())

    httpserver.expect_request("/x").respond_with_handler(trickle)
    with pytest.raises(PayloadError, match=r"exceeds 0\.3 s"):
        ask(arxiv, replace(settings, deadline=0.3))


def test_a_truncated_body_is_tried_again(local, settings: Settings, cut_server) -> None:
    base, calls = cut_server
    assert ask(local("arxiv", base), settings).text == "whole answer"
    assert len(calls) == 2


@pytest.fixture
def cut_server():
    """A server that closes the connection in the middle of its first body."""
    import threading
    from http.server import BaseHTTPRequestHandler
    from http.server import HTTPServer as PlainServer

    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "12")
            self.end_headers()
            self.wfile.write(b"whole answer" if len(calls) > 1 else b"whole")

        def log_message(self, *args: object) -> None:
            """Silent."""

    server = PlainServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", calls
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_rate_of_a_host_is_kept(arxiv, httpserver: HTTPServer, settings: Settings) -> None:
    httpserver.expect_request("/x").respond_with_data("fine")
    source = replace(arxiv, rate=(2, 0.5))
    begin = time.monotonic()
    with source.session(settings) as session:
        for number in range(5):
            session.fetch(Request("GET", source.url("x"), params={"n": number}))
    assert time.monotonic() - begin >= 1.0


def test_a_missing_credential_is_named_before_anything_is_sent(ads, httpserver: HTTPServer, settings: Settings) -> None:
    with pytest.raises(
        CredentialError, match=r"no credential 'ads' found; get one at https://ui.adsabs.*ADS_API_TOKEN"
    ):
        fetch(ads, "a planet", settings=settings)
    assert not httpserver.log


def test_a_refused_credential_is_named_with_its_origin_but_not_its_value(
    ads, httpserver, settings, monkeypatch
) -> None:
    monkeypatch.setenv("ADS_API_TOKEN", TOKEN)
    httpserver.expect_request("/search/query").respond_with_data(f"bad token {TOKEN}", status=401)
    with pytest.raises(CredentialError) as caught:
        fetch(ads, "a planet", settings=settings)
    text = str(caught.value)
    assert "credential 'ads' from environment variable ADS_API_TOKEN was refused" in text
    assert "https://ui.adsabs.harvard.edu/user/settings/token" in text and TOKEN not in text


def test_a_licence_that_must_be_accepted_is_named_with_its_page(
    local, httpserver: HTTPServer, settings: Settings
) -> None:
    body = {"title": "required licences not accepted", "detail": "see https://cds.climate.copernicus.eu/datasets/x"}
    httpserver.expect_request("/x").respond_with_json(body, status=403)
    source = local("copernicus-cds", httpserver.url_for(""))
    with pytest.raises(LicenceError, match=r"licence must be accepted at https://cds.climate.*required licences"):
        ask(source, replace(settings, secrets={"cds": TOKEN}))


def test_restricted_databases_ask_for_acceptance_first(local, httpserver: HTTPServer, settings: Settings) -> None:
    with pytest.raises(
        LicenceError, match=r"read https://www.kegg.jp/kegg/legal.html, then pass `--accept-licence kegg`"
    ):
        fetch(local("kegg", httpserver.url_for("")), "get/C00001", settings=settings)
    assert not httpserver.log


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_host_keeps_the_secret(
    ads, httpserver: HTTPServer, settings: Settings, code: int
) -> None:
    httpserver.expect_request("/x").respond_with_data("", status=code, headers={"Location": "/y"})
    httpserver.expect_request("/y", headers={"Authorization": f"Bearer {TOKEN}"}).respond_with_data("there")
    assert ask(ads, replace(settings, secrets={"ads": TOKEN})).text == "there"


def test_a_redirect_loop_ends(arxiv, httpserver: HTTPServer, settings: Settings) -> None:
    httpserver.expect_request("/x").respond_with_data("", status=302, headers={"Location": "/x"})
    with pytest.raises(SourceError, match="redirects"):
        ask(arxiv, settings)


def test_an_explicit_header_wins_over_netrc(ads, httpserver: HTTPServer, settings: Settings) -> None:
    netrc = Path.home() / ".netrc"
    netrc.write_text("machine localhost login someone password else-secret\n")
    netrc.chmod(0o600)
    httpserver.expect_request("/x", headers={"Authorization": f"Bearer {TOKEN}"}).respond_with_data("there")
    assert ask(ads, replace(settings, secrets={"ads": TOKEN})).text == "there"


def test_the_cache_holds_json_that_a_person_can_read(arxiv, httpserver: HTTPServer, settings: Settings) -> None:
    httpserver.expect_request("/x").respond_with_json({"a": 1}, headers={"Set-Cookie": "session=cookie-secret-77"})
    ask(arxiv, settings)
    files = [p for p in (settings.cache_dir / "arxiv" / "answers").rglob("*") if p.suffix == ".json"]
    assert len(files) == 1
    stored = json.loads(files[0].read_text())
    assert stored["status_code"] == 200 and "cookie-secret-77" not in files[0].read_text()
