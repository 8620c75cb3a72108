"""SpatioTemporal Asset Catalogs, on pystac-client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pystac
import pystac_client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from astrobio.errors import InputError
from astrobio.sources.client import Request, Session
from astrobio.sources.errors import PayloadError, SourceError
from astrobio.sources.kinds.base import Progress, Rejected, Source, rows_to_records
from astrobio.sources.payload import reading
from astrobio.sources.record import Provenance, Record, now, sha256
from astrobio.sources.redact import redact

PAGE = 100


@dataclass(frozen=True, kw_only=True)
class Stac(Source):
    """A STAC API.

    A query is `name=value&…` of an item search: `collections`, `ids`, `bbox`, `datetime` (comma-separated lists), and
    any other name as an equality on that property.

    Args:
        collections: searched where a query names none.
    """

    collections: tuple[str, ...] = ()
    fixed: dict[str, Any] = field(default_factory=dict)

    def search_parameters(self, query: str) -> dict[str, Any]:
        """The search of a query, in pystac-client's terms."""
        pairs = dict(parse_qsl(query.strip(), strict_parsing=False, keep_blank_values=True))
        if not pairs:
            raise InputError(f"{self.name}: expected a query such as {self.example!r}, found {query[:60]!r}")
        found: dict[str, Any] = {**self.fixed, "collections": list(self.collections) or None}
        properties = {}
        for key, value in pairs.items():
            if key in ("collections", "ids"):
                found[key] = value.split(",")
            elif key == "bbox":
                found[key] = _box(value, self.name)
            elif key == "datetime":
                found[key] = value
            else:
                properties[key] = {"eq": value}
        if properties:
            found["query"] = properties
        return {key: value for key, value in found.items() if value is not None}

    def request(self, query: str) -> Request:
        return Request("POST", self.url("search"), json={**self.search_parameters(query), "limit": PAGE})

    def records(self, query: str, session: Session, limit: int, progress: Progress) -> Iterator[Record | Rejected]:
        io = _SessionIO(session)
        with reading(self.name, "a STAC answer"):
            client = _translated(lambda: pystac_client.Client.open(self.base, stac_io=io), self.name)
            search = client.search(**self.search_parameters(query), max_items=limit, limit=min(PAGE, limit))
            pages = search.pages_as_dicts()
        count = 0
        while True:
            with reading(self.name, "a STAC answer"):
                page = _translated(lambda: next(pages, None), self.name)
            if page is None:
                return
            if not isinstance(page, dict) or not isinstance(page.get("features"), list):
                raise PayloadError(f"{self.name}: expected a page of features, found something else")
            text = json.dumps(page, sort_keys=True, default=str).encode()
            provenance = Provenance(
                url=redact(self.url("search")), query=query, retrieved_at=now(), sha256=sha256(text), size=len(text),
                from_cache=session.last_from_cache, citation=self.citation, method="POST",
            )  # fmt: skip
            yield from rows_to_records(self, page["features"], provenance, count)
            count += len(page["features"])


class _SessionIO(StacApiIO):
    """pystac-client's reader over our session; links to other hosts are not followed."""

    def __init__(self, session: Session) -> None:
        super().__init__(max_retries=None)
        self.session = session  # pyright: ignore[reportAttributeAccessIssue]

    def request(self, href: Any, method: str | None = None, headers: Any = None, parameters: Any = None) -> str:
        """One request of pystac-client through our session."""
        text = str(href)
        assert isinstance(self.session, Session)
        if urlsplit(text).netloc not in self.session.hosts:
            raise SourceError(
                f"{self.session.source}: expected links on {sorted(self.session.hosts)}, found {text:.120}; refused"
            )
        body = {"json": parameters} if method == "POST" else {"params": dict(parameters or {})}
        request = Request(method or "GET", text, headers=dict(headers or {}), **body)
        return self.session.fetch(request).content.decode("utf-8", "replace")


def _translated(call: Any, name: str) -> Any:
    """pystac-client wraps whatever a reader raises; ours comes back out."""
    problem = ""
    try:
        return call()
    except (APIError, pystac.STACError, NotImplementedError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, SourceError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        problem = redact(" ".join(str(error).split())[:200])
    raise SourceError(f"{name}: {problem}")


def _box(value: str, where: str) -> list[float]:
    try:
        box = [float(part) for part in value.split(",")]
    except ValueError:
        box = []
    if len(box) not in (4, 6):
        raise InputError(f"{where}: expected bbox=west,south,east,north, found {value[:60]!r}")
    return box
