"""KEGG and ModelSEED reaction sets, and genome tables of KO or EC numbers → `MetabolicGraph`.

KEGG content is free for academic use only: nothing of it ships with the package, a user brings files of their own.

Dimension letters: C compounds, R reactions, M stoichiometric entries, E chemical elements, K structural encodings.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from astrobio.batch import ELEMENTS, MetabolicGraph
from astrobio.errors import InputError
from astrobio.formats.network import parse_formula, random_walk_encodings

KILOJOULE_PER_KILOCALORIE = 4.184  # kJ/kcal, thermochemical calorie, exact
FLUX_BOUND = 1000.0  # mmol/gDW/h, the customary "unbounded" of constraint-based models (COBRA)
UNKNOWN_DELTAG = 1e6  # kcal/mol; ModelSEED writes 10000000 where it has no estimate
MEMBER_LIMIT = 256 * 2**20  # bytes one unpacked member of a reference archive may have
CSV_FIELD_LIMIT = 10 * 2**20  # characters in one field of a table
GAS_COMPOUNDS = {  # gases cross membranes unaided, so these may be exchanged; KEGG COMPOUND and ModelSEED identifiers
    "C00282": "H2", "C00011": "CO2", "C01438": "CH4", "C00007": "O2", "C00237": "CO", "C00697": "N2", "C00887": "N2O",
    "C00283": "H2S", "C00001": "H2O", "C00014": "NH3",
    "cpd11640": "H2", "cpd00011": "CO2", "cpd01024": "CH4", "cpd00007": "O2", "cpd00204": "CO", "cpd00528": "N2",
    "cpd00659": "N2O", "cpd00239": "H2S", "cpd00001": "H2O", "cpd00013": "NH3",
}  # fmt: skip
MARKER_REACTIONS = {  # only one guild runs them: methyl-coenzyme M reductase, the water-splitting photosystem
    "R04541": "methanogen",
    "R09503": "phototroph",
}
_KO = re.compile(r"^(?:ko:)?(K\d{5})$")
_EC = re.compile(r"^(?:ec:|EC:)?(\d+\.\d+\.\d+\.n?\d+)$")
_TERM = re.compile(r"^(?:(\d+(?:\.\d+)?)\s+)?([CG]\d{5})$")


@dataclass(frozen=True)
class ReactionRecord:
    """One reaction of a library: compound → signed coefficient (negative for substrates), ΔG′° in kJ/mol or NaN."""

    stoichiometry: dict[str, float]
    ec: tuple[str, ...] = ()
    orthologs: tuple[str, ...] = ()
    dg_prime: float = float("nan")
    dg_sd: float = float("nan")
    lower_bound: float = -FLUX_BOUND
    upper_bound: float = FLUX_BOUND


@dataclass(frozen=True)
class ReactionLibrary:
    """Reactions that genes can be looked up in.

    Args:
        name: what it was read from, for provenance.
        reactions: identifier → record. formulas: compound → sum formula. charges: compound → elementary charges (a
            compound that is missing counts as neutral, the form in which KEGG writes its compounds).
    """

    name: str
    reactions: dict[str, ReactionRecord]
    formulas: dict[str, str]
    charges: dict[str, float] = field(default_factory=dict)

    @cached_property
    def by_ortholog(self) -> dict[str, tuple[str, ...]]:
        """KO number → reactions."""
        return _invert((number, name) for name, record in self.reactions.items() for number in record.orthologs)

    @cached_property
    def by_ec(self) -> dict[str, tuple[str, ...]]:
        """Complete EC number → reactions."""
        return _invert((number, name) for name, record in self.reactions.items() for number in record.ec)


def _invert(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: tuple(sorted(set(values))) for key, values in found.items()}


# --- flat files ------------------------------------------------------------------------------------------------------


def read_kegg_entries(path: str | Path) -> list[dict[str, list[str]]]:
    """A KEGG flat file (compound, reaction, enzyme, gene, orthology …) → one dict per entry: field → its lines.

    The twelve columns before the text hold the field's name, or blanks where the line continues the field above; a
    sub-field (two leading blanks) belongs to its field. Entries end with `///`; one cut short is an error.

    Raises:
        InputError: no text, no ENTRY, or a last entry without its `///`.
    """
    text = _read_text(Path(path))
    entries: list[dict[str, list[str]]] = []
    current: dict[str, list[str]] = {}
    key = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("///"):
            if current:
                entries.append(current)
            current, key = {}, ""
            continue
        if not line.strip():
            continue
        head = line[:12].strip()
        if head and not line[0].isspace():
            key = head
        if not key or (not current and key != "ENTRY"):
            raise InputError(f"{path}, line {number}: expected ENTRY first, found {line[:40]!r}")
        current.setdefault(key, []).append(line[12:].rstrip() if not line[0].isspace() or not head else line.strip())
    if current:
        name = " ".join(current["ENTRY"])[:40]
        raise InputError(f"{path}: expected /// after entry {name!r}, found the end of the file; download it again")
    if not entries:
        raise InputError(f"{path}: expected KEGG flat-file entries (ENTRY … ///), found none")
    return entries


def library_from_entries(entries: Iterable[dict[str, list[str]]], name: str = "KEGG flat files") -> ReactionLibrary:
    """REACTION and COMPOUND entries of `read_kegg_entries` → a library; polymer reactions (n, n+1) are left out.

    Raises:
        InputError: no reaction with an equation in KEGG compounds among the entries.
    """
    reactions: dict[str, ReactionRecord] = {}
    formulas: dict[str, str] = {}
    for entry in entries:
        identifier = entry["ENTRY"][0].split()[0]
        if "FORMULA" in entry:
            formulas[identifier] = entry["FORMULA"][0].strip()
        stoichiometry = parse_equation(" ".join(entry.get("EQUATION", [])))
        if stoichiometry:
            numbers = " ".join(entry.get("ENZYME", [])).split()
            orthologs = tuple(line.split()[0] for line in entry.get("ORTHOLOGY", []) if _KO.match(line.split()[0]))
            ec = tuple(n for n in numbers if _EC.match(n))
            reactions[identifier] = ReactionRecord(stoichiometry, ec, orthologs)
    if not reactions:
        raise InputError(f"{name}: expected entries with an EQUATION in KEGG compounds (C00001 …), found none")
    return ReactionLibrary(name, reactions, formulas)


def parse_equation(equation: str) -> dict[str, float] | None:
    """`"C00013 + C00001 <=> 2 C00009"` → signed stoichiometry; None where a coefficient is not a number (polymers)."""
    sides = equation.split("<=>")
    if len(sides) != 2:
        return None
    total: dict[str, float] = {}
    for sign, side in zip((-1.0, 1.0), sides, strict=True):
        for term in side.split(" + "):
            match = _TERM.match(term.strip())
            if match is None:
                return None
            total[match[2]] = total.get(match[2], 0.0) + sign * float(match[1] or 1)
    return {compound: value for compound, value in total.items() if value}


# --- reference sets --------------------------------------------------------------------------------------------------


def read_kegg_library(path: str | Path) -> ReactionLibrary:
    """A folder or tar archive with a KEGG reaction set in the layout of networkExpansionPy.

    Read are `network_balanced.txt` (compound, reaction, coefficient), `cpds.txt` (formulae), and, where present,
    `reaction_detailed.json.zip` (EC and KO numbers) and `kegg_reactions_CC_ph7.0.csv` (ΔG′° at pH 7 and its σ, kJ/mol,
    component contribution).

    Raises:
        InputError: a file is missing, or a row isn't as described.
    """
    files = _reference_files(Path(path))
    for needed in ("network_balanced.txt", "cpds.txt"):
        if needed not in files:
            raise InputError(f"{path}: expected {needed}, found {sorted(files)[:8]}")
    stoichiometry: dict[str, dict[str, float]] = {}
    for row in _rows(files["network_balanced.txt"], f"{path}/network_balanced.txt", ("cid", "rn", "s")):
        stoichiometry.setdefault(row["rn"], {})[row["cid"]] = _number(row["s"], f"{path}, {row['rn']}")
    compounds = _rows(files["cpds.txt"], f"{path}/cpds.txt", ("cid", "formula"), delimiter="\t")
    formulas = {row["cid"]: row["formula"] for row in compounds if row["formula"]}
    energies = _kegg_energies(files.get("kegg_reactions_CC_ph7.0.csv"), str(path))
    details = _kegg_details(files.get("reaction_detailed.json.zip"), str(path))
    reactions = {}
    for name, coefficients in stoichiometry.items():
        dg, sd = energies.get(name, (float("nan"), float("nan")))
        detail = details.get(name, {})
        ec = tuple(n for n in detail.get("enzymes", []) if _EC.match(n))
        nonzero = {compound: value for compound, value in coefficients.items() if value}
        reactions[name] = ReactionRecord(nonzero, ec, tuple(detail.get("orthologs", {})), dg, sd)
    return ReactionLibrary(Path(path).name, {n: r for n, r in reactions.items() if r.stoichiometry}, formulas)


def _kegg_energies(text: str | None, where: str) -> dict[str, tuple[float, float]]:
    columns = ("!MiriamID::urn:miriam:kegg.reaction", "!dG0_prime (kJ/mol)", "!sigma[dG0] (kJ/mol)")
    if text is None:
        return {}
    found = {}
    for row in _rows(text, f"{where}/kegg_reactions_CC_ph7.0.csv", columns):
        if row[columns[1]] and row[columns[2]]:
            found[row[columns[0]]] = (_number(row[columns[1]], where), _number(row[columns[2]], where))
    return found


def _kegg_details(data: bytes | str | None, where: str) -> dict[str, dict[str, Any]]:
    if data is None:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(data if isinstance(data, bytes) else data.encode())) as archive:
            member = next(m for m in archive.infolist() if m.filename.endswith(".json") and m.file_size < MEMBER_LIMIT)
            return json.loads(archive.read(member))
    except (zipfile.BadZipFile, StopIteration, ValueError) as error:
        raise InputError(f"{where}/reaction_detailed.json.zip: expected a zip with one JSON file ({error})") from error


def read_modelseed_library(
    reactions: str | Path, compounds: str | Path, *, kegg: ReactionLibrary | None = None
) -> ReactionLibrary:
    """ModelSEED's two JSON tables (also .gz, .xz) → a library; ΔG converted from kcal/mol to kJ/mol.

    Obsolete, unbalanced (status other than OK) and transport reactions are left out. Many releases of the tables carry
    no EC numbers: with `kegg`, a reaction takes the EC and KO numbers of the KEGG reactions it is an alias of.

    Raises:
        InputError: a table isn't a JSON list of records with ModelSEED's fields.
    """
    species = {r["id"]: r for r in _modelseed_records(compounds, ("id", "formula", "charge"))}
    formulas = {name: r["formula"] for name, r in species.items() if r["formula"] not in (None, "null", "")}
    charges = {name: _number(r["charge"], f"{compounds}, {name}") for name, r in species.items() if r["charge"]}
    found = {}
    for record in _modelseed_records(reactions, ("id", "stoichiometry", "status", "direction", "deltag")):
        usable = str(record["status"]).startswith("OK") and record.get("is_obsolete") != "1"
        if usable and record.get("is_transport") != "1" and record["stoichiometry"]:
            found[record["id"]] = _modelseed_reaction(record, kegg, str(reactions))
    return ReactionLibrary("ModelSEED", {n: r for n, r in found.items() if r.stoichiometry}, formulas, charges)


def _modelseed_records(path: str | Path, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        records = json.loads(_read_text(Path(path)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, found {error}; download it again") from error
    if not isinstance(records, list) or not all(isinstance(r, dict) and set(fields) <= set(r) for r in records):
        raise InputError(f"{path}: expected a list of ModelSEED records with {fields}")
    return records


def _modelseed_reaction(record: dict[str, Any], kegg: ReactionLibrary | None, where: str) -> ReactionRecord:
    names = re.findall(r'"KEGG:(R\d{5})"', record.get("aliases") or "") if kegg is not None else []
    twins = [kegg.reactions[name] for name in names if kegg is not None and name in kegg.reactions]
    total: dict[str, float] = {}
    for term in record["stoichiometry"].split(";"):
        parts = term.split(":")
        if len(parts) < 2:
            raise InputError(f"{where}, {record['id']}: expected coefficient:compound:…, found {term!r}")
        total[parts[1]] = total.get(parts[1], 0.0) + _number(parts[0], f"{where}, {record['id']}")
    energy = [_number(record.get(key) or "nan", f"{where}, {record['id']}") for key in ("deltag", "deltagerr")]
    known = all(np.isfinite(energy)) and abs(energy[0]) < UNKNOWN_DELTAG
    dg, sd = (e * KILOJOULE_PER_KILOCALORIE if known else float("nan") for e in energy)
    numbers = re.split(r"[;|]", record.get("ec_numbers") or "")
    return ReactionRecord(
        {compound: value for compound, value in total.items() if value},
        tuple(n for n in numbers if _EC.match(n)) or tuple(n for twin in twins for n in twin.ec),
        tuple(n for twin in twins for n in twin.orthologs),
        dg,
        sd,
        0.0 if record["direction"] == ">" else -FLUX_BOUND,
        0.0 if record["direction"] == "<" else FLUX_BOUND,
    )


# --- genome tables ---------------------------------------------------------------------------------------------------


def read_genome_table(path: str | Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A table genomes × KO (or EC) numbers with gene counts, comma or tab separated, also .gz or .xz.

    Yields:
        (genome, the numbers it has at least one gene for), without the prefix `ko:` or `ec:`, in the table's order.

    Raises:
        InputError: the header has no KO or EC numbers, a row is short, or a count is negative or not a number.
    """
    lines = io.StringIO(_read_text(Path(path)))
    header = lines.readline()
    delimiter = "\t" if header.count("\t") > header.count(",") else ","
    names = next(csv.reader([header], delimiter=delimiter), [])[1:]
    numbers = [match[1] if (match := _KO.match(n) or _EC.match(n)) else None for n in names]
    if not any(numbers):
        raise InputError(f"{path}: expected columns of KO (K00001) or EC (1.1.1.1) numbers, found {names[:5]}")
    for row, line in enumerate(lines, 2):
        genome, *counts = line.rstrip("\r\n").split(delimiter)
        if len(counts) != len(names):
            raise InputError(f"{path}, row {row}: expected {len(names) + 1} fields, found {len(counts) + 1}")
        present = []
        for number, count in zip(numbers, counts, strict=True):
            if number is not None and count not in ("", "0", "NA"):
                value = _number(count, f"{path}, row {row}, {number}")
                if value < 0:
                    raise InputError(f"{path}, row {row}, {number}: expected a gene count ≥ 0, found {count}")
                if value > 0:
                    present.append(number)
        yield genome, tuple(present)


def read_ko_to_ec(path: str | Path) -> dict[str, tuple[str, ...]]:
    """A table with columns `ko` and `ec` → KO number → EC numbers, to look KO tables up in a library without KOs."""
    pairs = []
    for row in _rows(_read_text(Path(path)), str(path), ("ko", "ec")):
        ortholog, number = _KO.match(row["ko"]), _EC.match(row["ec"])
        if ortholog and number:
            pairs.append((ortholog[1], number[1]))
    if not pairs:
        raise InputError(f"{path}: expected pairs such as ko:K00001, ec:1.1.1.1, found none")
    return _invert(pairs)


def graphs_from_ko_table(
    path: str | Path,
    library: ReactionLibrary,
    *,
    ko_to_ec: dict[str, tuple[str, ...]] | None = None,
    minimum_reactions: int = 50,
) -> Iterator[MetabolicGraph]:
    """The genomes of a KO or EC table as graphs of the reactions their genes catalyse, one at a time.

    Args:
        ko_to_ec: from `read_ko_to_ec`; used for KO numbers that the library doesn't know.
        minimum_reactions: genomes with fewer are left out: too incomplete to tell a metabolism from.

    Raises:
        InputError: the table is malformed (see `read_genome_table`), or no genome reaches `minimum_reactions`.
    """
    most = yielded = 0
    for genome, numbers in read_genome_table(path):
        names: set[str] = set()
        for number in numbers:
            found = library.by_ortholog.get(number) or library.by_ec.get(number) or ()
            if not found and ko_to_ec is not None:
                found = [name for ec in ko_to_ec.get(number, ()) for name in library.by_ec.get(ec, ())]
            names.update(found)
        most = max(most, len(names))
        if len(names) >= minimum_reactions:
            yielded += 1
            yield graph_from_reactions(names, library, organism=genome)
    if not yielded:
        raise InputError(
            f"{path}: expected a genome with ≥{minimum_reactions} reactions of {library.name}, found at most {most}; "
            "give a library with these numbers, or a KO → EC table"
        )


def graph_from_reactions(names: Iterable[str], library: ReactionLibrary, *, organism: str = "") -> MetabolicGraph:
    """Some reactions of a library as a graph, sorted by identifier; gases count as exchangeable (`GAS_COMPOUNDS`).

    Raises:
        InputError: a reaction isn't in the library, or none is given.
    """
    reactions = tuple(sorted(set(names)))
    unknown = [name for name in reactions if name not in library.reactions]
    if unknown or not reactions:
        raise InputError(f"{library.name}: expected ≥1 known reaction, found {unknown[:5] or 'none'}")
    records = [library.reactions[name] for name in reactions]
    compounds = tuple(sorted({c for record in records for c in record.stoichiometry}))
    index = {compound: row for row, compound in enumerate(compounds)}
    entries = [(index[c], r, s) for r, record in enumerate(records) for c, s in record.stoichiometry.items()]
    edge_compound, edge_reaction = (np.array([e[k] for e in entries], dtype=np.int64) for k in (0, 1))
    lower, upper = (np.array([getattr(r, k) for r in records]) for k in ("lower_bound", "upper_bound"))
    guilds = [guild for reaction, guild in MARKER_REACTIONS.items() if reaction in reactions]
    return MetabolicGraph(
        compounds=compounds,
        reactions=reactions,
        elements=np.stack([formula_elements(library.formulas.get(c, "")) for c in compounds]),
        charge=np.array([library.charges.get(c, 0.0) for c in compounds]),
        external=np.array([c in GAS_COMPOUNDS for c in compounds]),
        edge_compound=edge_compound,
        edge_reaction=edge_reaction,
        stoichiometry=np.array([e[2] for e in entries]),
        dg_prime=np.array([r.dg_prime for r in records]),
        dg_sd=np.array([r.dg_sd for r in records]),
        reversible=(lower < 0) & (upper > 0),
        lower_bound=lower,
        upper_bound=upper,
        ec=tuple(r.ec[0] if r.ec else "" for r in records),
        encodings=random_walk_encodings(len(compounds), len(reactions), edge_compound, edge_reaction),
        organism=organism,
        guild=guilds[0] if guilds else "",
    )


@cache
def formula_elements(formula: str) -> np.ndarray:
    """[E] atoms of `ELEMENTS` in a sum formula; NaN where it is unknown, a polymer, or has residues or other atoms."""
    found = parse_formula(formula)
    if found is None or not set(found) <= set(ELEMENTS):
        return np.full(len(ELEMENTS), np.nan)
    return np.array([found.get(symbol, 0.0) for symbol in ELEMENTS])


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rb") as stream:
            data = stream.read(MEMBER_LIMIT + 1)
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise InputError(f"{path}: expected a readable file, found {error}") from error
    if len(data) > MEMBER_LIMIT:
        raise InputError(f"{path}: expected ≤ {MEMBER_LIMIT // 2**20} MiB of text, found more; split the file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, found {error}") from error


def _reference_files(path: Path) -> dict[str, Any]:
    """Base name → text (or bytes of a .zip) of each file of a folder or tar archive."""
    found: dict[str, Any] = {}
    if path.is_dir():
        for file in sorted(p for p in path.iterdir() if p.suffix in (".csv", ".txt", ".zip")):
            found[file.name] = file.read_bytes() if file.suffix == ".zip" else _read_text(file)
        return found
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() and member.size < MEMBER_LIMIT else None
                if stream is not None:
                    data = stream.read()
                    name = Path(member.name).name
                    found[name] = data if name.endswith(".zip") else data.decode("utf-8-sig")
    except (OSError, tarfile.TarError, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a folder or a tar archive of tables, found {error}") from error
    return found


def _rows(text: str, where: str, columns: tuple[str, ...], delimiter: str = ",") -> Iterator[dict[str, str]]:
    csv.field_size_limit(CSV_FIELD_LIMIT)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    missing = [c for c in columns if c not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{where}: expected columns {columns}, found {list(reader.fieldnames or [])[:8]}")
    try:
        for number, row in enumerate(reader, 2):
            if any(row[c] is None for c in columns):
                raise InputError(f"{where}, row {number}: expected {len(columns)} fields, found fewer")
            yield row
    except csv.Error as error:
        raise InputError(f"{where}: expected a table, found {error}") from error


def _number(text: object, where: str) -> float:
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected a number, found {text!r}") from error
