"""Chemical disequilibrium of an atmosphere: the Gibbs energy that its gases would release on the way to equilibrium.

After Krissansen-Totton, Bergsman & Catling (2016), doi:10.1089/ast.2015.1327: Φ = G(observed) − G(equilibrium) at the
surface's temperature and pressure, in J per mol of the observed atmosphere, all gases ideal and no condensed phase.
Cantera's VCS solver seeks the equilibrium from one start after another until a result is certified. The minimum of an
ideal mixture is the only one, so duality can certify it: multipliers λ of the elements with Σᵢ exp(aᵢ·λ − gᵢ/RT) ≤ 1
bound G from below, and what lies between bound and result is the largest possible error. Dimension letters: S species,
E elements.

Thermodynamic data: the NASA polynomials that Cantera ships (`nasa_gas.yaml`, NASA/TP-2002-211556), valid from 200 K and
extrapolated on colder worlds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from astrobio import units
from astrobio.errors import InputError
from astrobio.worlds.climate import one_thread

# Everything that C, H, N and O can turn into in such air, and the noble gases. Radicals are left out: below 450 K their
# equilibrium abundances are under 1e-15.
SPECIES = (
    "N2", "CO2", "O2", "H2O", "CO", "CH4", "H2", "O3", "N2O", "NO", "NO2", "HNO3", "NH3", "H2O2", "HCN", "C2H6",
    "CH3OH", "HCOOH", "He", "Ne", "Ar", "Kr", "Xe",
)  # fmt: skip
HOT_STARTS = (None, 800.0, 2000.0)  # K: the mixture as it is, and relaxed at these temperatures first
TOLERANCE = 1e-3  # J/mol; the largest error that a certificate may leave
PRESENT = 1e-200  # mole fraction from which a chemical potential can be evaluated


@dataclass(frozen=True)
class Equilibrium:
    """Where a mixture ends up.

    Args:
        energy: available Gibbs energy, J per mol of the initial mixture.
        gases: mole fraction of each of `SPECIES` at equilibrium.
        error: J/mol, the most by which `energy` can fall short of the true value.
    """

    energy: float
    gases: Mapping[str, float]
    error: float


@lru_cache(maxsize=1)
def _phase() -> Any:
    """The ideal gas of `SPECIES`, read once per process (0.1 s)."""
    import cantera

    known = {species.name: species for species in cantera.Species.list_from_file("nasa_gas.yaml")}
    return cantera.Solution(thermo="ideal-gas", species=[known[name] for name in SPECIES])


@lru_cache(maxsize=1)
def _atoms() -> np.ndarray:
    """[S, E] atoms of each element in a molecule."""
    gas = _phase()
    return np.array([[gas.n_atoms(name, element) for element in gas.element_names] for name in SPECIES], dtype=float)


def equilibrium(gases: Mapping[str, float], temperature: float, pressure: float) -> Equilibrium:
    """Let a mixture react to equilibrium at constant temperature and pressure.

    Args:
        gases: mole fractions, some of `SPECIES`; scaled to a sum of 1. temperature: K. pressure: Pa.

    Raises:
        InputError: an unknown gas, or an impossible mixture, temperature or pressure.
        ArithmeticError: no start led to an equilibrium that the certificate accepts.
    """
    initial = _mole_fractions(gases, temperature, pressure)
    with one_thread():
        for start in HOT_STARTS:
            found = _relax(initial, temperature, pressure, start)
            if found is not None and found.error <= TOLERANCE:
                return found
    raise ArithmeticError(f"no certified equilibrium of {dict(gases)} at {temperature} K and {pressure} Pa")


def available_gibbs_energy(gases: Mapping[str, float], temperature: float, pressure: float) -> float:
    """J per mol of atmosphere (see `equilibrium`), rounded to 1e-3: what the certificate guarantees."""
    return round(max(equilibrium(gases, temperature, pressure).energy, 0.0), 3)


def moist(gases: Mapping[str, float], water: float) -> dict[str, float]:
    """Mole fractions of moist air from those of dry air and the H2O mole fraction."""
    return {gas: value * (1.0 - water) for gas, value in gases.items()} | {"H2O": water}


def _mole_fractions(gases: Mapping[str, float], temperature: float, pressure: float) -> np.ndarray:
    unknown = sorted(set(gases) - set(SPECIES))
    if unknown:
        raise InputError(f"gases: expected some of {SPECIES}, found {unknown}")
    values = np.array([gases.get(name, 0.0) for name in SPECIES], dtype=float)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise InputError(f"gases: expected mole fractions from 0, one above it, found {dict(gases)}")
    if not (100.0 <= temperature <= 6000.0 and 0.0 < pressure < np.inf):
        raise InputError(f"temperature, pressure: expected 100–6000 K and above 0 Pa, found {temperature}, {pressure}")
    return values / values.sum()


def _relax(initial: np.ndarray, temperature: float, pressure: float, start: float | None) -> Equilibrium | None:
    """One run of the solver; None where it did not converge."""
    import cantera

    gas = _phase()
    gas.TPX = temperature, pressure, initial
    before, mass = gas.gibbs_mole, gas.mean_molecular_weight
    try:
        for kelvin in (start, temperature):
            if kelvin is not None:
                gas.TP = kelvin, pressure
                gas.equilibrate("TP", solver="vcs", rtol=1e-10, max_steps=5000)
    except cantera.CanteraError:
        return None
    moles = mass / gas.mean_molecular_weight  # of gas at equilibrium per initial mole
    after = gas.gibbs_mole * moles
    lost = np.abs(_atoms().T @ (gas.X * moles - initial)).max()
    error = (after - _lower_bound(initial, gas)) / 1e3 + (np.inf if lost > 1e-9 else 0.0)
    return Equilibrium((before - after) / 1e3, dict(zip(SPECIES, gas.X.tolist(), strict=True)), max(float(error), 0.0))


def _lower_bound(initial: np.ndarray, gas: Any) -> float:
    """J per kmol of initial mixture that no composition of its elements can undercut (weak duality).

    λ is fitted to the chemical potentials of what is there. Should it violate its constraint, lowering every λ by the
    logarithm of the sum mends that, because each molecule has at least one atom.
    """
    atoms = _atoms()
    content = atoms.T @ initial  # [E]
    thermal = 1e3 * units.GAS_CONSTANT * gas.T  # J/kmol
    possible = ~((atoms > 0) & (content <= 0)).any(axis=1)  # species of elements that are there
    present = possible & (gas.X > PRESENT)
    weight = np.sqrt(np.maximum(gas.X[present], 1e-16))
    potential = gas.chemical_potentials[present] / thermal
    lam = np.linalg.lstsq(atoms[present] * weight[:, None], potential * weight, rcond=1e-14)[0]
    standard = gas.standard_gibbs_RT[possible]  # of the pure gas at this pressure, in RT
    excess = np.log(np.exp(np.minimum(atoms[possible] @ lam - standard, 700.0)).sum())
    return float(thermal * (content @ lam - max(excess, 0.0) * content.sum()))
