"""Organisms from genome tables: guilds by markers, clades, nothing unbalanced; splits that share no clade."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from astrobio.dataset.splits import SPLITS, claims, organism_pools
from astrobio.errors import InputError
from astrobio.formats.kegg import ReactionLibrary, ReactionRecord
from astrobio.worlds import genomes
from astrobio.worlds.biosphere import Organism
from astrobio.worlds.genomes import ARCHAEA, LIBRARY, Genome, balanced, guild_of, load_genomes

DATA = Path(__file__).parents[2] / "../shared/data/metabolism"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Organism], dict[str, int]]:
    """One in twelve genomes of the real tables, so that it takes seconds."""
    if not DATA.is_dir():
        pytest.skip("the folder of genome tables beside the checkout is absent")
    read = genomes.read_genome_table
    with pytest.MonkeyPatch.context() as patch:
        for module in (genomes, __import__("astrobio.formats.kegg", fromlist=["kegg"])):
            patch.setattr(module, "read_genome_table", lambda path: list(read(path))[::12])
        return load_genomes(DATA, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("clade", "oxygen", "genes", "reactions", "guild"),
    [
        ("Methanocellales", "", "", "R04541", "methanogen"), ("ANME-1", "", "", "R04541", ""),
        ("Methanoliparales", "", "", "R04541", ""), ("Nostocales", "Aerobe", "K02703 K02274", "", "phototroph"),
        ("Bacillales", "Aerobe", "", "", "aerobe"), ("Halobacteriales", "", "K02274", "", "aerobe"),
        ("Lactobacillales", "Facultative", "", "", ""), ("Enterobacterales", "Facultative", "K00425", "", "aerobe"),
        ("Clostridiales", "Anaerobe", "K00925 K00625", "", "fermenter"),
        ("Thermococcales", "Anaerobe", "K22224", "", "fermenter"), ("Clostridiales", "", "K00925 K00625", "", ""),
        ("Desulfovibrionales", "Anaerobe", "K00925 K00625 K11180", "", ""), ("Chlorobiales", "Anaerobe", "", "", ""),
    ],
)  # fmt: skip
def test_guilds_by_their_markers(clade: str, oxygen: str, genes: str, reactions: str, guild: str) -> None:
    genome = Genome("GCF_1", clade, oxygen, frozenset(genes.split()))
    assert guild_of(genome, frozenset(reactions.split())) == guild


def test_unbalanced_reactions_are_dropped_and_counted() -> None:
    records = {
        "good": ReactionRecord({"C1": -1.0, "C2": 2.0}), "bad": ReactionRecord({"C1": -1.0, "C2": 1.0}),
        "unknown": ReactionRecord({"C1": -1.0, "C3": 1.0}),
    }  # fmt: skip
    library, counts = balanced(ReactionLibrary("x", records, {"C1": "H4", "C2": "H2"}))
    assert set(library.reactions) == {"good"}
    assert counts == {"reactions": 3, "unbalanced": 1, "unknown_formula": 1}


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / LIBRARY).write_text("")
    with pytest.raises(InputError, match=ARCHAEA[0]):
        load_genomes(tmp_path, tmp_path / "cache")


def test_a_clade_of_two_guilds_is_in_one_split() -> None:
    class Fake:
        def __init__(self, guild: str, clade: str, number: int) -> None:
            self.guild, self.clade, self.parent = guild, clade, f"{guild}-{clade}-{number}"

    organisms = [Fake(guild, clade, n) for guild in ("aerobe", "fermenter") for clade in "ABCDEF" for n in range(2)]
    for seed in range(20):
        pools, _ = organism_pools(organisms, seed)  # pyright: ignore[reportArgumentType]
        homes = [{organisms[i].clade for i in pools[split]} for split in SPLITS]
        assert sum(map(len, homes)) == 6 and sum(map(len, pools.values())) == len(organisms)
        for row in claims(organisms, seed):  # pyright: ignore[reportArgumentType]
            assert sorted(row[name] for name in SPLITS) == [0, 0, 2]


def test_real_genomes(real: tuple[list[Organism], dict[str, int]]) -> None:
    organisms, counts = real
    assert counts["reactions"] == 6880 and counts["unbalanced"] == 376
    assert counts["genomes"] == len(organisms) + counts["too_few_reactions"] + counts["without_guild"]
    found = Counter(organism.guild for organism in organisms)
    assert found["methanogen"] > 15 and found["aerobe"] > 35
    for organism in organisms:
        graph = organism.graph
        assert graph.flux is None and graph.exchange is None and len(graph.reactions) >= genomes.MINIMUM_REACTIONS
        assert organism.guild != "methanogen" or organism.clade.startswith("Methano")
    assert len({organism.name for organism in organisms}) == len(organisms)
