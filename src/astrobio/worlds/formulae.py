"""Formulae and charges that make a merged reaction database balance, with the fewest changes.

Databases merged from many models draw FMN or methanofuran in different length or redox state and give no formula to
proteins. For each element one linear programme finds atoms per compound that minimise the summed imbalance of all
reactions plus a small price for every change of a published formula: sums of absolute values are smallest where most
terms vanish, so few formulae change and most reactions balance. Hydrogen and charge go together as H − charge, which
doesn't depend on how a compound is protonated; the caller then adds the protons that a reaction lacks. What still
doesn't balance is wrong in its stoichiometry and dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

CHARGE = "+"  # treated as one more element; it may be negative
BOUND_HYDROGEN = "H-+"  # hydrogen less charge
PRICE = 0.05  # of changing a published formula by one atom, against 1 for an imbalance of one atom in one reaction
UNKNOWN_PRICE = 1e-4  # of one atom in a compound without formula: the smallest one that balances is taken
TOLERANCE = 1e-6  # atoms

Atoms = Mapping[str, float]
Formulae = dict[str, tuple[dict[str, float], bool]]  # compound → (atoms and charge, whether that is its real formula)


def balance_formulae(
    published: Mapping[str, Atoms], reactions: Sequence[Mapping[str, float]], fixed: frozenset[str]
) -> Formulae:
    """Atoms and charge of every compound in `reactions`.

    Args:
        published: compound → atoms, with the charge under "+"; compounds without formula, or charges, are absent.
        reactions: stoichiometry over compounds without compartment. fixed: compounds never changed, such as gases.
    """
    around: dict[str, list[int]] = defaultdict(list)
    for index, stoichiometry in enumerate(reactions):
        for name in stoichiometry:
            around[name].append(index)
    given = {name: _without_protons(published[name]) for name in around if name in published}
    complete = {name for name in given if CHARGE in published[name]}
    faulty = [s for s in reactions if not (complete >= s.keys() and not imbalance(s, given))]
    free = sorted({name for stoichiometry in faulty for name in stoichiometry} - fixed)
    rows = [reactions[index] for index in sorted({index for name in free for index in around[name]})]
    atoms = {name: dict(given.get(name, {})) for name in sorted(around)}
    changed = {name for name in around if name not in given}
    for element in sorted({element for found in given.values() for element in found}):
        sure = complete if element == BOUND_HYDROGEN else given.keys()
        before = np.array([given.get(name, {}).get(element, 0.0) for name in free])
        after = _solve(element, free, rows, given, np.array([name in sure for name in free]))
        for name, old, new in zip(free, before, after, strict=True):
            if abs(new - old) > TOLERANCE and (name in sure or new != round(new)):
                changed.add(name)
            atoms[name][element] = float(new)
    hydrogen = _hydrogen(published, sorted(around.keys() - published.keys()), reactions)
    return {name: (_with_protons(found, hydrogen[name]), name not in changed) for name, found in atoms.items()}


def _hydrogen(published: Mapping[str, Atoms], unknown: list[str], reactions: Sequence[Mapping[str, float]]) -> Atoms:
    """Hydrogen per compound: as published, else what needs the fewest protons beyond those that reactions list."""
    given = {name: {"H": atoms.get("H", 0.0)} for name, atoms in published.items()}
    rows = [stoichiometry for stoichiometry in reactions if not given.keys() >= stoichiometry.keys()]
    counts = _solve("H", unknown, rows, given, np.zeros(len(unknown), dtype=bool))
    found = {name: round(float(count)) for name, count in zip(unknown, counts, strict=True)}
    return {name: atoms["H"] for name, atoms in given.items()} | found


def imbalance(stoichiometry: Mapping[str, float], atoms: Mapping[str, Atoms]) -> dict[str, float]:
    """Atoms that one turn of a reaction creates; empty where it balances."""
    total: dict[str, float] = defaultdict(float)
    for name, coefficient in stoichiometry.items():
        for element, count in atoms[name].items():
            total[element] += coefficient * count
    return {element: value for element, value in total.items() if abs(value) > TOLERANCE}


def _without_protons(atoms: Atoms) -> dict[str, float]:
    """Hydrogen and charge → hydrogen less charge."""
    rest = {element: count for element, count in atoms.items() if element not in ("H", CHARGE)}
    return rest | {BOUND_HYDROGEN: atoms.get("H", 0.0) - atoms.get(CHARGE, 0.0)}


def _with_protons(atoms: Atoms, hydrogen: float) -> dict[str, float]:
    """The inverse, once the hydrogen is known."""
    rest = {element: count for element, count in atoms.items() if element != BOUND_HYDROGEN}
    full = rest | {"H": hydrogen, CHARGE: round(hydrogen - atoms.get(BOUND_HYDROGEN, 0.0), 4)}
    return {element: count for element, count in full.items() if count}


def _solve(
    element: str, free: list[str], reactions: list[Mapping[str, float]], given: Mapping[str, Atoms], sure: np.ndarray
) -> np.ndarray:
    """Count of `element` in each free compound: least Σ|imbalance| + Σ price·|change|, as a linear programme.

    Variables: increase and decrease of each compound's count, then excess and lack of each reaction.
    """
    column = {name: index for index, name in enumerate(free)}
    start = np.array([given.get(name, {}).get(element, 0.0) for name in free])
    entries, known = [(0, 0, 0.0)], np.zeros(len(reactions))
    for row, stoichiometry in enumerate(reactions):
        for name, coefficient in stoichiometry.items():
            known[row] += coefficient * given.get(name, {}).get(element, 0.0)
            if name in column:
                entries.append((row, column[name], coefficient))
    rows, columns, values = zip(*entries, strict=True)
    change = sp.csr_matrix((values, (rows, columns)), shape=(len(reactions), len(free)))
    slack = sp.identity(len(reactions), format="csr")
    price = np.where(sure, PRICE, UNKNOWN_PRICE)
    lowest = np.maximum(start, 0.0) if element != BOUND_HYDROGEN else np.full(len(free), np.inf)
    solution = linprog(
        np.concatenate([price, price * 1.01, np.ones(2 * len(reactions))]),
        A_eq=sp.hstack([change, -change, -slack, slack], format="csr"),
        b_eq=-known,
        bounds=[(0, None)] * len(free) + [(0, limit) for limit in lowest] + [(0, None)] * (2 * len(reactions)),
        method="highs-ds",
    )
    assert solution.status == 0, "zero change is always feasible"
    return np.round(start + solution.x[: len(free)] - solution.x[len(free) : 2 * len(free)], 4) + 0.0
