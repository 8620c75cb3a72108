"""Jobs: submit, poll, download. For databases that prepare an answer first (Copernicus, JGI)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from astrobio.errors import InputError
from astrobio.sources.client import Request, Session
from astrobio.sources.download import download
from astrobio.sources.errors import PayloadError, SourceError
from astrobio.sources.kinds.base import Progress, Rejected, Source
from astrobio.sources.payload import dig, parse_json
from astrobio.sources.record import Provenance, Record, sha256
from astrobio.sources.redact import redact

Wanted = Callable[[str], tuple[str, dict[str, Any]]]  # query → path of the submission and its JSON body


@dataclass(frozen=True)
class Result:
    """Where a finished job's file is: an address, and "algorithm:hex" where the database gives one."""

    href: str
    checksum: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Job(Source):
    """A queue.

    Args:
        submission: query → (path, JSON body). status_at: address of the job from the answer to the submission.
        state_field: dotted field of a status that holds its state. done, failed: states.
        result_at: (job's address, last status) → address of the result description, "" where the status has it.
        result_of: (result description, query) → `Result`. suffix: of the file's name. patience: s to wait.
        poll: s between two looks, first and longest.
    """

    submission: Wanted
    status_at: Callable[[Mapping[str, Any], str], str]
    result_of: Callable[[Any, str], Result]  # (description, query) → file
    state_field: str = "status"
    done: tuple[str, ...] = ("successful",)
    failed: tuple[str, ...] = ("failed", "rejected", "dismissed")
    result_at: str = "results"
    suffix: str = ".nc"
    patience: float = 6 * 3600.0
    poll: tuple[float, float] = (2.0, 120.0)
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, query: str) -> Request:
        path, body = self.submission(query)
        return Request("POST", self.url(path), json=body, headers=self.headers)

    def records(self, query: str, session: Session, limit: int, progress: Progress) -> Iterator[Record | Rejected]:
        request = self.request(query)
        key = sha256(json.dumps([request.url, request.json], sort_keys=True).encode())[:24]
        target = Path(session.settings_.cache_dir) / self.name / "files" / f"{self.name}-{key}{self.suffix}"
        if target.is_file():
            result = Result(request.url)
        else:
            result = self._await(session, self._resume_or_submit(session, request, target), query, progress)
            self._check_host(result.href, session)
        got = download(
            session,
            Request("GET", result.href, headers=self.headers),
            target,
            checksum=result.checksum,
            progress=progress,
        )
        target.with_suffix(".job").unlink(missing_ok=True)
        provenance = Provenance(
            url=redact(request.url), query=query, retrieved_at=got.retrieved_at, sha256=got.sha256, size=got.size,
            from_cache=got.from_cache, method="POST", citation=self.citation,
        )  # fmt: skip
        yield Record(self.name, result.name or target.stem, self.modality, got.path, provenance, self.licence)

    def _resume_or_submit(self, session: Session, request: Request, target: Path) -> str:
        """The job's address: that of an earlier submission of the same request, or of a new one."""
        note = target.with_suffix(".job")
        if note.is_file() and not session.settings_.offline:
            return note.read_text().strip()
        response = session.fetch(request, fresh=True)
        body = parse_json(response.content, self.name)
        if not isinstance(body, dict):
            raise PayloadError(f"{self.name}: expected a job description, found {type(body).__name__}")
        address = urljoin(response.url, self.status_at(body, response.headers.get("Location", "")))
        self._check_host(address, session)
        target.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(address)
        return address

    def _await(self, session: Session, address: str, query: str, progress: Progress) -> Result:
        pause, end = self.poll[0], time.monotonic() + self.patience
        while True:
            status = parse_json(session.fetch(Request("GET", address), fresh=True).content, self.name)
            state = dig(status, self.state_field, self.name)
            progress(f"{self.name}: {state}", 0, None)
            if state in self.done:
                break
            if state in self.failed:
                self._forget(session, address)
                raise SourceError(f"{self.name}: the job ended as {state!r}: {redact(_reason(status))}")
            if not isinstance(state, str):
                raise PayloadError(
                    f"{self.name}: expected a state in {self.state_field!r}, found {type(state).__name__}"
                )
            if time.monotonic() > end:
                raise SourceError(
                    f"{self.name}: job still {state!r} after {self.patience:.0f} s; run again to go on waiting"
                )
            time.sleep(pause)
            pause = min(self.poll[1], pause * 1.5)
        if self.result_at:
            where = f"{address.rstrip('/')}/{self.result_at}"
            status = parse_json(session.fetch(Request("GET", where), fresh=True).content, self.name)
        result = self.result_of(status, query)
        return Result(urljoin(address, result.href), result.checksum, result.name)

    def _forget(self, session: Session, address: str) -> None:
        for note in (Path(session.settings_.cache_dir) / self.name / "files").glob("*.job"):
            if note.read_text().strip() == address:
                note.unlink()

    def _check_host(self, url: str, session: Session) -> None:
        """Addresses in answers lead to the database's own hosts, or to a plain https download without credential."""
        parts = urlsplit(url)
        if parts.netloc not in session.hosts and parts.scheme != "https":
            raise SourceError(f"{self.name}: expected an address on {self.base}, found {redact(url)[:120]}; refused")


def _reason(status: Any) -> str:
    for key in ("message", "detail", "title", "error", "reason"):
        if isinstance(status, dict) and status.get(key):
            return str(status[key])[:300]
    return "no reason given"


def request_json(query: str, where: str, example: str) -> tuple[str, dict[str, Any]]:
    """`DATASET {json}` → the data set and its request.

    Raises:
        InputError: no data set, or no JSON object after it.
    """
    name, _, text = query.strip().partition(" ")
    if not name.replace("-", "").replace("_", "").isalnum() or not text.lstrip().startswith("{"):
        raise InputError(f"{where}: expected a query such as {example!r}, found {query[:80]!r}")
    try:
        body = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: the request after {name} is not JSON ({error})") from None
    return name, body
