"""Secrets never leave through logs, errors or caches: every secret in use is registered here and masked everywhere."""

from __future__ import annotations

import base64
import logging
import traceback
from urllib.parse import quote, quote_plus

MASK = "***"
LONGEST = 4096  # characters of a secret's longest form that is looked for across the pieces of a file
SHORTEST = 5  # shorter values are refused as secrets: masking them would garble ordinary text
_known: set[str] = set()
_factory_installed = False


def register(*values: str) -> None:
    """Mask these values, and their URL-quoted and base64 forms, from now on in every log record of the process."""
    for value in values:
        if len(value) >= SHORTEST:
            _known.update({value, quote(value, safe=""), quote_plus(value)})
            _known.add(base64.b64encode(value.encode()).decode())
    _install()


def redact(text: str) -> str:
    """`text` with every registered secret masked."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def redact_bytes(content: bytes) -> bytes:
    """`content` with every registered secret masked (a server may echo the key it was given)."""
    for value in sorted(_known, key=len, reverse=True):
        content = content.replace(value.encode(), MASK.encode())
    return content


def leaks(text: str) -> bool:
    """True where `text` holds a registered secret."""
    return any(value in text for value in _known)


def leaks_bytes(content: bytes) -> bool:
    """True where `content` holds a registered secret."""
    return any(value.encode() in content for value in _known)


def _install() -> None:
    """Mask in the log-record factory: filters on loggers miss the records of their children (urllib3, httpx, boto)."""
    global _factory_installed
    if _factory_installed:
        return
    previous = logging.getLogRecordFactory()

    def masking(*args: object, **kwargs: object) -> logging.LogRecord:
        record = previous(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a malformed logging call elsewhere: leave it to logging's own handling
            return record
        if leaks(message):
            record.msg, record.args = redact(message), ()
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if leaks(text):
                record.exc_text = redact(text)
        return record

    logging.setLogRecordFactory(masking)
    _factory_installed = True
