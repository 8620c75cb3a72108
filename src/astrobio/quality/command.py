"""What `astrobio validate` does: examine, print, write, and say the verdict as an exit code."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from astrobio.errors import InputError
from astrobio.quality.examine import Options
from astrobio.quality.findings import Verdict
from astrobio.quality.report import set_aside, validate_files
from astrobio.quality.rules import RULES

STYLES: dict[Verdict, str] = {"accept": "green", "quarantine": "yellow", "reject": "red"}


def run_validate(
    files: list[Path],
    json: Path | None,
    html: Path | None,
    quarantine: Path | None,
    strict: bool,
    units: str | None,
    by: str | None,
    timeout: float,
    memory: float,
    rules: bool,
) -> int:
    """Examine files and report; returns 0 (all accepted), 1 (something quarantined) or 2 (something rejected).

    Raises:
        InputError: no files, or limits that aren't positive.
    """
    console = Console(highlight=False, soft_wrap=True)
    if rules:
        _show_rules(console)
        return 0
    if not files:
        raise InputError("validate: expected at least one file, found none; name files, or list the rules with --rules")
    if timeout <= 0 or memory <= 0:
        raise InputError(f"--timeout, --memory: expected numbers > 0, found {timeout:g} and {memory:g}")
    waiting = Console(stderr=True)
    with waiting.status(f"examining {len(files)} files") as status:
        report = validate_files(
            files, Options(strict, units), by=by, timeout=timeout, memory=int(memory * 1e9),
            progress=lambda done: status.update(f"examined {done.path}"),
        )  # fmt: skip
    for line in report.lines():
        word = line.split()[0]
        console.print(Text.assemble((word, STYLES[word]), line[len(word) :]) if word in STYLES else Text(line))
    if json is not None:
        report.write_json(json)
    if html is not None:
        report.write_html(html)
    if quarantine is not None:
        kept = set_aside(report, quarantine)
        console.print(f"{len(kept)} files written to {quarantine}", markup=False)
    return report.exit_code


def _show_rules(console: Console) -> None:
    """The catalogue as a table; on a pipe, as tab-separated lines."""
    if not sys.stdout.isatty():
        for rule in RULES.values():
            print(rule.id, rule.severity, " ".join(rule.kinds), rule.title, rule.standard, rule.reference, sep="\t")
        return
    table = Table("rule", "severity", "kinds", "what must hold", "standard", box=None)
    for rule in RULES.values():
        table.add_row(rule.id, rule.severity, " ".join(rule.kinds), rule.title, f"{rule.standard}\n{rule.reference}")
    console.print(table)
