"""What can go wrong between a query and its records; every message is one sentence without any secret."""

from __future__ import annotations

from astrobio.errors import InputError

LONGEST = 800  # characters of a message


class SourceError(InputError):
    """A database could not be reached, or answered with an error; the message is one line of bearable length."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…")


class OfflineError(SourceError):
    """Offline mode is on and the answer is not in the cache; the message says which one."""


class CredentialError(SourceError):
    """A credential is missing or was refused; the message says which, from where, and how to get one."""


class LicenceError(SourceError):
    """A licence must be accepted first; the message names its page."""


class PayloadError(SourceError):
    """An answer is truncated, of another type than promised, hostile or too large."""
