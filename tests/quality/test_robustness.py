"""Damaged and hostile files: a finding each, never a hang, a crash of ours, or memory without end."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from astrobio.quality.examine import Options, examine
from astrobio.quality.findings import VERDICTS, FileReport
from astrobio.quality.isolation import Examiner

KINDS = ("netcdf", "csv", "ecsv", "fits", "votable", "catalogue", "kegg", "genomes", "sbml", "json")
FEW, MANY = 6, 500  # mutants of a kind: in every run, and in the slow run


def _plain(path: Path) -> tuple[bytes, str]:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()), Path(path.stem).suffix
    return path.read_bytes(), path.suffix


Mutants = Callable[[bytes, int, int], list[bytes]]


def _run(examiner: Examiner, source: Path, mutants: Mutants, count: int, folder: Path, seed: int) -> list[FileReport]:
    data, suffix = _plain(source)
    reports = []
    for number, mutant in enumerate(mutants(data, count, seed)):
        path = folder / f"mutant{number}{suffix}"
        path.write_bytes(mutant)
        reports.append(examiner.examine(path))
        path.unlink()
    return reports


def _judge(reports: list[FileReport]) -> None:
    for report in reports:
        assert report.verdict in VERDICTS
        assert (
            report.verdict == "accept" or any(f.severity in ("fatal", "error") for f in report.findings) or report.rows
        )
        for one in report.findings:
            assert one.message and one.remedy and one.location and "Traceback" not in one.message
        json.dumps(report.to_dict(), allow_nan=False, default=str)


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_get_a_verdict(
    kind: str, samples: dict[str, Path], examiner: Examiner, mutants: Mutants, tmp_path: Path
) -> None:
    reports = _run(examiner, samples[kind], mutants, FEW, tmp_path, seed=KINDS.index(kind))
    _judge(reports)
    assert any(r.verdict != "accept" for r in reports)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_500_mutants_of_a_kind(kind: str, samples: dict[str, Path], mutants: Mutants, tmp_path: Path) -> None:
    started = time.perf_counter()
    with Examiner(Options(), timeout=60.0, memory=2 * 2**30) as examiner:
        reports = _run(examiner, samples[kind], mutants, MANY, tmp_path, seed=1000 + KINDS.index(kind))
    _judge(reports)
    lost = [f.message for r in reports for f in r.findings if f.rule == "FILE-007"]
    verdicts = {v: sum(r.verdict == v for r in reports) for v in VERDICTS}
    print(
        kind, verdicts, f"{time.perf_counter() - started:.0f} s, slowest {max(r.seconds for r in reports):.1f} s", lost
    )
    assert max(r.seconds for r in reports) < 60.0


def test_mutants_of_a_zarr_store(examiner: Examiner, mutants: Mutants, tmp_path: Path) -> None:
    import xarray as xr

    store = tmp_path / "store.zarr"
    grid = {"lat": ("lat", np.linspace(-80.0, 80.0, 8)), "lon": ("lon", np.arange(0.0, 360.0, 45.0))}
    field = (
        ("lat", "lon"),
        np.random.default_rng(0).normal(288, 5, (8, 8)),
        {"standard_name": "surface_temperature", "units": "K"},
    )
    xr.Dataset({"ts": field}, grid).to_zarr(store, consolidated=False, zarr_format=3)
    assert examiner.examine(store).verdict == "accept"
    files = sorted(p for p in store.rglob("*") if p.is_file())
    for number, file in enumerate(files):
        whole = file.read_bytes()
        for mutant in mutants(whole, 2, number):
            file.write_bytes(mutant)
            _judge([examiner.examine(store)])
        file.write_bytes(whole)


ENTITIES = {
    "billion laughs": '<!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>',
    "outside file": '<!DOCTYPE s [<!ENTITY xxe SYSTEM "file:///etc/hostname">]>',
    "parameter entity": '<!DOCTYPE s [<!ENTITY % p SYSTEM "http://127.0.0.1:9/p.dtd"> %p;]>',
    "outside definition": '<!DOCTYPE s SYSTEM "http://127.0.0.1:9/s.dtd">',
}


@pytest.mark.parametrize("attack", sorted(ENTITIES))
@pytest.mark.parametrize("root", ["sbml", "VOTABLE", "system"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entity_attacks_are_refused(attack: str, root: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "attack.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{ENTITIES[attack]}<{root}/>'.encode(encoding))
    report = examine(path)
    assert (report.verdict, [f.rule for f in report.findings]) == ("reject", ["FILE-005"])


def test_bottomless_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.xml"
    path.write_text("<sbml>" + "<a>" * 100_000 + "</a>" * 100_000 + "</sbml>")
    assert [f.rule for f in examine(path).findings] == ["FILE-005"]
    path.write_text('{"metabolites":' + "[" * 200_000)
    assert [f.rule for f in examine(path).findings] == ["FILE-003"]


def _bomb(opener, path: Path) -> None:
    options = {"preset": 0} if opener is lzma.open else {}
    with opener(path, "wb", **options) as stream:
        for _ in range(70):
            stream.write(bytes(2**20))


@pytest.mark.parametrize(("name", "opener"), [("b.csv.gz", gzip.open), ("b.nc.xz", lzma.open)])
def test_decompression_bombs_are_refused(name: str, opener, tmp_path: Path) -> None:
    _bomb(opener, tmp_path / name)
    report = examine(tmp_path / name)
    assert [f.rule for f in report.findings] == ["FILE-004"]


def test_a_bomb_in_a_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.csv.gz").write_bytes(gzip.compress(gzip.compress(b"pl_name\nx\n")))
    assert [f.rule for f in examine(tmp_path / "n.csv.gz").findings] == ["FILE-004"]
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", bytes(80 * 2**20))
    assert [f.rule for f in examine(tmp_path / "z.zip").findings] == ["FILE-004"]


def test_declared_sizes_are_bounded(tmp_path: Path) -> None:
    import netCDF4

    path = tmp_path / "huge.nc"
    with netCDF4.Dataset(path, "w") as data:
        data.createDimension("x", 2**36)
        data.createVariable("t", "f8", ("x",), chunksizes=(2**20,), zlib=True)
    report = examine(path)
    assert "FILE-004" in [f.rule for f in report.findings]
    assert report.seconds < 5


class _Bomb:
    def __reduce__(self) -> tuple:
        return os.system, ("echo pickled > /tmp/astrobio-pickle-ran",)


def test_pickles_are_refused_unopened(tmp_path: Path) -> None:
    mark = Path("/tmp/astrobio-pickle-ran")
    mark.unlink(missing_ok=True)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(_Bomb()))
    np.save(tmp_path / "b.npy", np.array([_Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "c.npz", a=np.array([_Bomb()], dtype=object))
    for name in ("a.pkl", "b.npy", "c.npz"):
        assert [f.rule for f in examine(tmp_path / name).findings] == ["FILE-006"], name
    store = tmp_path / "d.zarr"
    store.mkdir()
    (store / ".zarray").write_text(json.dumps({"filters": [{"id": "pickle"}], "zarr_format": 2}))
    assert [f.rule for f in examine(store).findings] == ["FILE-006"]
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"   \n\n", io.BytesIO(b"\x93NUMPY\x01").getvalue()])
def test_empty_and_stub_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert examine(tmp_path / "x.csv").verdict == "reject"


def test_pipes_and_missing_files_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nowhere"):
        assert [f.rule for f in examine(tmp_path / name).findings] == ["FILE-001"]


def test_hangs_crashes_and_greed_are_findings(tmp_path: Path, samples: dict[str, Path], examiner: Examiner) -> None:
    timeout, memory = examiner.timeout, examiner.memory
    wide = tmp_path / "wide.csv"
    wide.write_text("pl_name,pl_rade\n" + "x,1\n" * 400_000)
    try:
        examiner.timeout = 0.0
        report = examiner.examine(samples["netcdf"])
        assert [f.rule for f in report.findings] == ["FILE-007"] and report.verdict == "reject" and report.sha256
        examiner.timeout, examiner.memory = timeout, 30 * 2**20
        assert [f.rule for f in examiner.examine(wide).findings] == ["FILE-007"]
    finally:
        examiner.timeout, examiner.memory = timeout, memory
    assert examiner._process is not None
    examiner._process.kill()
    examiner._process.join()
    assert examiner.examine(samples["catalogue"]).verdict == "accept"  # by a fresh process
