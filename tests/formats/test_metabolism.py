"""Metabolic models in files: what is read, what is refused, and what survives a round trip."""

from __future__ import annotations

import gzip
import json
from importlib import resources
from pathlib import Path
from time import process_time

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.batch import ELEMENTS, MetabolicGraph
from astrobio.errors import InputError
from astrobio.formats import thermodynamics
from astrobio.formats.fluxes import maximise, parsimonious
from astrobio.formats.graphs import load_graphs, save_graphs
from astrobio.formats.metabolism import (
    random_walk_encodings,
    read_metabolism,
    read_metabolism_counted,
    write_metabolism,
)
from astrobio.formats.network import Compound, Network, Reaction, close_boundaries, drop_dead_ends, parse_formula

TEXTBOOK = Path(str(resources.files("cobra"))) / "data" / "textbook.xml.gz"
HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
SBML = '<sbml xmlns="http://www.sbml.org/sbml/level3/version1/core" level="3" version="1">'


@pytest.fixture(scope="module")
def textbook() -> MetabolicGraph:
    return read_metabolism(TEXTBOOK)


def element_residual(graph: MetabolicGraph) -> np.ndarray:
    """[R, E] atoms that one turn of each reaction creates; NaN where a formula is unknown."""
    total = np.zeros((len(graph.reactions), len(ELEMENTS)))
    np.add.at(total, graph.edge_reaction, graph.stoichiometry[:, None] * graph.elements[graph.edge_compound])
    return total


def bigg(reactions: dict[str, tuple[dict[str, float], float, float]], formulae: dict[str, str], objective: str) -> dict:
    """The smallest BiGG JSON with these reactions (stoichiometry, bounds) and compounds."""
    return {
        "id": "toy", "compartments": {"c": "cytosol", "e": "extracellular space"}, "genes": [],
        "metabolites": [
            {"id": name, "name": name, "compartment": name[-1], "formula": formula}
            for name, formula in formulae.items()
        ],
        "reactions": [
            {
                "id": name, "name": name, "metabolites": metabolites, "lower_bound": low, "upper_bound": high,
                "gene_reaction_rule": "", "objective_coefficient": float(name == objective),
            }
            for name, (metabolites, low, high) in reactions.items()
        ],
    }  # fmt: skip


def test_sbml_gives_known_growth_and_balanced_reactions(textbook: MetabolicGraph) -> None:
    assert textbook.organism == "e_coli_core"
    # The published optimum of the core model on 10 mmol glucose: growth 0.874/h, O2 −21.80, CO2 +22.81 (Orth 2010).
    assert textbook.exchange is not None and textbook.flux is not None
    assert textbook.exchange["O2"] == pytest.approx(-21.80, abs=0.01)
    assert textbook.exchange["CO2"] == pytest.approx(22.81, abs=0.01)
    growth = textbook.flux[textbook.reactions.index("Biomass_Ecoli_core")]
    assert growth == pytest.approx(0.8739, abs=1e-4)
    assert np.abs(element_residual(textbook)).max() < 1e-6
    net = np.zeros(len(textbook.compounds))
    np.add.at(net, textbook.edge_compound, textbook.stoichiometry * textbook.flux[textbook.edge_reaction])
    assert np.abs(net[~textbook.external]).max() < 1e-4


def test_gibbs_energies_come_from_the_table(textbook: MetabolicGraph) -> None:
    energy = dict(zip(textbook.reactions, textbook.dg_prime, strict=True))
    assert energy["PFK"] == pytest.approx(-17, abs=8)  # kJ/mol, ΔG′° of phosphofructokinase, Li et al. 2011
    assert energy["ATPM"] == pytest.approx(-27, abs=4)  # hydrolysis of ATP at pMg 3
    assert np.isnan(energy["ATPS4r"])  # spans a membrane: no ΔG′ without a proton motive force
    assert np.isfinite(textbook.dg_prime).mean() > 0.6


@pytest.mark.parametrize("name", ["model.json", "model.json.gz"])
def test_round_trip(textbook: MetabolicGraph, tmp_path: Path, name: str) -> None:
    ec = tuple("2.7.1.11" if reaction == "PFK" else "" for reaction in textbook.reactions)
    textbook = MetabolicGraph(**{**textbook.__dict__, "ec": ec, "guild": "aerobe", "growth_temperature": 310.0})
    write_metabolism(textbook, tmp_path / name)
    back = read_metabolism(tmp_path / name)
    assert (back.compounds, back.reactions, back.ec) == (textbook.compounds, textbook.reactions, textbook.ec)
    np.testing.assert_allclose(back.elements, textbook.elements, rtol=1e-12)
    np.testing.assert_array_equal(back.encodings, textbook.encodings)
    np.testing.assert_array_equal(back.external, textbook.external)
    np.testing.assert_allclose(back.dg_prime, textbook.dg_prime)
    assert back.exchange == pytest.approx(textbook.exchange, abs=1e-3)
    assert (back.organism, back.guild) == (textbook.organism, textbook.guild)
    assert back.growth_temperature == 310.0
    assert not list(tmp_path.glob(".*")), "a temporary file was left"


def test_unbalanced_reactions_are_dropped_and_counted(tmp_path: Path) -> None:
    formulae = {"a_e": "C6H12O6", "a_c": "C6H12O6", "b_c": "C3H6O3", "x_c": "", "b_e": "C3H6O3"}
    reactions = {
        "EX_a_e": ({"a_e": -1.0}, -10.0, 1000.0),
        "EX_b_e": ({"b_e": -1.0}, 0.0, 1000.0),
        "At": ({"a_e": -1.0, "a_c": 1.0}, 0.0, 1000.0),
        "AB": ({"a_c": -1.0, "b_c": 2.0}, 0.0, 1000.0),
        "WRONG": ({"a_c": -1.0, "b_c": 3.0}, 0.0, 1000.0),
        "UNKNOWN": ({"a_c": -1.0, "x_c": 1.0}, 0.0, 1000.0),
        "Bt": ({"b_c": -1.0, "b_e": 1.0}, 0.0, 1000.0),
    }
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(bigg(reactions, formulae, "Bt")))
    graph, counts = read_metabolism_counted(path, compute_energies=False)
    assert counts == {"unbalanced": 1, "formula_unknown": 1}
    assert "WRONG" not in graph.reactions and "UNKNOWN" in graph.reactions
    assert graph.flux is not None
    assert graph.flux[graph.reactions.index("Bt")] == pytest.approx(20.0)  # 30 if WRONG were used
    assert np.isnan(graph.elements[graph.compounds.index("x_c")]).all()


BAD = {
    "empty.xml": (b"", "empty"),
    "blank.json": (b" \n", "empty"),
    "prose.xml": (b"<html></html>", "neither an <sbml>"),
    "cut.xml": (f"{HEADER}{SBML}<model><listOfSpecies>".encode(), "well-formed"),
    "nothing.xml": (f"{HEADER}{SBML}<model id='m'/></sbml>".encode(), "found none"),
    "entity.xml": (
        f'{HEADER}<!DOCTYPE sbml [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>{SBML}&b;</sbml>'.encode(),
        "document type",
    ),
    "outside.xml": (f'<!DOCTYPE s SYSTEM "file:///etc/passwd">{SBML}</sbml>'.encode(), "document type"),
    "wide.xml": (f"{HEADER}{SBML}</sbml>".encode("utf-16"), "UTF-8"),
    "cut.xml.gz": (gzip.compress(SBML.encode() * 50)[:60], "readable"),
    "plain.json.gz": (b"{}", "readable"),
    "list.json": (b"[1, 2]", "neither an <sbml>"),
    "broken.json": (b'{"metabolites": [', "JSON"),
    "keys.json": (b'{"metabolites": []}', "reactions"),
    "odd.json": (b'{"metabolites": [1], "reactions": [{}]}', "cobra can read"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_files_end_in_one_sentence(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_metabolism(path)
    message = str(caught.value)
    assert str(path) in message and reason in message and "\n" not in message
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_missing_file_and_bad_target(tmp_path: Path, textbook: MetabolicGraph) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_metabolism(tmp_path / "none.xml")
    with pytest.raises(InputError, match="json"):
        write_metabolism(textbook, tmp_path / "model.xml")


def test_only_unbalanced_reactions(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(bigg({"AB": ({"a_c": -1.0, "b_c": 1.0}, 0, 10)}, {"a_c": "C", "b_c": "C2"}, "")))
    with pytest.raises(InputError, match="balanced"):
        read_metabolism(path)


@given(st.dictionaries(st.sampled_from([*ELEMENTS, "R", "*"]), st.integers(1, 400), min_size=1))
def test_formulae_parse(atoms: dict[str, int]) -> None:
    text = "".join(element + (str(count) if count > 1 else "") for element, count in atoms.items())
    assert parse_formula(text) == atoms


@pytest.mark.parametrize("text", ["", None, "water", "C6-H12", "6C", "C6H12O6;"])
def test_what_is_no_formula(text: str | None) -> None:
    assert parse_formula(text) is None


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_encodings_are_return_probabilities(compounds: int, reactions: int, data: st.DataObject) -> None:
    cells = st.tuples(st.integers(0, compounds - 1), st.integers(0, reactions - 1))
    edges = np.array(data.draw(st.lists(cells, min_size=1, unique=True)))
    found = random_walk_encodings(compounds, reactions, edges[:, 0], edges[:, 1], steps=4, block=5)
    adjacency = np.zeros((compounds + reactions,) * 2)
    adjacency[edges[:, 0], compounds + edges[:, 1]] = 1
    adjacency += adjacency.T
    walk = adjacency / np.maximum(adjacency.sum(axis=1, keepdims=True), 1)
    expected = [np.diag(np.linalg.matrix_power(walk, 2 * k)) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-5)


def test_encodings_of_a_large_graph_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)  # the size of iJO1366: 1,805 compounds, 2,583 reactions, 10,183 entries
    hubs = (1805 * rng.random(10183) ** 3).astype(int)
    columns = np.sort(rng.integers(0, 2583, 10183))
    start = process_time()
    found = random_walk_encodings(1805, 2583, hubs, columns)
    assert process_time() - start < 1.0
    assert found.shape == (4388, 16) and np.isfinite(found).all() and found.max() <= 1 + 1e-5
    np.testing.assert_array_equal(found, random_walk_encodings(1805, 2583, hubs, columns))


def test_pfba_keeps_the_optimum_and_has_no_loop() -> None:
    # A → B by one step or by two, and a futile loop B ⇄ D that costs nothing in plain FBA.
    matrix = sp.csr_matrix(
        np.array([[1, -1, -1, 0, 0, 0, 0], [0, 1, 0, 1, -1, -1, 1], [0, 0, 1, -1, 0, 0, 0], [0, 0, 0, 0, 0, 1, -1]])
    )
    lower, upper = np.zeros(7), np.array([10.0, 1000, 1000, 1000, 1000, 1000, 1000])
    objective = np.eye(7)[4]
    best, parsimony = maximise(matrix, lower, upper, objective), parsimonious(matrix, lower, upper, objective)
    assert best is not None and parsimony is not None
    assert parsimony[4] == best[4] == 10.0
    np.testing.assert_array_equal(parsimony, [10, 10, 0, 0, 10, 0, 0])
    assert parsimonious(matrix, np.full(7, 1.0), np.zeros(7), objective) is None


def test_demands_and_biomass_get_external_products() -> None:
    compounds = {
        "a_c": Compound({"C": 1.0, "H": 4.0}, base="a"),
        "b_c": Compound({"O": 1.0}, base="b"),
    }
    reactions = {"DM_a": Reaction({"a_c": -1.0}, 0, 10), "BIOMASS": Reaction({"a_c": -2.0, "b_c": -0.5}, 0, 10)}
    closed = close_boundaries(Network(compounds, reactions))
    assert closed.compounds["a_c__boundary"].external and closed.compounds["a_c__boundary"].formula == {"C": 1, "H": 4}
    assert closed.compounds["BIOMASS__product"].formula == {"C": 2.0, "H": 8.0, "O": 0.5}


def test_dead_ends_are_removed_in_chains() -> None:
    compounds = {name: Compound({"C": 1.0}, external=name.endswith("_e"), base=name[:-2]) for name in ("a_e", "a_c")}
    compounds |= {name: Compound({"C": 1.0}, base=name[:-2]) for name in ("b_c", "d_c")}
    reactions = {
        "T": Reaction({"a_e": -1.0, "a_c": 1.0}, -10, 10),
        "AB": Reaction({"a_c": -1.0, "b_c": 1.0}, 0, 10),
        "BD": Reaction(
            {"b_c": -1.0, "d_c": 1.0}, 0, 10
        ),  # d is never used, so b isn't either, nor a, nor the transport
    }
    assert not drop_dead_ends(Network(compounds, reactions, {"a_e": (-10, 10)})).reactions


def test_reaction_keys_know_direction_but_not_protons() -> None:
    forward = {"atp": -1.0, "h2o": -1.0, "adp": 1.0, "pi": 1.0, "h": 1.0}
    key, sign = thermodynamics.reaction_key(forward)
    assert thermodynamics.reaction_key({name: -value for name, value in forward.items()}) == (key, -sign)
    assert thermodynamics.reaction_key({name: value for name, value in forward.items() if name != "h"})[0] == key
    energies = thermodynamics.reaction_energies(
        {"hydrolysis": forward, "synthesis": {name: -value for name, value in forward.items()}}, compute=False
    )
    assert energies["hydrolysis"][0] == -energies["synthesis"][0] < -20


def test_unknown_reactions_are_nan_without_computing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROBIO_CACHE", str(tmp_path))
    found = thermodynamics.reaction_energies({"r": {"nobody": -1.0, "knows": 1.0}}, compute=False)
    assert np.isnan(found["r"]).all() and not list(tmp_path.iterdir())


def test_computed_energies_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROBIO_CACHE", str(tmp_path))
    asked = []

    def compute(reactions: dict[str, dict[str, float]]) -> dict[str, tuple[float, float]]:
        asked.append(sorted(reactions))
        return dict.fromkeys(reactions, (-12.5, 1.5))

    monkeypatch.setattr(thermodynamics, "compute_energies", compute)
    reactions = {"forth": {"nobody": -1.0, "knows": 1.0}, "back": {"nobody": 1.0, "knows": -1.0}}
    first = thermodynamics.reaction_energies(reactions)
    assert first == thermodynamics.reaction_energies(reactions) and len(asked) == 1
    assert sorted(energy for energy, _ in first.values()) == [-12.5, 12.5]


def test_graph_files_keep_graphs_and_bytes(textbook: MetabolicGraph, tmp_path: Path) -> None:
    bare = MetabolicGraph(**{**textbook.__dict__, "flux": None, "exchange": None, "organism": "other"})
    for name in ("one.npz", "two.npz"):
        save_graphs(tmp_path / name, [textbook, bare], [{"name": "a"}, {"name": "b"}])
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    (first, label), (second, _) = load_graphs(tmp_path / "one.npz")
    assert label == {"name": "a"} and second.flux is None and second.exchange is None and second.organism == "other"
    for name, value in textbook.__dict__.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(getattr(first, name), value, rtol=6e-4, atol=1e-7, err_msg=name)
        else:
            assert getattr(first, name) == value, name
    assert (first.stoichiometry == textbook.stoichiometry).all() and (first.elements == textbook.elements).all()


def test_damaged_graph_file(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK not an archive")
    with pytest.raises(InputError, match="metabolic graphs"):
        load_graphs(tmp_path / "bad.npz")


@pytest.mark.slow
def test_shipped_energies_are_reproduced() -> None:
    pytest.importorskip("equilibrator_api")
    table = thermodynamics.shipped_table()
    reactions = {
        "PGI": {"g6p": -1.0, "f6p": 1.0},
        "TPI": {"dhap": -1.0, "g3p": 1.0},
        "ATPM": {"atp": -1.0, "h2o": -1.0, "adp": 1.0, "pi": 1.0},
        "MDH": {"mal__L": -1.0, "nad": -1.0, "nadh": 1.0, "oaa": 1.0, "h": 1.0},
        "FUM": {"fum": -1.0, "h2o": -1.0, "mal__L": 1.0},
    }
    keys = {name: thermodynamics.reaction_key(stoichiometry) for name, stoichiometry in reactions.items()}
    computed = thermodynamics.compute_energies(reactions)
    for name, (key, sign) in keys.items():
        energy, deviation = computed[name]
        assert table[key] == pytest.approx((sign * energy, deviation), abs=0.02), name
