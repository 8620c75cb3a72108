"""Organisms from tables of real genomes: a genome's guild, its clade, and its network of KEGG reactions.

Nothing of this ships: KEGG's content is for academic use only, so a user brings a folder of the files named below (from
PICRUSt2, Douglas et al. 2020, doi:10.1038/s41587-020-0548-6; aerobot, Jabłońska & Tawfik 2019, doi:10.1111/febs.14894,
for the labels; networkExpansionPy for the reactions).

What a genome can do is read off marker genes, and only where a marker speaks:

| guild | rule |
|-|-|
| methanogen | methyl-coenzyme M reductase (R04541), in an order of methanogens: others run it backwards |
| phototroph | the reaction centre of the water-splitting photosystem |
| aerobe | measured as aerobe, or as facultative with an oxidase; unmeasured, a haem-copper oxygen reductase |
| fermenter | measured anaerobe that makes acetate from acetyl-CoA and has no marker of another way to live |

Acetogens (one genome here would pass) and metal reducers have no marker that tells them from others. They are left out,
as are all genomes that fit no rule. A table of genes says nothing of growth: it has no biomass reaction, so fluxes and
gas exchange are unknown, and no world and no loss uses them.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from astrobio.batch import MetabolicGraph
from astrobio.errors import InputError
from astrobio.formats.graphs import load_graphs, save_graphs
from astrobio.formats.kegg import ReactionLibrary, graphs_from_ko_table, read_genome_table, read_kegg_library
from astrobio.formats.network import Compound, Reaction, parse_formula, residual
from astrobio.formats.thermodynamics import cache_folder
from astrobio.worlds.biosphere import Organism

LIBRARY = "networkExpansionPy_kegg.tar.xz"
ARCHAEA = ("picrust2_archaea_ko.txt.gz", "picrust2_archaea_archaea_metadata.csv.gz")  # genes, GTDB taxonomy
LABELLED = ("aerobot_KOCounts.csv.xz", "aerobot_labels.csv")  # genes, NCBI taxonomy with measured need of O2
MINIMUM_REACTIONS = 300  # smaller networks are of parasites or of genomes with large gaps
VERSION = 1  # of the rules below; raised when one changes, so that no cached library outlives it

METHANE = "R04541"  # the reaction that methyl-coenzyme M reductase alone catalyses
NOT_METHANOGENS = ("Methanoliparales",)  # live on alkanes
# KEGG orthologs from here on.
WATER_SPLITTING = "K02703"
# Of 113 measured genomes that have one of these, 104 grow with O2; of 151 that grow with O2, 104 have one.
OXYGEN_REDUCTASES = frozenset({"K02274", "K02298", "K00404", "K02827", "K15408", "K24007", "K24009"})
QUINOL_OXIDASE = "K00425"  # cytochrome bd; anaerobes have it too, against O2
ACETATE_KINASE = "K00925"
PHOSPHATE_ACETYLTRANSFERASES = frozenset({"K00625", "K13788", "K15024"})
ACETATE_COA_LIGASES = frozenset({"K01905", "K22224", "K24012"})  # the archaeal way, ADP-forming
OTHER_LIVES = OXYGEN_REDUCTASES | {
    "K15862", "K00411", "K00412",  # fused cbb3 oxidase, cytochrome bc1: respiration
    "K02198", "K07399",  # maturation of cytochromes c, as of respirers of metals, nitrate or fumarate
    "K11180",  # dissimilatory sulfite reductase
    "K14138",  # acetyl-CoA synthase
    "K08928", "K08929", "K08940",  # photosystems that do not split water
}  # fmt: skip


@dataclass(frozen=True)
class Genome:
    """One row of a table: accession, clade (an order), measured need of O2 ("" where nobody measured), orthologs."""

    accession: str
    clade: str
    oxygen: str
    genes: frozenset[str]


def guild_of(genome: Genome, reactions: frozenset[str]) -> str:
    """The guild that a genome's genes and its catalysed reactions tell (see the module), "" where none does."""
    genes = genome.genes
    if METHANE in reactions:
        known = genome.clade.startswith("Methano") and genome.clade not in NOT_METHANOGENS
        return "methanogen" if known else ""
    if WATER_SPLITTING in genes:
        return "phototroph"
    if _breathes(genome):
        return "aerobe"
    if genome.oxygen != "Anaerobe" or genes & OTHER_LIVES:
        return ""
    by_phosphate = ACETATE_KINASE in genes and genes & PHOSPHATE_ACETYLTRANSFERASES
    return "fermenter" if by_phosphate or genes & ACETATE_COA_LIGASES else ""


def _breathes(genome: Genome) -> bool:
    """Whether it respires with O2, as far as is known; what merely bears O2 does not."""
    if genome.oxygen == "Facultative":
        return bool(genome.genes & (OXYGEN_REDUCTASES | {QUINOL_OXIDASE}))
    return genome.oxygen == "Aerobe" or (not genome.oxygen and bool(genome.genes & OXYGEN_REDUCTASES))


def load_genomes(folder: Path, cache_dir: Path | None = None) -> tuple[list[Organism], dict[str, int]]:
    """Organisms of a folder of genome tables, built once (a minute) and cached, and what was counted on the way.

    Args:
        folder: has `LIBRARY` and one or both pairs of `ARCHAEA` and `LABELLED`. cache_dir: as of `load_organisms`.

    Returns:
        One organism a genome that has a guild, in the order of the tables, and the counts of `build_genomes`.

    Raises:
        InputError: a file is missing or malformed, or no genome has a guild.
    """
    key = genomes_key(folder)
    cache = cache_dir or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"genomes-{key}.npz"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            organisms, counts = build_genomes(folder)
            labels = [{key: getattr(o, key) for key in ("name", "clade", "growth", "knocked_out")} for o in organisms]
            path.with_suffix(".json").write_text(json.dumps(counts), encoding="utf-8")
            save_graphs(path, [organism.graph for organism in organisms], labels)
    counts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return [Organism(graph=graph, guild=graph.guild, **label) for graph, label in load_graphs(path)], counts


def genomes_key(folder: Path) -> str:
    """Hash of all that decides the organisms of a folder.

    Raises:
        InputError: a file is missing.
    """
    digest = hashlib.sha256(f"{VERSION};{MINIMUM_REACTIONS}".encode())
    for path in _files(folder):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build_genomes(folder: Path) -> tuple[list[Organism], dict[str, int]]:
    """Organisms of a folder of genome tables.

    Returns:
        organisms, and counts: `genomes` read (each accession once), `too_few_reactions`, `without_guild`, and of the
        library's `reactions` those `unbalanced` or of `unknown_formula`, which no network has.

    Raises:
        InputError: as `load_genomes`.
    """
    _files(folder)
    library, counts = balanced(read_kegg_library(folder / LIBRARY))
    organisms: list[Organism] = []
    seen: set[str] = set()
    tallies: Counter[str] = Counter()
    for table, genomes in _tables(folder):
        graphs = {graph.organism: graph for graph in graphs_from_ko_table(table, library, minimum_reactions=1)}
        for genome in genomes:
            key = genome.accession.split(".")[0]
            if key in seen:
                continue
            seen.add(key)
            graph = graphs.get(genome.accession)
            if graph is None or len(graph.reactions) < MINIMUM_REACTIONS:
                tallies["too_few_reactions"] += 1
            elif guild := guild_of(genome, frozenset(graph.reactions)):
                organisms.append(_organism(genome, guild, graph))
            else:
                tallies["without_guild"] += 1
    if not organisms:
        raise InputError(f"{folder}: expected genomes of a guild, found none among {len(seen)}; see worlds/genomes.py")
    return organisms, {"genomes": len(seen), "too_few_reactions": 0, "without_guild": 0, **tallies, **counts}


def _organism(genome: Genome, guild: str, graph: MetabolicGraph) -> Organism:
    graph = replace(graph, guild=guild, exchange=None, flux=None)
    return Organism(genome.accession, guild, genome.clade, graph, growth=0.0, knocked_out=0)


def balanced(library: ReactionLibrary) -> tuple[ReactionLibrary, dict[str, int]]:
    """The library without reactions whose formulae don't balance, or of unknown formula, each kind counted."""
    compounds = {
        name: Compound(parse_formula(library.formulas.get(name)))
        for record in library.reactions.values()
        for name in record.stoichiometry
    }
    kept, counts = {}, {"reactions": len(library.reactions), "unbalanced": 0, "unknown_formula": 0}
    for name, record in library.reactions.items():
        left = residual(Reaction(record.stoichiometry, record.lower_bound, record.upper_bound), compounds)
        if left is None:
            counts["unknown_formula"] += 1
        elif left:
            counts["unbalanced"] += 1
        else:
            kept[name] = record
    return ReactionLibrary(library.name, kept, library.formulas, library.charges), counts


def _files(folder: Path) -> list[Path]:
    """The files that are used, in a fixed order."""
    pairs = [pair for pair in (ARCHAEA, LABELLED) if all((folder / name).is_file() for name in pair)]
    if not pairs or not (folder / LIBRARY).is_file():
        raise InputError(
            f"--genomes {folder}: expected {LIBRARY} and {' with '.join(ARCHAEA)} or {' with '.join(LABELLED)}, found "
            f"{sorted(p.name for p in folder.glob('*'))[:8]}; docs/worlds.md says where they come from"
        )
    return [folder / LIBRARY, *(folder / name for pair in pairs for name in pair)]


def _tables(folder: Path) -> Iterator[tuple[Path, list[Genome]]]:
    """Each table of genes with its genomes. Clades are orders of GTDB, of NCBI for genera that GTDB's table lacks."""
    measured, orders = {}, {}
    if (folder / LABELLED[1]).is_file():
        rows = _rows(folder / LABELLED[1], ("Refseq accession", "Species", "Phylum", "Class", "Oder", "physiology"))
        measured = {row["Refseq accession"].split(".")[0]: row for row in rows}
    if (folder / ARCHAEA[1]).is_file():
        rows = _rows(folder / ARCHAEA[1], ("accession", "gtdb_taxonomy", "ncbi_organism_name"))
        ranks = {
            row["accession"]: dict(part.split("__", 1) for part in row["gtdb_taxonomy"].split(";")) for row in rows
        }
        orders = {row["ncbi_organism_name"].split(" ")[0]: ranks[row["accession"]]["o"] for row in rows}
        found = read_genome_table(folder / ARCHAEA[0])
        yield (
            folder / ARCHAEA[0],
            [
                Genome(
                    name, ranks[name]["o"], measured.get(name.split(".")[0], {}).get("physiology", ""), frozenset(genes)
                )
                for name, genes in found
                if name in ranks
            ],
        )
    if measured and (folder / LABELLED[0]).is_file():
        yield (
            folder / LABELLED[0],
            [
                Genome(name, _order(row, orders), row["physiology"], frozenset(genes))
                for name, genes in read_genome_table(folder / LABELLED[0])
                if (row := measured.get(name.split(".")[0])) is not None
            ],
        )


def _ranks(taxonomy: str) -> dict[str, str]:
    """GTDB's d__Archaea;p__… → initial of the rank → name."""
    return dict(part.split("__", 1) for part in taxonomy.split(";"))


def _order(row: dict[str, str], orders: dict[str, str]) -> str:
    """The order of a labelled genome, or the next higher rank that has a name."""
    own = next((row[rank] for rank in ("Oder", "Class", "Phylum") if row[rank] not in ("", "no rank")), "unknown")
    return orders.get(row["Species"].split(" ")[0], own)


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            reader = csv.DictReader(io.StringIO(stream.read().decode("utf-8-sig")))
            rows = list(reader)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a table, found {error}") from error
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing or any(row[name] is None for row in rows for name in columns):
        raise InputError(f"{path}: expected columns {columns} in all rows, found {list(reader.fieldnames or [])[:8]}")
    return rows
