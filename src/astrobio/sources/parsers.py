"""Bodies of answers → rows. Every parser takes (bytes, where) and raises `PayloadError` on anything it can't read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from Bio.KEGG import Compound, Enzyme

from astrobio.sources.errors import PayloadError, SourceError
from astrobio.sources.payload import Parser, decode, dig, parse_json, parse_xml, reading, rows_of

ATOM = "{http://www.w3.org/2005/Atom}"
HITRAN_FIELDS = (  # name, width, type: the 160-character record of Rothman et al. 2005, doi:10.1016/j.jqsrt.2004.10.008
    ("molec_id", 2, int), ("local_iso_id", 1, str), ("nu", 12, float), ("sw", 10, float), ("a", 10, float),
    ("gamma_air", 5, float), ("gamma_self", 5, float), ("elower", 10, float), ("n_air", 4, float),
    ("delta_air", 8, float),
    ("global_upper_quanta", 15, str), ("global_lower_quanta", 15, str), ("local_upper_quanta", 15, str),
    ("local_lower_quanta", 15, str), ("ierr", 6, str), ("iref", 12, str), ("line_mixing_flag", 1, str),
    ("gp", 7, float), ("gpp", 7, float),
)  # fmt: skip
LINE = sum(width for _, width, _ in HITRAN_FIELDS)


def json_rows(path: str, error: str = "") -> Parser:
    """Rows at a dotted path of a JSON answer; `error` is a dotted path that holds the message of a failed query."""

    def parse(content: bytes, where: str) -> list[dict[str, Any]]:
        data = parse_json(content, where)
        if error and isinstance(data, dict):
            message = data
            for step in error.split("."):
                message = message.get(step) if isinstance(message, dict) else None
            if message:
                raise SourceError(f"{where}: the database reports: {str(message)[:200]}")
        return rows_of(dig(data, path, where) if path else data, where)

    return parse


def json_document(content: bytes, where: str) -> list[dict[str, Any]]:
    """The whole JSON object as one row."""
    data = parse_json(content, where)
    if not isinstance(data, dict):
        raise PayloadError(f"{where}: expected a JSON object, found {type(data).__name__}")
    return [data]


def table(delimiter: str = "\t") -> Parser:
    """Rows of a table with a header; a row that is longer or shorter than the header is refused, as is an HTML page."""

    def parse(content: bytes, where: str) -> list[dict[str, Any]]:
        text = decode(content, where)
        if text.lstrip()[:1] == "<":
            raise PayloadError(f"{where}: expected a table, found a page: {' '.join(text.split())[:80]}")
        with reading(where, "a table"):
            lines = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
        if not lines or len(lines[0]) < 2 or len(set(lines[0])) != len(lines[0]):
            raise PayloadError(f"{where}: expected a header of distinct columns, found {str(lines[:1])[:80]}")
        header, body = lines[0], [line for line in lines[1:] if line]
        for number, line in enumerate(body, 2):
            if len(line) != len(header):
                raise PayloadError(f"{where}: line {number}: expected {len(header)} columns, found {len(line)}")
        return [dict(zip(header, line, strict=True)) for line in body]

    return parse


def atom_entries(content: bytes, where: str) -> list[dict[str, Any]]:
    """Entries of an Atom feed (arXiv): identifier, title, summary, dates, authors, categories, links."""
    feed = parse_xml(content, where)
    if feed.tag != f"{ATOM}feed":
        raise PayloadError(f"{where}: expected an Atom feed, found <{feed.tag[:60]}>")
    rows = []
    for entry in feed.iter(f"{ATOM}entry"):
        row: dict[str, Any] = {
            name: _text(entry, f"{ATOM}{name}") for name in ("id", "title", "summary", "published", "updated")
        }
        if "/api/errors" in row["id"]:
            raise SourceError(f"{where}: the database reports: {row['summary'][:200]}")
        row["authors"] = [_text(author, f"{ATOM}name") for author in entry.iter(f"{ATOM}author")]
        row["categories"] = [item.get("term", "") for item in entry.iter(f"{ATOM}category")]
        row["links"] = [item.get("href", "") for item in entry.iter(f"{ATOM}link")]
        rows.append(row)
    return rows


def _text(element: Element, name: str) -> str:
    return " ".join((element.findtext(name) or "").split())


def pubmed_articles(content: bytes, where: str) -> list[dict[str, Any]]:
    """PubMed articles; an esearch answer (JSON), which comes first, has none."""
    if content.lstrip()[:1] == b"{":
        return []
    root = parse_xml(content, where)
    if root.tag == "eFetchResult" or root.find("ERROR") is not None:
        raise SourceError(f"{where}: the database reports: {(root.findtext('ERROR') or 'no article')[:200]}")
    if root.tag != "PubmedArticleSet":
        raise PayloadError(f"{where}: expected <PubmedArticleSet>, found <{root.tag[:60]}>")
    rows = []
    for article in root.iter("PubmedArticle"):
        rows.append(
            {
                "pmid": article.findtext(".//MedlineCitation/PMID") or "",
                "title": _all_text(article.find(".//ArticleTitle")),
                "abstract": " ".join(_all_text(part) for part in article.iter("AbstractText")),
                "journal": article.findtext(".//Journal/Title") or "",
                "year": article.findtext(".//PubDate/Year") or "",
                "authors": [
                    f"{a.findtext('LastName') or ''} {a.findtext('Initials') or ''}".strip()
                    for a in article.iter("Author")
                ],
            }
        )
    return rows


def _all_text(element: Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())


def kegg_entries(content: bytes, where: str) -> list[dict[str, Any]]:
    """KEGG flat files (compounds and enzymes by Bio.KEGG, anything else field by field), or two-column lists."""
    text = decode(content, where)
    if not text.strip():
        return []
    if "///" not in text:
        return _kegg_list(text, where)
    rows = []
    for entry in _kegg_split(text, where):
        match = re.match(r"ENTRY\s+(?:EC\s+)?(\S+)(?:\s+(?:Obsolete\s+)?([A-Za-z]+))?", entry.splitlines()[0])
        if match is None:
            raise PayloadError(f"{where}: expected ENTRY at the head of a record, found {entry[:40]!r}")
        kind = (match[2] or ("enzyme" if "EC " in entry.splitlines()[0] else "entry")).lower()
        with reading(where, f"a KEGG {kind}"):
            rows.append({"entry": match[1], "kind": kind, "fields": _kegg_fields(entry), **_kegg_parsed(entry, kind)})
    return rows


def _kegg_split(text: str, where: str) -> Iterator[str]:
    *entries, tail = re.split(r"^///\s*$", text, flags=re.MULTILINE)
    if tail.strip():
        raise PayloadError(f"{where}: expected every record to end with ///, found {tail.strip()[-40:]!r} (truncated)")
    yield from (entry.strip("\n") for entry in entries if entry.strip())


def _kegg_fields(entry: str) -> dict[str, list[str]]:
    """Every field as its lines, the first twelve columns being the field's name (what `formats.kegg` works on)."""
    fields: dict[str, list[str]] = {}
    name = ""
    for line in entry.splitlines():
        head = line[:12].strip()
        name = head if head and not line[0].isspace() else name
        fields.setdefault(name, []).append(line[12:].rstrip() if not head or not line[0].isspace() else line.strip())
    return fields


def _kegg_parsed(entry: str, kind: str) -> dict[str, Any]:
    if kind == "compound":
        record = next(Compound.parse(io.StringIO(entry + "\n///\n")))
        return {"names": record.name, "formula": record.formula, "mass": record.mass, "enzymes": record.enzyme}
    if kind == "enzyme":
        record = next(Enzyme.parse(io.StringIO(entry + "\n///\n")))
        return {"names": record.name, "substrates": record.substrate, "products": record.product}
    return {}


def _kegg_list(text: str, where: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        left, tab, right = line.partition("\t")
        if not tab or not left:
            raise PayloadError(f"{where}: line {number}: expected two columns, found {line[:60]!r}")
        rows.append({"entry": left, "kind": "list", "value": right})
    return rows


def hitran_lines(content: bytes, where: str) -> list[dict[str, Any]]:
    """HITRAN line records (160 characters): wavenumber cm⁻¹, intensity cm/molecule, widths cm⁻¹/atm, energies cm⁻¹."""
    rows = []
    for number, line in enumerate(decode(content, where).splitlines(), 1):
        if not line.strip():
            continue
        if len(line) != LINE:
            raise PayloadError(f"{where}: line {number}: expected {LINE} characters, found {len(line)}: {line[:40]!r}")
        row, at = {}, 0
        for name, width, kind in HITRAN_FIELDS:
            try:
                row[name] = (
                    kind(line[at : at + width].strip() or "nan")
                    if kind is float
                    else kind(line[at : at + width].strip())
                )
            except ValueError:
                raise PayloadError(
                    f"{where}: line {number}: expected {name}, found {line[at : at + width]!r}"
                ) from None
            at += width
        row["line"] = number
        rows.append(row)
    return rows


def exomol_definition(content: bytes, where: str) -> list[dict[str, Any]]:
    """ExoMol's `.def` file as one row: label → value, quanta and broadeners as lists.

    Raises:
        PayloadError: no `EXOMOL.def` at its head, or missing mandatory labels.
    """
    pairs = []
    for number, line in enumerate(decode(content, where).splitlines(), 1):
        value, mark, label = line.partition("#")
        if line.strip() and not mark:
            raise PayloadError(f"{where}: line {number}: expected `value # label`, found {line[:60]!r}")
        if mark:
            pairs.append((re.sub(r"\s*\d*\s*$", "", label.strip()), value.strip()))
    if not pairs or pairs[0][1].upper() != "EXOMOL.DEF":
        raise PayloadError(f"{where}: expected EXOMOL.def in its first line, found {str(pairs[:1])[:60]}")
    row: dict[str, Any] = {}
    for label, value in pairs[1:]:
        if label in row:
            row[label] = [*row[label], value] if isinstance(row[label], list) else [row[label], value]
        else:
            row[label] = value
    missing = [name for name in EXOMOL_MANDATORY if name not in row]
    if missing:
        raise PayloadError(f"{where}: expected the labels {missing}, found none (truncated)")
    counts = {name: row[name] for name in ("No. of states in .states file", "Total number of transitions")}
    if any(not str(value).isdigit() for value in counts.values()):
        raise PayloadError(f"{where}: expected whole numbers of states and transitions, found {counts}")
    return [row]


EXOMOL_MANDATORY = (
    "IsoFormula", "Iso-slug", "Isotopologue dataset name", "Number of atoms", "No. of states in .states file",
    "Total number of transitions", "Maximum temperature of partition function",
)  # fmt: skip


def ptools_objects(content: bytes, where: str) -> list[dict[str, Any]]:
    """BioCyc's ptools-xml: the objects at its top level, each with its identifier, name and XML text."""
    root = parse_xml(content, where)
    if root.tag != "ptools-xml":
        raise PayloadError(f"{where}: expected <ptools-xml>, found <{root.tag[:60]}>")
    rows = []
    for child in root:
        if child.get("ID"):
            name = child.findtext("common-name") or ""
            row: dict[str, Any] = {
                "id": child.get("ID", ""),
                "kind": child.tag,
                "name": name,
                "frame": child.get("frameid", ""),
            }
            row["elements"] = {item.tag: " ".join(item.itertext()).strip() for item in child}
            rows.append(row)
    return rows


def psg_spectrum(content: bytes, where: str) -> list[dict[str, Any]]:
    """PSG's radiance or transmittance table: comment lines with #, then columns named by the last comment."""
    names: list[str] = []
    rows = []
    for number, line in enumerate(decode(content, where).splitlines(), 1):
        if line.startswith("#"):
            names = line.lstrip("# ").split() or names
            if "error" in line.lower():
                raise SourceError(f"{where}: the database reports: {line.strip('# ')[:200]}")
            continue
        values = line.split()
        if not values:
            continue
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            raise PayloadError(f"{where}: line {number}: expected numbers, found {line[:60]!r}") from None
        if len(numbers) != len(names):
            raise PayloadError(f"{where}: line {number}: expected {len(names)} columns, found {len(numbers)}")
        rows.append(dict(zip(names, numbers, strict=True)))
    if not rows:
        raise PayloadError(f"{where}: expected a spectrum, found no numbers")
    return rows
