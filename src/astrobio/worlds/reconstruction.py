"""Default organisms as mass-balanced networks, assembled from CarveMe's BiGG data and the models that cobra ships.

CarveMe (Machado et al. 2018, doi:10.1093/nar/gky537) lists the reactions of published models but neither their formulae
nor their biomass; its universes hold both. Formulae come first from the curated universes, then from the BiGG universe;
what is still unknown is inferred from reactions where it is the only unknown. What doesn't balance then is dropped.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from astrobio.errors import InputError
from astrobio.formats.network import (
    GAS_COMPOUNDS,
    TWIN,
    UNLIMITED,
    Compound,
    Network,
    Reaction,
    parse_formula,
    residual,
    solve_fluxes,
)
from astrobio.formats.thermodynamics import Energy
from astrobio.units import BIOCHEMICAL_TEMPERATURE, GAS_CONSTANT, METABOLITE_RANGE
from astrobio.worlds.formulae import CHARGE, Formulae, balance_formulae

_CORE = "{http://www.sbml.org/sbml/level3/version1/core}"
_FBC = "{http://www.sbml.org/sbml/level3/version1/fbc/version2}"
_EC = re.compile(r"ec-code/([\d.\-nB]+)")
CURATED = ("universe_archaea", "universe_bacteria", "universe_cyanobacteria")  # formulae checked by CarveMe's authors
WHOLE = "bigg_universe"
ENERGY = frozenset({"atp", "adp", "pi", "ppi", "h", "h2o"})  # growth-associated maintenance, not precursors
TRIAL_SHARE = 1e-3  # of a precursor's share per gram: small against any medium, large against the solver's tolerance
MENDED = {
    # The universe lost the product of this carbonic acid equilibrium of the carboxysome.
    "HCO3E1": {"co2_x": -1.0, "h2o_x": -1.0, "h2co3_x": 1.0},
    # Published with a leak of 0.5% superoxide in rounded coefficients, which no formula balances.
    "CYOO_HP": {
        "focytcc553_c": -4.0, "h_c": -6.0, "o2_c": -1.0, "ficytcc553_c": 4.0, "h2o_c": 2.0, "h_e": 2.0,
    },
}  # fmt: skip
# F420H2 + O2 releases 4·F·(0.815 + 0.340 V) = 446 kJ/mol (midpoint potentials at pH 7, Thauer et al. 1977); backwards,
# as the published model allows, it would split water for nothing. No ΔG′ is known for F420, so this is said by hand.
ONE_WAY = frozenset({"F4H2O"})
PERMEABLE = ("ch4", "co", "co2", "h2", "h2o", "n2", "n2o", "o2")


@dataclass(frozen=True)
class Universe:
    """Atoms by base compound (its charge, where given, under "+"); stoichiometry and EC by reaction; biomass."""

    formulae: dict[str, dict[str, float]]
    reactions: dict[str, tuple[dict[str, float], str]]
    biomass: dict[str, dict[str, float]]


def package_folder(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise InputError(
            f"{name}: expected the package that carries organisms, found none; pip install astrobio[simulate]"
        )
    return Path(spec.origin).parent


def base_name(identifier: str) -> str:
    """`glc__D_c` → `glc__D`."""
    return identifier.rsplit("_", 1)[0]


def read_universe() -> Universe:
    """Formulae, reactions and biomass of CarveMe's universes (about 6 s)."""
    folder = package_folder("carveme") / "data" / "generated"
    formulae: dict[str, dict[str, float]] = {"photon": {CHARGE: 0.0}}
    charges: dict[str, float] = {}
    biomass, reactions = {}, {}
    for name in (*CURATED, WHOLE):
        species, found = _read_sbml(folder / f"{name}.xml.gz")
        if "Growth" in found:
            biomass[name] = found["Growth"][0]
        for identifier, (formula, charge) in species.items():
            if formula and "*" not in formula:  # a protein's or lipid's rest, drawn differently from model to model
                formulae.setdefault(base_name(identifier), parse_formula(formula) or {})
            if charge:
                charges.setdefault(base_name(identifier), float(charge))
        reactions |= {key: value for key, value in found.items() if key not in reactions or name == WHOLE}
    reactions |= {name: (stoichiometry, "") for name, stoichiometry in MENDED.items()}
    formulae = {name: atoms | {CHARGE: charges[name]} if name in charges else atoms for name, atoms in formulae.items()}
    return Universe(formulae, reactions, biomass)


def _read_sbml(path: Path) -> tuple[dict[str, tuple[str | None, str | None]], dict[str, tuple[dict[str, float], str]]]:
    """Species → (formula, charge) as written, reaction → (stoichiometry, EC), of one of CarveMe's files."""
    species, reactions = {}, {}
    with gzip.open(path) as stream:
        for _, element in ElementTree.iterparse(stream):
            if element.tag == f"{_CORE}species":
                charge = element.get(f"{_FBC}charge") or _charge_in_notes(element)
                written = element.get(f"{_FBC}chemicalFormula"), charge
                species[element.attrib["id"].removeprefix("M_")] = written
                element.clear()
            elif element.tag == f"{_CORE}reaction":
                ec = next((m[1] for e in element.iter() for v in e.attrib.values() if (m := _EC.search(v))), "")
                reactions[element.attrib["id"].removeprefix("R_")] = (_stoichiometry(element), ec)
                element.clear()
    return species, reactions


def _charge_in_notes(element: ElementTree.Element) -> str | None:
    """CarveMe writes some charges as text only."""
    lines = (line.text or "" for line in element.iter() if line.tag.endswith("}p"))
    return next((line.removeprefix("CHARGE:").strip() for line in lines if line.startswith("CHARGE:")), None)


def _stoichiometry(element: ElementTree.Element) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for tag, sign in (("listOfReactants", -1.0), ("listOfProducts", 1.0)):
        for reference in element.iterfind(f"{_CORE}{tag}/{_CORE}speciesReference"):
            total[reference.attrib["species"].removeprefix("M_")] += sign * float(reference.attrib["stoichiometry"])
    return {name: value for name, value in total.items() if value}


def model_reactions() -> dict[str, dict[str, tuple[float, float]]]:
    """BiGG model → reaction → bounds (mmol/gDW/h), copies of one reaction merged, of CarveMe's published models."""
    path = package_folder("carveme") / "data" / "generated" / "model_specific_data.csv"
    models: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            name = re.sub(r"_copy\d$", "", row["reaction"])
            low, high = models[row["model"]].get(name, (0.0, 0.0))
            models[row["model"]][name] = (min(low, float(row["lb"])), max(high, float(row["ub"])))
    return models


def balanced_formulae(universe: Universe, names: Iterable[str]) -> Formulae:
    """Formulae that balance as many of the named reactions as possible (see `balance_formulae`)."""
    published = universe.formulae
    merged = (_merge(universe.reactions[name][0]) for name in sorted(names) if name in universe.reactions)
    formulae = balance_formulae(published, [s for s in merged if s], ENERGY | GAS_COMPOUNDS.keys())
    return {name: (atoms, True) for name, atoms in published.items()} | formulae


def _merge(stoichiometry: Mapping[str, float]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for name, value in stoichiometry.items():
        total[base_name(name)] += value
    return {name: value for name, value in total.items() if value}


def assemble(
    bounds: Mapping[str, tuple[float, float]], universe: Universe, formulae: Formulae, biomass: str
) -> Network:
    """The network of one of CarveMe's models, every external compound exchangeable, with its universe's biomass."""
    chosen = {name: universe.reactions[name] for name in sorted(bounds) if name in universe.reactions}
    chosen = {name: (dict(s), ec) for name, (s, ec) in chosen.items() if len(s) > 1}
    growth = universe.biomass[biomass]
    chosen |= _diffusion({name for s, _ in chosen.values() for name in s})
    names = sorted({name for s, _ in chosen.values() for name in s} | set(growth))
    compounds = {}
    for name in names:
        atoms, certain = formulae.get(base_name(name), (None, False))
        compounds[name] = Compound(atoms, (atoms or {}).get(CHARGE, 0.0), name.endswith("_e"), base_name(name), certain)
    reactions = {name: Reaction(s, *_limits(name, bounds), ec) for name, (s, ec) in chosen.items()}
    reactions = {name: add_protons(reaction, compounds) for name, reaction in reactions.items()}
    reactions["Growth"] = Reaction(growth, 0.0, UNLIMITED)
    exchanges = {name: (0.0, UNLIMITED) for name, compound in compounds.items() if compound.external}
    return Network(compounds, reactions, exchanges, {"Growth": 1.0})


def _limits(name: str, bounds: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    low, high = bounds.get(name, (-UNLIMITED, UNLIMITED))
    return 0.0 if name in ONE_WAY else max(low, -UNLIMITED), min(high, UNLIMITED)


def _diffusion(compounds: set[str]) -> dict[str, tuple[dict[str, float], str]]:
    """Small uncharged gases cross membranes by themselves; some models leave that out."""
    present = [base for base in PERMEABLE if {f"{base}_c", f"{base}_e"} & compounds]
    return {f"{base}_diffusion": ({f"{base}_c": -1.0, f"{base}_e": 1.0}, "") for base in present}


def add_protons(reaction: Reaction, compounds: Mapping[str, Compound]) -> Reaction:
    """Add the protons that a reaction lacks (as much charge as hydrogen), in the cytosol where it reaches there."""
    lost = residual(reaction, compounds) or {}
    if set(lost) != {"H", CHARGE} or abs(lost["H"] - lost[CHARGE]) > 1e-6:
        return reaction
    places = {name.rsplit("_", 1)[1] for name in reaction.stoichiometry}
    proton = f"h_{'c' if 'c' in places else min(places)}"
    if proton not in compounds:
        return reaction
    amount = round(reaction.stoichiometry.get(proton, 0.0) - lost["H"], 6)
    rest = {name: value for name, value in reaction.stoichiometry.items() if name != proton}
    return replace(reaction, stoichiometry=rest | {proton: amount} if amount else rest)


def producible_biomass(network: Network) -> tuple[Network, int]:
    """The network with its biomass cut down to the precursors it can make in its present medium, and how many it lost.

    One linear programme: every precursor gets a demand of at most a thousandth of its share and all are maximised
    together (flux cones scale, so what each can reach alone all reach at once, unless the medium is smaller than that).
    Energy, water and the phosphates stay whatever they are.
    """
    growth = network.reactions["Growth"].stoichiometry
    wanted = {name: -value for name, value in growth.items() if value < 0 and base_name(name) not in ENERGY}
    reactions = {name: reaction for name, reaction in network.reactions.items() if name != "Growth"}
    compounds, exchanges = dict(network.compounds), dict(network.exchanges)
    for name, amount in wanted.items():
        sink = name + TWIN
        compounds[sink] = Compound(None, external=True, base=sink)
        exchanges[sink] = (0.0, UNLIMITED)
        reactions[sink] = Reaction({name: -1.0, sink: 1.0}, 0.0, amount * TRIAL_SHARE)
    objective = {name + TWIN: 1 / amount for name, amount in wanted.items()}
    solution = solve_fluxes(Network(compounds, reactions, exchanges, objective), parsimony=False)
    assert solution is not None, "zero flux is always feasible here"
    made = {name for name, amount in wanted.items() if solution[1][name + TWIN] > 0.1 * amount * TRIAL_SHARE}
    kept = {name: value for name, value in growth.items() if name not in wanted or name in made}
    reduced = {**network.reactions, "Growth": Reaction(kept, 0.0, UNLIMITED)}
    return replace(network, reactions=reduced), len(wanted) - len(made)


def obey_second_law(network: Network, energies: Mapping[str, Energy]) -> tuple[Network, int]:
    """Without the directions that no concentration in 1 µM–10 mM and two standard deviations of ΔG′ allow, counted.

    A reaction that its model runs one way only stays as it is, whatever ΔG′ says: its product may be drawn off at once.
    """
    reactions, closed = dict(network.reactions), 0
    for name, reaction in network.reactions.items():
        energy, deviation = energies.get(name, (float("nan"), float("nan")))
        if energy != energy or reaction.lower >= 0 or reaction.upper <= 0:
            continue
        low, high = gibbs_range(reaction, energy, deviation)
        if high < 0 or low > 0:
            limits = (0.0, reaction.upper) if high < 0 else (reaction.lower, 0.0)
            reactions[name] = replace(reaction, lower=limits[0], upper=limits[1])
            closed += 1
    return replace(network, reactions=reactions), closed


def gibbs_range(reaction: Reaction, energy: float, deviation: float) -> tuple[float, float]:
    """Lowest and highest ΔG′ (kJ/mol) over the physiological concentrations; protons and water stay as they are."""
    rt = GAS_CONSTANT * BIOCHEMICAL_TEMPERATURE / 1000
    low, high = (math.log(value) for value in METABOLITE_RANGE)
    made = sum(v for name, v in reaction.stoichiometry.items() if v > 0 and base_name(name) not in ("h", "h2o"))
    used = sum(v for name, v in reaction.stoichiometry.items() if v < 0 and base_name(name) not in ("h", "h2o"))
    spread = 2 * deviation
    return energy + rt * (made * low + used * high) - spread, energy + rt * (made * high + used * low) + spread
