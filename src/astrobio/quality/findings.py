"""What a check says: rules, findings, verdicts, and reports that go to JSON and back."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal, get_args

Severity = Literal["fatal", "error", "warning", "note"]
Verdict = Literal["accept", "quarantine", "reject"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # from best to worst
EXIT_CODES: dict[Verdict, int] = {"accept": 0, "quarantine": 1, "reject": 2}
TEXT_LIMIT = 600  # characters of one message; hostile files may quote themselves at length


@dataclass(frozen=True)
class Rule:
    """One thing that is checked.

    Args:
        id: stable identifier. title: what must hold, in one sentence. severity: of a violation.
        kinds: file kinds it applies to. remedy: what to do about a violation.
        standard: the document that asks for it. reference: where to read that.
    """

    id: str
    title: str
    severity: Severity
    kinds: tuple[str, ...]
    remedy: str
    standard: str
    reference: str


@dataclass(frozen=True)
class Finding:
    """One violation (or several of one kind) in one place.

    Args:
        rule: identifier in `astrobio.quality.rules.RULES`. location: variable, row, reaction … inside the file.
        message: what was expected and found. count: how many violations this finding stands for.
    """

    rule: str
    severity: Severity
    location: str
    message: str
    remedy: str
    standard: str
    reference: str
    count: int = 1


def verdict_of(severities: set[str]) -> Verdict:
    """Fatal findings reject, errors quarantine, warnings and notes accept."""
    if "fatal" in severities:
        return "reject"
    return "quarantine" if "error" in severities else "accept"


def worst(verdicts: list[Verdict]) -> Verdict:
    """The worst of several verdicts; accept where there are none."""
    return VERDICTS[max(map(VERDICTS.index, verdicts), default=0)]


def shortened(text: object) -> str:
    """Text on one line, without control characters, cut to a readable length."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    plain = " ".join(plain.split())
    return plain if len(plain) <= TEXT_LIMIT else plain[: TEXT_LIMIT - 1] + "…"


def _finite(value: Any) -> Any:
    """Nested facts with None where a number isn't finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


@dataclass
class RowReport:
    """Verdicts inside a table: counts, and the reasons of every row that was not accepted (row number → reasons)."""

    total: int
    reasons: dict[int, list[str]] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        return self.total - len(self.reasons)


@dataclass
class FileReport:
    """Everything said about one file.

    Args:
        path: as given. kind: what it was taken for. size: bytes. sha256: of the bytes as they are on disk.
        findings: in the order of the checks. facts: what was learned on the way (variables, counts, balances).
        rows: verdicts per record where the file is a table. checks: which tools looked at it, with versions.
    """

    path: str
    kind: str = "unknown"
    size: int = 0
    sha256: str = ""
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: RowReport | None = None
    checks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The verdict on the file; rows that are set aside quarantine a table, all of them reject it."""
        found = verdict_of({f.severity for f in self.findings})
        if self.rows is not None and self.rows.reasons:
            found = worst([found, "quarantine" if self.rows.accepted else "reject"])
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the verdict and the counts spelled out."""
        data = asdict(self)
        data["facts"] = _finite(self.facts)
        counts = Counter(f.severity for f in self.findings)
        data["verdict"] = self.verdict
        data["counts"] = {severity: counts.get(severity, 0) for severity in SEVERITIES}
        if self.rows is not None:
            data["rows"] = {**asdict(self.rows), "accepted": self.rows.accepted}
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FileReport:
        """The inverse of `to_dict`."""
        kept = {k: v for k, v in data.items() if k not in ("verdict", "counts", "rows", "findings")}
        rows = data.get("rows")
        if rows is not None:
            reasons = {int(number): list(why) for number, why in rows["reasons"].items()}
            kept["rows"] = RowReport(rows["total"], reasons)
        return cls(**kept, findings=[Finding(**f) for f in data["findings"]])
