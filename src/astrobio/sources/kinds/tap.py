"""Table Access Protocol of the Virtual Observatory, on pyvo: ADQL in, rows out; synchronous, asynchronous, uploads."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyvo
from astropy.io import votable
from astropy.table import Table
from pyvo.dal.exceptions import DALQueryError, DALServiceError

from astrobio.errors import InputError
from astrobio.sources.client import Request, Session
from astrobio.sources.errors import SourceError
from astrobio.sources.kinds.base import Progress, Rejected, Source, rows_to_records
from astrobio.sources.payload import reading
from astrobio.sources.record import Provenance, Record, now, sha256
from astrobio.sources.redact import redact

POLL = (1.0, 30.0)  # s, first and longest pause between two looks at an asynchronous job


@dataclass(frozen=True, kw_only=True)
class Tap(Source):
    """A TAP service.

    A query is ADQL (starts with SELECT), or a name that is put into `template` at `{name}`, quoted.

    Args:
        template: ADQL for a name. mode: "sync" or "async". patience: s to wait for an asynchronous job.
    """

    template: str
    mode: str = "sync"
    patience: float = 1800.0

    def adql(self, query: str) -> str:
        """The ADQL of a query; quotes in names are doubled, so a name can't end its string."""
        text = query.strip()
        if not text or len(text) > 20_000 or "\x00" in text:
            raise InputError(f"{self.name}: expected ADQL or a name, found {len(text)} characters")
        if text.upper().startswith("SELECT"):
            return text
        return self.template.format(name=text.replace("'", "''"))

    def request(self, query: str) -> Request:
        data = {"REQUEST": "doQuery", "LANG": "ADQL", "QUERY": self.adql(query)}
        return Request("POST", f"{self.base}/{self.mode}", data=data)

    def records(
        self, query: str, session: Session, limit: int, progress: Progress, *, uploads: dict[str, Table] | None = None
    ) -> Iterator[Record | Rejected]:
        results = self._results(self.adql(query), session, limit, uploads)
        overflow = getattr(results, "query_status", "OK") == "OVERFLOW"
        notes = (f"truncated: {self.name} cut the answer at {len(results)} rows (overflow)",) if overflow else ()
        with reading(self.name, "a VOTable"):
            rows = [_plain_row(row, results.fieldnames) for row in results]
        text = repr(rows).encode()
        provenance = Provenance(
            url=redact(f"{self.base}/{self.mode}"), query=self.adql(query), retrieved_at=now(), sha256=sha256(text),
            size=len(text), method="POST", citation=self.citation, from_cache=session.last_from_cache,
        )  # fmt: skip
        yield from rows_to_records(self, rows, provenance, 0, notes)

    def _results(self, adql: str, session: Session, limit: int, uploads: dict[str, Table] | None) -> Any:
        with reading(self.name, "a VOTable"), _tap_errors(self.name):
            service = pyvo.dal.TAPService(self.base, session=session)
            if self.mode == "sync":
                return service.run_sync(adql, maxrec=limit, uploads=uploads)
            with session.cache_disabled():
                return self._run_job(service, adql, limit, uploads)

    def _run_job(self, service: Any, adql: str, limit: int, uploads: dict[str, Table] | None) -> Any:
        job = service.submit_job(adql, maxrec=limit, uploads=uploads)
        try:
            job.run()
            pause, end = POLL[0], time.monotonic() + self.patience
            while job.phase not in ("COMPLETED", "ERROR", "ABORTED"):
                if time.monotonic() > end:
                    raise SourceError(
                        f"{self.name}: job still {job.phase} after {self.patience:.0f} s; narrow the query"
                    )
                time.sleep(pause)
                pause = min(POLL[1], pause * 1.5)
            job.raise_if_error()
            return job.fetch_result()
        finally:
            job.delete()


class _tap_errors:
    """pyvo's errors as ours, without the chain that holds URLs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DALQueryError):
            raise SourceError(f"{self.name}: the query was refused: {_one_line(error)}") from None
        if isinstance(error, DALServiceError):
            raise SourceError(f"{self.name}: the service failed: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    return redact(" ".join(str(error).split())[:300])


def _plain_row(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """A VOTable row as plain Python values; masked, NaN and empty texts become None."""
    return {name: _plain(row[name]) for name in names}


def _plain(value: Any) -> Any:
    if value is None or np.ma.is_masked(value):
        return None
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value == "":  # how VOTables write a missing text
        return None
    return None if isinstance(value, float) and value != value else value


def votable_rows(content: bytes, where: str) -> list[dict[str, Any]]:
    """Rows of a VOTable document (a saved TAP answer).

    Raises:
        SourceError: not a VOTable, or one that reports an error.
    """
    with reading(where, "a VOTable"), _tap_errors(where):
        results = pyvo.dal.DALResults(votable.parse(io.BytesIO(content), verify="ignore"))
        return [_plain_row(row, results.fieldnames) for row in results]
