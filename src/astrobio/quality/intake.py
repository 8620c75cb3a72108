"""Before any reader sees a file: is it there, what is it, and is it safe to open.

Nothing here trusts a file's name. Sizes are bounded while unpacking, XML is read by a parser that refuses entities,
and pickled objects are refused unopened.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import json
import lzma
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.sax import SAXException
from xml.sax.handler import ContentHandler

import numpy as np

from astrobio.errors import InputError
from astrobio.formats.zarr_metadata import CodeError, guard_store

PIECE = 2**20  # bytes read at once
UNPACKED_LIMIT = 2 * 2**30  # bytes
RATIO_LIMIT = 200  # unpacked to packed; honest text and netCDF stay below 50
RATIO_FREE = 64 * 2**20  # bytes that may be reached at any ratio
XML_DEPTH = 256  # nested elements; SBML and VOTable stay below 30
HEADER_LIMIT = 1024  # cells of a header line that are looked at
CATALOGUE_COLUMNS = {"pl_name", "hostname", "name", "planet_name", "star_name", "toi", "kepoi_name", "kepler_name"}
GENE_NUMBER = re.compile(r"^(ko:)?K\d{5}$|^(ec:|EC:)?\d+\.\d+\.\d+\.n?\d+$")
_PACKED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}


class Refused(Exception):
    """A file that no reader may see; carries the rule it breaks."""

    def __init__(self, rule: str, location: str, message: str) -> None:
        super().__init__(message)
        self.rule, self.location, self.message = rule, location, message


@dataclass(frozen=True)
class Taken:
    """What a file was taken for, and the plain (unpacked) file to read."""

    kind: str
    path: Path
    encoding: str = "utf-8"


def digest(path: Path) -> tuple[str, int]:
    """(SHA-256, bytes) of a file, or of a folder's files with their relative names, read in pieces."""
    total, size = hashlib.sha256(), 0
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            total.update(file.relative_to(path).as_posix().encode() + b"\0")
        with open(file, "rb") as stream:
            while piece := stream.read(PIECE):
                total.update(piece)
                size += len(piece)
    return total.hexdigest(), size


def take(path: Path, folder: Path) -> Taken:
    """Find out what a file is; packed files are unpacked into `folder` first.

    Raises:
        Refused: missing, empty, unknown, broken or hostile, with the rule that says so.
    """
    if not path.exists():
        raise Refused("FILE-001", path.name, "expected a file, found nothing there")
    if path.is_dir():
        return _take_zarr(path)
    if not path.is_file():
        raise Refused("FILE-001", path.name, "expected a regular file, found a device, pipe or socket")
    try:
        with open(path, "rb") as stream:
            head = stream.read(PIECE)
    except OSError as error:
        raise Refused("FILE-001", path.name, f"expected a readable file, found {error.strerror}") from error
    if not head.strip(b"\0 \t\r\n"):
        raise Refused("FILE-001", path.name, "expected content, found an empty file")
    for magic, packing in _PACKED.items():
        if head.startswith(magic):
            plain = folder / (path.stem or "unpacked")
            _unpack(path, plain, packing)
            return take(plain, folder) if not _is_packed(plain) else _refuse_nested(path)
    return _take_plain(path, head)


def _is_packed(path: Path) -> bool:
    with open(path, "rb") as stream:
        head = stream.read(8)
    return any(head.startswith(magic) for magic in _PACKED)


def _refuse_nested(path: Path) -> Taken:
    raise Refused("FILE-004", path.name, "expected one layer of compression, found compressed data inside")


def _unpack(path: Path, target: Path, packing: str) -> None:
    limit = min(UNPACKED_LIMIT, max(RATIO_FREE, RATIO_LIMIT * path.stat().st_size))
    written = 0
    try:
        with open(path, "rb") as packed, open(target, "wb") as plain:
            for piece in _pieces(packed, packing):
                written += len(piece)
                if written > limit:
                    raise Refused(
                        "FILE-004", path.name, f"expected ≤ {limit:,} bytes unpacked, found more: a decompression bomb"
                    )
                plain.write(piece)
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise Refused("FILE-003", path.name, f"expected whole {packing} data, found {error}") from error


def _pieces(packed: IO[bytes], packing: str) -> Iterator[bytes]:
    """Unpacked pieces of at most `PIECE` bytes each, whatever the compressed data claims."""
    if packing == "xz":
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 * 2**20)
        while not decoder.eof:
            fresh = packed.read(PIECE) if decoder.needs_input else b""
            piece = decoder.decompress(fresh, PIECE)
            if not fresh and not piece and decoder.needs_input:
                raise EOFError("a truncated stream")
            yield piece
        return
    with gzip.open(packed) if packing == "gzip" else bz2.open(packed) as stream:
        while piece := stream.read(PIECE):
            yield piece


def _take_plain(path: Path, head: bytes) -> Taken:
    if head.startswith((b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")):
        return Taken("climate", path)
    if head.startswith(b"SIMPLE  ="):
        return Taken("spectrum", path)
    if head.startswith(b"\x93NUMPY"):
        _refuse_numpy(path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        _refuse_zip(path)
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise Refused("FILE-006", path.name, "expected data, found a Python pickle")
    if head[257:262] == b"ustar":
        raise Refused("FILE-002", path.name, "expected one file, found a tar archive; unpack it and give its files")
    text, encoding = _decode(path, head)
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped.startswith("<"):
        return Taken(_xml_kind(path), path, encoding)
    if stripped.startswith("{"):
        return Taken(_json_kind(path), path, encoding)
    if stripped.startswith("ENTRY  "):
        return Taken("kegg", path, encoding)
    return Taken(_table_kind(path, text), path, encoding)


def _decode(path: Path, head: bytes) -> tuple[str, str]:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", errors="replace"), "utf-16"
    if b"\0" in head:
        raise Refused("FILE-002", path.name, f"expected a known format, found binary data that begins {head[:8]!r}")
    try:
        return head.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 4:  # a character cut by the end of the first piece
            return head[: error.start].decode("utf-8"), "utf-8"
        return head.decode("latin-1"), "latin-1"


class _Guard(ContentHandler):
    """Notes the root element and refuses bottomless nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.root, self.depth = "", 0

    def startElement(self, name: str, attrs: object) -> None:
        self.root = self.root or name.rpartition(":")[2]
        self.depth += 1
        if self.depth > XML_DEPTH:
            raise Refused("FILE-005", name, f"expected ≤ {XML_DEPTH} nested elements, found more")

    def endElement(self, name: str) -> None:
        self.depth -= 1


def guard_xml(path: Path) -> str:
    """The root element of a well-formed XML file without entity declarations or outside references.

    Raises:
        Refused: entities, external references, nesting without end, or broken XML.
    """
    try:
        from defusedxml import DefusedXmlException, EntitiesForbidden
        from defusedxml.sax import parse
    except ModuleNotFoundError as error:
        why = "expected defusedxml to read XML safely, found it not installed: pip install 'astrobio[quality]'"
        raise Refused("FILE-005", path.name, why) from error

    guard = _Guard()
    try:
        parse(str(path), guard, forbid_dtd=False, forbid_entities=True, forbid_external=True)
    except DefusedXmlException as error:
        what = "an entity declaration" if isinstance(error, EntitiesForbidden) else "a reference to an outside file"
        raise Refused("FILE-005", path.name, f"expected plain XML, found {what}, which attacks use") from error
    except (SAXException, ValueError, LookupError, OSError) as error:
        raise Refused("FILE-003", path.name, f"expected well-formed XML, found {error}") from error
    return guard.root


def _xml_kind(path: Path) -> str:
    root = guard_xml(path)
    kinds = {"sbml": "metabolism", "VOTABLE": "votable", "system": "catalogue", "systems": "catalogue"}
    if root not in kinds:
        raise Refused(
            "FILE-002", path.name, f"expected SBML, VOTable or an Open Exoplanet Catalogue system, found <{root}>"
        )
    return kinds[root]


def _json_kind(path: Path) -> str:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Refused("FILE-003", path.name, f"expected JSON, found {type(error).__name__}: {error}") from error
    if isinstance(data, dict) and "metabolites" in data and "reactions" in data:
        return "metabolism"
    keys = list(data)[:6] if isinstance(data, dict) else type(data).__name__
    raise Refused("FILE-002", path.name, f"expected a BiGG/cobra model (metabolites, reactions), found {keys}")


def header_cells(text: str) -> tuple[list[str], str]:
    """(cells of the first line that isn't a comment, delimiter); a commented last line before the data counts too.

    IPAC tables have comments with a backslash, and a bar before and after their cells.
    """
    lines = [line for line in text.splitlines()[:500] if line.strip() and not line.startswith("\\")]
    body = next((line for line in lines if not line.lstrip().startswith("#")), "")
    comments = [line for line in lines if line.lstrip().startswith("#")]
    line = body
    if body and _is_numeric(body) and comments:
        line = comments[-1].lstrip("# ")
    delimiter = max((",", "\t", "|", ";"), key=line.count)
    if line.count(delimiter) == 0:
        return line.split()[:HEADER_LIMIT], " "
    cells = next(csv.reader([line[: 64 * HEADER_LIMIT]], delimiter=delimiter), [])
    return [cell.strip().strip('"') for cell in cells[:HEADER_LIMIT]], delimiter


def is_spectral(names: list[str]) -> bool:
    """Whether one of a table's columns is a wavelength (or wavenumber, frequency, or an edge of a bin)."""
    from astrobio.formats.spectra import role_of
    from astrobio.formats.spectra_table import parse_header

    return any(role_of(parse_header(name)[0]) in ("axis", "low") for name in names if name)


def _is_numeric(line: str) -> bool:
    first = re.split(r"[,\t;|\s]+", line.strip())[0]
    try:
        float(first)
    except ValueError:
        return False
    return True


def _table_kind(path: Path, text: str) -> str:
    cells, _ = header_cells(text)
    if sum(bool(GENE_NUMBER.match(cell)) for cell in cells) >= max(2, 0.5 * (len(cells) - 1)):
        return "genomes"
    if CATALOGUE_COLUMNS & {cell.lower() for cell in cells}:
        return "catalogue"
    if is_spectral(cells):
        return "spectrum"
    body = [line for line in text.splitlines()[:50] if line.strip() and not line.lstrip().startswith("#")]
    if body and len(cells) >= 2 and all(_is_numeric(line) for line in body):
        return "spectrum"  # without a header; its reader says how to add one
    raise Refused(
        "FILE-002",
        path.name,
        f"expected columns of a spectrum (wavelength, …), a catalogue (pl_name, …) or genomes (K00001, …), "
        f"found {cells[:6]}",
    )


def _refuse_numpy(path: Path) -> None:
    with open(path, "rb") as stream:
        _check_numpy_header(stream, path.name)
    raise Refused(
        "FILE-002", path.name, "expected a documented format, found a bare NumPy array without names or units"
    )


def _check_numpy_header(stream: IO[bytes], name: str) -> None:
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        dtype = reader(stream)[2]
    except (ValueError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise Refused("FILE-003", name, f"expected a NumPy header, found {error}") from error
    if dtype.hasobject:
        raise Refused("FILE-006", name, "expected numbers, found an array of pickled Python objects")


def _refuse_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(m.file_size for m in members)
            if unpacked > max(RATIO_FREE, RATIO_LIMIT * path.stat().st_size):
                raise Refused("FILE-004", path.name, f"expected a fair zip, found {unpacked:,} bytes declared inside")
            for member in members[:100]:
                if member.filename.endswith((".pkl", ".pickle")):
                    raise Refused("FILE-006", member.filename, "expected data, found a Python pickle")
                if member.filename.endswith(".npy"):
                    with archive.open(member) as stream:
                        _check_numpy_header(stream, member.filename)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise Refused("FILE-003", path.name, f"expected a whole zip archive, found {error}") from error
    raise Refused("FILE-002", path.name, "expected one file, found a zip archive; unpack it and give its files")


def _take_zarr(path: Path) -> Taken:
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata", ".zarray")):
        raise Refused("FILE-002", path.name, "expected a file or a Zarr store, found a plain folder; give its files")
    try:
        guard_store(path)
    except CodeError as error:
        raise Refused("FILE-006", path.name, str(error)) from error
    except InputError as error:
        raise Refused("FILE-003", path.name, str(error)) from error
    return Taken("climate", path)
