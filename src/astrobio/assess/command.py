"""`astrobio assess`: files in, a short table on the terminal, a page and JSON where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from astrobio.assess.predict import COLD_NOTE, Assessment, assess
from astrobio.assess.report import INPUTS, NAMES, percent, retrieved, signed, verdict, write_report
from astrobio.batch import INHABITED_STATES
from astrobio.errors import InputError
from astrobio.training.checkpoint import write_json

BAR = 24  # characters of the longest bar


def run_assess(run: Path | None, out: Path | None, json: Path | None, console: Console, **inputs: Any) -> None:
    """Assess, write what was asked for, print the answer.

    Args:
        run: trained run or None. out: HTML. json: JSON. inputs: as `astrobio.assess.predict.assess` takes them.

    Raises:
        InputError: as `assess`; also outputs that are folders.
    """
    for path in (out, json):
        if path is not None and path.is_dir():
            raise InputError(f"{path}: expected a file to write, found a folder; name a file in it")
    assessment = assess(run, **inputs)
    if json is not None:
        write_json(json, assessment.to_dict())
    if out is not None:
        write_report(assessment, out)
    print_assessment(assessment, console)
    for path in (out, json):
        if path is not None:
            console.print(f"wrote {escape(str(path))}", highlight=False)


def print_assessment(a: Assessment, console: Console) -> None:
    """The answer in a screenful."""
    console.print(f"\n[bold]{percent(a.inhabited)}% inhabited.[/bold] {verdict(a.inhabited)}", highlight=False)
    console.print(_states(a))
    console.print("\n[dim]share of each input in the log-odds of life, nats[/dim]")
    console.print(_attribution(a))
    if a.assessment_text:
        console.print(Padding(f"[italic]{escape(a.assessment_text)}[/italic]", (1, 2)), highlight=False)
    if a.physics_range:
        console.print("[dim]what it infers of the planet, gases by volume; 90% of such worlds lie within[/dim]")
        console.print(_retrieved(a))
    for warning in a.warnings:
        console.print(f"[yellow]![/yellow] {escape(warning)}", highlight=False)
    console.print(f"[dim]{escape(COLD_NOTE)}[/dim]", highlight=False)


def _states(a: Assessment) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for state, probability in sorted(a.state_probabilities.items(), key=lambda item: -item[1]):
        colour = "green" if state in INHABITED_STATES else "yellow"
        kept = "plausible" if a.prediction_set and state in a.prediction_set else ""
        bar = f"[{colour}]{'█' * round(BAR * probability)}[/{colour}]"
        table.add_row(NAMES[state], f"{percent(probability)}%", bar, f"[dim]{kept}[/dim]")
    return table


def _attribution(a: Assessment) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in a.attribution.items():
        table.add_row(INPUTS[name], f"[{'green' if value > 0 else 'yellow'}]{signed(value)}[/]")
    return table


def _retrieved(a: Assessment) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for entry in retrieved(a):
        table.add_row(entry.label, entry.value, f"[dim]{entry.range}[/dim]")
    return table
