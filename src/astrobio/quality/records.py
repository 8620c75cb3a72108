"""Records of the databases (`astrobio.sources`) → findings, before they become samples."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from astrobio.quality.catalogue import Table, check_catalogue
from astrobio.quality.examine import Options, examine
from astrobio.quality.findings import Finding, verdict_of
from astrobio.quality.rules import finding

if TYPE_CHECKING:  # the sources import every protocol's client, which judging their records doesn't need
    from astrobio.sources.record import Record


def check_record(record: Record) -> list[Finding]:
    """What the checks say about one record: a catalogue row, a document or a file."""
    if isinstance(record.payload, Path):
        return examine(record.payload, Options()).findings
    if isinstance(record.payload, bytes):
        with tempfile.TemporaryDirectory(prefix="astrobio-") as folder:
            path = Path(folder) / record.file_name()
            path.write_bytes(record.payload)
            return examine(path, Options()).findings
    if record.modality != "catalogue":
        return []
    return _check_rows([record])[0]


def screen(records: Sequence[Record]) -> tuple[list[Record], list[dict[str, str]]]:
    """Sort records into those to use and those to set aside, each with its reasons.

    Catalogue rows are judged together, so that duplicates among them are found.
    """
    rows = [r for r in records if isinstance(r.payload, dict) and r.modality == "catalogue"]
    judged = dict(zip(map(id, rows), _check_rows(rows), strict=True))
    accepted, aside = [], []
    for record in records:
        found = judged[id(record)] if id(record) in judged else check_record(record)
        if verdict_of({f.severity for f in found}) == "accept":
            accepted.append(record)
        else:
            why = "; ".join(f"{f.rule} {f.location}: {f.message}" for f in found if f.severity in ("fatal", "error"))
            aside.append({"source": record.source, "identifier": record.identifier, "reason": why})
    return accepted, aside


def _check_rows(records: Sequence[Record]) -> list[list[Finding]]:
    """Errors of each catalogue record; what is only worth a warning is for the reader of a whole catalogue."""
    if not records:
        return []
    payloads = [r.payload for r in records if isinstance(r.payload, dict)]
    frame = pd.DataFrame([{k: _text(v) for k, v in p.items()} for p in payloads], dtype=str).fillna("")
    found, report, _, _ = check_catalogue(Table(list(frame.columns), frame))
    fatal = [f for f in found if f.severity == "fatal"]
    out = []
    for row in range(1, len(records) + 1):
        own = list(fatal)
        for reason in report.reasons.get(row, []):
            rule, _, rest = reason.partition(" ")
            location, _, message = rest.partition(": ")
            own.append(finding(rule, location, message))
        out.append(own)
    return out


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)
