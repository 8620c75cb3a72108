"""A record: payload, provenance and licence, inseparable; and answers, which are records plus what went missing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from astrobio import __version__
from astrobio.errors import InputError

Modality = Literal["text", "spectrum", "climate", "metabolism", "catalogue"]
EvidenceKind = Literal["recorded answers", "schema", "real server", "mock contract"]


@dataclass(frozen=True)
class Licence:
    """Terms of a database. `accept` names the page of terms to agree to before the first use, "" where none."""

    name: str
    url: str
    accept: str = ""


@dataclass(frozen=True)
class Evidence:
    """How a connector was tested: on its own recorded answers, against its published schema, against a real server of
    its protocol holding its own table layout, or only against a mock written after its documentation.

    `tests` names the tests that show it, as pytest does.
    """

    kind: EvidenceKind
    detail: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """Where a record came from: who asked, what, when, and the SHA-256 of the raw answer. URLs carry no secret."""

    url: str
    query: str
    retrieved_at: str
    sha256: str
    size: int
    from_cache: bool = False
    method: str = "GET"
    citation: str = ""
    software: str = f"astrobio {__version__}"


@dataclass(frozen=True)
class Record:
    """One row (a dict), one document (bytes) or one file (a path) of a database."""

    source: str
    identifier: str
    modality: Modality
    payload: dict[str, Any] | bytes | Path
    provenance: Provenance
    licence: Licence
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready view; documents and files are named, not inlined."""
        payload = self.payload if isinstance(self.payload, dict) else {"file": self.file_name()}
        return {**asdict(replace(self, payload={})), "payload": payload}

    def file_name(self) -> str:
        """A safe file name for a document or file payload."""
        if isinstance(self.payload, Path):
            return self.payload.name
        return "".join(c if c.isalnum() or c in "-._" else "_" for c in self.identifier)[:120].lstrip(".") or "record"


@dataclass
class Answer:
    """The records of one query; `complete` is False where the database or the connection stopped early."""

    records: list[Record] = field(default_factory=list)
    complete: bool = True
    notes: list[str] = field(default_factory=list)
    quarantined: list[dict[str, str]] = field(default_factory=list)

    def save(self, folder: Path) -> Path:
        """Write `records.jsonl`, `answer.json` and the files into `folder`, which appears only when whole.

        An existing folder of an earlier fetch is replaced.

        Raises:
            InputError: the folder holds something else.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()) and not (folder / "answer.json").exists():
            raise InputError(f"--out {folder}: expected a new folder or one of an earlier fetch, found other files")
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        self._write(building)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(building, folder)
        return folder

    @classmethod
    def load(cls, folder: Path) -> Answer:
        """What `save` wrote; documents and files are paths into the folder.

        Raises:
            InputError: the folder does not hold an answer.
        """
        folder = Path(folder)
        try:
            summary = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
            lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
            records = [_record(json.loads(line), folder) for line in lines]
            return cls(records, bool(summary["complete"]), list(summary["notes"]), list(summary["quarantined"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder}: expected what `astrobio sources fetch --out` writes, found {type(error).__name__}: "
                f"{str(error)[:100]}; fetch it anew"
            ) from None

    def _write(self, folder: Path) -> None:
        with open(folder / "records.jsonl", "w", encoding="utf-8") as out:
            for record in self.records:
                out.write(json.dumps(record.to_dict(), default=str) + "\n")
                if not isinstance(record.payload, dict):
                    (folder / "files").mkdir(exist_ok=True)
                if isinstance(record.payload, bytes):
                    (folder / "files" / record.file_name()).write_bytes(record.payload)
                elif isinstance(record.payload, Path):
                    shutil.copyfile(record.payload, folder / "files" / record.file_name())
        summary = {"records": len(self.records), "complete": self.complete, "notes": self.notes}
        text = json.dumps({**summary, "quarantined": self.quarantined, "written_at": now()}, indent=1)
        (folder / "answer.json").write_text(text)


def _record(data: dict[str, Any], folder: Path) -> Record:
    """One line of `records.jsonl`."""
    payload: dict[str, Any] | Path = data["payload"]
    if isinstance(payload, dict) and set(payload) == {"file"}:
        payload = folder / "files" / Path(payload["file"]).name
        if not payload.is_file():
            raise FileNotFoundError(f"{payload.name} is missing")
    parts = {"provenance": Provenance(**data["provenance"]), "licence": Licence(**data["licence"])}
    notes = tuple(data["notes"])
    return Record(data["source"], data["identifier"], data["modality"], payload, **parts, notes=notes)


def now() -> str:
    """The present time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
