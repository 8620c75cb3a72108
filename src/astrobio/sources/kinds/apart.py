"""Gridded files and Zarr stores are read in a process of their own: damaged ones make libraries hang, crash or bloat.

The child has no network. What it needs of a remote Zarr store it asks this process for, which alone sends requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path

import xarray as xr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from astrobio.errors import InputError
from astrobio.formats.limits import limit_memory, reader_context
from astrobio.formats.zarr_metadata import METADATA, parse_metadata
from astrobio.sources.errors import PayloadError
from astrobio.sources.kinds.selection import LARGEST, LARGEST_CHUNK, select, write
from astrobio.sources.payload import reading

START = 20.0  # s that the first reading process may take to start, beyond its patience
GRACE = 2.0  # s that a reader has to put away its things once it has ended
MEMORY = LARGEST + 2 * 2**30  # bytes that the reading process may take: a selection, and its chunks while unpacked
MOST_OBJECTS = 20_000  # objects of a store that one selection may need
Objects = Callable[[str, str], bytes | None]  # (key, value of a Range header or "") → content, None where there is none


def extract_file(local: Path, selection: dict[str, str], target: Path, where: str, patience: float) -> None:
    """Write a selection of a netCDF file.

    Raises:
        PayloadError: unreadable, too slow (`patience`, s) or too large.
    """
    _converse(partial(_open_file, local), selection, target, where, patience, lambda key, span: None)


def extract_store(objects: Objects, selection: dict[str, str], target: Path, where: str, patience: float) -> None:
    """Write a selection of a Zarr store whose objects `objects` gives; time spent in `objects` does not count.

    Raises:
        PayloadError: as `extract_file`. Whatever `objects` raises.
    """
    _converse(_open_store, selection, target, where, patience, objects)


Opener = Callable[[Connection, str], xr.Dataset]


def _converse(
    opener: Opener, selection: dict[str, str], target: Path, where: str, patience: float, objects: Objects
) -> None:
    """Start a reader, answer what it asks for, and raise the sentence that it ends with."""
    context = reader_context()
    ours, theirs = context.Pipe()
    reader = context.Process(target=_read, args=(opener, selection, target, where, theirs), daemon=True)
    reader.start()
    theirs.close()
    try:
        message = _served(ours, objects, patience, where)
        reader.join(GRACE)
    except (EOFError, ConnectionError):  # it died without a word
        message = f"{where}: expected gridded data, found some on which its reader crashed"
    finally:
        ours.close()
        reader.kill()
        reader.join()
        target.with_suffix(".part").unlink(missing_ok=True)
    if message:
        raise PayloadError(message)


def _served(pipe: Connection, objects: Objects, patience: float, where: str) -> str:
    """Answer the reader until it ends; returns its last word, "" where all went well."""
    end, asked = time.monotonic() + patience + START, 0
    while pipe.poll(max(0.0, end - time.monotonic())):
        message = json.loads(pipe.recv_bytes())
        if "end" in message:
            return str(message["end"])
        asked += 1
        if asked > MOST_OBJECTS:
            return f"{where}: the selection needs more than {MOST_OBJECTS} objects of the store; narrow it"
        begin = time.monotonic()
        content = objects(str(message["key"]), str(message["span"]))
        pipe.send_bytes(b"-" if content is None else b"+" + content)
        end += time.monotonic() - begin
    return f"{where}: could not be read within {patience:.0f} s; it is damaged or too large"


def _read(opener: Opener, selection: dict[str, str], target: Path, where: str, pipe: Connection) -> None:
    """The reader's life: write the selection, end with "" or with the error's sentence."""
    limit_memory(MEMORY)
    try:
        with reading(where, "gridded data"), opener(pipe, where) as data:
            write(select(data, selection, where), target, where)
        end = ""
    except InputError as error:
        end = str(error)
    pipe.send_bytes(json.dumps({"end": end}).encode())


def _open_file(local: Path, pipe: Connection, where: str) -> xr.Dataset:
    return xr.open_dataset(local, engine="netcdf4")


def _open_store(pipe: Connection, where: str) -> xr.Dataset:
    """A store of either format whose metadata stand in one object; others would have to be listed."""
    store = _Asked(pipe, where)
    for name, version in ((".zmetadata", 2), ("zarr.json", 3)):
        if store.content(name) is not None:
            data = xr.open_zarr(store, consolidated=True, zarr_format=version, chunks=None)
            for variable, array in data.variables.items():
                chunk = max(1, array.dtype.itemsize) * prod(array.encoding.get("chunks") or (1,))
                if chunk > LARGEST_CHUNK:
                    raise PayloadError(f"{where}: {variable}: found a chunk of {chunk} bytes; at most {LARGEST_CHUNK}")
            return data
    raise PayloadError(
        f"{where}: expected a Zarr store with consolidated metadata, found no .zmetadata and no zarr.json"
    )


class _Asked(Store):
    """A read-only Zarr store in the reading process, whose objects come through the pipe, one at a time."""

    def __init__(self, pipe: Connection, where: str) -> None:
        super().__init__(read_only=True)
        self.pipe, self.where = pipe, where
        self.known: dict[str, bytes | None] = {}  # metadata, asked for more than once

    def content(self, key: str, span: str = "") -> bytes | None:
        """An object, or bytes of it; metadata that would run code are refused."""
        if key in self.known:
            return self.known[key]
        self.pipe.send_bytes(json.dumps({"key": key, "span": span}).encode())
        answer = self.pipe.recv_bytes()
        content = None if answer == b"-" else answer[1:]
        if key.rpartition("/")[2] in METADATA:
            self.known[key] = content
            if content is not None:
                parse_metadata(content, f"{self.where} {key}")
        return content

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        content = self.content(key, _span(byte_range))
        return None if content is None else (prototype or default_buffer_prototype()).buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, span) for key, span in key_ranges]

    async def exists(self, key: str) -> bool:
        return self.content(key) is not None

    @property
    def supports_writes(self) -> bool:
        return False

    @property
    def supports_deletes(self) -> bool:
        return False

    @property
    def supports_listing(self) -> bool:
        return False

    async def set(self, key: str, value: Buffer) -> None:
        raise PermissionError(f"{self.where}: read-only")

    async def delete(self, key: str) -> None:
        raise PermissionError(f"{self.where}: read-only")

    async def _nothing(self) -> AsyncIterator[str]:
        for name in ():
            yield name

    def list(self) -> AsyncIterator[str]:
        return self._nothing()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self._nothing()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return self._nothing()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def _span(wanted: ByteRequest | None) -> str:
    """The value of a Range header."""
    if isinstance(wanted, RangeByteRequest):
        return f"bytes={wanted.start}-{wanted.end - 1}"
    if isinstance(wanted, OffsetByteRequest):
        return f"bytes={wanted.offset}-"
    return f"bytes=-{wanted.suffix}" if isinstance(wanted, SuffixByteRequest) else ""
