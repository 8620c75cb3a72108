"""`astrobio data …`: describe, audit."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="Folders of worlds: what is in them, and whether they give labels away.")

Folder = Annotated[Path, typer.Argument(help="folder that `astrobio simulate` made")]


@app.command()
def describe(data: Folder) -> None:
    """Sum a data set up; write a picture, Croissant metadata and a datasheet into its folder."""
    from astrobio.dataset.describe import describe_dataset

    Console().print(describe_dataset(data))


@app.command()
def audit(data: Folder, json: Annotated[Path | None, typer.Option(help="write the findings as JSON")] = None) -> None:
    """Look for leaks: shared stars, duplicates, labels told by order, names or the metabolism. Exit 1: found one."""
    from astrobio.evaluation.audit import audit as run_audit
    from astrobio.evaluation.audit import report

    findings = run_audit(data)
    Console().print(report(findings))
    if json is not None:
        json.write_text(json_module.dumps([asdict(f) for f in findings], indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(any(f.passed is False for f in findings))
