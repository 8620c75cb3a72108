"""Connectors against the heavy servers that `up.sh` sets up on this machine. Run: pytest -m services tests/services"""

from __future__ import annotations

import csv
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from astropy.table import Table

from astrobio.sources import ALL_SOURCES, CredentialError, SourceError, fetch
from astrobio.sources.auth import Credential
from astrobio.sources.client import Request, Settings
from astrobio.sources.placements import Basic, Header

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore")]
HERE = Path(__file__).parent
TAP, NGINX, STAC = "http://127.0.0.1:8080/tap", "http://127.0.0.1:8091", "http://127.0.0.1:8092"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", attempts=4, timeout=30.0, deadline=120.0, longest_backoff=1.0)


def up(url: str) -> None:
    """Skip where the server is not there."""
    try:
        requests.get(url, timeout=5)
    except requests.RequestException:
        pytest.skip(f"{url} is not up; run tests/services/up.sh")


@pytest.fixture
def nasa():
    """The Exoplanet Archive's declaration on the local TAP service (whose tables stand in a schema)."""
    up(f"{TAP}/availability")
    source = ALL_SOURCES["nasa-exoplanet-archive"]
    return replace(source, base=TAP, template=source.template.replace("FROM pscomppars", "FROM exo.pscomppars"))


def archive_rows() -> list[dict[str, str]]:
    return list(csv.DictReader((HERE / "exo" / "planets.csv").open()))


def test_tap_sync_finds_the_planets_of_a_host(nasa, settings: Settings) -> None:
    answer = fetch(nasa, "TRAPPIST-1", settings=settings)
    expected = {row["pl_name"]: row for row in archive_rows() if row["hostname"] == "TRAPPIST-1"}
    assert {r.identifier for r in answer.records} == set(expected) and len(expected) == 7 and answer.complete
    for record in answer.records:
        row = expected[record.identifier]
        assert record.payload["pl_rade"] == pytest.approx(float(row["pl_rade"]))
        assert record.payload["st_spectype"] is None
    assert fetch(nasa, "TRAPPIST-1", settings=replace(settings, offline=True)).records[0].provenance.from_cache


def test_tap_async_gives_the_same_rows(nasa, settings: Settings) -> None:
    query = "SELECT pl_name, pl_rade FROM exo.pscomppars WHERE hostname = 'TRAPPIST-1' ORDER BY pl_name"
    sync, asynchronous = (fetch(replace(nasa, mode=mode), query, settings=settings) for mode in ("sync", "async"))
    assert [r.payload for r in sync.records] == [r.payload for r in asynchronous.records] and len(sync.records) == 7


def test_tap_upload_joins_with_a_table_of_ours(nasa, settings: Settings) -> None:
    mine = Table({"name": ["TRAPPIST-1 e", "K2-18 b", "nowhere b"]})
    query = "SELECT pl_name, pl_rade FROM exo.pscomppars JOIN TAP_UPLOAD.mine ON name = pl_name"
    with nasa.session(settings) as session:
        records = list(nasa.records(query, session, 100, lambda *a: None, uploads={"mine": mine}))
    assert sorted(r.identifier for r in records) == ["K2-18 b", "TRAPPIST-1 e"]


def test_tap_overflow_is_noted(nasa, settings: Settings) -> None:
    answer = fetch(nasa, "SELECT pl_name FROM exo.pscomppars", settings=settings, limit=5)
    assert len(answer.records) == 5 and not answer.complete
    assert any("truncated" in note or "limit" in note for note in answer.notes)
    whole = fetch(nasa, "SELECT pl_name FROM exo.pscomppars", settings=settings, limit=10_000)
    assert len(whole.records) == len(archive_rows()) and whole.complete


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_tap_errors_quote_the_service(mode: str, nasa, settings: Settings) -> None:
    with pytest.raises(SourceError, match=r"(?i)nasa-exoplanet-archive: the query was refused.*no_such_column"):
        fetch(replace(nasa, mode=mode), "SELECT no_such_column FROM exo.pscomppars", settings=settings)


def test_tap_names_can_not_break_out(nasa, settings: Settings) -> None:
    assert fetch(nasa, "x' OR '1'='1", settings=settings).records == []


def test_exoplanet_eu_layout(settings: Settings) -> None:
    up(f"{TAP}/availability")
    answer = fetch(replace(ALL_SOURCES["exoplanet-eu"], base=TAP), "Proxima Cen b", settings=settings)
    assert [r.identifier for r in answer.records] == ["Proxima Cen b"]
    assert answer.records[0].payload["star_teff"] == 2900.0


def test_eso_obscore_layout(settings: Settings) -> None:
    """ObsCore with observations of Sgr A* that ESO's archive once answered with."""
    up(f"{TAP}/availability")
    source = replace(ALL_SOURCES["eso"], base=TAP)
    rows = list(csv.DictReader((HERE / "eso" / "observations.csv").open()))
    answer = fetch(source, "GC_IRS7", settings=settings)
    assert {r.identifier for r in answer.records} == {row["obs_publisher_did"] for row in rows} and len(rows) == 4
    assert answer.complete and all(r.payload["instrument_name"] == "AMBER" for r in answer.records)
    assert [r.payload["em_min"] for r in answer.records] == [None] * 4
    nothing = fetch(source, "TRAPPIST-1", settings=settings)
    assert nothing.records == [] and nothing.complete


def test_stilts_finds_no_error_in_the_service(settings: Settings) -> None:
    up(f"{TAP}/availability")
    done = subprocess.run(
        ["stilts", "taplint", f"tapurl={TAP}", "stages=QGE QPO QAS UWS", "report=EF"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Errors: 0" in done.stdout, done.stdout[-2000:]


def nginx_source(placement, path: str = "bearer"):
    up(f"{NGINX}/plain.json")
    credential = Credential(
        "planted", placement, "https://example.org/key", env_user="U" if isinstance(placement, Basic) else ""
    )
    return replace(ALL_SOURCES["arxiv"], base=NGINX, rate=(1000, 1.0), credential=credential), path


@pytest.mark.parametrize(
    ("placement", "path", "good", "bad"),
    [
        (Basic(), "basic/file", "reader:services-password", "reader:wrong-password"),
        (Header(), "bearer", "services-bearer-token", "wrong-bearer-token"),
    ],
)
def test_nginx_lets_the_right_secret_in_and_names_the_wrong_one(placement, path, good, bad, settings: Settings) -> None:
    source, path = nginx_source(placement, path)
    with source.session(replace(settings, secrets={"planted": good})) as session:
        assert session.fetch(Request("GET", source.url(path)), fresh=True).status_code == 200
    with (
        source.session(replace(settings, secrets={"planted": bad})) as session,
        pytest.raises(CredentialError, match="credential 'planted' from the explicit argument was refused") as caught,
    ):
        session.fetch(Request("GET", source.url(path)), fresh=True)
    assert bad.split(":")[-1] not in str(caught.value)


def test_nginx_rate_limit_is_waited_out(settings: Settings) -> None:
    up(f"{NGINX}/plain.json")
    source = replace(ALL_SOURCES["gtdb"], base=NGINX, rate=(1000, 1.0), credential=None)
    begin = time.monotonic()
    with source.session(settings) as session:
        answers = [session.fetch(Request("GET", source.url("limited.json")), fresh=True) for _ in range(4)]
    assert [a.status_code for a in answers] == [200] * 4 and time.monotonic() - begin > 1.0


def test_stac_pages_and_filters(settings: Settings) -> None:
    up(STAC)
    source = replace(ALL_SOURCES["esgf"], base=STAC, rate=(1000, 1.0))
    answer = fetch(source, "collections=CMIP6&cmip6:variable_id=clcalipso", settings=settings)
    assert len(answer.records) == 12 and answer.complete
    assert answer.records[0].payload["properties"]["cmip6:source_id"] == "IPSL-CM6A-LR"
    one = fetch(source, "collections=CMIP6&cmip6:variant_label=r7i1p1f1", settings=settings)
    assert [".r7i1p1f1." in r.identifier for r in one.records] == [True]
    none = fetch(
        source, "collections=CMIP6&bbox=0,0,1,1&datetime=1900-01-01T00:00:00Z/1901-01-01T00:00:00Z", settings=settings
    )
    assert none.records == []
    assert len(fetch(source, "collections=CMIP6", settings=settings, limit=5).records) == 5
