"""Answers from outside, read with suspicion: bounded depth, no XML entities, one error for everything unreadable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from astrobio.errors import InputError
from astrobio.sources.errors import PayloadError

DEEPEST = 200  # nested elements or arrays; real answers stay below 40


class _Depth:
    """An XML target that builds nothing and counts nesting."""

    def __init__(self) -> None:
        self.depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise OverflowError(f"more than {DEEPEST} nested elements")

    def end(self, tag: str) -> None:
        self.depth -= 1

    def close(self) -> None:
        return None


def guard_xml(content: bytes, where: str) -> None:
    """Refuse XML that declares entities or nests without end, before any parser builds a tree of it.

    Malformed XML passes: its parser reports it. Content that is not XML passes.

    Raises:
        PayloadError: entity declarations (expansion bombs, external files) or absurd nesting.
    """
    head = content[:64].lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\x00")
    if not head.startswith(b"<"):
        return
    parser = defusedxml.ElementTree.DefusedXMLParser(
        target=_Depth(), forbid_dtd=False, forbid_entities=True, forbid_external=True
    )
    try:
        parser.feed(content)
    except DefusedXmlException as error:
        raise PayloadError(f"{where}: XML with entity declarations refused ({type(error).__name__})") from None
    except OverflowError as error:
        raise PayloadError(f"{where}: XML refused ({error})") from None
    except (ParseError, ValueError, LookupError):
        return


@contextmanager
def reading(where: str, what: str) -> Iterator[None]:
    """Turn whatever a third-party parser throws at a hostile answer into one clear error."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise PayloadError(f"{where}: expected {what}, found something that does not fit in memory") from None
    except Exception as error:  # parsers of hostile bytes raise anything: TypeError, OSError, RecursionError, …
        ours = _inside(error)
        if ours is not None:
            raise ours from None
        detail = " ".join(str(error).split())[:160]
        raise PayloadError(f"{where}: expected {what}, found {type(error).__name__}: {detail}") from None


def _inside(error: BaseException) -> InputError | None:
    """Our own error that a client wrapped into one of its own, such as a missing answer in offline mode."""
    seen: list[BaseException] = []
    while error not in seen:
        if isinstance(error, InputError):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__ or getattr(error, "cause", None) or error
    return None


def parse_xml(content: bytes, where: str) -> Element:
    """Bytes → element tree, entities refused."""
    guard_xml(content, where)
    with reading(where, "XML"):
        return defusedxml.ElementTree.fromstring(content, forbid_dtd=False, forbid_entities=True, forbid_external=True)


def parse_json(content: bytes, where: str) -> Any:
    """Bytes → JSON value; truncated, absurdly nested and non-UTF-8 input is refused."""
    with reading(where, "JSON"):
        return json.loads(content, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> float | None:
    return None if name == "NaN" else float(name.replace("Infinity", "inf"))


def decode(content: bytes, where: str) -> str:
    """Bytes → text in UTF-8 (or Latin-1 where a legacy file uses it); NUL bytes mean a binary file and are refused."""
    if b"\x00" in content:
        raise PayloadError(f"{where}: expected text, found a binary file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def dig(value: Any, path: str, where: str) -> Any:
    """Follow dotted keys into nested objects; a missing or mistyped step is named."""
    for step in path.split(".") if path else ():
        if not isinstance(value, dict) or step not in value:
            raise PayloadError(f"{where}: expected the field {path!r}, found none at {step!r}")
        value = value[step]
    return value


def rows_of(value: Any, where: str) -> list[dict[str, Any]]:
    """A list of objects, or an error that says what was there instead."""
    if not isinstance(value, list):
        raise PayloadError(f"{where}: expected a list of records, found {type(value).__name__}")
    return value


Parser = Callable[[bytes, str], list[dict[str, Any]]]
