"""Gridded data: OPeNDAP, S3 (Zarr or netCDF) and plain HTTPS, opened lazily with xarray; only the selection is read."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import xarray as xr
from zarr.storage import FsspecStore

from astrobio.errors import InputError
from astrobio.sources.client import Request, Session, open_bucket
from astrobio.sources.download import download
from astrobio.sources.errors import OfflineError, PayloadError, SourceError
from astrobio.sources.kinds.base import Progress, Rejected, Source
from astrobio.sources.payload import reading
from astrobio.sources.record import Provenance, Record, now, sha256_file
from astrobio.sources.redact import redact

START = 20.0  # s that the first reading process may take to start, beyond its patience
LARGEST = 2 * 2**30  # bytes of a selection once read


@dataclass(frozen=True, kw_only=True)
class Grid(Source):
    """Gridded files below a base address.

    A query is `PATH?variables=a,b&NAME=low:high&NAME=index…`: a file, and what to take of it. `low:high` selects by
    coordinate, `@low:high` by index.

    Args:
        protocol: "opendap", "s3" or "https". endpoint: of an S3 service that is not Amazon's.
    """

    protocol: str = "opendap"
    endpoint: str = ""

    def parts(self, query: str) -> tuple[str, dict[str, str]]:
        """Path and selection of a query."""
        path, _, selection = query.strip().partition("?")
        if not re.fullmatch(r"[\w./+\-:]+", path) or ".." in path or path.startswith("/"):
            raise InputError(f"{self.name}: expected a query such as {self.example!r}, found {query[:80]!r}")
        return path, dict(parse_qsl(selection, keep_blank_values=True))

    def request(self, query: str) -> Request:
        return Request("GET", self.url(self.parts(query)[0]))

    def records(self, query: str, session: Session, limit: int, progress: Progress) -> Iterator[Record | Rejected]:
        path, selection = self.parts(query)
        key = hashlib.sha256(f"{self.base}|{query}".encode()).hexdigest()[:24]
        target = Path(session.settings_.cache_dir) / self.name / "files" / f"{self.name}-{key}.nc"
        cached = target.is_file()
        if not cached:
            if session.settings_.offline:
                raise OfflineError(
                    f"{self.name}: ASTROBIO_OFFLINE is on and the cache lacks {query}; run the same command online once"
                )
            progress(f"{self.name}: opening {path}", 0, None)
            self._keep(path, selection, target, session, progress)
        provenance = Provenance(
            url=redact(self.url(path)), query=query, retrieved_at=now(), sha256=sha256_file(target),
            size=target.stat().st_size, from_cache=cached, citation=self.citation,
        )  # fmt: skip
        yield Record(self.name, path, self.modality, target, provenance, self.licence)

    def _keep(self, path: str, selection: dict[str, str], target: Path, session: Session, progress: Progress) -> None:
        """Write the selection of a remote file to `target`, lazily where the protocol allows."""
        url = self.url(path)
        if self.protocol == "opendap":
            session.fetch(Request("GET", f"{url}.dds"))  # reports a missing file in plain words
            with reading(self.name, "a gridded file"), _pydap_dataset(url, session) as data:
                _write(_select(data, selection, self.name), target, self.name)
        elif self.protocol == "s3" and path.rstrip("/").endswith(".zarr"):
            with (
                reading(self.name, "a gridded file"),
                open_bucket(session, self.endpoint, lazily=True) as files,
                _zarr_dataset(files, self._key(path)) as data,
            ):
                _write(_select(data, selection, self.name), target, self.name)
        else:
            with reading(self.name, "a gridded file"):
                local = self._whole(path, session, Path(session.settings_.cache_dir) / self.name, progress)
            _extract_apart(local, selection, target, self.name, session.settings_.deadline)

    def _whole(self, path: str, session: Session, cache: Path, progress: Progress) -> Path:
        """A file that can't be read in pieces, downloaded."""
        if self.protocol != "s3":
            return download(session, self.request(path), cache / "whole" / path, progress=progress).path
        local = cache / "incoming" / path
        local.parent.mkdir(parents=True, exist_ok=True)
        with open_bucket(session, self.endpoint) as files:
            files.get_file(self._key(path), str(local))
        return local

    def _key(self, path: str) -> str:
        return f"{urlsplit(self.base).netloc}{urlsplit(self.base).path.rstrip('/')}/{path}"


def _extract_apart(local: Path, selection: dict[str, str], target: Path, where: str, patience: float) -> None:
    """Read a downloaded file in a process of its own: on a damaged one the netCDF library may hang or crash."""
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    reader = context.Process(target=_extract, args=(local, selection, target, where, theirs), daemon=True)
    reader.start()
    theirs.close()
    try:
        message = ours.recv() if ours.poll(patience + START) else None
    except EOFError:  # it died without a word
        message = f"{where}: expected a gridded file, found {local.name}, on which its reader crashed"
    finally:
        ours.close()
        reader.kill()
        reader.join()
    if message is None:
        message = f"{where}: {local.name} could not be read within {patience:.0f} s; it is damaged or too large"
    if message:
        raise PayloadError(message)


def _extract(local: Path, selection: dict[str, str], target: Path, where: str, answer: Connection) -> None:
    """In the reader's process: write the selection, answer with "" or with the error's sentence."""
    try:
        with reading(where, "a gridded file"), xr.open_dataset(local, engine="netcdf4") as data:
            _write(_select(data, selection, where), target, where)
        answer.send("")
    except InputError as error:
        answer.send(str(error))


def _zarr_dataset(files: Any, key: str) -> xr.Dataset:
    """A Zarr store, unread."""
    return xr.open_zarr(FsspecStore(files, read_only=True, path=key))


class _Gateway:
    """A local WSGI application that stands for the remote server: pydap, which would open connections of its own even
    where it is given a session, sends its requests here, and they go on through our session."""

    def __init__(self, session: Session, url: str) -> None:
        parts = urlsplit(url)
        self.session, self.origin = session, f"{parts.scheme}://{parts.netloc}"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = quote(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""), safe="/:+,.%")
        query = environ.get("QUERY_STRING", "")
        response = self.session.fetch(Request("GET", f"{self.origin}{path}" + (f"?{query}" if query else "")))
        start_response("200 OK", [("Content-Type", response.headers.get("Content-Type", "application/octet-stream"))])
        return [response.content]


def _pydap_dataset(url: str, session: Session) -> xr.Dataset:
    """An OPeNDAP data set, unread; every piece is asked for through our session."""
    with warnings.catch_warnings():  # webob, which pydap imports, still imports the deprecated cgi
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "PyDAP was unable to determine the DAP protocol", UserWarning)
        return xr.open_dataset(url, engine="pydap", application=_Gateway(session, url))


def _select(dataset: xr.Dataset, selection: dict[str, str], where: str) -> xr.Dataset:
    """The named variables and ranges, still unread.

    Raises:
        SourceError: an unknown variable. InputError: an unknown dimension, a range that is not one, or a selection
            that is empty or larger than `LARGEST`.
    """
    names = [name for name in selection.pop("variables", "").split(",") if name]
    unknown = [name for name in names if name not in dataset.variables]
    if unknown:
        raise SourceError(
            f"{where}: expected variables among {sorted(map(str, dataset.data_vars))[:20]}, found {unknown}"
        )
    chosen = dataset[names] if names else dataset
    for name, text in selection.items():
        if name not in chosen.dims:
            raise InputError(f"{where}: expected a dimension among {sorted(map(str, chosen.dims))}, found {name!r}")
        chosen = _cut(chosen, name, text, where)
    empty = [str(name) for name, size in chosen.sizes.items() if size == 0]
    if empty:
        raise InputError(f"{where}: the selection along {empty} selects nothing; its coordinates lie elsewhere")
    if chosen.nbytes > LARGEST:
        raise InputError(
            f"{where}: the selection has {chosen.nbytes / 2**30:.1f} GiB, at most {LARGEST / 2**30:.0f}; narrow it"
        )
    return chosen


def _cut(dataset: xr.Dataset, name: str, text: str, where: str) -> xr.Dataset:
    by_index = text.startswith("@")
    low, colon, high = text.removeprefix("@").partition(":")
    try:
        if by_index:
            return dataset.isel({name: slice(int(low), int(high)) if colon else [int(low)]})
        if not colon:
            return dataset.sel({name: [_bound(low)]}, method="nearest")
        axis = dataset[name].values
        bounds = (_bound(low), _bound(high))
        return dataset.sel({name: slice(*(bounds if axis[0] <= axis[-1] else bounds[::-1]))})
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{where}: {name}={text!r} selects nothing ({str(error)[:100]})") from None


def _bound(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _write(dataset: xr.Dataset, target: Path, where: str) -> None:
    """Read the selection and keep it as netCDF; the name appears only when the file is whole."""
    loaded = dataset.load()
    if not loaded.data_vars:
        raise PayloadError(f"{where}: expected a gridded file with variables, found none")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    for variable in loaded.variables.values():
        variable.encoding = {
            k: v for k, v in variable.encoding.items() if k in ("units", "calendar", "_FillValue", "dtype")
        }
    loaded.to_netcdf(partial, engine="netcdf4")
    os.replace(partial, target)
