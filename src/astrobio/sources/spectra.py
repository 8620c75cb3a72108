"""Databases of spectra and of the line lists behind them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import requests

from astrobio.errors import InputError
from astrobio.sources.auth import Credential
from astrobio.sources.client import Request
from astrobio.sources.errors import PayloadError
from astrobio.sources.kinds import FileSet, Rest
from astrobio.sources.parsers import exomol_definition, hitran_lines, json_rows, psg_spectrum
from astrobio.sources.payload import dig, parse_json
from astrobio.sources.placements import Cookie, Form, Query
from astrobio.sources.record import Evidence, Licence


@dataclass(frozen=True)
class MastPages:
    """MAST's paging: inside the JSON text of the form field `request`."""

    size: int = 2000

    def start(self, request: Request, limit: int) -> Request:
        return self._at(request, 1, min(self.size, limit))

    def next(self, request: Request, response: requests.Response, rows: int) -> Request | None:
        paging = dig(parse_json(response.content, "mast"), "paging", "mast")
        page, last = (
            (paging.get(key) for key in ("page", "pagesFiltered")) if isinstance(paging, dict) else (None, None)
        )
        if not isinstance(page, int) or not isinstance(last, int):
            raise PayloadError(f"mast: expected page numbers, found {str(paging)[:80]}")
        return self._at(request, page + 1, 0) if page < last else None

    def _at(self, request: Request, page: int, size: int) -> Request:
        assert isinstance(request.data, dict)
        body = json.loads(request.data["request"]) | {"page": page} | ({"pagesize": size} if size else {})
        return Request("POST", request.url, data={"request": json.dumps(body)})


@dataclass(frozen=True, kw_only=True)
class Mast(Rest):
    """MAST's portal interface: a target's name becomes a filtered query of the common archive observation model."""

    def request(self, query: str) -> Request:
        name = query.strip()
        if not name or len(name) > 200:
            raise InputError(
                f"{self.name}: expected the name of a target such as {self.example!r}, found {query[:60]!r}"
            )
        filters = [
            {"paramName": "target_name", "values": [name]},
            {"paramName": "dataproduct_type", "values": ["spectrum"]},
        ]
        body = {"service": "Mast.Caom.Filtered", "format": "json", "params": {"columns": "*", "filters": filters}}
        return Request("POST", self.url(self.path), data={"request": json.dumps(body)})


MAST = Mast(
    name="mast",
    title="Mikulski Archive for Space Telescopes (JWST, HST, TESS), spectra by target",
    base="https://mast.stsci.edu",
    path="api/v0/invoke",
    pager=MastPages(),
    parse=json_rows("data"),
    identifier="obs_id",
    modality="spectrum",
    licence=Licence("public; proprietary periods", "https://archive.stsci.edu/publishing/data-use"),
    citation="MAST, Space Telescope Science Institute",
    credential=Credential(
        "mast", Cookie("mast_token"), "https://auth.mast.stsci.edu/token", env=("MAST_API_TOKEN",), required=False
    ),
    example="WASP-39",
    tested_by=Evidence(
        "recorded answers",
        "observation answers in astroquery's test data",
        ("tests/sources/test_recordings.py::test_mast",),
    ),
)


def exomol_path(query: str) -> str:
    """`MOLECULE/ISOTOPOLOGUE/DATASET` → its definition file; a path with a file name passes."""
    parts = query.strip("/").split("/")
    if len(parts) == 3:
        return "/".join([*parts, f"{parts[1]}__{parts[2]}.def"])
    if len(parts) == 4:
        return "/".join(parts)
    raise InputError(f"exomol: expected MOLECULE/ISOTOPOLOGUE/DATASET such as CO/12C-16O/Li2015, found {query[:60]!r}")


EXOMOL = FileSet(
    name="exomol",
    title="ExoMol line lists",
    base="https://www.exomol.com/db",
    locate=exomol_path,
    parse=exomol_definition,
    parsed_suffix=".def",
    identifier="Iso-slug",
    modality="spectrum",
    licence=Licence("CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
    citation="Tennyson et al. 2024, doi:10.1016/j.jqsrt.2024.109083",
    example="CO/12C-16O/Li2015",
    tested_by=Evidence(
        "recorded answers",
        "the definition file of CO",
        ("tests/sources/test_recordings.py::test_exomol",),
    ),
)


def hitran_range(query: str) -> dict[str, Any]:
    """`ISOTOPOLOGUE_IDS LOW HIGH` (global HITRAN numbers, cm⁻¹) → parameters."""
    parts = query.split()
    try:
        low, high = float(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        low, high = 1.0, 0.0
    if not high > low or not all(part.isdigit() for part in parts[0].split(",")):
        raise InputError(
            f"hitran: expected ISOTOPOLOGUES LOW HIGH such as '1,2 3400 4100' (cm-1), found {query[:60]!r}"
        )
    return {"iso_ids_list": parts[0], "numin": low, "numax": high}


HITRAN = Rest(
    name="hitran",
    title="HITRAN line by line",
    base="https://hitran.org/lbl/api",
    build=hitran_range,
    parse=hitran_lines,
    identifier="line",
    modality="spectrum",
    licence=Licence("free after registration; cite", "https://hitran.org/citepolicy/"),
    citation="Gordon et al. 2022, doi:10.1016/j.jqsrt.2021.107949",
    credential=Credential(
        "hitran", Query("api_key"), "https://hitran.org/register/", env=("HITRAN_API_KEY",), required=False
    ),
    example="1 3400 3402",
    rate=(1, 1.0),
    tested_by=Evidence(
        "recorded answers",
        "water lines in astroquery's test data",
        ("tests/sources/test_recordings.py::test_hitran",),
    ),
)

PSG = Rest(
    name="psg",
    title="NASA Planetary Spectrum Generator",
    base="https://psg.gsfc.nasa.gov",
    path="api.php",
    method="POST",
    body="file",
    params={"type": "rad", "whdr": "y"},
    parse=psg_spectrum,
    modality="spectrum",
    licence=Licence("free; cite", "https://psg.gsfc.nasa.gov/help.php"),
    citation="Villanueva et al. 2018, doi:10.1016/j.jqsrt.2018.05.023",
    credential=Credential(
        "psg", Form("key"), "https://psg.gsfc.nasa.gov/helpapi.php", env=("PSG_API_KEY",), required=False
    ),
    example="@planet.cfg",
    rate=(1, 1.0),
    tested_by=Evidence(
        "mock contract",
        "no recorded answer is available; tables made after its handbook",
        ("tests/sources/test_kinds.py::test_psg_sends_a_form_and_reads_a_table",),
    ),
)
