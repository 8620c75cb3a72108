"""Databases of planets, stars and observations."""

from __future__ import annotations

from astrobio.sources.auth import Credential
from astrobio.sources.kinds import Rest, Tap
from astrobio.sources.kinds.rest import SearchAfterField
from astrobio.sources.parsers import json_rows
from astrobio.sources.placements import OAuth
from astrobio.sources.record import Evidence, Licence

PLANET_COLUMNS = (
    "pl_name, hostname, ra, dec, sy_dist, discoverymethod, disc_year, pl_orbper, pl_orbsmax, pl_rade, pl_bmasse, "
    "pl_eqt, pl_insol, pl_orbeccen, st_teff, st_rad, st_mass, st_lum, st_spectype, st_met"
)

NASA_EXOPLANET_ARCHIVE = Tap(
    name="nasa-exoplanet-archive",
    title="NASA Exoplanet Archive, planetary systems composite parameters",
    base="https://exoplanetarchive.ipac.caltech.edu/TAP",
    modality="catalogue",
    licence=Licence("public; cite the archive", "https://exoplanetarchive.ipac.caltech.edu/docs/acknowledge.html"),
    citation="NASA Exoplanet Archive, doi:10.26133/NEA13",
    template=f"SELECT {PLANET_COLUMNS} FROM pscomppars WHERE pl_name = '{{name}}' OR hostname = '{{name}}'",
    identifier="pl_name",
    types={"pl_rade": float | None, "pl_bmasse": float | None, "pl_eqt": float | None, "st_teff": float | None},
    example="TRAPPIST-1",
    tested_by=Evidence(
        "real server",
        "a VO TAP service holding pscomppars with the archive's own rows",
        (
            "tests/services/test_services.py::test_tap_sync_finds_the_planets_of_a_host",
            "tests/sources/test_recordings.py::test_nasa_exoplanet_archive",
        ),
    ),
)

EXOPLANET_EU = Tap(
    name="exoplanet-eu",
    title="Extrasolar Planets Encyclopaedia (EPN-TAP)",
    base="http://voparis-tap-planeto.obspm.fr/tap",
    modality="catalogue",
    licence=Licence("free for research; cite", "https://exoplanet.eu/API/"),
    citation="Schneider et al. 2011, doi:10.1051/0004-6361/201116713",
    template="SELECT target_name, star_name, mass, radius, period, semi_major_axis, star_teff, star_mass, star_radius, "
    "star_distance FROM exoplanet.epn_core WHERE target_name = '{name}' OR star_name = '{name}'",
    identifier="target_name",
    example="Proxima Cen b",
    tested_by=Evidence(
        "real server",
        "a VO TAP service holding exoplanet.epn_core in its published layout",
        ("tests/services/test_services.py::test_exoplanet_eu_layout",),
    ),
)

GAIA = Tap(
    name="gaia",
    title="ESA Gaia DR3",
    base="https://gea.esac.esa.int/tap-server/tap",
    modality="catalogue",
    licence=Licence("free; credit ESA/Gaia/DPAC", "https://www.cosmos.esa.int/web/gaia-users/license"),
    citation="Gaia Collaboration 2023, doi:10.1051/0004-6361/202243940",
    template="SELECT source_id, ra, dec, parallax, pmra, pmdec, phot_g_mean_mag, bp_rp, teff_gspphot, logg_gspphot, "
    "mh_gspphot FROM gaiadr3.gaia_source WHERE source_id = {name}",
    identifier="source_id",
    example="2635476908753563008",
    tested_by=Evidence(
        "recorded answers",
        "a DR3 query's VOTable in astroquery's test data",
        ("tests/sources/test_recordings.py::test_gaia",),
    ),
)

ESO = Tap(
    name="eso",
    title="ESO Science Archive, observations (ObsCore)",
    base="https://archive.eso.org/tap_obs",
    modality="catalogue",
    licence=Licence("ESO data policy; proprietary periods", "https://archive.eso.org/cms/eso-data-access-policy.html"),
    citation="ESO Science Archive Facility, doi:10.18727/archive/1",
    template="SELECT TOP 1000 obs_publisher_did, target_name, instrument_name, obs_collection, dataproduct_type, "
    "s_ra, s_dec, em_min, em_max, t_min, t_exptime, access_url FROM ivoa.ObsCore WHERE target_name = '{name}'",
    identifier="obs_publisher_did",
    example="TRAPPIST-1",
    hosts=("dataportal.eso.org",),
    credential=Credential(
        name="eso",
        how="https://www.eso.org/UserPortal",
        env=("ESO_PASSWORD",),
        env_user="ESO_USERNAME",
        machine="www.eso.org",
        required=False,
        placement=OAuth(
            token_url="https://www.eso.org/sso/oidc/token",
            client_id="clientid",
            grant="password",
            token_field="id_token",
            extra={
                "client_secret": "clientSecret",
                "response_type": "id_token token",
            },  # public, the same for everybody
        ),
    ),
    tested_by=Evidence(
        "real server",
        "a VO TAP service holding ObsCore with rows of its own; the login's recorded token answer",
        (
            "tests/services/test_services.py::test_eso_obscore_layout",
            "tests/sources/test_recordings.py::test_eso_login",
        ),
    ),
)

PDS = Rest(
    name="pds",
    title="NASA Planetary Data System, registry of products",
    base="https://pds.nasa.gov/api/search/1",
    path="products",
    query_name="q",
    headers={"Accept": "application/json"},
    pager=SearchAfterField("ops:Harvest_Info.ops:harvest_date_time"),
    parse=json_rows("data"),
    identifier="id",
    types={"title": str | None, "properties": dict[str, list[str]]},
    modality="catalogue",
    licence=Licence("public", "https://pds.nasa.gov/policies/"),
    citation="NASA Planetary Data System",
    example='(pds:Target_Identification.pds:name eq "Mars")',
    tested_by=Evidence(
        "schema",
        "answers that the models of NASA's own client of the registry accept",
        ("tests/sources/test_kinds.py::test_pds_goes_on_after_the_last_sort_value",),
    ),
)
