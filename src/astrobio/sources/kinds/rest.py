"""Declarative REST: a path, parameters, a pager and a parser; the credential comes from the declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

import requests

from astrobio.errors import InputError
from astrobio.sources.client import Request, Session
from astrobio.sources.errors import PayloadError, SourceError
from astrobio.sources.kinds.base import Progress, Rejected, Source, rows_to_records
from astrobio.sources.payload import Parser, dig, parse_json
from astrobio.sources.record import Record

MOST_PAGES = 10_000


class Pager(Protocol):
    """Given a request and its answer, the next request, or None after the last page."""

    def start(self, request: Request, limit: int) -> Request: ...

    def next(self, request: Request, response: requests.Response, rows: int) -> Request | None: ...


@dataclass(frozen=True)
class OnePage:
    """Everything comes in one answer."""

    def start(self, request: Request, limit: int) -> Request:
        return request

    def next(self, request: Request, response: requests.Response, rows: int) -> Request | None:
        return None


@dataclass(frozen=True)
class Offset:
    """`start=…&rows=…`; ends with a short page. `first` counts from 0 or 1; `by_page` counts pages rather than rows."""

    start_name: str
    size_name: str = ""
    size: int = 100
    first: int = 0
    by_page: bool = False

    def start(self, request: Request, limit: int) -> Request:
        size = {self.size_name: min(self.size, limit) if not self.by_page else self.size} if self.size_name else {}
        return _with(request, **{self.start_name: self.first}, **size)

    def next(self, request: Request, response: requests.Response, rows: int) -> Request | None:
        if rows < int(request.params.get(self.size_name, self.size)):
            return None
        return _with(request, **{self.start_name: int(request.params[self.start_name]) + (1 if self.by_page else rows)})


@dataclass(frozen=True)
class NextLink:
    """The address of the next page: in the `Link` header, or in a JSON field such as `links.next`."""

    field: str = ""
    size_name: str = ""
    size: int = 500

    def start(self, request: Request, limit: int) -> Request:
        return _with(request, **{self.size_name: min(self.size, limit)}) if self.size_name else request

    def next(self, request: Request, response: requests.Response, rows: int) -> Request | None:
        if self.field:
            target = dig(parse_json(response.content, self.field), self.field, "next page")
        else:
            target = response.links.get("next", {}).get("url")
        if not target or rows == 0:
            return None
        if not isinstance(target, str):
            raise PayloadError(f"next page: expected an address, found {type(target).__name__}")
        target = urljoin(response.url, target)
        if urlsplit(target).netloc != urlsplit(response.url).netloc:
            raise SourceError(
                f"next page: expected one on {urlsplit(response.url).netloc}, found {target:.120}; refused"
            )
        return Request(request.method, target, headers=request.headers)


@dataclass(frozen=True)
class SearchAfterHeader:
    """A header of the answer goes into the next request (NASA CMR)."""

    header: str = "CMR-Search-After"
    size_name: str = "page_size"
    size: int = 500

    def start(self, request: Request, limit: int) -> Request:
        return _with(request, **{self.size_name: min(self.size, limit)})

    def next(self, request: Request, response: requests.Response, rows: int) -> Request | None:
        mark = response.headers.get(self.header)
        if not mark or rows == 0:
            return None
        return replace(request, headers={**request.headers, self.header: mark})


@dataclass(frozen=True)
class SearchAfterField:
    """The sort value of the last row goes into the next request (PDS)."""

    field: str
    name: str = "search-after"
    size_name: str = "limit"
    size: int = 100

    def start(self, request: Request, limit: int) -> Request:
        return _with(request, sort=self.field, **{self.size_name: min(self.size, limit)})

    def next(self, request: Request, response: requests.Response, rows: int) -> Request | None:
        if rows < int(request.params[self.size_name]):
            return None
        last = dig(parse_json(response.content, "next page"), "data", "next page")[-1]
        mark = dig(last, "properties", "next page").get(self.field) if isinstance(last, dict) else None
        mark = mark[0] if isinstance(mark, list) and mark else mark
        if not isinstance(mark, str | int):
            raise PayloadError(f"next page: expected {self.field!r} in the last row, found none")
        return _with(request, **{self.name: mark})


@dataclass(frozen=True)
class History:
    """NCBI's two steps: esearch keeps the hits on the server (WebEnv, query_key), efetch returns them in portions."""

    fetch_path: str
    fetch_params: dict[str, str]
    size: int = 200

    def start(self, request: Request, limit: int) -> Request:
        return _with(request, usehistory="y", retmode="json", retmax=0)

    def next(self, request: Request, response: requests.Response, rows: int) -> Request | None:
        if "WebEnv" in request.params:
            done = int(request.params["retstart"]) + self.size
            return _with(request, retstart=done) if done < int(request.params["retcount"]) else None
        found = dig(parse_json(response.content, "esearch"), "esearchresult", "esearch")
        if not isinstance(found, dict) or "ERROR" in found:
            raise SourceError(f"esearch: {str(found.get('ERROR') if isinstance(found, dict) else found)[:200]}")
        count = str(dig(found, "count", "esearch"))
        if not count.isdigit():
            raise PayloadError(f"esearch: expected a count of hits, found {count:.40}")
        if count == "0":
            return None
        params = {"WebEnv": dig(found, "webenv", "esearch"), "query_key": dig(found, "querykey", "esearch")}
        portion = {"retstart": 0, "retmax": self.size, "retcount": count}
        kept = {k: v for k, v in request.params.items() if k in ("db", "tool")}
        return Request("GET", urljoin(request.url, self.fetch_path), params=kept | self.fetch_params | params | portion)


def _with(request: Request, **params: Any) -> Request:
    return replace(request, params={**request.params, **params})


@dataclass(frozen=True, kw_only=True)
class Rest(Source):
    """A REST interface.

    A query is plain text, which goes to `{query}` in `path` or to the parameter `query_name`; or `name=value&…`, which
    goes to the parameters as is (where `path` has no `{query}`).

    Args:
        parse: (body, where) → rows. path, params: below the base. query_name: parameter of a plain query.
        method: "GET", or "POST" for a form. pager: how to go on. pattern: what a plain query must look like.
        build: for unusual queries, text → parameters. body: form field of a POST query.
        headers: of every request.
    """

    parse: Parser
    path: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    query_name: str = ""
    method: str = "GET"
    pager: Pager = field(default_factory=OnePage)
    pattern: str = ""
    build: Callable[[str], dict[str, Any]] | None = None
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, query: str) -> Request:
        text = query.strip()
        if not text or len(text) > 100_000:
            raise InputError(f"{self.name}: expected a query such as {self.example!r}, found {len(text)} characters")
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise InputError(f"{self.name}: expected a query such as {self.example!r}, found {text[:60]!r}")
        url = self.url(self.path.format(query=quote(text, safe="/:+,")))
        if self.body:
            return Request(self.method, url, data={**self.params, self.body: text}, headers=self.headers)
        return Request(self.method, url, params=self._parameters(text), headers=self.headers)

    def _parameters(self, text: str) -> dict[str, Any]:
        if self.build is not None:
            return {**self.params, **self.build(text)}
        if "{query}" in self.path:
            return dict(self.params)
        if not self.query_name or re.match(r"[\w.\[\]-]+=", text):
            return {**self.params, **dict(parse_qsl(text, keep_blank_values=True))}
        return {**self.params, self.query_name: text}

    def records(self, query: str, session: Session, limit: int, progress: Progress) -> Iterator[Record | Rejected]:
        request: Request | None = self.pager.start(self.request(query), limit)
        seen: set[str] = set()
        count = 0
        for _ in range(MOST_PAGES):
            if request is None:
                return
            key = repr((request.url, sorted(map(str, request.params.items())), request.headers, request.data))
            if key in seen:
                raise PayloadError(f"{self.name}: the next page leads back to an earlier one; stopped")
            seen.add(key)
            response = session.fetch(request)
            rows = self.parse(response.content, self.name)
            yield from rows_to_records(self, rows, self.provenance(response, query), count)
            count += len(rows)
            if count >= limit:
                return
            request = self.pager.next(request, response, len(rows))
        raise PayloadError(f"{self.name}: more than {MOST_PAGES} pages; narrow the query")
