"""Hostile answers: 500 mutated payloads for each connector kind give records, rows set aside, or one clear error.

Nothing may hang, crash, take more than bounded memory, or raise anything but the package's own error. Seeded.
"""

from __future__ import annotations

import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
import xarray as xr

from astrobio.errors import InputError
from astrobio.sources import ALL_SOURCES
from astrobio.sources.client import Settings
from astrobio.sources.kinds.base import Rejected

KINDS = (
    "tap",
    "rest-json",
    "rest-atom",
    "rest-lines",
    "job",
    "grid",
    "grid-file",
    "stac",
    "oaipmh",
    "fileset",
    "fileset-def",
)
LONGEST = 12.0  # s for one answer
MOST_MEMORY = 400_000  # kB that a kind may add to the process
BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 16) for n in range(12))
    + b"]><x>&m;</x>"
)
EXTERNAL = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>'
OAI = b"""<?xml version="1.0"?><OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><ListRecords>%s</ListRecords></OAI-PMH>"""
OAI_RECORD = b"""<record><header><identifier>oai:x:%d</identifier><datestamp>2024-01-01</datestamp></header><metadata>
<oai_dc:dc xmlns:oai_dc="http://www.openarchives.org/OAI/2.0/oai_dc/" xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>One</dc:title></oai_dc:dc></metadata></record>"""
DDS = b"Dataset {\n Float32 T2M[lat = 3];\n Float64 lat[lat = 3];\n} x;\n"
DAS = b'Attributes {\n T2M {\n String units "K";\n }\n lat {\n String units "degrees_north";\n }\n}\n'
ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/abs/1</id><title>A</title>
<author><name>B</name></author></entry></feed>"""


def dods() -> bytes:
    """An OPeNDAP data answer: three temperatures and their latitudes."""
    import struct

    head = b"Dataset {\n Float32 T2M[lat = 3];\n Float64 lat[lat = 3];\n} x;\nData:\n"
    return head + struct.pack(">ii3f", 3, 3, 280, 290, 300) + struct.pack(">ii3d", 3, 3, -10, 0, 10)


@cache
def netcdf() -> bytes:
    """A small netCDF-4 file (HDF5 inside)."""
    with tempfile.TemporaryDirectory() as folder:
        data = xr.Dataset({"T2M": ("lat", [280.0, 290.0, 300.0])}, coords={"lat": [-10.0, 0.0, 10.0]})
        data.to_netcdf(f"{folder}/x.nc", engine="netcdf4")
        return Path(folder, "x.nc").read_bytes()


def mutate(body: bytes, rng: random.Random) -> bytes:
    """One of a dozen ways in which answers go wrong."""
    if not body:
        return body
    at, to = sorted(rng.randrange(len(body)) for _ in range(2))
    ways: list[Callable[[], bytes]] = [
        lambda: body[:at],  # truncated
        lambda: body[at:],
        lambda: body[:at] + bytes(rng.randrange(256) for _ in range(8)) + body[at + 8 :],  # overwritten
        lambda: body[:at] + body[to:],  # a hole
        lambda: body[:at] + body[at:to] * 30 + body[to:],  # repeated
        lambda: body[:at] + b"9" * 5000 + body[at:],  # absurd numbers
        lambda: swap(body, rng),  # wrong types
        lambda: body.replace(b'"K"', b'"furlongs"').replace(b'unit="', b'unit="furlong '),  # wrong units
        lambda: rng.choice([b"", b"null", b"[]", b"{}", b"0", b"<html><body>busy</body></html>", b"\x00" * 64]),
        lambda: rng.choice([BOMB, EXTERNAL, BOMB + body, body[:at] + b"&m;" + body[at:]]),  # entity attacks
        lambda: rng.choice([b"[" * 20_000, b"<a>" * 20_000, b'{"a":' * 20_000]),  # nested without end
        lambda: body[:at] + b"A" * 400_000 + body[at:],  # huge
    ]
    return rng.choice(ways)()


def swap(body: bytes, rng: random.Random) -> bytes:
    """Values of another type: in JSON by position in the tree, elsewhere by text."""
    try:
        tree = json.loads(body)
    except ValueError:
        return body.replace(
            rng.choice([b"0", b"1", b"true", b"int", b"float", b"<"]), rng.choice([b"text", b"-", b"", b">"])
        )
    node = tree
    for _ in range(rng.randrange(6)):
        inside = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        nested = [value for value in inside if isinstance(value, dict | list) and value]
        if not nested:
            break
        node = rng.choice(nested)
    key = rng.choice(list(node)) if isinstance(node, dict) and node else 0
    if isinstance(node, dict | list) and node:
        node[key] = rng.choice([None, 7, "text", [], {}, [1], {"a": 1}, True, -1e308, "\u0000"])  # type: ignore[index]
    return json.dumps(tree).encode()


def answers(name: str) -> tuple[str, str, Callable[[str], bytes]]:
    """Database, query, and the sound body for each path of its interface."""
    vot = files("astroquery").joinpath("gaia/tests/data/1710099405832VAL-result.vot").read_bytes()
    caom = files("astroquery").joinpath("mast/tests/data/caom.json").read_bytes()
    lines = files("astroquery").joinpath("hitran/tests/data/H2O.data").read_bytes()[:4000]
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "collection": "CMIP6",
        "properties": {},
        "links": [],
        "assets": {},
    }
    landing = {
        "type": "Catalog", "id": "e", "description": "d", "stac_version": "1.0.0",
        "links": [{"rel": "search", "href": "http://h/search", "method": "POST"}],
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
    }  # fmt: skip
    page = json.dumps({"type": "FeatureCollection", "features": [item], "links": []}).encode()
    root = json.dumps(landing).encode()
    job = {"jobID": "j", "status": "successful", "asset": {"value": {"href": "http://h/f", "file:checksum": ""}}}
    models = b"id\tname\tformula\ncpd1\tWater\tH2O\ncpd2\tHydrogen\tH2\n"
    return {
        "tap": ("gaia", "1", lambda path: vot),
        "rest-json": ("mast", "LO-LAT", lambda path: caom),
        "rest-atom": ("arxiv", "life", lambda path: ATOM),
        "rest-lines": ("hitran", "1 0 9", lambda path: lines),
        "job": ("copernicus-cds", 'era5 {"a": "b"}', lambda path: json.dumps(job).encode()),
        "grid": ("ges-disc", "x.nc?variables=T2M", lambda path: {"dds": DDS, "das": DAS}.get(path[-3:], dods())),
        "grid-file": ("ges-disc", "x.nc", lambda path: netcdf()),
        "stac": ("esgf", "collections=CMIP6", lambda path: {"search": page}.get(path[-6:], root)),
        "oaipmh": ("pangaea", "set=a", lambda path: OAI % b"".join(OAI_RECORD % n for n in range(3))),
        "fileset": ("modelseed", "compounds.tsv", lambda path: models),
        "fileset-def": ("exomol", "CO/12C-16O/Li2015", lambda path: b""),
    }[name]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutations", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_answers(
    kind: str, mutations: int, canned, settings: Settings, recording, tmp_path, monkeypatch
) -> None:
    name, query, sound = answers(kind)
    if kind == "fileset-def":
        sound = lambda path: recording("exomol_12C-16O__Li2015.def")  # noqa: E731
    source = replace(ALL_SOURCES[name], base="http://h", rate=(1_000_000, 1.0))
    if kind == "grid-file":
        source, settings = replace(source, protocol="https"), replace(settings, deadline=1.0)
        monkeypatch.setattr("astrobio.sources.kinds.apart.START", 4.0)  # some damaged files hang the netCDF library
    if kind == "job":
        source = replace(source, poll=(0.0, 0.0), patience=0.0)
    rng = random.Random(f"fuzz {kind}")
    secrets = {"cds": "key-of-cds"}
    outcomes: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(mutations):
        target = rng.randrange(3 if kind in ("job", "grid", "stac") else 1)  # which of the answers of a query is bad
        asked = 0

        def answer(request, target=target):
            nonlocal asked
            body = sound(request.url.split("?")[0])
            body = mutate(body, rng) if asked == target else body
            asked += 1
            return 200, body, {"Content-Type": "text/xml" if kind in ("tap", "oaipmh") else "application/json"}

        patient = replace(settings, cache_dir=tmp_path / str(number), attempts=1, max_bytes=8 * 2**20, secrets=secrets)
        session = canned(source, patient, answer)
        session.settings.disabled = True
        begin = time.monotonic()
        try:
            found = list(zip(range(200), source.records(query, session, 200, lambda *a: None), strict=False))
            outcomes["set aside" if any(isinstance(item, Rejected) for _, item in found) else "records"] += 1
        except InputError as error:
            assert len(str(error)) < 1500 and "\n" not in str(error), str(error)[:2000]
            outcomes["error"] += 1
        finally:
            session.close()
        assert number == 0 or time.monotonic() - begin < LONGEST  # the first also waits for imports
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_MEMORY, f"{grown} kB"
    assert sum(outcomes.values()) == mutations and outcomes["error"] > mutations // 25, outcomes
    print(kind, dict(outcomes), f"{grown} kB")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("attack", [BOMB, EXTERNAL], ids=["expansion", "external file"])
@pytest.mark.parametrize("kind", ["tap", "rest-atom", "oaipmh"])
def test_entity_attacks_are_refused_by_name(kind: str, attack: bytes, canned, settings: Settings) -> None:
    name, query, _ = answers(kind)
    source = replace(ALL_SOURCES[name], base="http://h", rate=(1000, 1.0))
    session = canned(source, settings, lambda request: (200, attack, {"Content-Type": "text/xml"}))
    with session, pytest.raises(InputError, match="XML with entity declarations refused"):
        list(source.records(query, session, 10, lambda *a: None))
