"""A metabolic network as plain data, and its turn into the contract's `MetabolicGraph`.

Dimension letters: C compounds, R reactions, M stoichiometric entries, E chemical elements, K structural encodings.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from astrobio.batch import ELEMENTS, MetabolicGraph
from astrobio.errors import InputError
from astrobio.formats.fluxes import maximise, parsimonious
from astrobio.formats.thermodynamics import Energy, reaction_energies

UNLIMITED = 1000.0  # mmol/gDW/h, the field's customary "no bound"
BALANCE_TOLERANCE = 1e-6  # atoms; a sum over the formulae of one reaction below it counts as balanced
ENCODING_STEPS = 16
PRODUCT, TWIN = "__product", "__boundary"  # suffixes of the external compounds that close biomass and demand reactions
GAS_COMPOUNDS = {
    "h2": "H2", "co2": "CO2", "hco3": "CO2", "h2co3": "CO2", "ch4": "CH4", "o2": "O2", "co": "CO", "n2": "N2",
    "n2o": "N2O", "h2s": "H2S", "h2o": "H2O", "nh4": "NH3", "nh3": "NH3",
}  # fmt: skip  # BiGG compound → gas of the contract (acids and bases count as their gas)

_TOKEN = re.compile(r"([A-Z][a-z]?|\*)(\d+(?:\.\d*)?|\.\d+)?")


@dataclass(frozen=True)
class Compound:
    """`formula` is None where unknown; R, X, * and "+" (charge) in it must balance like elements.

    Where `certain` is False the formula only balances the reactions around it (a protein, say) and is not to be told.
    """

    formula: Mapping[str, float] | None
    charge: float = 0.0
    external: bool = False
    base: str = ""  # identifier without compartment
    certain: bool = True


@dataclass(frozen=True)
class Reaction:
    """Stoichiometry (compound → coefficient, negative for substrates), bounds in mmol/gDW/h, EC number or ""."""

    stoichiometry: Mapping[str, float]
    lower: float
    upper: float
    ec: str = ""


@dataclass(frozen=True)
class Network:
    """Compounds and reactions by identifier, exchange bounds of external compounds (positive released), objective."""

    compounds: dict[str, Compound]
    reactions: dict[str, Reaction]
    exchanges: dict[str, tuple[float, float]] = field(default_factory=dict)
    objective: dict[str, float] = field(default_factory=dict)


def parse_formula(text: str | None) -> dict[str, float] | None:
    """Chemical formula such as C6H12O6 → atoms by element; None where it is empty or not a formula."""
    if not text:
        return None
    atoms: dict[str, float] = defaultdict(float)
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            return None
        atoms[match[1]] += float(match[2] or 1)
        end = match.end()
    return dict(atoms) if end == len(text) and atoms else None


def residual(reaction: Reaction, compounds: Mapping[str, Compound]) -> dict[str, float] | None:
    """Atoms created (positive) or lost by one turn of a reaction; {} when balanced, None when a formula is unknown."""
    total: dict[str, float] = defaultdict(float)
    for name, coefficient in reaction.stoichiometry.items():
        formula = compounds[name].formula
        if formula is None:
            return None
        for element, count in formula.items():
            total[element] += coefficient * count
    return {element: value for element, value in total.items() if abs(value) > BALANCE_TOLERANCE}


def close_boundaries(network: Network) -> Network:
    """Give every demand and biomass reaction an external product that holds what it takes, so that atoms balance.

    A demand of an internal compound fills that compound's external twin; a biomass reaction makes one external compound
    whose formula is the sum of what the reaction consumes (per gram of dry weight where the coefficients are mmol/gDW).
    """
    compounds, reactions = dict(network.compounds), dict(network.reactions)
    exchanges = dict(network.exchanges)
    for name, reaction in network.reactions.items():
        if len(reaction.stoichiometry) == 1:
            ((only, coefficient),) = reaction.stoichiometry.items()
            product, amount, formula = only + TWIN, -coefficient, network.compounds[only].formula
        elif is_biomass(name, network) and residual(reaction, compounds) != {}:
            product, amount = name + PRODUCT, 1.0
            lost = residual(reaction, compounds)
            formula = None if lost is None else {element: -value for element, value in lost.items()}
        else:
            continue
        compounds[product] = Compound(formula, external=True, base=product)
        reactions[name] = replace(reaction, stoichiometry={**reaction.stoichiometry, product: amount})
        exchanges[product] = (-UNLIMITED, UNLIMITED)
    return replace(network, compounds=compounds, reactions=reactions, exchanges=exchanges)


def is_biomass(name: str, network: Network) -> bool:
    """Whether a reaction builds biomass: it is the objective, or says so by its name."""
    return name in network.objective or "biomass" in name.lower() or name == "Growth"


def drop_unbalanced(network: Network) -> tuple[Network, dict[str, int]]:
    """Without the reactions whose known formulae don't balance, or of unknown formula, each kind counted."""
    kept, counts = {}, {"unbalanced": 0, "formula_unknown": 0}
    for name, reaction in network.reactions.items():
        left = residual(reaction, network.compounds)
        if left:
            counts["unbalanced"] += 1
            continue
        counts["formula_unknown"] += left is None
        kept[name] = reaction
    return _restrict(network, kept), counts


def drop_dead_ends(network: Network) -> Network:
    """Without reactions that can carry no steady flux because a compound of theirs is only made, or only used.

    Compounds are removed one by one until all that remain have a producer and a consumer (external ones: an exchange).
    """
    makers: dict[str, set[str]] = {name: set() for name in network.compounds}
    users: dict[str, set[str]] = {name: set() for name in network.compounds}
    for name, reaction in network.reactions.items():
        for compound, coefficient in reaction.stoichiometry.items():
            if reaction.upper > 0:
                (makers if coefficient > 0 else users)[compound].add(name)
            if reaction.lower < 0:
                (users if coefficient > 0 else makers)[compound].add(name)
    kept = dict(network.reactions)
    queue = deque(network.compounds)
    while queue:
        compound = queue.popleft()
        low, high = network.exchanges.get(compound, (0.0, 0.0))
        made, used = makers[compound], users[compound]
        single = len(made) == 1 and made == used and low == high == 0
        if (made or low < 0) and (used or high > 0) and not single:
            continue
        for name in sorted(made | used):
            kept.pop(name, None)
            for other in network.reactions[name].stoichiometry:
                makers[other].discard(name)
                users[other].discard(name)
                queue.append(other)
    return _restrict(network, kept)


def _restrict(network: Network, reactions: dict[str, Reaction]) -> Network:
    used = {compound for reaction in reactions.values() for compound in reaction.stoichiometry}
    return replace(
        network,
        reactions=reactions,
        compounds={name: c for name, c in network.compounds.items() if name in used},
        exchanges={name: bounds for name, bounds in network.exchanges.items() if name in used},
        objective={name: weight for name, weight in network.objective.items() if name in reactions},
    )


def stoichiometric_matrix(network: Network) -> sp.csr_matrix:
    """[C, R] signed coefficients in the order of the network's compounds and reactions."""
    row = {name: index for index, name in enumerate(network.compounds)}
    entries = [
        (row[compound], column, coefficient)
        for column, reaction in enumerate(network.reactions.values())
        for compound, coefficient in reaction.stoichiometry.items()
    ]
    rows, columns, values = zip(*entries, strict=True)
    return sp.csr_matrix((values, (rows, columns)), shape=(len(row), len(network.reactions)))


def solve_fluxes(network: Network, *, parsimony: bool = True) -> tuple[np.ndarray, dict[str, float]] | None:
    """Optimal fluxes [R] (mmol/gDW/h) and the net release of each external compound; None where there is no optimum.

    With `parsimony`, the unique pFBA optimum; without, the first optimum that the solver meets (faster).
    """
    if not network.objective:
        return None
    outside = [index for index, compound in enumerate(network.compounds.values()) if compound.external]
    names = list(network.compounds)
    bounds = [network.exchanges.get(names[index], (0.0, 0.0)) for index in outside]
    matrix = stoichiometric_matrix(network)
    leaving = sp.csr_matrix((-np.ones(len(outside)), (outside, range(len(outside)))), shape=(len(names), len(outside)))
    reactions = list(network.reactions.values())
    solve = parsimonious if parsimony else maximise
    fluxes = solve(
        sp.csr_matrix(sp.hstack([matrix, leaving])),
        np.array([r.lower for r in reactions] + [low for low, _ in bounds]),
        np.array([r.upper for r in reactions] + [high for _, high in bounds]),
        np.array([network.objective.get(name, 0.0) for name in network.reactions] + [0.0] * len(outside)),
    )
    if fluxes is None:
        return None
    released = {names[index]: float(v) for index, v in zip(outside, fluxes[len(reactions) :], strict=True)}
    return fluxes[: len(reactions)], released


def gas_exchange(network: Network, released: Mapping[str, float]) -> dict[str, float]:
    """Net release of each gas (mmol/gDW/h, negative: taken up) among those the network can exchange."""
    exchange: dict[str, float] = {}
    for name, value in released.items():
        gas = GAS_COMPOUNDS.get(network.compounds[name].base)
        if gas is not None:
            exchange[gas] = round(exchange.get(gas, 0.0) + value, 6)
    return exchange


def one_compartment(reaction: Reaction, compounds: Mapping[str, Compound]) -> dict[str, float] | None:
    """Stoichiometry over base compounds, or None for transport, biomass and boundary reactions (no plain ΔG′)."""
    bases: dict[str, float] = {}
    places = set()
    for name, coefficient in reaction.stoichiometry.items():
        base = compounds[name].base
        if name.endswith((PRODUCT, TWIN)):
            return None
        places.add(name.removeprefix(base))
        bases[base] = bases.get(base, 0.0) + coefficient
    return bases if len(places) == 1 and len(bases) > 1 else None


def network_energies(network: Network, *, compute: bool = True) -> dict[str, Energy]:
    """ΔG′° and sd (kJ/mol) of every reaction that one compartment holds; the others are absent."""
    plain = {name: one_compartment(reaction, network.compounds) for name, reaction in network.reactions.items()}
    return reaction_energies({name: s for name, s in plain.items() if s is not None}, compute=compute)


def graph_from_network(
    network: Network,
    energies: Mapping[str, Energy],
    solution: tuple[np.ndarray, dict[str, float]] | None = None,
    *,
    organism: str = "",
    guild: str = "",
    growth_temperature: float | None = None,
) -> MetabolicGraph:
    """Network, ΔG′ by reaction, and what `solve_fluxes` found → the contract's graph with structural encodings."""
    if not network.reactions:
        raise InputError("MetabolicGraph: expected ≥1 balanced reaction, found none; check the formulae of the model")
    compounds, reactions = network.compounds, network.reactions
    matrix = stoichiometric_matrix(network).tocsc()  # sorted by reaction, then compound
    matrix.sort_indices()
    matrix.eliminate_zeros()
    edge_reaction = np.repeat(np.arange(len(reactions)), np.diff(matrix.indptr))
    energy = np.array([energies.get(name, (np.nan, np.nan)) for name in reactions], dtype=np.float64)
    lower = np.array([r.lower for r in reactions.values()])
    upper = np.array([r.upper for r in reactions.values()])
    return MetabolicGraph(
        compounds=tuple(compounds),
        reactions=tuple(reactions),
        elements=np.stack([_element_vector(c.formula if c.certain else None) for c in compounds.values()]),
        charge=np.array([c.charge for c in compounds.values()]),
        external=np.array([c.external for c in compounds.values()]),
        edge_compound=matrix.indices.astype(np.int64),
        edge_reaction=edge_reaction,
        stoichiometry=matrix.data.astype(np.float64),
        dg_prime=energy[:, 0],
        dg_sd=energy[:, 1],
        reversible=(lower < 0) & (upper > 0),
        lower_bound=lower,
        upper_bound=upper,
        ec=tuple(r.ec for r in reactions.values()),
        encodings=random_walk_encodings(len(compounds), len(reactions), matrix.indices, edge_reaction),
        exchange=None if solution is None else gas_exchange(network, solution[1]),
        flux=None if solution is None else solution[0],
        organism=organism,
        guild=guild,
        growth_temperature=growth_temperature,
    )


def _element_vector(formula: Mapping[str, float] | None) -> np.ndarray:
    """[E] atoms of the contract's elements; groups (R, X, *) and rarer elements are not counted."""
    if formula is None:
        return np.full(len(ELEMENTS), np.nan)
    return np.array([formula.get(element, 0.0) for element in ELEMENTS])


def random_walk_encodings(
    n_compounds: int,
    n_reactions: int,
    edge_compound: Int[np.ndarray, " M"],
    edge_reaction: Int[np.ndarray, " M"],
    steps: int = ENCODING_STEPS,
    block: int = 256,
) -> Float[np.ndarray, "N {steps}"]:
    """[C + R, steps] probability that a random walk is back at its node after 2, 4, …, 2·steps steps.

    A bipartite graph returns after even steps only, so the odd ones (all zero) are left out. With the symmetric
    B = Dc^-½ A Dr^-½, the return probability after 2k steps is ‖B…Bᵀ e‖² of k alternating products: columns of the
    identity go through them in blocks, in single precision; no dense power of the whole matrix is ever formed.
    """
    ones = np.ones(len(edge_compound), dtype=np.float32)
    adjacency = sp.csr_matrix((ones, (edge_compound, edge_reaction)), shape=(n_compounds, n_reactions))
    adjacency.data[:] = 1.0  # an entry listed twice is still one edge
    scale = [1 / np.sqrt(np.maximum(np.asarray(adjacency.sum(axis=axis)).ravel(), 1)) for axis in (1, 0)]
    forth = sp.csr_matrix(sp.diags(scale[0]) @ adjacency @ sp.diags(scale[1]))
    back = sp.csr_matrix(forth.T)
    out = np.zeros((n_compounds + n_reactions, steps), dtype=np.float32)
    for offset, size, first, second in ((0, n_compounds, back, forth), (n_compounds, n_reactions, forth, back)):
        for start in range(0, size, block):
            stop = min(start + block, size)
            walk = np.eye(size, stop - start, -start, dtype=np.float32)
            for step in range(steps):
                walk = (first if step % 2 == 0 else second) @ walk
                out[offset + start : offset + stop, step] = np.einsum("ij,ij->j", walk, walk)
    return out
