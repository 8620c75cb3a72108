"""File sets on pooch: a base address and named files, checked by hash where the database publishes one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pooch

from astrobio.errors import InputError
from astrobio.sources.client import Request, Session
from astrobio.sources.download import Downloaded, download, kept, note_of
from astrobio.sources.kinds.base import Progress, Rejected, Source, rows_to_records
from astrobio.sources.payload import Parser
from astrobio.sources.record import Provenance, Record
from astrobio.sources.redact import redact

pooch.get_logger().setLevel("WARNING")
Locate = Callable[[str], str]  # query → path of the file below the base


@dataclass(frozen=True, kw_only=True)
class FileSet(Source):
    """Files below a base address.

    A query is a file's name, or whatever `locate` turns into one; the part after `#` selects rows by identifier.

    Args:
        files: known files and their "algorithm:hex", "" where none is published. Empty: any file that `locate` names.
        locate: query → path. parse: turns the content of files that end in `parsed_suffix` into rows; without it the
            record is the file itself.
    """

    files: dict[str, str] = field(default_factory=dict)
    locate: Locate | None = None
    parse: Parser | None = None
    parsed_suffix: str = ""

    def path_of(self, query: str) -> str:
        """The file's path below the base; paths that climb out of it are refused."""
        name = query.partition("#")[0].strip()
        path = self.locate(name) if self.locate else name
        if self.files and path not in self.files:
            known = ", ".join(sorted(self.files)[:8])
            raise InputError(f"{self.name}: expected one of {known}, found {path[:60]!r}")
        if not re.fullmatch(r"[\w./+\-]+", path) or ".." in path or path.startswith("/"):
            raise InputError(f"{self.name}: expected a file such as {self.example!r}, found {name[:60]!r}")
        return path

    def request(self, query: str) -> Request:
        return Request("GET", self.url(self.path_of(query)))

    def records(self, query: str, session: Session, limit: int, progress: Progress) -> Iterator[Record | Rejected]:
        path = self.path_of(query)
        got = self._held(session, path, progress)
        provenance = Provenance(
            url=redact(self.url(path)), query=query, retrieved_at=got.retrieved_at, sha256=got.sha256, size=got.size,
            from_cache=got.from_cache, citation=self.citation,
        )  # fmt: skip
        if self.parse is None or not path.endswith(self.parsed_suffix):
            yield Record(self.name, path, self.modality, got.path, provenance, self.licence)
            return
        rows = self.parse(got.path.read_bytes(), f"{self.name} {path}")
        wanted = query.partition("#")[2].strip()
        if wanted:
            rows = [row for row in rows if isinstance(row, dict) and str(row.get(self.identifier)) == wanted]
        yield from rows_to_records(self, rows[:limit], provenance, 0)

    def _held(self, session: Session, path: str, progress: Progress) -> Downloaded:
        """The file through pooch: from its folder where it is whole, else downloaded with resumption."""
        folder, checksum = Path(session.settings_.cache_dir) / self.name / "files", self.files.get(path, "")
        target, incoming = folder / path, folder.parent / "incoming" / path
        keeper = pooch.create(folder, base_url=self.base.rstrip("/") + "/", registry={path: checksum or None})
        fresh: list[Downloaded] = []

        def pull(fname: str, action: Any, pooch: Any, *, check_only: bool | None = None) -> Any:
            got = download(session, Request("GET", fname), incoming, checksum=checksum, progress=progress)
            os.replace(note_of(incoming), note_of(target))
            os.replace(incoming, action)
            fresh.append(replace(got, path=target))

        keeper.fetch(path, downloader=pull)
        return fresh[0] if fresh else kept(session, target, checksum)
