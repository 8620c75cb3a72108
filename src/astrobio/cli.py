"""Command line: each command parses its options, calls one function of the package and prints its result."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.text import Text

from astrobio.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True)


@app.callback()
def _root() -> None:
    """Is this world inhabited? Joint learning on text, spectra, climates and metabolisms."""


def main() -> None:
    """Run the command line; a user's mistake prints one sentence and exits with 2, Ctrl-C with 130."""
    try:
        app()
    except InputError as error:
        console.print(Text.assemble(("error: ", "red"), str(error)), soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted; finished parts are kept, the same command resumes")
        sys.exit(130)
