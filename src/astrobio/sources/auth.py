"""Credentials: which secret a database wants, where it is looked for, and how it is kept.

Order: explicit > environment > keyring > netrc (mode 0600) > the tool's own dotfile > astrobio's file (mode 0600).
"""

from __future__ import annotations

import json
import netrc
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keyring
import keyring.errors
import platformdirs
from pydantic import SecretStr

from astrobio.sources.errors import CredentialError
from astrobio.sources.placements import Placement
from astrobio.sources.redact import SHORTEST, register

SERVICE = "astrobio"  # the name under which secrets stand in the system's keyring


@dataclass(frozen=True)
class Secret:
    """A secret, its user name where it has one, and the place it came from (named in errors and `auth status`)."""

    value: SecretStr
    origin: str
    user: str = ""

    def __post_init__(self) -> None:
        plain = self.value.get_secret_value()
        if len(plain) < SHORTEST or any(ord(c) < 32 for c in plain):
            raise CredentialError(
                f"{self.origin}: expected a secret of at least {SHORTEST} printable characters; set it again"
            )
        register(plain, f"{self.user}:{plain}")


@dataclass(frozen=True)
class Credential:
    """What a database asks for.

    Args:
        name: key in the keyring and in the file.
        placement: how the secret goes into a request.
        how: the page on which one gets it.
        env, env_user: environment variables of the secret (first found wins) and of the user name.
        machine: host in `.netrc`, "" where netrc does not apply.
        dotfile: the database's own file in the home folder with a `key: …` line, such as `.cdsapirc`.
        required: whether anything can be had without it.
    """

    name: str
    placement: Placement
    how: str
    env: tuple[str, ...] = ()
    env_user: str = ""
    machine: str = ""
    dotfile: str = ""
    required: bool = True

    def missing(self) -> str:
        """The sentence that says what is missing and how to get it."""
        places = [f"set {self.env[0]}"] if self.env else []
        places += [f"add `machine {self.machine}` to ~/.netrc (mode 0600)"] if self.machine else []
        places.append(f"run `astrobio sources auth set {self.name}`")
        return f"no credential {self.name!r} found; get one at {self.how}, then {', or '.join(places)}"


def find_secret(
    credential: Credential,
    explicit: Mapping[str, str | SecretStr] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Secret | None:
    """The first secret found, in the documented order; None where there is none.

    Raises:
        CredentialError: one is there but unusable (too short, control characters, a file that others may read).
    """
    environ = os.environ if environ is None else environ
    if explicit and credential.name in explicit:
        given = explicit[credential.name]
        plain = given.get_secret_value() if isinstance(given, SecretStr) else given
        user, _, value = plain.partition(":") if credential.env_user else ("", "", plain)
        return Secret(SecretStr(value), "the explicit argument", user)
    for variable in credential.env:
        if environ.get(variable):
            user = environ.get(credential.env_user, "") if credential.env_user else ""
            return Secret(SecretStr(environ[variable]), f"environment variable {variable}", user)
    return (
        _from_keyring(credential)
        or _from_netrc(credential, environ)
        or _from_dotfile(credential)
        or _from_file(credential)
    )


def _from_keyring(credential: Credential) -> Secret | None:
    try:
        text = keyring.get_password(SERVICE, credential.name)
    except (keyring.errors.KeyringError, RuntimeError):  # no backend on this machine, or it is locked
        return None
    return _unpack(text, "the system keyring") if text else None


def _from_netrc(credential: Credential, environ: Mapping[str, str]) -> Secret | None:
    path = Path(environ.get("NETRC", "~/.netrc")).expanduser()
    if not credential.machine or not path.is_file():
        return None
    try:
        found = netrc.netrc(str(path)).hosts.get(credential.machine)
    except (netrc.NetrcParseError, UnicodeDecodeError) as error:
        message = f"{path}: expected a netrc file, found {type(error).__name__}; repair it"
        raise CredentialError(message) from None
    if found is None:
        return None
    _private(path)
    user, _, value = found
    return Secret(SecretStr(value or ""), f"netrc file {path}", user or "")


def _from_dotfile(credential: Credential) -> Secret | None:
    path = Path.home() / credential.dotfile
    if not credential.dotfile or not path.is_file():
        return None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "key" and value.strip():
            _private(path)
            return Secret(SecretStr(value.strip()), f"file {path}")
    return None


def credentials_file() -> Path:
    """The last place looked at, and the one that `auth set` uses where no keyring works."""
    return Path(platformdirs.user_config_dir("astrobio")) / "credentials.json"


def _from_file(credential: Credential) -> Secret | None:
    path = credentials_file()
    if not path.is_file():
        return None
    text = _read_file(path).get(credential.name)
    return _unpack(json.dumps(text), f"file {path}") if text else None


def _read_file(path: Path) -> dict[str, Any]:
    _private(path)
    try:
        data = json.loads(path.read_text())
    except ValueError:
        raise CredentialError(f"{path}: expected JSON, found something else; repair or delete it") from None
    if not isinstance(data, dict):
        raise CredentialError(f"{path}: expected a JSON object, found {type(data).__name__}; repair or delete it")
    return data


def _unpack(text: str, origin: str) -> Secret:
    data = json.loads(text) if text.startswith("{") else {"secret": text}
    return Secret(SecretStr(data["secret"]), origin, data.get("user", ""))


def _private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise CredentialError(f"{path}: expected mode 0600, found {mode:04o}; run `chmod 600 {path}`")


def store_secret(name: str, value: SecretStr, user: str = "") -> str:
    """Keep a secret in the keyring, else in astrobio's file (mode 0600); returns where it went."""
    data = {"user": user, "secret": value.get_secret_value()}
    try:
        keyring.set_password(SERVICE, name, json.dumps(data))
        return "the system keyring"
    except (keyring.errors.KeyringError, RuntimeError):  # no backend on this machine, or it is locked
        path = credentials_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = _read_file(path) if path.is_file() else {}
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".credentials-")  # mkstemp creates with mode 0600
    with os.fdopen(handle, "w") as out:
        json.dump({**known, name: data}, out)
    os.replace(partial, path)
    return f"file {path}"
