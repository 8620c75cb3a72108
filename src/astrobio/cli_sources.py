"""`astrobio sources …`: list, check, fetch, show-request, auth."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from astrobio.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Real databases: what there is, credentials, fetching records.")
auth_app = typer.Typer(no_args_is_help=True, help="Credentials: where each is found, and storing one.")
app.add_typer(auth_app, name="auth")

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Name = Annotated[str, typer.Argument(help="Name of a database, see `astrobio sources list`.")]
Query = Annotated[str, typer.Argument(help="Query in the database's terms; @FILE reads it from a file.")]


@app.callback()
def _clients() -> None:
    """Real databases: what there is, credentials, fetching records."""
    missing = [name for name in ("requests_cache", "pyvo", "pystac_client", "oaipmh_scythe") if find_spec(name) is None]
    if missing:
        raise InputError(f"sources: expected their clients, {missing} are missing; run pip install 'astrobio[sources]'")


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """Databases: modality, connector kind, credential, licence, and how each connector was tested."""
    from astrobio.sources.commands import list_sources

    typer.echo(list_sources(as_json=as_json))


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Databases; all where none is named.")] = None,
) -> None:
    """Ask each database its example query for one record and say how it went; exits with 1 where one fails."""
    from astrobio.sources.commands import check_sources

    raise typer.Exit(check_sources(names or [], typer.echo))


@app.command()
def fetch(
    name: Name,
    query: Query,
    out: Annotated[Path, typer.Option("--out", help="Folder for records.jsonl, answer.json and files.")],
    limit: Annotated[int, typer.Option(min=1, help="Most records to fetch.")] = 1000,
    accept_licence: Annotated[list[str] | None, typer.Option(help="Name of a database whose terms you accept.")] = None,
) -> None:
    """Fetch records with provenance and licence; interrupted downloads resume, partial results are kept with a note."""
    from astrobio.sources.commands import fetch_to

    typer.echo(fetch_to(name, query, out, limit=limit, accepted=accept_licence or []))


@app.command("show-request")
def show_request(name: Name, query: Query) -> None:
    """Print the first request of a query, unsent, its secrets masked."""
    from astrobio.sources.commands import describe_request

    typer.echo(describe_request(name, query))


@auth_app.command()
def status(as_json: Json = False) -> None:
    """Where each credential is found, and how to get those that are missing."""
    from astrobio.sources.commands import auth_status

    typer.echo(auth_status(as_json=as_json))


@auth_app.command("set")
def set_command(
    name: Annotated[str, typer.Argument(help="Name of a credential, see `astrobio sources auth status`.")],
    user: Annotated[str, typer.Option(help="User name, where the credential has one.")] = "",
) -> None:
    """Store a secret in the system keyring, or where there is none in a file of mode 0600; it is asked for unseen."""
    from astrobio.sources.commands import set_secret

    typer.echo(set_secret(name, user, lambda text: typer.prompt(text, hide_input=True), typer.echo))
