"""Databases of climates: reanalyses, satellite products and model archives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrobio.sources.auth import Credential
from astrobio.sources.errors import PayloadError
from astrobio.sources.kinds import Grid, Job, Rest, Stac
from astrobio.sources.kinds.job import Result, request_json
from astrobio.sources.kinds.rest import SearchAfterHeader
from astrobio.sources.parsers import json_rows
from astrobio.sources.payload import dig
from astrobio.sources.placements import Header, TokenOrPassword
from astrobio.sources.record import Evidence, Licence

EARTHDATA = Credential(
    name="earthdata",
    placement=TokenOrPassword("https://urs.earthdata.nasa.gov/api/users/find_or_create_token"),
    how="https://urs.earthdata.nasa.gov/documentation/for_users/user_token",
    env=("EARTHDATA_TOKEN",),
    machine="urs.earthdata.nasa.gov",
    required=False,
)
CDS_EXAMPLE = (
    'reanalysis-era5-single-levels-monthly-means {"variable": ["2m_temperature"], "year": ["2024"], "month": ["01"]}'
)


def cds_submission(query: str) -> tuple[str, dict[str, Any]]:
    """`DATASET {request}` → path and body of a submission."""
    dataset, inputs = request_json(query, "copernicus-cds", CDS_EXAMPLE)
    return f"retrieve/v1/processes/{dataset}/execution", {"inputs": inputs}


def cds_job(answer: Mapping[str, Any], location: str) -> str:
    """The job's address: the Location header, or its identifier."""
    if not isinstance(answer.get("jobID"), str):
        raise PayloadError(f"copernicus-cds: expected a jobID, found {str(answer)[:80]}")
    return location or f"/api/retrieve/v1/jobs/{answer['jobID']}"


def cds_result(results: Any, query: str) -> Result:
    """The file of a finished job, with its MD5."""
    value = dig(results, "asset.value", "copernicus-cds")
    href = dig(value, "href", "copernicus-cds")
    checksum = value.get("file:checksum", "")
    if not isinstance(href, str) or not isinstance(checksum, str):
        raise PayloadError(f"copernicus-cds: expected the address of a file, found {str(value)[:80]}")
    return Result(href, f"md5:{checksum}" if len(checksum) == 32 else "")


COPERNICUS_CDS = Job(
    name="copernicus-cds",
    title="Copernicus Climate Data Store (ERA5 and others)",
    base="https://cds.climate.copernicus.eu/api",
    submission=cds_submission,
    status_at=cds_job,
    result_of=cds_result,
    hosts=("object-store.os-api.cci2.ecmwf.int",),
    modality="climate",
    licence=Licence("per data set, accepted on its page", "https://cds.climate.copernicus.eu/datasets"),
    citation="Copernicus Climate Change Service, doi:10.24381/cds.adbb2d47",
    credential=Credential(
        "cds",
        Header("PRIVATE-TOKEN", "{secret}"),
        "https://cds.climate.copernicus.eu/profile",
        env=("CDSAPI_KEY",),
        dotfile=".cdsapirc",
    ),
    example=CDS_EXAMPLE,
    rate=(2, 1.0),
    tested_by=Evidence(
        "mock contract",
        "no recorded answer is available; a queue made after its processes interface",
        ("tests/sources/test_kinds.py::test_a_job_is_submitted_polled_and_downloaded",),
    ),
)

NASA_CMR = Rest(
    name="nasa-cmr",
    title="NASA Common Metadata Repository, granules",
    base="https://cmr.earthdata.nasa.gov/search",
    path="granules.umm_json",
    query_name="short_name",
    pager=SearchAfterHeader(),
    parse=json_rows("items", error="errors"),
    types={"meta": dict[str, Any], "umm": dict[str, Any]},
    modality="climate",
    licence=Licence("free and open", "https://www.earthdata.nasa.gov/engage/open-data-services-software-policies"),
    citation="NASA Earth Science Data and Information System",
    credential=EARTHDATA,
    example="short_name=M2TMNXSLV&temporal=2020-01-01,2020-12-31",
    tested_by=Evidence(
        "recorded answers",
        "granule answers in earthaccess's test data",
        (
            "tests/sources/test_recordings.py::test_cmr_granules",
            "tests/sources/test_recordings.py::test_cmr",
        ),
    ),
)

GES_DISC = Grid(
    name="ges-disc",
    title="NASA GES DISC, MERRA-2 over OPeNDAP",
    base="https://goldsmr4.gesdisc.eosdis.nasa.gov/opendap",
    protocol="opendap",
    modality="climate",
    licence=Licence("free and open", "https://disc.gsfc.nasa.gov/information/documents?title=data-policy"),
    citation="Gelaro et al. 2017, doi:10.1175/JCLI-D-16-0758.1",
    credential=EARTHDATA,
    example="MERRA2_MONTHLY/M2TMNXSLV.5.12.4/2020/MERRA2_400.tavgM_2d_slv_Nx.202001.nc4?variables=T2M&lat=-30:30",
    tested_by=Evidence(
        "real server",
        "an OPeNDAP server holding a MERRA-2 single-level layout",
        ("tests/sources/test_servers.py::test_opendap_reads_a_selection_lazily",),
    ),
)

ESGF = Stac(
    name="esgf",
    title="Earth System Grid Federation, CMIP6",
    base="https://discovery.west.esgf.io",
    collections=("CMIP6",),
    identifier="id",
    modality="climate",
    licence=Licence("CC BY 4.0 (per model)", "https://pcmdi.llnl.gov/CMIP6/TermsOfUse"),
    citation="Eyring et al. 2016, doi:10.5194/gmd-9-1937-2016",
    example="collections=CMIP6&cmip6:experiment_id=piControl&cmip6:variable_id=rlut",
    tested_by=Evidence(
        "recorded answers",
        "a published CMIP6 item, served by a STAC interface",
        (
            "tests/sources/test_recordings.py::test_esgf",
            "tests/services/test_services.py::test_stac_pages_and_filters",
        ),
    ),
)

CMIP6_ZARR = Grid(
    name="cmip6-zarr",
    title="CMIP6 in the cloud (Zarr on S3)",
    base="s3://cmip6-pds/CMIP6",
    protocol="s3",
    modality="climate",
    licence=Licence("CC BY 4.0 (per model)", "https://pcmdi.llnl.gov/CMIP6/TermsOfUse"),
    citation="Eyring et al. 2016, doi:10.5194/gmd-9-1937-2016",
    example="CMIP/NOAA-GFDL/GFDL-CM4/piControl/r1i1p1f1/Amon/rlut/gr1/v20180701?variables=rlut&time=@0:12",
    rate=(50, 1.0),
    tested_by=Evidence(
        "real server",
        "an S3 server holding stores in CMIP6's own layout",
        ("tests/sources/test_buckets.py::test_s3_reads_a_cmip6_store",),
    ),
)
