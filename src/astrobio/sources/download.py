"""Files: resumable, checksummed, and in place only when whole."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import requests
from urllib3.exceptions import HTTPError

from astrobio.sources.client import Request, Session
from astrobio.sources.errors import PayloadError, SourceError
from astrobio.sources.record import now, sha256_file
from astrobio.sources.redact import LONGEST, leaks_bytes, redact

PIECE = 256 * 1024
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Downloaded:
    """A file on disk: its path, SHA-256, size, and whether it was there already."""

    path: Path
    sha256: str
    size: int
    retrieved_at: str
    from_cache: bool


def download(
    session: Session, request: Request, target: Path, *, checksum: str = "", progress: Progress | None = None
) -> Downloaded:
    """Fetch a file to `target`, going on where an earlier attempt stopped.

    Args:
        checksum: "algorithm:hex" that the file must have, "" where the database gives none; the SHA-256 of the first
            download is then kept beside the file and holds from then on.

    Raises:
        PayloadError: another checksum or size than promised. SourceError: the database failed.
    """
    if target.is_file() and note_of(target).is_file():
        return kept(session, target, checksum)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    problem = ""
    for attempt in range(session.settings_.attempts):
        if attempt:
            time.sleep(min(session.settings_.longest_backoff, 0.5 * 2**attempt))
        try:
            _continue(session, request, partial, progress or (lambda what, done, total: None))
            break
        except (requests.RequestException, HTTPError) as error:  # cut off: what came is kept, the next attempt goes on
            problem = redact(f"{type(error).__name__}: {error}")
    else:
        done = partial.stat().st_size if partial.is_file() else 0
        raise SourceError(
            f"{session.source}: {target.name} cut off at {done} bytes ({problem:.200}); run again to resume"
        )
    return _accept(session, partial, target, checksum)


def note_of(target: Path) -> Path:
    """Where the checksum and time of a downloaded file stand."""
    return target.with_name(target.name + ".json")


def _continue(session: Session, request: Request, partial: Path, progress: Progress) -> None:
    """One attempt: ask for the rest where the server still has the same file, else start over."""
    state = partial.with_name(partial.name + ".json")
    done, tag = (partial.stat().st_size, _tag(state)) if partial.is_file() else (0, "")
    headers = {**request.headers, "Accept-Encoding": "identity"}
    if done and tag:
        headers |= {"Range": f"bytes={done}-", "If-Range": tag}
    with session.open_stream(Request(request.method, request.url, params=request.params, headers=headers)) as response:
        if response.status_code == 416:
            partial.unlink(missing_ok=True)
            raise requests.ConnectionError("the server's file became shorter; starting over")
        if response.status_code >= 400:
            raise SourceError(f"{session.source}: HTTP {response.status_code} to GET {redact(request.url)}")
        resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        done = done if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        state.write_text(
            json.dumps({"tag": response.headers.get("ETag") or response.headers.get("Last-Modified") or ""})
        )
        with open(partial, "ab" if resumed else "wb") as out:
            try:
                _copy(session, response, out, done, total, progress)
            except PayloadError:
                partial.unlink()
                raise


def _copy(
    session: Session, response: requests.Response, out: IO[bytes], done: int, total: int | None, progress: Progress
) -> None:
    most = session.settings_.max_file_bytes
    if total is not None and total > most:
        raise PayloadError(f"{session.source}: file of {total} bytes exceeds the limit of {most}; raise max_file_bytes")
    tail = b""
    for piece in response.iter_content(PIECE):
        done += len(piece)
        if leaks_bytes(tail + piece):
            raise PayloadError(f"{session.source}: the file holds the secret that was sent for it; refused")
        tail = piece[-LONGEST:]
        if done > most:
            raise PayloadError(f"{session.source}: file exceeds the limit of {most} bytes; raise max_file_bytes")
        out.write(piece)
        progress(f"{session.source}: bytes", done, total)


def _tag(state: Path) -> str:
    try:
        tag = json.loads(state.read_text()).get("tag", "")
    except (OSError, ValueError):
        return ""
    return "" if tag.startswith("W/") else tag  # a weak tag does not promise the same bytes


def _accept(session: Session, partial: Path, target: Path, checksum: str) -> Downloaded:
    algorithm, _, expected = checksum.partition(":")
    if checksum:
        with open(partial, "rb") as stream:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
        if found != expected.lower():
            partial.unlink()
            raise PayloadError(
                f"{session.source}: {target.name}: expected {checksum}, found {algorithm}:{found}; removed"
            )
    digest, size, when = sha256_file(partial), partial.stat().st_size, now()
    note_of(target).write_text(json.dumps({"sha256": digest, "size": size, "retrieved_at": when}))
    os.replace(partial, target)
    partial.with_name(partial.name + ".json").unlink(missing_ok=True)
    return Downloaded(target, digest, size, when, from_cache=False)


def kept(session: Session, target: Path, checksum: str) -> Downloaded:
    """A file of an earlier download, if it is still what it was.

    Raises:
        PayloadError: it was changed since, or is not the file of `checksum`.
    """
    note = note_of(target)
    try:
        known = json.loads(note.read_text())
        digest, size, when = str(known["sha256"]), int(known["size"]), str(known["retrieved_at"])
    except (OSError, ValueError, KeyError, TypeError):
        raise PayloadError(f"{note}: expected the note of a download, found something else; delete it") from None
    found = sha256_file(target)
    if found != digest:
        raise PayloadError(
            f"{session.source}: {target} was changed since it was downloaded; delete it to fetch it again"
        )
    if checksum.startswith("sha256:") and found != checksum[7:].lower():
        raise PayloadError(f"{session.source}: {target}: expected {checksum}, found sha256:{found}; delete it")
    return Downloaded(target, digest, size, when, from_cache=True)
