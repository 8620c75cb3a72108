"""What the `astrobio sources` commands do; each returns the text to print, none prints a secret."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from astrobio.errors import InputError
from astrobio.sources import ALL_SOURCES, find_source
from astrobio.sources.auth import Credential, Secret, find_secret, store_secret
from astrobio.sources.client import Settings
from astrobio.sources.errors import CredentialError
from astrobio.sources.kinds import Source, fetch
from astrobio.sources.placements import OAuth
from astrobio.sources.redact import MASK, redact


def list_sources(*, as_json: bool) -> str:
    """All databases as a table, or as JSON."""
    rows = [_summary(source) for source in ALL_SOURCES.values()]
    if as_json:
        return json.dumps(rows, indent=1)
    table = Table("name", "kind", "modality", "credential", "licence", "tested by", title=f"{len(rows)} databases")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "kind", "modality", "credential", "licence", "tested_by")))
    return _rendered(table)


def _summary(source: Source) -> dict[str, Any]:
    return {
        "name": source.name, "title": source.title, "kind": source.kind, "modality": source.modality,
        "base": source.base,
        "credential": _credential_state(source.credential), "licence": source.licence.name,
        "licence_page": source.licence.url, "licence_to_accept": bool(source.licence.accept),
        "tested_by": source.tested_by.kind, "tested_with": source.tested_by.detail,
        "tests": list(source.tested_by.tests), "example": source.example,
        "citation": source.citation,
    }  # fmt: skip


def _credential_state(credential: Credential | None) -> str:
    if credential is None:
        return "none needed"
    try:
        secret = find_secret(credential)
    except CredentialError as error:
        return f"unusable: {error}"
    need = "required" if credential.required else "optional"
    return f"{need}, from {secret.origin}" if secret else f"{need}, missing"


def check_sources(names: Sequence[str], say: Callable[[str], None]) -> int:
    """Fetch one record of each database's example; returns the exit status (1 where one failed)."""
    failed = 0
    for source in [find_source(name) for name in names] if names else ALL_SOURCES.values():
        begin = time.monotonic()
        settings = Settings.from_environment(attempts=2, timeout=15.0, expire_after=0)
        try:
            answer = fetch(source, read_query(source.example), settings=settings, limit=1)
            result = f"ok, {len(answer.records)} record in {time.monotonic() - begin:.1f} s"
        except InputError as error:
            failed, result = 1, f"failed: {error}"
        say(f"{source.name}: {result}")
    return failed


def read_query(text: str) -> str:
    """A query as given, or the content of the file that `@FILE` names.

    Raises:
        InputError: the file is missing or is not text.
    """
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"query {text}: expected a text file, found {type(error).__name__}") from None


def fetch_to(name: str, query: str, out: Path, *, limit: int, accepted: Sequence[str]) -> str:
    """Fetch and save; a progress line goes to the error stream where that is a terminal."""
    source = find_source(name)
    settings = Settings.from_environment()
    settings = Settings.from_environment(accepted=settings.accepted | set(accepted))
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None, count="")

        def progress(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total, count=_counted(what, done, total))

        answer = fetch(source, read_query(query), settings=settings, limit=limit, progress=progress)
    folder = answer.save(out)
    lines = [f"{len(answer.records)} records of {source.title} in {folder}", f"licence: {source.licence.name}"]
    lines += [f"note: {note}" for note in answer.notes]
    lines += [f"set aside: row {item['row']}: {item['reason']}" for item in answer.quarantined[:5]]
    return "\n".join(lines + ([] if answer.complete else ["the answer is not complete"]))


def _counted(what: str, done: int, total: int | None) -> str:
    """How far it is: bytes in their usual units, everything else as a plain number."""
    shown = [decimal(n) if what.endswith("bytes") else str(n) for n in (done, total) if n is not None]
    return " of ".join(shown) if done else ""


def describe_request(name: str, query: str) -> str:
    """The first request of a query, with the place of its secret but not the secret."""
    source = find_source(name)
    request = source.request(read_query(query))
    prepared = request.plain().prepare() if request.url.startswith("http") else None
    lines = [redact(f"{request.method} {prepared.url if prepared else request.url}")]
    lines += [redact(f"{key}: {value}") for key, value in request.headers.items()]
    if source.credential is not None:
        lines.append(f"credential {source.credential.name}: {type(source.credential.placement).__name__} = {MASK}")
    if request.json is not None:
        lines += ["", redact(json.dumps(request.json, indent=1))]
    elif request.data:
        lines += ["", redact(str(prepared.body if prepared else request.data))]
    return "\n".join(lines)


def _credentials() -> dict[str, tuple[Credential, list[str]]]:
    found: dict[str, tuple[Credential, list[str]]] = {}
    for source in ALL_SOURCES.values():
        if source.credential is not None:
            found.setdefault(source.credential.name, (source.credential, []))[1].append(source.name)
    return found


def auth_status(*, as_json: bool) -> str:
    """Every credential: what for, where it was found, how to get it."""
    rows = [
        {"name": name, "for": ", ".join(users), "state": _credential_state(credential), "how": credential.how}
        for name, (credential, users) in _credentials().items()
    ]
    if as_json:
        return json.dumps(rows, indent=1)
    table = Table("credential", "for", "state", "get one at", title="Credentials")
    for row in rows:
        table.add_row(*row.values())
    return _rendered(table)


def set_secret(name: str, user: str, ask: Callable[[str], str], say: Callable[[str], None]) -> str:
    """Ask for a secret (or run the device flow) and store it.

    Raises:
        InputError: no credential of that name, or a user name is missing.
    """
    known = _credentials()
    if name not in known:
        raise InputError(f"credential {name!r}: expected one of {', '.join(known)}, found none of that name")
    credential, users = known[name]
    if credential.env_user and not user:
        raise InputError(f"credential {name!r}: expected a user name, found none; pass --user NAME")
    placement = credential.placement
    if isinstance(placement, OAuth) and placement.interactive:
        with ALL_SOURCES[users[0]].session(Settings.from_environment()) as session:
            value = placement.device_login(
                session.exchange_login, lambda page, code: say(f"open {page} and enter {code}")
            )
    else:
        value = SecretStr(ask(f"secret for {name} (get one at {credential.how})"))
    Secret(value, "the prompt", user)  # refuses unusable ones, and masks it from here on
    where = store_secret(name, value, user)
    return f"stored {name} in {where}"


def _rendered(table: Table) -> str:
    console = Console(width=None if sys.stdout.isatty() else 160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text().rstrip()
