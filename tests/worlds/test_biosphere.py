"""The default organisms: balanced, lawful, alive, and drawn so that they never tell life from no life."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.batch import ELEMENTS, INHABITED_STATES, WORLD_STATES, MetabolicGraph
from astrobio.batch.graph import maximum_gibbs_energy, minimum_gibbs_energy
from astrobio.errors import InputError
from astrobio.formats.fluxes import maximise
from astrobio.formats.metabolism import read_metabolism, write_metabolism
from astrobio.formats.network import Compound, Reaction
from astrobio.worlds import biosphere, media, reconstruction
from astrobio.worlds.biosphere import Organism
from astrobio.worlds.formulae import CHARGE, balance_formulae, imbalance


@pytest.fixture(scope="session")
def organisms() -> list[Organism]:
    """The library, built on first use and cached."""
    return biosphere.load_organisms()


@pytest.fixture(scope="session")
def references(organisms: list[Organism]) -> dict[str, Organism]:
    return {organism.parent: organism for organism in organisms if organism.name.endswith("/00")}


def matrix_of(graph: MetabolicGraph) -> sp.csr_matrix:
    shape = (len(graph.compounds), len(graph.reactions))
    return sp.csr_matrix((graph.stoichiometry, (graph.edge_compound, graph.edge_reaction)), shape=shape)


def test_who_is_in(organisms: list[Organism]) -> None:
    parents = {organism.parent for organism in organisms}
    assert parents == {parent.parent for parent in biosphere.parents()} and len(parents) == 24
    left_out = {"iCHOv1", "iMM1415", "iAT_PLT_636", "iIS312", "iLB1027_lipid", "iLJ478"}
    assert not parents & left_out and not any(parent.startswith("iAM_P") for parent in parents)
    counts = Counter(organism.parent for organism in organisms)
    assert min(counts.values()) >= 8
    assert {organism.guild for organism in organisms} == {g for guilds in biosphere.RESIDENTS.values() for g in guilds}
    assert len({organism.name for organism in organisms}) == len(organisms)


def test_every_reaction_balances(organisms: list[Organism]) -> None:
    for organism in organisms:
        graph = organism.graph
        total = np.zeros((len(graph.reactions), len(ELEMENTS)))
        np.add.at(total, graph.edge_reaction, graph.stoichiometry[:, None] * graph.elements[graph.edge_compound])
        known = np.isfinite(total).all(axis=1)
        assert known.mean() > 0.7, organism.name
        assert np.abs(total[known]).max() < 1e-6, organism.name


def test_fluxes_are_steady_and_lawful(organisms: list[Organism]) -> None:
    broken = running = 0
    for organism in organisms:
        graph, flux = organism.graph, organism.graph.flux
        assert flux is not None and organism.growth > 0
        inside = (matrix_of(graph) @ flux)[~graph.external]
        assert np.abs(inside).max() < 1e-4, organism.name
        assert (flux >= graph.lower_bound - 1e-6).all() and (flux <= graph.upper_bound + 1e-6).all()
        low, high = minimum_gibbs_energy(graph), maximum_gibbs_energy(graph)
        broken += int((((flux > 1e-6) & (low > 0)) | ((flux < -1e-6) & (high < 0))).sum())
        running += int((np.isfinite(low) & (np.abs(flux) > 1e-6)).sum())
    assert broken < 0.005 * running  # those that the published models run one way only, and ΔG′ the other


def test_no_energy_from_nothing(references: dict[str, Organism]) -> None:
    """With every uptake closed, no organism can make ATP: no free energy from a bad direction (DATA: F4H2O)."""
    for name, organism in references.items():
        graph = organism.graph
        index = {compound: row for row, compound in enumerate(graph.compounds)}
        drain = np.zeros((len(index), 1))
        for compound, amount in (("atp_c", -1), ("h2o_c", -1), ("adp_c", 1), ("pi_c", 1), ("h_c", 1)):
            drain[index[compound]] = amount
        out = np.flatnonzero(graph.external)
        release = sp.csr_matrix((-np.ones(len(out)), (out, range(len(out)))), shape=(len(index), len(out)))
        lower = np.where(graph.lower_bound > 0, 0.0, graph.lower_bound)  # maintenance needs not be met
        matrix = sp.csr_matrix(sp.hstack([matrix_of(graph), release, drain]))
        fluxes = maximise(
            matrix,
            np.concatenate([lower, np.zeros(len(out) + 1)]),
            np.concatenate([graph.upper_bound, np.full(len(out) + 1, 1000.0)]),
            np.eye(matrix.shape[1])[-1],
        )
        assert fluxes is not None and fluxes[-1] < 1e-6, name


def test_measured_gas_exchange(references: dict[str, Organism]) -> None:
    """Rates (mmol/gDW/h) of the published models under the same food."""
    methanogen = references["iAF692"].graph.exchange
    assert methanogen is not None and methanogen["H2"] == pytest.approx(-40.0, abs=0.01)
    assert methanogen["CH4"] == pytest.approx(7.8, rel=0.1) and methanogen["CO2"] < -methanogen["CH4"]
    phototroph = references["iSynCJ816"].graph.exchange
    assert phototroph is not None and phototroph["O2"] == pytest.approx(5.5, rel=0.1) and phototroph["CO2"] < 0
    coli = references["iJO1366"].graph.exchange
    assert coli is not None
    assert coli["O2"] == pytest.approx(-17.58, abs=0.01) and coli["CO2"] == pytest.approx(19.68, abs=0.01)


def test_guilds_do_what_they_are_called(organisms: list[Organism]) -> None:
    for organism in organisms:
        exchange = organism.graph.exchange
        assert exchange is not None
        if organism.guild == "methanogen":
            assert exchange["CH4"] > 0.1, organism.name
        if organism.guild == "phototroph":
            assert exchange["O2"] > 0.1, organism.name
        else:
            assert exchange.get("O2", 0.0) <= 1e-3, organism.name
        if organism.guild not in ("aerobe", "phototroph"):
            assert abs(exchange.get("O2", 0.0)) < 1e-3, organism.name


def test_variants_differ(organisms: list[Organism]) -> None:
    for parent in {organism.parent for organism in organisms}:
        graphs = [organism.graph for organism in organisms if organism.parent == parent]
        assert len({graph.reactions for graph in graphs}) >= 0.9 * len(graphs), parent
        assert len({tuple(sorted((graph.exchange or {}).items())) for graph in graphs}) >= 0.7 * len(graphs), parent


def world(state: str) -> Any:
    """All that `draw_metabolism` reads of a scenario."""
    return SimpleNamespace(state=state)


def drawn(state: str, organisms: list[Organism], count: int = 3000) -> Counter[str]:
    return Counter(
        biosphere.draw_metabolism(world(state), np.random.default_rng(index), organisms).guild for index in range(count)
    )


def test_lifeless_worlds_have_the_guilds_of_inhabited_ones(organisms: list[Organism]) -> None:
    """The metabolism may tell anoxic from oxygenic, never inhabited from lifeless."""
    anoxic, oxygenic = (drawn(state, organisms) for state in INHABITED_STATES)
    assert not anoxic.keys() & oxygenic.keys()
    for state in WORLD_STATES:
        if state in INHABITED_STATES:
            continue
        candidates = drawn(state, organisms)
        for guild in anoxic | oxygenic:
            expected = (anoxic[guild] + oxygenic[guild]) / 2
            assert candidates[guild] == pytest.approx(expected, abs=5 * np.sqrt(expected)), (state, guild)


def growth(state: str, organisms: list[Organism], habitat: float, count: int = 300) -> np.ndarray:
    found = [
        biosphere.draw_metabolism(world(state), np.random.default_rng(index), organisms, habitat).growth_temperature
        for index in range(count)
    ]
    return np.array(found, dtype=np.float64)


def test_residents_suit_their_home_and_candidates_another(organisms: list[Organism]) -> None:
    cold, warm = (growth("oxygenic-biosphere", organisms, habitat) for habitat in (276.0, 304.0))
    assert cold.mean() == pytest.approx(280.0, abs=3.0) and warm.mean() == pytest.approx(308.0, abs=3.0)
    cold, warm = (growth("lifeless-oxygenated", organisms, habitat) for habitat in (276.0, 304.0))
    np.testing.assert_array_equal(cold, warm)


def test_growth_temperatures_of_lifeless_worlds_are_those_of_inhabited_ones(organisms: list[Organism]) -> None:
    """Over all homes, residents and candidates grow at the same temperatures: the number alone tells nothing."""
    homes = np.interp((np.arange(900) + 0.5) / 900, *biosphere.HABITATS)
    residents = np.array([
        biosphere.draw_metabolism(world(state), np.random.default_rng(index), organisms, float(home)).growth_temperature
        for state in INHABITED_STATES
        for index, home in enumerate(homes)
    ], dtype=np.float64)  # fmt: skip
    candidates = growth("lifeless-temperate", organisms, 290.0, 1800)
    assert residents.mean() == pytest.approx(candidates.mean(), abs=0.8)
    assert np.quantile(residents, [0.2, 0.8]) == pytest.approx(np.quantile(candidates, [0.2, 0.8]), abs=1.0)


def test_draws_with_a_part_of_the_guilds(organisms: list[Organism]) -> None:
    some = [organism for organism in organisms if organism.guild in ("fermenter", "aerobe")]
    assert drawn("anoxic-biosphere", some, 50) == {"fermenter": 50}
    assert set(drawn("lifeless-temperate", some, 100)) == {"fermenter", "aerobe"}
    with pytest.raises(InputError, match="guild"):
        biosphere.draw_metabolism(world("anoxic-biosphere"), np.random.default_rng(0), some[-1:])
    assert biosphere.resident_guilds("lifeless-temperate") == {}
    assert sum(biosphere.resident_guilds("anoxic-biosphere").values()) == pytest.approx(1.0)


def test_building_is_deterministic() -> None:
    first, second = (biosphere.build_organisms(["textbook"], workers=1) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert one.graph.reactions == two.graph.reactions and one.graph.exchange == two.graph.exchange
        np.testing.assert_array_equal(one.graph.flux, two.graph.flux)
        np.testing.assert_array_equal(one.graph.encodings, two.graph.encodings)


def test_library_is_cached(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = biosphere.build_organisms(["textbook"], workers=1)
    calls = []
    monkeypatch.setattr(biosphere, "build_organisms", lambda **kwargs: calls.append(kwargs) or built)
    first, second = (biosphere.load_organisms(tmp_path) for _ in range(2))
    assert len(calls) == 1 and [o.name for o in first] == [o.name for o in second] == [o.name for o in built]
    assert first[0].growth == built[0].growth and first[0].clade == "Escherichia-Shigella"
    assert [path.name for path in tmp_path.glob("*.npz")] == [f"organisms-{biosphere.library_key()}.npz"]


def test_formulae_are_mended_with_the_fewest_changes() -> None:
    published = {
        "a": {"C": 2.0, "H": 4.0, CHARGE: 0.0},
        "b": {"C": 3.0, "H": 4.0, CHARGE: 0.0},  # wrong: three reactions say C2H4
        "c": {"C": 2.0, "H": 4.0, CHARGE: 0.0},
        "d": {"C": 1.0, "H": 2.0, CHARGE: 0.0},
        "f": {"C": 2.0, "H": 3.0, CHARGE: -1.0},  # a's anion: balanced but for a proton
    }
    reactions = [
        {"a": -1.0, "b": 1.0},
        {"b": -1.0, "c": 1.0},
        {"b": -1.0, "d": 2.0},
        {"a": -1.0, "f": 1.0},
        {"ox": -1.0, "d": -1.0, "red": 1.0},  # nobody knows these two
    ]
    found = balance_formulae(published, reactions, frozenset({"d"}))
    atoms = {name: formula for name, (formula, _) in found.items()}
    assert atoms["b"] == {"C": 2.0, "H": 4.0} and not found["b"][1]
    assert all(found[name][1] for name in "acdf") and not found["ox"][1] and not found["red"][1]
    for stoichiometry in reactions:
        left = imbalance(stoichiometry, atoms)
        assert left.get("H", 0.0) == left.get(CHARGE, 0.0) and not left.keys() - {"H", CHARGE}


def test_protons_are_added_where_they_lack() -> None:
    compounds = {
        "a_c": Compound({"H": 2.0}),
        "b_c": Compound({"H": 1.0, CHARGE: -1.0}),
        "h_c": Compound({"H": 1.0, CHARGE: 1.0}),
    }
    reaction = Reaction({"a_c": -1.0, "b_c": 1.0}, 0, 10)
    mended = reconstruction.add_protons(reaction, compounds)
    assert mended.stoichiometry == {"a_c": -1.0, "b_c": 1.0, "h_c": 1.0}
    assert reconstruction.add_protons(mended, compounds) == mended
    electron = Reaction({"a_c": -1.0, "b_c": 1.0, "h_c": 2.0}, 0, 10)  # one proton too many is taken away
    assert reconstruction.add_protons(electron, compounds).stoichiometry["h_c"] == 1.0


@settings(max_examples=30, deadline=None)
@given(st.floats(-300, 300), st.floats(0, 30))
def test_gibbs_range_brackets_the_standard(energy: float, deviation: float) -> None:
    low, high = reconstruction.gibbs_range(Reaction({"a_c": -1.0, "b_c": 1.0, "h2o_c": 1.0}, 0, 1), energy, deviation)
    assert low == pytest.approx(energy - 22.83 - 2 * deviation, abs=0.02)  # RT ln 1e4 = 22.83 kJ/mol
    assert high == pytest.approx(energy + 22.83 + 2 * deviation, abs=0.02)


def test_media_scale_only_what_limits() -> None:
    one, two = media.medium("methanogen", 0), media.medium("methanogen", 0, 2.0)
    assert two["h2"] == 2 * one["h2"] == 80.0 and two["co2"] == one["co2"] == media.UNLIMITED
    assert "nh4" not in media.medium("phototroph", 0) and "o2" not in media.medium("fermenter", 0)


@pytest.mark.parametrize("name", ["iAF692", "iSynCJ816", "iIT341"])
def test_organisms_survive_a_file(references: dict[str, Organism], name: str, tmp_path: Any) -> None:
    """What a user hands to `assess` says the same as the graph inside the data set."""
    graph = references[name].graph
    write_metabolism(graph, tmp_path / "organism.json.gz")
    back = read_metabolism(tmp_path / "organism.json.gz")
    assert back.reactions == graph.reactions and (back.guild, back.organism) == (graph.guild, graph.organism)
    assert back.exchange == pytest.approx(graph.exchange, abs=2e-3)
    np.testing.assert_array_equal(np.isfinite(back.dg_prime), np.isfinite(graph.dg_prime))
    np.testing.assert_allclose(back.encodings, graph.encodings, atol=1e-3)
