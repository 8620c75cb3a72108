"""OAI-PMH harvesting, on oaipmh-scythe: its HTTP client is given a transport that goes through our session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import httpx2
from oaipmh_scythe import Scythe
from oaipmh_scythe.exceptions import NoRecordsMatch, OAIPMHException

from astrobio.errors import InputError
from astrobio.sources.client import Request, Session
from astrobio.sources.errors import PayloadError, SourceError
from astrobio.sources.kinds.base import Progress, Rejected, Source, rows_to_records
from astrobio.sources.payload import reading
from astrobio.sources.record import Provenance, Record, now, sha256
from astrobio.sources.redact import redact

MOST_PAGES = 10_000
ARGUMENTS = {"set": "set_", "from": "from_", "until": "until", "metadataPrefix": "metadata_prefix"}


@dataclass(frozen=True, kw_only=True)
class OaiPmh(Source):
    """An OAI-PMH repository.

    A query is `set=…&from=…&until=…&metadataPrefix=…` (any of them) for a list, or `identifier=…` for one record.
    """

    prefix: str = "oai_dc"

    def arguments(self, query: str) -> dict[str, str]:
        """The arguments of a query, checked."""
        pairs = dict(parse_qsl(query.strip(), keep_blank_values=False))
        unknown = set(pairs) - {*ARGUMENTS, "identifier"}
        if not pairs or unknown:
            raise InputError(f"{self.name}: expected a query such as {self.example!r}, found {query[:60]!r}")
        return {"metadataPrefix": self.prefix, **pairs}

    def request(self, query: str) -> Request:
        arguments = self.arguments(query)
        verb = "GetRecord" if "identifier" in arguments else "ListRecords"
        return Request("GET", self.base, params={"verb": verb, **arguments})

    def records(self, query: str, session: Session, limit: int, progress: Progress) -> Iterator[Record | Rejected]:
        arguments = self.arguments(query)
        with _SessionScythe(self.base, session) as scythe:
            if "identifier" in arguments:
                items = iter([_guarded(scythe.get_record, self.name, **_named(arguments))])
            else:
                items = iter(_guarded(scythe.list_records, self.name, ignore_deleted=True, **_named(arguments)))
            for count in range(limit):
                item = _guarded(next, self.name, items, None)
                if item is None:
                    return
                row, raw = _row(item, self.name)
                provenance = Provenance(
                    url=redact(self.base), query=query, retrieved_at=now(), sha256=sha256(raw), size=len(raw),
                    from_cache=session.last_from_cache, citation=self.citation,
                )  # fmt: skip
                yield from rows_to_records(self, [row], provenance, count)


class _Transport(httpx2.BaseTransport):
    """Every request of the harvesting client, answered by our session (cache, retry, rate limit, XML guard)."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.asked: set[str] = set()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """One round trip; a resumption token that comes twice would lead in a circle."""
        if str(request.url) in self.asked or len(self.asked) > MOST_PAGES:
            raise PayloadError(f"{self.session.source}: the resumption token leads in a circle; stopped")
        self.asked.add(str(request.url))
        plain = Request(request.method, str(request.url), data=request.read() or None).plain()
        response = self.session.send(self.session.prepare_request(plain))  # an error status may carry an OAI error
        kept = {"Content-Type": response.headers.get("Content-Type", "text/xml")}
        return httpx2.Response(response.status_code, headers=kept, content=response.content, request=request)


class _SessionScythe(Scythe):
    """The harvesting client over our session."""

    def __init__(self, endpoint: str, session: Session) -> None:
        super().__init__(endpoint)
        self._client = httpx2.Client(transport=_Transport(session))


def _named(arguments: dict[str, str]) -> dict[str, str]:
    return {ARGUMENTS.get(key, key): value for key, value in arguments.items()}


def _guarded(call: Any, where: str, *args: Any, **kwargs: Any) -> Any:
    """A call of the harvesting client, its errors as ours; a list without matches is an empty one."""
    with reading(where, "an OAI-PMH answer"):
        try:
            return call(*args, **kwargs)
        except NoRecordsMatch:
            return iter(())
        except OAIPMHException as error:
            raise SourceError(f"{where}: {type(error).__name__}: {redact(str(error))[:200]}") from None


def _row(item: Any, where: str) -> tuple[dict[str, Any], bytes]:
    """One record as a flat row (Dublin Core elements become lists) and its raw XML."""
    with reading(where, "an OAI-PMH record"):
        row: dict[str, Any] = {"identifier": item.header.identifier, "datestamp": item.header.datestamp}
        for key, values in (item.metadata or {}).items():
            row[key] = [value for value in values if value is not None]
        raw = bytes(item)
    if not isinstance(row["identifier"], str) or not row["identifier"]:
        raise PayloadError(f"{where}: expected a record with an identifier, found none")
    return row, raw
