"""Damaged Zarr stores, served by a database or given as a folder: a clear error or a verdict, never a hang or a crash.

Each mutant goes through both readers: `fetch` over the network's one door, and `astrobio validate`. Seeded.
"""

from __future__ import annotations

import json
import random
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from astrobio.errors import InputError
from astrobio.quality.examine import Options
from astrobio.quality.findings import VERDICTS
from astrobio.quality.isolation import Examiner
from astrobio.sources import ALL_SOURCES
from astrobio.sources.client import Settings

LONGEST = 12.0  # s for one mutant with one reader
MOST_MEMORY = 400_000  # kB that all mutants together may add to this process; readers have a limit of their own
Store = dict[str, bytes]


@cache
def sound(version: int) -> Store:
    """A small global field on levels, in either format of Zarr, metadata consolidated."""
    lat, lon = np.linspace(-80.0, 80.0, 9), np.arange(0.0, 360.0, 45.0)
    field = np.random.default_rng(0).normal(280, 5, (3, 9, 8)).astype("f4")
    about = {"standard_name": "air_temperature", "units": "K"}
    time = ("time", np.arange(3.0), {"units": "days since 2000-01-01", "calendar": "noleap"})
    data = xr.Dataset({"ta": (("time", "lat", "lon"), field, about)}, {"time": time, "lat": lat, "lon": lon})
    data["ta"].encoding = {"chunks": (1, 9, 8)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that consolidated metadata are not yet in the specification of format 3
        data.to_zarr(folder, zarr_format=version, consolidated=True)  # type: ignore[call-overload]
        files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


DTYPES = ["|O", "<U1000000000", "<f2", ">i8", "<M8[ns]", "<c16", "|V9", "x", 7, None, "float4096", "string", "int8"]
SHAPES = [[10**12], [10**6] * 3, [-1], [], [0, 0, 0], [2**63], "3", None, [1.5], [3, 9, 8, 1]]
CHUNKS = [[10**9], [0], [-3], [], [1, 1, 10**10], None, "auto", [2**40, 1, 1]]
CODECS = [
    {"id": "pickle"}, {"name": "pickle"}, {"id": "gzip", "level": 1}, {"id": "lzma"}, {"id": "vlen-utf8"}, {"id": "x"},
    {"id": "delta", "dtype": "<f8"}, {"name": "gzip", "configuration": {"level": 5}}, {"name": "transpose"}, 7, [],
]  # fmt: skip


def damage(store: Store, rng: random.Random) -> Store:
    """One of the ways in which stores go wrong."""
    out = dict(store)
    chunks = [key for key in out if not key.rpartition("/")[2].startswith((".z", "zarr.json"))]
    documents = [key for key in out if key not in chunks]
    one, document = rng.choice(chunks), rng.choice(documents)
    ways: list[Callable[[], Any]] = [
        lambda: out.update({one: out[one][: rng.randrange(len(out[one]))]}),  # truncated
        lambda: out.update({one: bytes(rng.randrange(256) for _ in range(64))}),
        lambda: out.update({one: out[one] + out[one] * 9}),
        lambda: out.update({one: flipped(out[one], rng)}),
        lambda: out.update({one: out[one][:4] + b"\xff\xff\xff\x7f" * 3 + out[one][16:]}),  # claims 2 GiB unpacked
        lambda: out.pop(one),
        lambda: out.pop(document),
        lambda: [out.pop(key) for key in list(out) if key.startswith("lat/")],  # a missing array
        lambda: out.update({document: out[document][: rng.randrange(len(out[document]))]}),
        lambda: out.update({document: rng.choice([b"", b"null", b"[]", b"{}", b"[" * 50_000, b"\x00" * 64, b"<a/>"])}),
        *[lambda: everywhere(out, rng) for _ in range(8)],  # wrong types, shapes, chunks, codecs
    ]
    rng.choice(ways)()
    return out


def flipped(body: bytes, rng: random.Random) -> bytes:
    """A few bytes overwritten."""
    content = bytearray(body)
    for _ in range(4):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def everywhere(store: Store, rng: random.Random) -> None:
    """The same wrong value of an array in all its metadata, consolidated or not."""
    field, values = rng.choice([
        ("dtype", DTYPES), ("data_type", DTYPES), ("shape", SHAPES), ("chunks", CHUNKS), ("compressor", CODECS),
        ("filters", [[codec] for codec in CODECS]), ("codecs", [[codec] for codec in CODECS]),
        ("fill_value", ["text", {}, 1e400, [1]]), ("zarr_format", [9, "2", None]), ("order", ["Q", 1]),
        ("_ARRAY_DIMENSIONS", [["lat"], 7, ["a", "b", "c", "d"]]), ("dimension_names", [["lat"], 7]),
        ("units", ["furlongs", 7, "days since never"]), ("chunk_grid", [{}, {"name": "regular"}]),
    ])  # fmt: skip
    value, array = rng.choice(values), rng.choice(["ta", "lat", "time"])

    def change(node: Any, inside: bool) -> None:
        if isinstance(node, dict):
            if inside and field in node:
                node[field] = value
            for key, below in node.items():
                change(below, inside or key == array or key.startswith(f"{array}/"))

    for key in [key for key in store if key.endswith((".zarray", ".zattrs", ".zmetadata", "zarr.json"))]:
        tree = json.loads(store[key])
        change(tree, key.startswith(f"{array}/"))
        store[key] = json.dumps(tree).encode()


def fetched(store: Store, canned, settings: Settings) -> str:
    """What `fetch` makes of it: "records" or the error's sentence."""
    source = replace(ALL_SOURCES["cmip6-zarr"], base="http://h", rate=(1_000_000, 1.0))

    def answer(request) -> tuple[int, bytes, dict[str, str]]:
        body = store.get(request.url.partition("/x/")[2])
        return (404, b"", {}) if body is None else (200, body, {})

    with canned(source, settings, answer) as session:
        session.settings.disabled = True
        try:
            list(source.records("x?variables=ta&time=@0:3", session, 5, lambda *a: None))
        except InputError as error:
            return str(error)
    return "records"


def validated(store: Store, examiner: Examiner, folder: Path) -> str:
    """The verdict on it as a folder."""
    for key, body in store.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    report = examiner.examine(folder)
    assert all(f.message and f.remedy and "Traceback" not in f.message for f in report.findings)
    return report.verdict


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutations", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("version", [2, 3])
def test_mutated_stores(version: int, mutations: int, canned, settings, tmp_path: Path, monkeypatch) -> None:
    rng = random.Random(f"zarr {version} {mutations}")
    outcomes: Counter[str] = Counter()
    settings = replace(settings, attempts=1, deadline=3.0)
    before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    with Examiner(Options(), timeout=LONGEST, memory=2 * 2**30) as examiner:
        assert fetched(sound(version), canned, replace(settings, cache_dir=tmp_path / "whole")) == "records"
        assert validated(sound(version), examiner, tmp_path / "whole.zarr") == "accept"
        monkeypatch.setattr("astrobio.sources.kinds.apart.START", 5.0)  # both readers run now
        for number in range(mutations):
            store = damage(sound(version), rng)
            for reader in ("fetch", "validate"):
                begin = time.monotonic()
                folder = tmp_path / f"{number}.zarr"
                if reader == "fetch":
                    said = fetched(store, canned, replace(settings, cache_dir=tmp_path / str(number)))
                    assert len(said) < 1500 and "\n" not in said and "crashed" not in said, said
                    outcomes["records" if said == "records" else "error"] += 1
                else:
                    verdict = validated(store, examiner, folder)
                    assert verdict in VERDICTS
                    outcomes[verdict] += 1
                slowest = max(slowest, time.monotonic() - begin)
    assert slowest < LONGEST
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_MEMORY, grown
    assert outcomes["error"] > mutations // 4 and outcomes["accept"] < mutations * 0.7, outcomes
    print(f"zarr {version}", dict(outcomes), f"{slowest:.1f} s at most, {grown} kB")
