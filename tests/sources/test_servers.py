"""Connectors against real servers of their protocols, started here on loopback."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oai_repo
import pytest
import requests
import xarray as xr
from lxml import etree
from oai_repo.interface import DataInterface
from oai_repo.interfacedata import Identify, MetadataFormat, RecordHeader, Set
from werkzeug import Request as WebRequest
from werkzeug import Response as WebResponse
from werkzeug.serving import make_server

from astrobio.errors import InputError
from astrobio.sources import CredentialError, OfflineError, SourceError, fetch
from astrobio.sources.auth import Credential
from astrobio.sources.client import Settings
from astrobio.sources.placements import OAuth
from astrobio.sources.samples import climate_of

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:pydap", "ignore::DeprecationWarning:webob", "ignore::DeprecationWarning:moto",
    "ignore::DeprecationWarning:botocore", "ignore::DeprecationWarning:authlib", "ignore::ResourceWarning",
)  # fmt: skip


@contextmanager
def serving(application: Any) -> Iterator[str]:
    """A WSGI application on 127.0.0.1; yields its address."""
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def merra2() -> xr.Dataset:
    """Monthly single-level fields in the layout of MERRA-2's tavgM_2d_slv_Nx (names, units, axes), coarser."""
    time = np.array([0.0], dtype="f8")
    lat, lon = np.linspace(-90, 90, 19), np.linspace(-180, 170, 36)
    field = 288 + 30 * np.cos(np.deg2rad(lat))[None, :, None] - 20 + np.zeros((1, 19, 36))
    variables = {
        "T2M": (("time", "lat", "lon"), field.astype("f4"), {"units": "K", "standard_name": "2-meter_air_temperature"}),
        "PS": (
            ("time", "lat", "lon"),
            np.full((1, 19, 36), 1e5, "f4"),
            {"units": "Pa", "standard_name": "surface_pressure"},
        ),
    }
    coords = {
        "time": ("time", time, {"units": "minutes since 2020-01-01 00:30:00", "calendar": "standard"}),
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }
    return xr.Dataset(variables, coords=coords)


@pytest.fixture(scope="module")
def opendap() -> Iterator[str]:
    """pydap's own server (its netCDF handler fails on sub-ranges, so the arrays are given to it directly)."""
    with warnings.catch_warnings():  # webob, on which the server stands, imports the deprecated cgi
        warnings.simplefilter("ignore", DeprecationWarning)
        from pydap.handlers.lib import BaseHandler
        from pydap.model import BaseType, DatasetType
    served, data = DatasetType("merra2"), merra2()
    for name, variable in data.variables.items():
        dims = tuple(map(str, variable.dims))
        served[str(name)] = BaseType(str(name), variable.values, dims=dims, **variable.attrs)
    with serving(BaseHandler(served)) as base:
        yield base


def test_opendap_reads_a_selection_lazily(opendap: str, local, settings: Settings) -> None:
    source = local("ges-disc", opendap)
    answer = fetch(source, "merra2.nc?variables=T2M&lat=-30:30&time=@0", settings=settings)
    record = answer.records[0]
    with xr.open_dataset(record.payload, engine="netcdf4") as found:
        expected = merra2()["T2M"].sel(lat=slice(-30, 30))
        assert list(found.data_vars) == ["T2M"] and found["T2M"].attrs["units"] == "K"
        np.testing.assert_allclose(found["T2M"].values, expected.values)
        np.testing.assert_allclose(found["lat"].values, expected["lat"].values)
    assert record.provenance.sha256 and not record.provenance.from_cache
    again = fetch(source, "merra2.nc?variables=T2M&lat=-30:30&time=@0", settings=replace(settings, offline=True))
    assert again.records[0].provenance.from_cache
    begin = time.monotonic()
    with pytest.raises(OfflineError, match=r"cache lacks GET http.*\(asked for merra2\.nc\?variables=PS\)"):
        fetch(source, "merra2.nc?variables=PS", settings=replace(settings, offline=True))
    assert time.monotonic() - begin < 10, "xarray must not ask again and again for what cannot be had"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("merra2.nc?variables=T3M", "expected variables among"),
        ("merra2.nc?height=0:1", "expected a dimension among"),
        ("merra2.nc?lat=a:b", "selects nothing"),
        ("../secret", "expected a query such as"),
    ],
)
def test_opendap_refuses_wrong_selections(query: str, message: str, opendap: str, local, settings: Settings) -> None:
    with pytest.raises(InputError, match=message):
        fetch(local("ges-disc", opendap), query, settings=settings)


def test_opendap_names_a_missing_file(local, settings: Settings) -> None:
    with (
        serving(WebResponse("no such data set", status=404)) as base,
        pytest.raises(SourceError, match=r"HTTP 404.*no such"),
    ):
        fetch(local("ges-disc", base), "absent.nc", settings=settings)


class Repository(DataInterface):
    """Twelve Dublin Core records, five a page."""

    limit = 5
    names = tuple(f"oai:example.org:{number:02d}" for number in range(12))

    def get_identify(self) -> Identify:
        return Identify("Test", "http://127.0.0.1/oai", ["a@example.org"], "2020-01-01", "no", "YYYY-MM-DD")

    def is_valid_identifier(self, identifier: str) -> bool:
        return identifier in self.names

    def get_metadata_formats(self, identifier: str | None = None) -> list[MetadataFormat]:
        return [
            MetadataFormat(
                "oai_dc",
                "http://www.openarchives.org/OAI/2.0/oai_dc.xsd",
                "http://www.openarchives.org/OAI/2.0/oai_dc/",
            )
        ]

    def get_record_header(self, identifier: str) -> RecordHeader:
        return RecordHeader(identifier, "2024-03-01", ["topicAtmosphere"])

    def get_record_metadata(self, identifier: str, metadataprefix: str) -> Any:
        return etree.fromstring(
            '<oai_dc:dc xmlns:oai_dc="http://www.openarchives.org/OAI/2.0/oai_dc/" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<dc:title>Data set {identifier[-2:]}</dc:title><dc:rights>CC-BY-4.0</dc:rights></oai_dc:dc>"
        )

    def get_record_abouts(self, identifier: str) -> list[Any]:
        return []

    def list_set_specs(self, identifier: str | None = None, cursor: int = 0) -> tuple:
        return ["topicAtmosphere"], 1, None

    def get_set(self, setspec: str) -> Set:
        return Set(setspec, "Atmosphere", [])

    def list_identifiers(self, metadataprefix, filter_from=None, filter_until=None, filter_set=None, cursor=0) -> tuple:
        return list(self.names[cursor : cursor + self.limit]), len(self.names), None


def repository_application() -> Callable[..., Any]:
    repository = oai_repo.OAIRepository(Repository())

    @WebRequest.application
    def answer(request: WebRequest) -> WebResponse:
        return WebResponse(bytes(repository.process(request.args.to_dict())), content_type="text/xml")

    return answer


def test_oaipmh_follows_resumption_tokens(local, settings: Settings) -> None:
    with serving(repository_application()) as base:
        source = local("pangaea", base)
        answer = fetch(source, "set=topicAtmosphere&from=2024-01-01&until=2024-12-31", settings=settings)
        assert [r.identifier for r in answer.records] == list(Repository.names) and answer.complete
        assert answer.records[11].payload["title"] == ["Data set 11"]
        one = fetch(source, f"identifier={Repository.names[3]}", settings=settings)
        assert [r.identifier for r in one.records] == [Repository.names[3]]
        with pytest.raises(SourceError, match="IdDoesNotExist"):
            fetch(source, "identifier=oai:example.org:99", settings=settings)
        with pytest.raises(SourceError, match="CannotDisseminateFormat"):
            fetch(source, "set=topicAtmosphere&metadataPrefix=unknown", settings=settings)


@pytest.fixture
def identity_provider() -> Iterator[str]:
    with warnings.catch_warnings():  # the provider stands on a module that authlib is about to drop
        warnings.simplefilter("ignore")
        import oidc_provider_mock

    application = oidc_provider_mock.app(
        user_claims=[oidc_provider_mock.User(sub="somebody", claims={"email": "a@b.c"})]
    )
    with serving(application) as base:
        yield base


def grant_refresh_token(base: str, made: dict[str, Any]) -> str:
    """What a person does once in a browser: agree, and come back with a refresh token."""
    from authlib.integrations.requests_client import OAuth2Session

    back = {"redirect_uri": "http://127.0.0.1/back", "scope": "openid offline_access"}
    with OAuth2Session(made["client_id"], made["client_secret"], **back) as browser:
        url, _ = browser.create_authorization_url(f"{base}/oauth2/authorize")
        agreed = requests.post(url, data={"sub": "somebody"}, allow_redirects=False, timeout=5)
        token = browser.fetch_token(f"{base}/oauth2/token", authorization_response=agreed.headers["Location"])
    return token["refresh_token"]


def test_oauth_refreshes_against_a_real_provider(identity_provider: str, local, settings: Settings) -> None:
    """A refresh token becomes an access token that the provider itself accepts, and a wrong one is refused by name."""
    wanted = {"redirect_uris": ["http://127.0.0.1/back"]}
    made = requests.post(f"{identity_provider}/oauth2/clients", json=wanted, timeout=5).json()
    refresh = grant_refresh_token(identity_provider, made)
    placement = OAuth(f"{identity_provider}/oauth2/token", made["client_id"], client_secret=made["client_secret"])
    credential = Credential("planted", placement, "https://example.org/key")
    source = local(
        "zenodo",
        identity_provider,
        path="userinfo",
        credential=credential,
        parse=lambda body, where: [{"id": body.decode()}],
    )
    answer = fetch(source, "x=1", settings=replace(settings, secrets={"planted": refresh}), limit=1)
    assert "somebody" in answer.records[0].identifier
    with pytest.raises(CredentialError, match="refused"):
        fetch(source, "x=2", settings=replace(settings, secrets={"planted": "not-the-token"}), limit=1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_climate_file_of_a_database_becomes_a_cube(local, settings: Settings, payload, httpserver) -> None:
    path = payload("climate", "exoplasim", "earth_t21_year3.nc")
    httpserver.expect_request("/earth.nc").respond_with_data(Path(path).read_bytes())
    source = replace(local("ges-disc", httpserver.url_for("")), protocol="https")
    cube = climate_of(fetch(source, "earth.nc", settings=settings).records[0])
    assert cube.shape[2:] == (10, 32, 64)
    assert 270 < cube.global_mean("surface_temperature") < 300
