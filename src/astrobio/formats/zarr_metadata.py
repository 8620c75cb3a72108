"""Zarr metadata from outside: refused where it would run code. numcodecs decodes a pickle filter by unpickling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astrobio.errors import InputError

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
DEEPEST = 100  # nested objects or arrays; real metadata stays below 15


class CodeError(InputError):
    """Metadata that names a codec which runs code."""


def parse_metadata(text: str | bytes, where: str) -> Any:
    """JSON of a store's metadata, with no codec in it that runs code.

    Raises:
        CodeError: a pickle codec. InputError: no JSON, or nested without end.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:100]
        raise InputError(f"{where}: expected Zarr metadata in JSON, found something else ({reason})") from None
    for key, value in _leaves(tree, where):
        if key in ("id", "name") and value.rpartition(".")[2] == "pickle":
            raise CodeError(f"{where}: expected data, found a pickle codec, which runs code; refused")
    return tree


def _leaves(tree: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every (key, text) of a tree; texts inside lists have the key "name", as short forms of codecs do."""
    left: list[tuple[str, Any, int]] = [("", tree, 0)]
    while left:
        key, value, depth = left.pop()
        if depth > DEEPEST:
            raise InputError(f"{where}: expected Zarr metadata, found more than {DEEPEST} nested levels")
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            left += [(str(name), one, depth + 1) for name, one in value.items()]
        elif isinstance(value, list):
            left += [("name", one, depth + 1) for one in value]


def guard_store(folder: Path) -> None:
    """Check the metadata of a whole store on disk.

    Raises:
        CodeError, InputError: as `parse_metadata`.
    """
    for name in METADATA:
        for path in folder.rglob(name):
            try:
                text = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path}: expected Zarr metadata, found {type(error).__name__}") from None
            parse_metadata(text, str(path.relative_to(folder.parent)))
