"""A quality report: findings on files with provenance, as JSON, as a page, and as lines on a terminal."""

from __future__ import annotations

import csv
import getpass
import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astrobio import __version__
from astrobio.errors import InputError
from astrobio.quality.examine import Options, examine
from astrobio.quality.findings import EXIT_CODES, SEVERITIES, VERDICTS, FileReport, Verdict, worst
from astrobio.quality.isolation import MEMORY, TIMEOUT, Examiner
from astrobio.quality.rules import RULES, finding
from astrobio.quality.validators import tool

SCHEMA = "astrobio.quality/1"
TOOLS = (
    "compliance-checker", "python-libsbml", "cobra", "memote", "astropy", "pandera", "defusedxml", "xarray", "netCDF4",
    "zarr", "numpy", "pandas",
)  # fmt: skip


@dataclass
class QualityReport:
    """What was found in some files, and who looked when with what.

    Args:
        files: one report a file. provenance: who, when, versions, options.
    """

    files: list[FileReport]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict on any file."""
        return worst([f.verdict for f in self.files])

    @property
    def exit_code(self) -> int:
        """0 accept, 1 quarantine, 2 reject."""
        return EXIT_CODES[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        verdicts = Counter(f.verdict for f in self.files)
        severities = Counter(finding.severity for f in self.files for finding in f.findings)
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "files_by_verdict": {v: verdicts.get(v, 0) for v in VERDICTS},
            "findings_by_severity": {s: severities.get(s, 0) for s in SEVERITIES},
            "provenance": self.provenance,
            "files": [f.to_dict() for f in self.files],
        }

    def write_json(self, path: Path) -> None:
        """Write the report, whole or not at all."""
        _write(path, json.dumps(self.to_dict(), indent=1, default=str, ensure_ascii=False, allow_nan=False))

    def write_html(self, path: Path) -> None:
        """Write the report as one page that needs nothing else."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("astrobio.quality", ""), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        environment.filters["bytes"] = _bytes
        environment.filters["number"] = _number
        used = {f.rule for file in self.files for f in file.findings}
        page = environment.get_template("report.html").render(
            report=self.to_dict(), severities=SEVERITIES, rules=[RULES[r] for r in RULES if r in used]
        )
        _write(path, page)

    def lines(self) -> Iterable[str]:
        """The report for a terminal: a line a file, its errors and warnings below."""
        for file in self.files:
            counts = Counter(f.severity for f in file.findings)
            told = ", ".join(f"{counts[s]} {s}{'s' if counts[s] > 1 else ''}" for s in SEVERITIES if counts[s])
            rows = ""
            if file.rows is not None:
                rows = f", {file.rows.accepted:,} of {file.rows.total:,} rows accepted"
            yield f"{file.verdict:<10} {file.path} ({file.kind}{rows}): {told or 'no findings'}"
            for one in file.findings:
                if one.severity != "note":
                    yield f"  {one.severity:<7} {one.rule:<8} {one.location}: {one.message}. {one.remedy}."


def validate_files(
    paths: Iterable[str | Path],
    options: Options = Options(),  # noqa: B008  (frozen)
    *,
    by: str | None = None,
    isolated: bool = True,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
    progress: Callable[[FileReport], None] | None = None,
) -> QualityReport:
    """Examine files; nothing in them raises.

    Args:
        by: who asks, for the provenance; None: the login name. isolated: in a child process with limits.
        timeout: seconds a file. memory: bytes a file. progress: called after each file.
    """
    files: list[FileReport] = []
    seen: dict[str, str] = {}
    started = _now()
    with Examiner(options, timeout, memory) as examiner:
        for path in paths:
            report = examiner.examine(path) if isolated else examine(path, options)
            first = seen.setdefault(report.sha256, report.path) if report.sha256 else report.path
            if first != report.path:
                report.findings.append(
                    finding("FILE-009", Path(path).name, f"expected each once, found a copy of {first}")
                )
            files.append(report)
            if progress is not None:
                progress(report)
    provenance = {
        "by": by or _login(), "started_at": started, "finished_at": _now(), "software": f"astrobio {__version__}",
        "python": platform.python_version(), "system": platform.platform(terse=True), "options": asdict(options),
        "tools": [tool(name) for name in TOOLS], "rules": len(RULES),
    }  # fmt: skip
    return QualityReport(files, provenance)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def set_aside(report: QualityReport, folder: Path) -> list[Path]:
    """Keep what was not accepted, with the reason: quarantined files and rows are copied, rejected files only named.

    Writes for each file `HASH-NAME.reason.json` and, where quarantined, the file itself or, of a table, its rows as
    `HASH-NAME.rows.csv` with a column of reasons.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file in report.files:
        if file.verdict == "accept":
            continue
        name = f"{(file.sha256 or 'missing')[:12]}-{Path(file.path).name}"
        reason = {"schema": SCHEMA, "provenance": report.provenance, "file": file.to_dict()}
        written.append(folder / f"{name}.reason.json")
        _write(written[-1], json.dumps(reason, indent=1, default=str, ensure_ascii=False))
        if file.verdict == "quarantine":
            rows = file.kind == "catalogue" and file.rows is not None and file.rows.reasons
            written.append(_rows_aside(file, folder / f"{name}.rows.csv") if rows else _copy(file, folder / name))
    return written


def _copy(file: FileReport, target: Path) -> Path:
    source, partial = Path(file.path), target.with_name(f".{target.name}.partial")
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, partial, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, partial)
    os.replace(partial, target)
    return target


def _rows_aside(file: FileReport, target: Path) -> Path:
    import tempfile

    from astrobio.quality.catalogue import read_catalogue
    from astrobio.quality.intake import take

    assert file.rows is not None
    partial = target.with_name(f".{target.name}.partial")
    with tempfile.TemporaryDirectory(prefix="astrobio-") as folder:
        taken = take(Path(file.path), Path(folder))
        table = read_catalogue(taken.path, taken.encoding)
    with open(partial, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "reasons", *table.columns])
        for row in sorted(file.rows.reasons):
            writer.writerow([row, " | ".join(file.rows.reasons[row]), *table.frame.iloc[row - 1]])
    os.replace(partial, target)
    return target


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: expected a place to write to, found {error.strerror}; choose another") from error
    finally:
        partial.unlink(missing_ok=True)


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
