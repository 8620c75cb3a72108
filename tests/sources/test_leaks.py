"""A planted secret turns up nowhere but in requests to its own host: every kind, every placement, every failure.

Logging is at DEBUG for everything; scanned are logs, errors with their tracebacks, the cache, saved answers and the
requests that reach another host.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import traceback
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request as WebRequest
from werkzeug import Response as WebResponse

from astrobio.errors import InputError
from astrobio.sources import ALL_SOURCES, fetch
from astrobio.sources.auth import Credential
from astrobio.sources.commands import describe_request
from astrobio.sources.placements import Basic, Cookie, Form, Header, Login, OAuth, Query, TokenOrPassword

TOKEN = "planted/secret+token=7f3a9c21"
FORMS = (
    TOKEN,
    quote(TOKEN, safe=""),
    base64.b64encode(TOKEN.encode()).decode(),
    base64.b64encode(b"me:" + TOKEN.encode()).decode(),
)
USER = {"env_user": "PLANTED_USER"}
CDS_QUERY = 'era5 {"year": ["2024"]}'
CASES = {  # database, query, placement, more of its credential: each connector kind, each placement
    "rest-header": ("ads", "a planet", Header(), {}),
    "rest-query": ("ncbi", "archaea", Query("api_key"), {}),
    "rest-form": ("psg", "<OBJECT>Planet", Form("key"), {}),
    "rest-cookie": ("mast", "WASP-39", Cookie("mast_token"), {}),
    "rest-basic": ("zenodo", "a planet", Basic(), USER),
    "rest-login": ("biocyc", "META:TRP", Login("LOGIN"), USER),
    "tap-oauth": ("eso", "TRAPPIST-1", OAuth("LOGIN", "client", grant="password", token_field="id_token"), USER),
    "rest-token-or-password": ("nasa-cmr", "M2TMNXSLV", TokenOrPassword("LOGIN"), USER),
    "tap-header": ("gaia", "12345", Header(), {}),
    "job-header": ("copernicus-cds", CDS_QUERY, Header("PRIVATE-TOKEN", "{secret}"), {}),
    "job-query": ("jgi", "615a383dcc4ff44f36ca5ba2", Query("token"), {}),
    "grid-header": ("ges-disc", "x.nc4?variables=T2M", Header(), {}),
    "stac-header": ("esgf", "collections=CMIP6", Header(), {}),
    "oaipmh-query": ("pangaea", "set=topicAtmosphere", Query("token"), {}),
    "files-query": ("modelseed", "compounds.tsv", Query("token"), {}),
    "files-basic": ("bigg", "iJO1366", Basic(), USER),
}
ENDINGS = ("echo", "error", "refusal", "redirect", "redirect-with-secret", "malformed", "closed", "refused-login")


@pytest.fixture
def log():
    """Everything that any logger says, at DEBUG."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    loud = [
        logging.getLogger(name)
        for name in ("urllib3", "requests_cache", "httpx2", "werkzeug", "pystac_client", "pooch")
    ]
    for logger in loud:
        logger.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)
    for logger in loud:
        logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def other_server():
    server = HTTPServer("127.0.0.1", 0)
    server.start()
    yield server
    server.clear()
    server.stop()


@pytest.fixture
def elsewhere(other_server: HTTPServer) -> HTTPServer:
    """Another host: the same machine under another name and port, which remembers what it was sent."""
    other_server.clear()
    other_server.expect_request(re.compile(".*")).respond_with_data("{}", content_type="application/json")
    return other_server


def answering(ending: str, other: HTTPServer, sent: list[str]):
    """A handler that logs in anybody, then ends as told; it remembers whether the secret arrived."""

    def handle(request: WebRequest) -> WebResponse:
        seen = _whole(request)
        sent.append(seen)
        if request.path == "/login" and ending == "refused-login":
            return WebResponse(json.dumps({"error": f"wrong secret {TOKEN}"}), 401)
        if request.path == "/login":
            return WebResponse(json.dumps({"id_token": "granted-" + TOKEN, "access_token": "granted-" + TOKEN}))
        echo = f"you said {TOKEN} and {quote(TOKEN, safe='')}"
        headers = {
            "X-Echo": TOKEN,
            "Set-Cookie": f"echo={quote(TOKEN, safe='')}",
            "Link": f'<{request.base_url}?k={TOKEN}>; rel="self"',
        }
        if ending in ("echo", "refused-login"):
            return WebResponse(
                json.dumps({"response": {"docs": []}, "echo": echo, "items": [], "rows": []}), 200, headers
            )
        if ending == "error":
            return WebResponse(echo, 500, headers)
        if ending == "refusal":
            return WebResponse(echo, 401, headers)
        if ending == "redirect":
            return WebResponse("", 307, {"Location": other.url_for("/caught")})
        if ending == "redirect-with-secret":
            return WebResponse("", 302, {"Location": other.url_for("/caught") + "?stolen=" + quote(TOKEN, safe="")})
        return WebResponse(f"<html>{echo}", 200, headers)

    return handle


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("case", CASES)
def test_no_trace_of_the_secret(
    case, ending, httpserver, elsewhere, log, local, settings, monkeypatch, tmp_path
) -> None:
    name, query, placement, more = CASES[case]
    sent: list[str] = []
    httpserver.expect_request(re.compile(".*")).respond_with_handler(answering(ending, elsewhere, sent))
    base = httpserver.url_for("") if ending != "closed" else "http://localhost:9"
    if getattr(placement, "url", "") == "LOGIN":
        placement = replace(placement, url=f"{base}/login")
    if getattr(placement, "token_url", "") == "LOGIN":
        placement = replace(placement, token_url=f"{base}/login")
    credential = Credential("planted", placement, "https://example.org/key", env=("PLANTED_TOKEN",), **more)
    source = local(name, base, credential=credential)
    monkeypatch.setenv("PLANTED_TOKEN", TOKEN)
    monkeypatch.setenv("PLANTED_USER", "me")
    impatient = replace(settings, attempts=2, timeout=2.0, longest_backoff=0.01, accepted=frozenset(ALL_SOURCES))
    said = ""
    try:
        fetch(source, query, settings=impatient).save(tmp_path / "out")
    except InputError as error:
        said = "".join(traceback.format_exception(error))
    if ending not in ("closed",):
        assert any(form in text for text in sent for form in FORMS), "the secret must reach its own host"
    places = {"log": log.getvalue(), "error": said, "elsewhere": _received(elsewhere)}
    for file in [*settings.cache_dir.rglob("*"), *(tmp_path / "out").rglob("*")]:
        if file.is_file():
            places[str(file)] = file.read_bytes().decode("latin-1")
    for place, text in places.items():
        text = _without_server_log(text) if place == "log" else text
        for form in FORMS:
            assert form not in text, (
                f"{place} holds the secret: …{text[max(0, text.find(form) - 80) : text.find(form) + 40]}"
            )


def _received(server: HTTPServer) -> str:
    return "\n".join(_whole(request) for request, _ in server.log)


def _whole(request: WebRequest) -> str:
    """A request as it came: path and query as on the wire, headers, body."""
    return f"{request.environ['RAW_URI']} {dict(request.headers)} {request.get_data(as_text=True)}"


def _without_server_log(text: str) -> str:
    """The test's own web server logs in this process too; its lines are the far end of the wire."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("werkzeug"))


def test_the_log_is_loud_enough_to_leak(httpserver, log, local, settings) -> None:
    """Guards the test above: without masking, this is what the HTTP library would say of a query."""
    httpserver.expect_request("/x").respond_with_data("")
    source = local("arxiv", httpserver.url_for(""))
    with source.session(settings) as session:
        session.get(source.url("x"), params={"key": "visible-not-registered"})
    assert "visible-not-registered" in _without_server_log(log.getvalue())


def test_a_request_is_shown_without_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ADS_API_TOKEN", "NCBI_API_KEY", "PSG_API_KEY", "MAST_API_TOKEN", "CDSAPI_KEY"):
        monkeypatch.setenv(variable, TOKEN)
    for name in ("ads", "ncbi", "psg", "mast", "copernicus-cds"):
        query = CDS_QUERY if name == "copernicus-cds" else "a planet"
        shown = describe_request(name, query)
        assert "***" in shown and TOKEN not in shown


def test_records_written_by_a_third_party_hold_no_secret(httpserver, local, settings, tmp_path: Path) -> None:
    """A recording made through a response hook, as recorders do, sees the request without its secret."""
    httpserver.expect_request("/x").respond_with_data("fine")
    credential = Credential("planted", Header(), "https://example.org/key")
    source = local("arxiv", httpserver.url_for(""), credential=credential)
    seen = []
    with source.session(replace(settings, secrets={"planted": TOKEN})) as session:
        session.hooks["response"].append(
            lambda r, *a, **k: seen.append((dict(r.request.headers), r.url, dict(r.headers)))
        )
        session.get(source.url("x"))
    assert httpserver.log[0][0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert seen and TOKEN not in repr(seen)
