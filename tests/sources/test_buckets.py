"""CMIP6 in the cloud: a bucket on a real S3 server (moto) with stores in CMIP6's own layout, all through one door."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from werkzeug import Request as WebRequest
from werkzeug import Response as WebResponse

from astrobio.errors import InputError
from astrobio.sources import ALL_SOURCES, CredentialError, OfflineError, fetch
from astrobio.sources.auth import Credential
from astrobio.sources.client import Settings
from astrobio.sources.placements import Header
from astrobio.sources.samples import climate_of

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:moto", "ignore::DeprecationWarning:botocore", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


CMIP6 = "CMIP/NOAA-GFDL/GFDL-CM4/piControl/r1i1p1f1/Amon"
PLEV = np.array([100000, 92500, 85000, 70000, 60000, 50000, 40000, 30000, 25000, 20000, 15000, 10000, 7000, 5000, 3000,
                 2000, 1000, 500, 100], dtype="f8")  # fmt: skip


def axis(name: str, values: np.ndarray, units: str, **more: str) -> tuple[str, np.ndarray, dict[str, str]]:
    return name, values, {"units": units, **more}


def cmip6(variable: str, units: str, standard_name: str, mean: float, *, levels: bool) -> xr.Dataset:
    """One variable as CMIP6 publishes it: Amon table, noleap calendar, bounds, plev19, 1.0e20 for what is missing."""
    months = np.arange(24)
    bounds = np.stack([months * 365 / 12, (months + 1) * 365 / 12], axis=1)
    lat, lon = np.linspace(-87.5, 87.5, 36), np.linspace(2.5, 357.5, 72)
    field = mean * (1 + 0.05 * np.cos(np.deg2rad(lat))[None, None, :, None] + np.zeros((24, 19, 1, 72)))
    field *= (PLEV[None, :, None, None] / 1e5) ** (0.1 if levels else 0)
    coords = {
        "time": axis("time", bounds.mean(axis=1), "days since 0151-01-01", calendar="noleap", bounds="time_bnds",
                     axis="T", standard_name="time"),
        "lat": axis("lat", lat, "degrees_north", axis="Y", standard_name="latitude", bounds="lat_bnds"),
        "lon": axis("lon", lon, "degrees_east", axis="X", standard_name="longitude", bounds="lon_bnds"),
    }  # fmt: skip
    if levels:
        coords["plev"] = axis("plev", PLEV, "Pa", axis="Z", positive="down", standard_name="air_pressure")
    about = {"units": units, "standard_name": standard_name, "cell_methods": "area: time: mean",
             "cell_measures": "area: areacella", "missing_value": np.float32(1e20)}  # fmt: skip
    dims = ("time", "plev", "lat", "lon") if levels else ("time", "lat", "lon")
    variables = {
        variable: (dims, (field if levels else field[:, 0]).astype("f4"), about),
        "time_bnds": (("time", "bnds"), bounds),
        "lat_bnds": (("lat", "bnds"), np.stack([lat - 2.5, lat + 2.5], axis=1)),
        "lon_bnds": (("lon", "bnds"), np.stack([lon - 2.5, lon + 2.5], axis=1)),
    }
    attributes = {
        "Conventions": "CF-1.7 CMIP-6.0 UGRID-1.0", "mip_era": "CMIP6", "activity_id": "CMIP", "table_id": "Amon",
        "institution_id": "NOAA-GFDL", "source_id": "GFDL-CM4", "experiment_id": "piControl", "frequency": "mon",
        "variant_label": "r1i1p1f1", "variable_id": variable, "grid_label": "gr1", "realm": "atmos",
    }  # fmt: skip
    data = xr.Dataset(variables, coords, attributes)
    data[variable].encoding = {"_FillValue": np.float32(1e20), "chunks": (12, *data[variable].shape[1:])}
    return data


STORES = {
    "rlut": ("W m-2", "toa_outgoing_longwave_flux", 235.0, False),
    "ts": ("K", "surface_temperature", 280.0, False),
    "ta": ("K", "air_temperature", 270.0, True),
    "hus": ("1", "specific_humidity", 0.004, True),
}


@pytest.fixture(scope="module")
def bucket(s3: str, tmp_path_factory) -> str:
    """A public bucket with Zarr stores in CMIP6's layout of paths, attributes and axes."""
    import boto3

    folder = tmp_path_factory.mktemp("cmip6")
    client = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="maker", aws_secret_access_key="maker-secret"
    )
    client.create_bucket(Bucket="cmip6-pds", ACL="public-read")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (units, standard_name, mean, levels) in STORES.items():
            data = cmip6(name, units, standard_name, mean, levels=levels)
            data.to_zarr(folder / CMIP6 / name / "gr1" / "v20180701", zarr_format=2, consolidated=True)
        old = data.isel(time=[0])
        old.to_zarr(folder / "plain", zarr_format=2, consolidated=False)
        old.drop_encoding().to_zarr(folder / "v3.zarr", zarr_format=3, consolidated=True)
        old.drop_encoding().to_netcdf(folder / "hus.nc", engine="netcdf4")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "cmip6-pds", f"CMIP6/{path.relative_to(folder)}")
    client.close()
    return s3


@pytest.fixture
def cloud(bucket: str):
    """CMIP6's declaration, its bucket on this machine."""
    return replace(ALL_SOURCES["cmip6-zarr"], endpoint=bucket, rate=(1000, 1.0))


def test_s3_reads_a_cmip6_store(cloud, settings: Settings) -> None:
    query = f"{CMIP6}/ta/gr1/v20180701?variables=ta&lat=0:90&plev=100000:50000&time=@3:15"
    record = fetch(cloud, query, settings=settings).records[0]
    with xr.open_dataset(record.payload, engine="netcdf4", decode_times=False) as found:
        expected = cmip6("ta", *STORES["ta"][:3], levels=True)["ta"].isel(time=slice(3, 15), plev=slice(0, 6))
        np.testing.assert_allclose(found["ta"].values, expected.sel(lat=slice(0, 90)).values)
        assert found.attrs["variable_id"] == "ta" and found.attrs["source_id"] == "GFDL-CM4"
        assert found["time"].attrs["calendar"] == "noleap" and found["plev"].attrs["units"] == "Pa"
        np.testing.assert_allclose(found["time"].values, expected["time"].values)
    assert record.provenance.url.startswith(cloud.endpoint) and "/cmip6-pds/CMIP6/CMIP/" in record.provenance.url


def test_s3_stores_become_a_cube(cloud, settings: Settings) -> None:
    """Each variable is a store of its own; together, two noleap years are a climatology of twelve months."""
    records = [fetch(cloud, f"{CMIP6}/{name}/gr1/v20180701", settings=settings).records[0] for name in STORES]
    cube = climate_of(records)
    assert cube.shape[1:] == (12, 10, 32, 64) and cube.time_kind == "months" and len(cube.fields) == 4
    assert 280 < cube.global_mean("surface_temperature") < 294
    with pytest.raises(InputError, match="expected surface_temperature and air_temperature"):
        climate_of(records[:1])


@pytest.mark.parametrize("path", ["v3.zarr", "hus.nc"])
def test_s3_reads_other_formats(path: str, cloud, settings: Settings) -> None:
    record = fetch(cloud, f"{path}?variables=hus&plev=@0:2", settings=settings).records[0]
    with xr.open_dataset(record.payload, engine="netcdf4", decode_times=False) as found:
        assert found["hus"].shape == (1, 2, 36, 72) and float(found["hus"].mean()) == pytest.approx(0.0041, rel=0.03)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (f"{CMIP6}/pr/gr1/v20180701", r"no \.zmetadata and no zarr\.json"),
        ("plain", "consolidated metadata"),
        (f"{CMIP6}/ts/gr1/v20180701?variables=tas", r"expected variables among .*'ts'"),
        ("absent.nc", "HTTP 404"),
    ],
)
def test_s3_says_what_is_missing(query: str, message: str, cloud, settings: Settings) -> None:
    with pytest.raises(InputError, match=rf"cmip6-zarr.*{message}"):
        fetch(cloud, query, settings=settings)


def test_s3_serves_offline_what_it_has(cloud, settings: Settings, monkeypatch) -> None:
    """Selections made before, and new ones of pieces that came before; anything else is named."""
    query = f"{CMIP6}/ts/gr1/v20180701?variables=ts"
    monkeypatch.setenv("ASTROBIO_OFFLINE", "1")
    offline = replace(settings, offline=Settings.from_environment().offline)
    assert offline.offline
    with pytest.raises(OfflineError, match=r"cache lacks GET http.*/ts/gr1/v20180701/\.zmetadata"):
        fetch(cloud, f"{query}&time=@0:3", settings=offline)
    fetch(cloud, f"{query}&time=@0:3", settings=settings)
    assert fetch(cloud, f"{query}&time=@0:3", settings=offline).records[0].provenance.from_cache
    assert fetch(cloud, f"{query}&time=@3:6", settings=offline).records, "the same piece of the store holds it"
    with pytest.raises(OfflineError, match=r"/ts/1\.0\.0"):
        fetch(cloud, f"{query}&time=@12:15", settings=offline)


def test_s3_keeps_the_rate_retries_and_hides_what_is_secret(local, httpserver, settings: Settings) -> None:
    """Every piece passes through the one function: a busy server is asked again, a secret it echoes is masked."""
    busy = iter([503, 503])

    def answer(request: WebRequest) -> WebResponse:
        status = next(busy, 404)
        return WebResponse("planted-secret-5511" if status == 404 else "slow down", status, {"Retry-After": "0"})

    httpserver.expect_request("/cmip6-pds/CMIP6/x/.zmetadata").respond_with_handler(answer)
    httpserver.expect_request("/cmip6-pds/CMIP6/x/zarr.json").respond_with_data("planted-secret-5511", status=403)
    credential = Credential("planted", Header(), "https://example.org/key")
    source = replace(ALL_SOURCES["cmip6-zarr"], endpoint=httpserver.url_for("").rstrip("/"), credential=credential)
    with pytest.raises(CredentialError, match="'planted' from the explicit argument was refused") as caught:
        fetch(source, "x", settings=replace(settings, secrets={"planted": "planted-secret-5511"}))
    assert [r.path[-9:] for r, _ in httpserver.log] == ["zmetadata"] * 3 + ["zarr.json"]
    assert all(r.headers["Authorization"] == "Bearer planted-secret-5511" for r, _ in httpserver.log)
    assert "planted-secret-5511" not in str(caught.value)
    assert not any(b"planted-secret-5511" in p.read_bytes() for p in settings.cache_dir.rglob("*") if p.is_file())
