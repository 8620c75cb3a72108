"""Organisms of the worlds: the default microbes, their variants, who may live where, and which one a world is given.

The microbes are those among CarveMe's 31 published models and cobra's three: no animal (iCHOv1, iMM1415, the platelet
iAT_PLT_636), no parasite (four Plasmodium, Trypanosoma), and not the diatom iLB1027_lipid, three quarters of whose
reactions have no formula, so that their balance can't be checked. Thermotoga iLJ478 is left out because its model makes
serine by running the deaminase backwards, which the second law forbids: it doesn't grow. See `organisms.csv`.

Each organism grows in several media with several sets of reactions knocked out: its variants, which share the parent's
name. There is one methanogen and one cyanobacterium: nothing can be claimed here about unseen clades of those guilds.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import inspect
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata, resources
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from astrobio.batch import MetabolicGraph
from astrobio.batch.sample import GROWTH_RANGE
from astrobio.errors import InputError
from astrobio.formats import fluxes, network, thermodynamics
from astrobio.formats.graphs import load_graphs, save_graphs
from astrobio.formats.metabolism import network_from_cobra, quiet_cobra
from astrobio.formats.network import (
    PRODUCT,
    TWIN,
    Network,
    close_boundaries,
    drop_dead_ends,
    drop_unbalanced,
    gas_exchange,
    graph_from_network,
    network_energies,
    solve_fluxes,
)
from astrobio.formats.thermodynamics import Energy, cache_folder
from astrobio.worlds import formulae, media, reconstruction

if TYPE_CHECKING:
    from astrobio.worlds.scenario import Scenario

VARIANTS = 8  # of each parent
SCARCE = 24  # of the parent of a guild that has only one
KNOCKED_OUT = (0.05, 0.4)  # share of the reactions without flux that a variant lacks, uniform
SCALE = (0.5, 2.0)  # of a recipe's limited substrates, log-uniform
# Mean temperature (K) of the ice-free surface where somebody lives: quantiles 0, 5, 25, 50, 75, 95 and 100% of 560
# inhabited worlds. Candidates of lifeless worlds are drawn as if their home were one of these.
HABITATS = ((0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0), (273.2, 275.0, 281.0, 287.0, 293.5, 308.0, 320.0))
# Organisms grow fastest a little above the mean temperature of their home (marine phytoplankton: Thomas et al. 2012,
# doi:10.1126/science.1224836); margin and scatter, K.
ADAPTATION = (4.0, 2.5)
LEAST_GROWTH = 1e-3  # 1/h; slower is no growth
SIGNATURE = {"methanogen": "CH4", "phototroph": "O2"}  # the gas that a guild must release to be one

# Who lives on an inhabited world of either kind, and how often is drawn. The primary producer of the biosignature gas
# makes up half; the rest are its neighbours, who eat and feed it (design choice; WORLDS section 8 has the reactions).
RESIDENTS: dict[str, dict[str, float]] = {
    "anoxic-biosphere": {"methanogen": 0.5, "acetogen": 0.15, "fermenter": 0.25, "metal-reducer": 0.1},
    "oxygenic-biosphere": {"phototroph": 0.5, "aerobe": 0.5},
}


@dataclass(frozen=True, eq=False)
class Organism:
    """One variant of one parent.

    Args:
        name: parent and number of the variant, such as "iAF692/03". guild, clade: of the parent.
        graph: network with ΔG′, pFBA fluxes and gas exchange; `graph.organism` is the parent.
        growth: 1/h in the variant's medium. knocked_out: reactions that the variant lacks.
    """

    name: str
    guild: str
    clade: str
    graph: MetabolicGraph
    growth: float
    knocked_out: int

    @property
    def parent(self) -> str:
        return self.graph.organism


@dataclass(frozen=True)
class Parent:
    """One row of `organisms.csv`: model, where it comes from, guild, clade, CarveMe universe of its biomass."""

    parent: str
    source: str
    guild: str
    clade: str
    biomass: str


@lru_cache(maxsize=1)
def parents() -> tuple[Parent, ...]:
    """The default organisms."""
    text = resources.files("astrobio.worlds").joinpath("organisms.csv").read_text(encoding="utf-8")
    return tuple(Parent(**row) for row in csv.DictReader(io.StringIO(text)))


def resident_guilds(state: str) -> dict[str, float]:
    """Guilds that may be resident on worlds of an inhabited state, with their frequencies; {} on lifeless ones."""
    return dict(RESIDENTS.get(state, {}))


def draw_metabolism(
    scenario: Scenario, rng: np.random.Generator, organisms: Sequence[Organism], habitat: float | None = None
) -> MetabolicGraph:
    """The metabolism that comes with a world: its resident, or on a lifeless world a candidate.

    A resident is a strain adapted to the mean temperature of the ice-free surface, `habitat` in K; a candidate is
    adapted to some other inhabited world. So neither the metabolism nor the climate tells by itself whether the two
    belong together. Strains adapt to temperature far faster than their networks change, so any network may be adapted
    to any habitat (design choice). None stands for a habitat nobody knows.

    Candidates follow the residents' distribution (half of them from either kind of biosphere), so that a metabolism
    tells an anoxic from an oxygenic world, and never an inhabited from a lifeless one. Guilds that `organisms` lacks
    are left out and the others scaled up, the same way in both cases; parents of a guild are equally likely, and so
    are the variants of a parent.

    Raises:
        InputError: `organisms` has no guild that could be resident there.
    """
    kinds = list(RESIDENTS)
    drawn = kinds[int(rng.integers(len(kinds)))]  # drawn on every world: a resident uses up as much of the stream
    kind = scenario.state if scenario.state in RESIDENTS else drawn
    guilds = {organism.guild for organism in organisms}
    weights = {guild: weight for guild, weight in RESIDENTS[kind].items() if guild in guilds}
    if not weights:
        raise InputError(f"organisms: expected a guild among {sorted(RESIDENTS[kind])}, found {sorted(guilds)}")
    share = np.array(list(weights.values()))
    guild = list(weights)[int(rng.choice(len(weights), p=share / share.sum()))]
    pool: dict[str, list[Organism]] = {}
    for organism in organisms:
        if organism.guild == guild:
            pool.setdefault(organism.parent, []).append(organism)
    variants = pool[sorted(pool)[int(rng.integers(len(pool)))]]
    graph = variants[int(rng.integers(len(variants)))].graph
    elsewhere, margin = float(np.interp(rng.random(), *HABITATS)), float(rng.normal(*ADAPTATION))
    home = habitat if scenario.state in RESIDENTS and habitat is not None else elsewhere
    return graph.strain(round(float(np.clip(home + margin, *GROWTH_RANGE)), 1))


def load_organisms(cache_dir: str | Path | None = None, *, workers: int | None = None) -> list[Organism]:
    """The default organisms and their variants, built once (half a minute) and cached.

    Args:
        cache_dir: where to keep the library; None: `$ASTROBIO_CACHE`, else the user's cache folder.
        workers: processes that build it; None: as many as there are cores, at most 4. The result doesn't depend on it.
    """
    folder = Path(cache_dir) if cache_dir is not None else cache_folder()
    path = folder / f"organisms-{library_key()}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # a second process waits for the library that a first one builds
        if not path.exists():
            organisms = build_organisms(workers=workers)
            labels = [{key: getattr(o, key) for key in ("name", "clade", "growth", "knocked_out")} for o in organisms]
            save_graphs(path, [organism.graph for organism in organisms], labels)
    return [Organism(graph=graph, guild=graph.guild, **label) for graph, label in load_graphs(path)]


@lru_cache(maxsize=1)
def library_key() -> str:
    """Hash of all that decides the library: the code and tables that build it and the packages it reads."""
    modules = (fluxes, network, thermodynamics, formulae, media, reconstruction)
    sources = [inspect.getsource(module) for module in modules] + [Path(__file__).read_text(encoding="utf-8")]
    text = "".join(_statements(source) for source in sources)
    text += "".join(f"{name}={metadata.version(name)};" for name in ("carveme", "cobra", "scipy", "numpy"))
    table = resources.files("astrobio.formats").joinpath("data/dg_prime.csv.gz").read_bytes()
    return hashlib.sha256(text.encode() + table + repr(parents()).encode()).hexdigest()[:16]


def _statements(source: str) -> str:
    """What a module does, without comments, layout and docstrings, which change no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # pyright: ignore[reportAttributeAccessIssue]
                part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
    return ast.dump(tree)


def build_organisms(chosen: Iterable[str] | None = None, *, workers: int | None = None) -> list[Organism]:
    """Build variants of the chosen parents (default: all), in the order of `organisms.csv`."""
    wanted = set(chosen) if chosen is not None else {parent.parent for parent in parents()}
    rows = [parent for parent in parents() if parent.parent in wanted]
    networks = carved_networks(rows)
    counts = {row.guild: len({p.clade for p in parents() if p.guild == row.guild}) for row in rows}
    jobs = [(row, networks.get(row.parent), SCARCE if counts[row.guild] == 1 else VARIANTS) for row in rows]
    workers = min(os.cpu_count() or 1, 4, len(rows)) if workers is None else workers
    if workers <= 1:
        found = [build_variants(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            order = sorted(range(len(jobs)), key=lambda i: -_work(*jobs[i]))  # the longest first, to end together
            futures = {i: pool.submit(build_variants, *jobs[i]) for i in order}
            found = [futures[i].result() for i in range(len(jobs))]
    return [organism for variants in found for organism in variants]


def _work(row: Parent, found: Network | None, size: int) -> int:
    return size * (len(found.reactions) if found else 3000)


def write_gibbs_table(path: Path) -> int:
    """Compute ΔG′° of all one-compartment reactions of the default organisms anew (a minute); returns their number."""
    found: dict[str, dict[str, float]] = {}
    carved = carved_networks(parents())
    for row in parents():
        balanced = carved.get(row.parent) or _lawful(_shipped(row.parent))
        for reaction in balanced.reactions.values():
            plain = network.one_compartment(reaction, balanced.compounds)
            if plain:
                key, sign = thermodynamics.reaction_key(plain)
                found[key] = {name: sign * value for name, value in sorted(plain.items())}
    thermodynamics.write_table(path, thermodynamics.compute_energies(found))
    return len(found)


def carved_networks(rows: Sequence[Parent]) -> dict[str, Network]:
    """Balanced network of each of CarveMe's parents, second law imposed, no medium yet."""
    carved = [row for row in rows if row.source == "carveme"]
    if not carved:
        return {}
    universe, models = reconstruction.read_universe(), reconstruction.model_reactions()
    default = [parent.parent for parent in parents() if parent.source == "carveme"]
    atoms = reconstruction.balanced_formulae(universe, {name for model in default for name in models[model]})
    return {
        row.parent: _lawful(reconstruction.assemble(models[row.parent], universe, atoms, row.biomass)) for row in carved
    }


def _shipped(name: str) -> Network:
    """One of the models that cobra carries, read from its own file."""
    path = reconstruction.package_folder("cobra") / "data" / f"{name}.xml.gz"
    from cobra.io import read_sbml_model

    with quiet_cobra():
        return network_from_cobra(read_sbml_model(str(path)))


def _lawful(found: Network) -> Network:
    """Without unbalanced reactions and thermodynamically impossible directions; growth is checked later."""
    growth = {name: found.reactions[name] for name in found.objective}
    rest = {name: reaction for name, reaction in found.reactions.items() if name not in growth}
    balanced, _ = drop_unbalanced(close_boundaries(replace(found, reactions=rest, objective={})))
    lawful, _ = reconstruction.obey_second_law(balanced, network_energies(balanced, compute=False))
    needed = {name for reaction in growth.values() for name in reaction.stoichiometry}
    compounds = {name: found.compounds[name] for name in sorted(needed)} | lawful.compounds
    return Network(compounds, {**lawful.reactions, **growth}, lawful.exchanges, found.objective)


@dataclass(frozen=True)
class _Diet:
    """A recipe on which a parent grows: the fed network and which of its reactions carry flux."""

    recipe: int | None
    fed: Network
    solution: tuple[np.ndarray, dict[str, float]]


def build_variants(row: Parent, found: Network | None, size: int) -> list[Organism]:
    """The reference of a parent and its other variants: guild media in turn, scaled, some reactions knocked out.

    The reference of a model that cobra ships keeps the medium of its file (`found` is None: it is read here).
    """
    shipped = found is None
    found = _lawful(_shipped(row.parent)) if found is None else found
    energies = network_energies(found, compute=False)
    diets = [diet for recipe in range(len(media.RECIPES[row.guild])) if (diet := _diet(row, found, recipe))]
    first = _diet(row, found, None) if shipped else diets[0]
    assert first is not None and diets, f"{row.parent} grows in no medium of its guild"
    variants = [_organism(row, 0, energies, first.fed, first.solution, 0)]
    for number in range(1, size):
        seed = int.from_bytes(hashlib.sha256(f"{row.parent}/{number}".encode()).digest()[:8], "big")
        rng = np.random.default_rng(seed)
        diet = diets[number % len(diets)]
        variants.append(_organism(row, number, energies, *_knock_out(row, diet, rng)))
    return variants


def _diet(row: Parent, found: Network, recipe: int | None) -> _Diet | None:
    """The network in one of its guild's media, with the biomass it can make there and without dead ends."""
    fed = _in_medium(row, found, recipe)
    if row.source == "carveme":
        fed, _ = reconstruction.producible_biomass(fed)
    fed = drop_dead_ends(close_boundaries(fed))
    solution = solve_fluxes(fed)
    return _Diet(recipe, fed, solution) if solution is not None and _viable(row, fed, solution) else None


def _in_medium(row: Parent, found: Network, recipe: int | None, scale: float = 1.0) -> Network:
    if recipe is None:
        return found
    uptake = media.medium(row.guild, recipe, scale)
    exchanges = {
        name: bounds
        if name.endswith((TWIN, PRODUCT))
        else (-uptake.get(found.compounds[name].base, 0.0), media.UNLIMITED)
        for name, bounds in found.exchanges.items()
    }
    return replace(found, exchanges=exchanges)


def _growth(fed: Network, solution: tuple[np.ndarray, Mapping[str, float]]) -> float:
    index = {name: position for position, name in enumerate(fed.reactions)}
    return float(sum(weight * solution[0][index[name]] for name, weight in fed.objective.items()))


def _viable(row: Parent, fed: Network, solution: tuple[np.ndarray, Mapping[str, float]] | None) -> bool:
    """Whether it grows, and still releases the gas that makes its guild."""
    if solution is None or not fed.objective or _growth(fed, solution) < LEAST_GROWTH:
        return False
    gas = SIGNATURE.get(row.guild)
    return gas is None or gas_exchange(fed, solution[1]).get(gas, 0.0) > 0.1


def _knock_out(
    row: Parent, diet: _Diet, rng: np.random.Generator
) -> tuple[Network, tuple[np.ndarray, dict[str, float]], int]:
    """Scale the medium; lose a share of the reactions without flux, and one with flux if growth survives that."""
    scaled = _in_medium(row, diet.fed, diet.recipe, float(np.exp(rng.uniform(*np.log(SCALE)))))
    names = np.array(list(diet.fed.reactions))
    silent = names[diet.solution[0] == 0]
    active = names[(diet.solution[0] != 0) & ~np.isin(names, list(diet.fed.objective))]
    lost = set(rng.choice(silent, size=round(len(silent) * rng.uniform(*KNOCKED_OUT)), replace=False).tolist())
    extra = str(rng.choice(active))
    for gone in (lost | {extra}, lost, set()):
        rest = {name: reaction for name, reaction in scaled.reactions.items() if name not in gone}
        left = drop_dead_ends(replace(scaled, reactions=rest))
        solution = solve_fluxes(left) if left.objective else None
        if solution is not None and _viable(row, left, solution):
            return left, solution, len(gone)
    return diet.fed, diet.solution, 0  # too little food at this scale


def _organism(
    row: Parent,
    number: int,
    energies: Mapping[str, Energy],
    fed: Network,
    solution: tuple[np.ndarray, dict[str, float]],
    knocked_out: int,
) -> Organism:
    graph = graph_from_network(fed, energies, solution, organism=row.parent, guild=row.guild)
    growth = round(_growth(fed, solution), 6)
    return Organism(f"{row.parent}/{number:02d}", row.guild, row.clade, graph, growth, knocked_out)
