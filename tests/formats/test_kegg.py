"""KEGG flat files, reaction sets and genome tables → graphs."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from astrobio.batch import ELEMENTS
from astrobio.errors import InputError
from astrobio.formats.kegg import (
    formula_elements,
    graph_from_reactions,
    graphs_from_ko_table,
    library_from_entries,
    parse_equation,
    read_genome_table,
    read_kegg_entries,
    read_kegg_library,
    read_ko_to_ec,
    read_modelseed_library,
)

DATA = Path(__file__).parents[2] / "../shared/data"
ENTRIES = """ENTRY       C00001                      Compound
NAME        H2O;
            Water
FORMULA     H2O
///
ENTRY       C00009                      Compound
FORMULA     H3PO4
///
ENTRY       C00013                      Compound
FORMULA     H4P2O7
///
ENTRY       R00004                      Reaction
EQUATION    C00013 + C00001 <=> 2 C00009
ENZYME      3.6.1.1         3.6.1.-
ORTHOLOGY   K01507  inorganic pyrophosphatase [EC:3.6.1.1]
            K15986  manganese-dependent inorganic pyrophosphatase [EC:3.6.1.1]
REFERENCE   1  [PMID:1]
  AUTHORS   Somebody
///
ENTRY       R00001                      Reaction
EQUATION    C00404 + n C00001 <=> (n+1) C02174
///
"""


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    (tmp_path / "entries.keg").write_text(ENTRIES)
    return tmp_path / "entries.keg"


@pytest.fixture(scope="module")
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip("the folder of real data beside the checkout is absent")
    return DATA


@pytest.fixture(scope="module")
def library(data: Path):
    return read_kegg_library(data / "metabolism/networkExpansionPy_kegg.tar.xz")


def test_entries_and_their_fields(entries: Path) -> None:
    found = read_kegg_entries(entries)
    assert [e["ENTRY"][0].split()[0] for e in found] == ["C00001", "C00009", "C00013", "R00004", "R00001"]
    assert found[0]["NAME"] == ["H2O;", "Water"] and len(found[3]["ORTHOLOGY"]) == 2
    assert found[3]["REFERENCE"] == ["1  [PMID:1]", "AUTHORS   Somebody"]


@pytest.mark.parametrize("text", ["", "NAME        x\n///\n", "ENTRY       C1\nNAME        cut", "<html></html>"])
def test_other_text_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(InputError):
        read_kegg_entries(tmp_path / "x")


def test_equations() -> None:
    assert parse_equation("C00013 + C00001 <=> 2 C00009") == {"C00013": -1.0, "C00001": -1.0, "C00009": 2.0}
    assert parse_equation("C00001 <=> C00001 + C00009") == {"C00009": 1.0}
    assert parse_equation("n C00001 <=> C00009") is None and parse_equation("") is None


def test_formulae() -> None:
    atoms = dict(zip(ELEMENTS, formula_elements("C6H12O6"), strict=True))
    assert (atoms["C"], atoms["H"], atoms["O"], atoms["N"]) == (6, 12, 6, 0)
    for unknown in ("", "C2H4NO2R(C2H2NOR)n", "C2H5R", "H2As"):
        assert np.isnan(formula_elements(unknown)).all()


def test_a_graph_balances(entries: Path) -> None:
    library = library_from_entries(read_kegg_entries(entries))
    assert set(library.reactions) == {"R00004"} and library.by_ortholog["K15986"] == ("R00004",)
    assert library.by_ec == {"3.6.1.1": ("R00004",)}
    graph = graph_from_reactions(["R00004"], library, organism="GCF_1")
    assert graph.compounds == ("C00001", "C00009", "C00013") and graph.external.tolist() == [True, False, False]
    assert (graph.elements * graph.stoichiometry[np.argsort(graph.edge_compound)][:, None]).sum(axis=0).max() == 0
    assert graph.organism == "GCF_1" and graph.encodings.shape == (4, 16)
    with pytest.raises(InputError, match="R99999"):
        graph_from_reactions(["R99999"], library)


def test_genome_tables(tmp_path: Path, entries: Path) -> None:
    table = tmp_path / "genomes.tsv"
    table.write_text("assembly\tko:K01507\tko:K00001\nGCF_1\t2\t0\nGCF_2\t0\t1\n")
    assert list(read_genome_table(table)) == [("GCF_1", ("K01507",)), ("GCF_2", ("K00001",))]
    library = library_from_entries(read_kegg_entries(entries))
    (graph,) = graphs_from_ko_table(table, library, minimum_reactions=1)
    assert graph.organism == "GCF_1"
    with pytest.raises(InputError, match="at most 1"):
        list(graphs_from_ko_table(table, library))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(",ko,ec\n0,ko:K00001,ec:3.6.1.1\n")
    both = graphs_from_ko_table(table, library, ko_to_ec=read_ko_to_ec(pairs), minimum_reactions=1)
    assert [g.organism for g in both] == ["GCF_1", "GCF_2"]


@pytest.mark.parametrize("row", ["GCF_1\t-2\t0", "GCF_1\tmany\t0", "GCF_1\t1"])
def test_malformed_rows_name_their_place(row: str, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(f"assembly\tK01507\tK00001\n{row}\n")
    with pytest.raises(InputError, match="row 2"):
        list(read_genome_table(tmp_path / "t.tsv"))


def test_modelseed_units_directions_and_aliases(tmp_path: Path, entries: Path) -> None:
    species = (
        ("cpd00001", "H2O", "0"),
        ("cpd00009", "HPO4", "-2"),
        ("cpd00012", "HP2O7", "-3"),
        ("cpd00067", "H", "1"),
    )
    compounds = [{"id": name, "formula": formula, "charge": charge} for name, formula, charge in species]
    reaction = {
        "id": "rxn00001",
        "stoichiometry": '-1:cpd00001:0:0:"a";-1:cpd00012:0:0:"b";2:cpd00009:0:0:"c";1:cpd00067:0:0:"d"',
        "status": "OK",
        "direction": ">",
        "deltag": "-4.0",
        "deltagerr": "0.5",
        "aliases": '"KEGG:R00004"',
        "ec_numbers": None,
    }
    unknown = {**reaction, "id": "rxn2", "deltag": "10000000"}
    broken = {**reaction, "id": "rxn3", "status": "MI:O:1"}
    (tmp_path / "c.json").write_text(json.dumps(compounds))
    with gzip.open(tmp_path / "r.json.gz", "wt") as stream:
        json.dump([reaction, unknown, broken], stream)
    kegg = library_from_entries(read_kegg_entries(entries))
    library = read_modelseed_library(tmp_path / "r.json.gz", tmp_path / "c.json", kegg=kegg)
    assert set(library.reactions) == {"rxn00001", "rxn2"}
    first = library.reactions["rxn00001"]
    assert first.dg_prime == pytest.approx(-16.736) and (first.lower_bound, first.upper_bound) == (0.0, 1000.0)
    assert np.isnan(library.reactions["rxn2"].dg_prime) and library.by_ortholog["K01507"] == ("rxn00001", "rxn2")
    graph = graph_from_reactions(["rxn00001"], library)
    assert (graph.charge[graph.edge_compound] * graph.stoichiometry).sum() == 0 and not graph.reversible[0]


def test_damaged_tables_raise_input_errors_only(entries: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    table = "assembly,K01507,K00001\nGCF_1,2,0\nGCF_2,0,1\n"
    for text, read in ((ENTRIES, read_kegg_entries), (table, lambda p: list(read_genome_table(p)))):
        for _ in range(150):
            data = bytearray(text.encode())
            for _ in range(rng.choice((1, 5, 40))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            (tmp_path / "m").write_bytes(bytes(data[: rng.randrange(1, len(data))]))
            try:
                read(tmp_path / "m")
            except InputError:
                continue


def test_the_reaction_set_of_kegg(library) -> None:
    assert len(library.reactions) == 6880 and len(library.by_ortholog) > 3000
    assert library.reactions["R00004"].dg_prime == pytest.approx(-15.8) and library.by_ortholog["K00399"] == ("R04541",)


def test_methanogens_among_the_archaea(data: Path, library) -> None:
    graphs = list(itertools.islice(graphs_from_ko_table(data / "metabolism/aerobot_KOCounts.csv.xz", library), 3))
    assert len(graphs) == 3 and all(len(g.reactions) > 300 for g in graphs)
    genomes = read_genome_table(data / "metabolism/picrust2_archaea_ko.txt.gz")
    assert sum("K00399" in numbers for _, numbers in genomes) == 280


def test_recorded_answers_parse(data: Path) -> None:
    for name, count in (("compound.sample", 8), ("enzyme.sample", 8), ("gene.sample", 2), ("compound.irregular", 2)):
        assert len(read_kegg_entries(data / "payloads/biopython/KEGG" / name)) == count
