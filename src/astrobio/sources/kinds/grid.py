"""Gridded data: OPeNDAP, S3 (Zarr or netCDF) and plain HTTPS, opened lazily with xarray; only the selection is read.

Everything goes through the session: S3 is asked in its own REST interface, without signing, so buckets must be public.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import xarray as xr

from astrobio.errors import InputError
from astrobio.sources.client import Request, Session
from astrobio.sources.download import download
from astrobio.sources.errors import OfflineError
from astrobio.sources.kinds.apart import extract_file, extract_store
from astrobio.sources.kinds.base import Progress, Rejected, Source
from astrobio.sources.kinds.selection import select, write
from astrobio.sources.payload import reading
from astrobio.sources.record import Provenance, Record, now, sha256_file
from astrobio.sources.redact import redact

NETCDF = (".nc", ".nc4", ".cdf", ".h5", ".hdf", ".hdf5")


@dataclass(frozen=True, kw_only=True)
class Grid(Source):
    """Gridded files below a base address.

    A query is `PATH?variables=a,b&NAME=low:high&NAME=index…`: a file or store, and what to take of it. `low:high`
    selects by coordinate, `@low:high` by index.

    Args:
        protocol: "opendap", "s3" (base `s3://bucket/prefix`) or "https"; over the last two, paths without the suffix of
            a netCDF file are Zarr stores. endpoint: of an S3 service that is not Amazon's.
    """

    protocol: str = "opendap"
    endpoint: str = ""

    def parts(self, query: str) -> tuple[str, dict[str, str]]:
        """Path and selection of a query."""
        path, _, selection = query.strip().partition("?")
        path = path.rstrip("/")
        if not re.fullmatch(r"[\w./+\-:]+", path) or ".." in path or path.startswith("/"):
            raise InputError(f"{self.name}: expected a query such as {self.example!r}, found {query[:80]!r}")
        return path, dict(parse_qsl(selection, keep_blank_values=True))

    def url(self, path: str) -> str:
        """`path` below the base; a bucket's address is that of its REST interface."""
        base = self.base
        if base.startswith("s3://"):
            bucket, _, prefix = base.removeprefix("s3://").partition("/")
            root = f"{self.endpoint.rstrip('/')}/{bucket}" if self.endpoint else f"https://{bucket}.s3.amazonaws.com"
            base = f"{root}/{prefix}"
        return f"{base.rstrip('/')}/{path}" if path else base

    def _is_store(self, path: str) -> bool:
        return self.protocol != "opendap" and not path.lower().endswith(NETCDF)

    def request(self, query: str) -> Request:
        path = self.parts(query)[0]
        return Request("GET", self.url(f"{path}/.zmetadata" if self._is_store(path) else path))

    def records(self, query: str, session: Session, limit: int, progress: Progress) -> Iterator[Record | Rejected]:
        path, selection = self.parts(query)
        key = hashlib.sha256(f"{self.base}|{query}".encode()).hexdigest()[:24]
        target = Path(session.settings_.cache_dir) / self.name / "files" / f"{self.name}-{key}.nc"
        cached = target.is_file()
        if not cached:
            progress(f"{self.name}: opening {path}", 0, None)
            try:
                self._keep(path, selection, target, session, progress)
            except OfflineError as error:
                raise OfflineError(f"{error} (asked for {query})") from None
        provenance = Provenance(
            url=redact(self.url(path)), query=query, retrieved_at=now(), sha256=sha256_file(target),
            size=target.stat().st_size, from_cache=cached, citation=self.citation,
        )  # fmt: skip
        yield Record(self.name, path, self.modality, target, provenance, self.licence)

    def _keep(self, path: str, selection: dict[str, str], target: Path, session: Session, progress: Progress) -> None:
        """Write the selection of a remote file to `target`, lazily where the protocol allows."""
        url, patience = self.url(path), session.settings_.deadline
        if self.protocol == "opendap":
            session.fetch(Request("GET", f"{url}.dds"))  # reports a missing file in plain words
            with reading(self.name, "a gridded file"), _pydap_dataset(url, session) as data:
                write(select(data, selection, self.name), target, self.name)
        elif self._is_store(path):
            count = 0

            def objects(key: str, span: str) -> bytes | None:
                nonlocal count
                count += 1
                progress(f"{self.name}: pieces", count, None)
                return _piece(session, f"{url}/{quote(key)}", span)

            extract_store(objects, selection, target, f"{self.name} {path}", patience)
        else:
            local = Path(session.settings_.cache_dir) / self.name / "whole" / path
            download(session, Request("GET", url), local, progress=progress)
            extract_file(local, selection, target, f"{self.name} {path}", patience)


def _piece(session: Session, url: str, span: str) -> bytes | None:
    """An object of a store, or the bytes of it that a Range header names; None where there is none."""
    response = session.fetch(Request("GET", url, headers={"Range": span} if span else {}), absent=True)
    if response.status_code == 404:
        return None
    content = response.content
    if span and response.status_code == 200:  # a server that does not know ranges gives the whole
        first, _, last = span.removeprefix("bytes=").partition("-")
        return content[-int(last) :] if not first else content[int(first) : int(last) + 1 if last else None]
    return content


class _Gateway:
    """A local WSGI application that stands for the remote server: pydap, which would open connections of its own even
    where it is given a session, sends its requests here, and they go on through our session."""

    def __init__(self, session: Session, url: str) -> None:
        parts = urlsplit(url)
        self.session, self.origin = session, f"{parts.scheme}://{parts.netloc}"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = quote(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""), safe="/:+,.%")
        query = environ.get("QUERY_STRING", "")
        try:
            response = self.session.fetch(Request("GET", f"{self.origin}{path}" + (f"?{query}" if query else "")))
        except InputError as error:  # a ValueError, on which xarray would ask again for half a minute
            raise ConnectionError("the database failed") from error
        start_response("200 OK", [("Content-Type", response.headers.get("Content-Type", "application/octet-stream"))])
        return [response.content]


def _pydap_dataset(url: str, session: Session) -> xr.Dataset:
    """An OPeNDAP data set, unread; every piece is asked for through our session."""
    with warnings.catch_warnings():  # webob, which pydap imports, still imports the deprecated cgi
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "PyDAP was unable to determine the DAP protocol", UserWarning)
        return xr.open_dataset(url, engine="pydap", application=_Gateway(session, url))
