"""What all connector kinds share: the declaration of a database, and `fetch`, which keeps partial results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from pydantic import TypeAdapter, ValidationError

from astrobio.errors import InputError
from astrobio.sources.auth import Credential
from astrobio.sources.client import Request, Session, Settings
from astrobio.sources.errors import LicenceError, PayloadError, SourceError
from astrobio.sources.record import Answer, Evidence, Licence, Modality, Provenance, Record, now, sha256
from astrobio.sources.redact import redact

Progress = Callable[[str, int, int | None], None]  # what is counted ("…: bytes"), how many so far, total where known


def _silent(what: str, done: int, total: int | None) -> None:
    return None


@dataclass(frozen=True)
class Rejected:
    """A row that could not become a record; `fetch` keeps it apart with its reason."""

    number: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """One database.

    Args:
        name: short name on the command line. title: full name. base: URL of its interface.
        modality: what its records are. licence: terms. citation: how to cite it. tested_by: how this was tested.
        example: a query that works. rate: (requests, seconds) allowed to one host.
        hosts: further hosts that may receive its credential.
        identifier: field of a row that names it, "" to number them.
        types: expected types of fields; rows that do not fit are quarantined.
    """

    name: str
    title: str
    base: str
    modality: Modality
    licence: Licence
    citation: str
    tested_by: Evidence
    example: str
    credential: Credential | None = None
    rate: tuple[int, float] = (5, 1.0)
    hosts: tuple[str, ...] = ()
    identifier: str = ""
    types: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        """Name of the connector kind (a database may refine its kind)."""
        return next(c.__name__ for c in type(self).__mro__ if c.__module__.startswith(__package__ or "")).lower()

    @abstractmethod
    def request(self, query: str) -> Request:
        """The first request of a query, unsent and without any secret.

        Raises:
            InputError: a query that this database cannot take.
        """

    @abstractmethod
    def records(self, query: str, session: Session, limit: int, progress: Progress) -> Iterator[Record | Rejected]:
        """Records as they arrive, at most `limit`."""

    def session(self, settings: Settings) -> Session:
        """The way to this database's network; its credential goes to its own hosts only."""
        hosts = frozenset({urlsplit(self.url("")).netloc, *self.hosts})
        return Session(
            self.name, settings, hosts=hosts, licence=self.licence, credential=self.credential, rate=self.rate
        )

    def url(self, path: str) -> str:
        """`path` below the base."""
        return f"{self.base.rstrip('/')}/{path.lstrip('/')}" if path else self.base

    def provenance(self, response: requests.Response, query: str) -> Provenance:
        """Who, what, when and the checksum of an answer."""
        return Provenance(
            url=redact(response.url), query=query, retrieved_at=_retrieved_at(response),
            sha256=sha256(response.content), size=len(response.content),
            from_cache=bool(getattr(response, "from_cache", False)),
            method=response.request.method or "GET", citation=self.citation,
        )  # fmt: skip

    def record(self, payload: Any, number: int, provenance: Provenance, notes: tuple[str, ...] = ()) -> Record:
        """One row or document as a record.

        Raises:
            PayloadError: a row that is not an object, lacks its identifier, or whose fields have other types.
        """
        if isinstance(payload, dict):
            name = self._checked_identifier(payload, number)
        else:
            name = self.identifier or f"{self.name}-{number}"
        return Record(self.name, name, self.modality, payload, provenance, self.licence, notes)

    def _checked_identifier(self, row: dict[str, Any], number: int) -> str:
        if self.types:
            for field, expected in self.types.items():
                if field in row:
                    row[field] = _typed(row[field], expected, f"{self.name} row {number}, {field}")
        if not self.identifier:
            return f"{self.name}-{number}"
        value = row.get(self.identifier)
        if not isinstance(value, str | int) or value == "":
            raise PayloadError(
                f"{self.name} row {number}: expected an identifier in {self.identifier!r}, found {value!r:.60}"
            )
        return str(value)


def _typed(value: Any, expected: Any, where: str) -> Any:
    try:
        return TypeAdapter(expected).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise PayloadError(f"{where}: {reason}, found {value!r:.60}") from None


def _retrieved_at(response: requests.Response) -> str:
    created = getattr(response, "created_at", None)
    return created.isoformat(timespec="seconds") if created is not None else now()


def rows_to_records(
    source: Source, rows: list[Any], provenance: Provenance, start: int, notes: tuple[str, ...] = ()
) -> Iterator[Record | Rejected]:
    """Rows of one page as records; those that do not fit the declared types come out as `Rejected`."""
    for offset, row in enumerate(rows):
        number = start + offset
        try:
            if not isinstance(row, dict | bytes):
                raise PayloadError(f"{source.name} row {number}: expected an object, found {type(row).__name__}")
            yield source.record(row, number, provenance, notes)
        except PayloadError as error:
            yield Rejected(number, str(error))


def fetch(
    source: Source, query: str, *, settings: Settings | None = None, limit: int = 1000, progress: Progress = _silent
) -> Answer:
    """Ask a database; records that came before an error or Ctrl-C are kept, and the answer says that it isn't complete.

    Args:
        source: the database. query: in its own terms, see `source.example`. limit: most records wanted.
        progress: called with (what, done, total) as records or bytes arrive.

    Raises:
        SourceError: nothing could be had; the message says why.
        LicenceError: the database's terms must be accepted first.
    """
    settings = settings or Settings.from_environment()
    if limit < 1:
        raise InputError(f"limit: expected at least 1, found {limit}")
    if source.licence.accept and source.name not in settings.accepted:
        raise LicenceError(
            f"{source.name}: its licence ({source.licence.name}) must be accepted; read {source.licence.accept}, "
            f"then pass `--accept-licence {source.name}` or set ASTROBIO_ACCEPT_LICENCES={source.name}"
        )
    answer = Answer()
    with source.session(settings) as session:
        try:
            for item in source.records(query, session, limit, progress):
                if isinstance(item, Rejected):
                    answer.quarantined.append({"row": str(item.number), "reason": item.reason})
                    continue
                answer.records.append(item)
                progress(f"{source.name}: records", len(answer.records), None)
                if len(answer.records) >= limit:
                    answer.complete = False
                    answer.notes.append(f"stopped at the limit of {limit} records; there may be more")
                    break
        except SourceError as error:
            if not answer.records:
                raise
            answer.complete = False
            answer.notes.append(f"kept {len(answer.records)} records that arrived before: {error}")
        except KeyboardInterrupt:
            if not answer.records:
                raise
            answer.complete = False
            answer.notes.append(f"kept {len(answer.records)} records that arrived before it was interrupted")
    answer.notes += sorted({note for record in answer.records for note in record.notes})
    if any(note.startswith("truncated") for note in answer.notes):
        answer.complete = False
    return answer
