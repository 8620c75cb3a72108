"""Physical and logical plausibility, as pure functions: arrays, a part of a sample, or a sample → findings.

Dimension letters: L spectral points, C compounds, R reactions, E chemical elements.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from astrobio.batch import ClimateCube, MetabolicGraph, Sample, Spectrum
from astrobio.quality.findings import Finding
from astrobio.quality.rules import finding

DRIFT = 5.0  # W/m², global imbalance above which a climate has not settled (Earth's is 0.8, Loeb et al. 2021)
IMBALANCE = 50.0  # W/m², beyond any drift: a sign, a unit or a field is wrong
OUTLIER_SIGMAS = 20.0  # robust standard deviations in a climate field, whose tails are long
POINT_SIGMAS = 6.0  # robust standard deviations of a spectral point from its neighbours
SCATTER_RATIO = (0.2, 5.0)  # scatter between neighbours over stated σ; outside, σ is doubtful
BALANCE_TOLERANCE = 1e-6  # atoms, charges; memote compares floats exactly and flags 3 × 0.1 ≠ 0.3
UNBALANCED_SHARE = 0.01  # of internal reactions
FLUX_TOLERANCE = 1e-6  # mmol/gDW/h, LP solvers' feasibility tolerance
MAD_TO_SIGMA = 1.4826  # standard deviations of a Gaussian per median absolute deviation
SHOWN = 5  # examples named in one message


def named(items: list[str], total: int | None = None) -> str:
    """The first few of many names."""
    count = len(items) if total is None else total
    shown = ", ".join(items[:SHOWN])
    return shown + (f" and {count - SHOWN} more" if count > SHOWN else "")


def check_axis(name: str, values: np.ndarray, kind: str) -> list[Finding]:
    """A coordinate axis of kind latitude, longitude, level, time or realization: monotone, finite, in range."""
    found = []
    if values.ndim != 1 or values.dtype.kind not in "fiu" or values.size == 0:
        return found
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        return [finding("CLIM-001", name, f"expected finite values, found {values[bad]} at index {bad}")]
    steps = np.diff(values)
    if len(steps) and not ((steps > 0).all() or (steps < 0).all()):
        turn = int(np.flatnonzero(np.sign(steps) != np.sign(steps[0] or 1))[0])
        what = "a repeat" if steps[turn] == 0 else "a reversal"
        message = f"expected strictly monotone values, found {what} at index {turn + 1} ({values[turn + 1]:g})"
        found.append(finding("CLIM-001", name, message))
    low, high = float(values.min()), float(values.max())
    if kind == "latitude" and (low < -90.001 or high > 90.001):
        found.append(finding("CLIM-002", name, f"expected −90…90 degrees, found {low:g}…{high:g}"))
    if kind == "longitude" and (high - low > 360.001 or low < -360 or high > 720):
        found.append(finding("CLIM-002", name, f"expected at most 360 degrees, found {low:g}…{high:g}"))
    return found


def check_energy_budget(asr: float, olr: float) -> list[Finding]:
    """Global-mean absorbed stellar and outgoing longwave radiation, W/m²."""
    net = asr - olr
    message = f"ASR {asr:.1f}, OLR {olr:.1f} W/m²: expected a net near 0, found {net:+.1f}"
    if abs(net) > IMBALANCE:
        return [finding("CLIM-008", "top of atmosphere", message)]
    if abs(net) > DRIFT:
        return [finding("CLIM-007", "top of atmosphere", message)]
    return []


def check_climate(cube: ClimateCube) -> list[Finding]:
    """A cube of the contract (whose ranges and axes its constructor has checked): the energy budget, dead fields."""
    found = []
    if {"toa_net_downward_shortwave_flux", "toa_outgoing_longwave_flux"} <= set(cube.fields):
        asr, olr = (cube.global_mean(f"toa_{n}_flux") for n in ("net_downward_shortwave", "outgoing_longwave"))
        found += check_energy_budget(asr, olr)
    for name, values in cube.fields.items():
        if float(np.ptp(values)) == 0.0:
            found.append(finding("CLIM-010", name, f"expected varying values, found {values.flat[0]:g} everywhere"))
    return found


def rows_of(mask: np.ndarray) -> str:
    """`rows 3, 8, 9 and 4 more` (counted from 1) of a boolean mask."""
    rows = np.flatnonzero(mask) + 1
    return f"rows {named([str(r) for r in rows[:SHOWN]], len(rows))}"


def check_spectrum_columns(
    wavelength: np.ndarray, value: np.ndarray, sigma: np.ndarray, order: np.ndarray | None = None
) -> tuple[list[Finding], dict[int, list[str]]]:
    """Raw columns [L] as a file gives them (wavelength and value in any unit, σ in that of the value).

    Returns:
        Findings, and the rules broken by each row (counted from 1) that is to be set aside.
    """
    found: list[Finding] = []
    reasons: dict[int, list[str]] = defaultdict(list)
    rows = np.stack([wavelength, value, sigma] + ([] if order is None else [order]), axis=1)
    _, first = np.unique(np.nan_to_num(rows, nan=-1.0), axis=0, return_index=True)
    copy = np.ones(len(rows), bool)
    copy[first] = False
    key = np.stack([wavelength, np.zeros_like(wavelength) if order is None else order], axis=1)
    _, first = np.unique(key, axis=0, return_index=True)
    repeated = np.ones(len(rows), bool)
    repeated[first] = False
    with np.errstate(invalid="ignore"):
        tests = [
            ("SPEC-001", ~(sigma > 0) | ~np.isfinite(sigma), sigma, "expected σ > 0"),
            ("SPEC-002", ~(wavelength > 0) | ~np.isfinite(wavelength), wavelength, "expected a wavelength > 0"),
            ("SPEC-002", repeated & ~copy & np.isfinite(wavelength), wavelength, "expected each wavelength once"),
            ("SPEC-003", ~np.isfinite(value), value, "expected a finite value"),
            ("SPEC-006", copy, wavelength, "expected each row once"),
        ]
    for rule, mask, column, expected in tests:
        if mask.any():
            seen = column[mask][0]
            found.append(finding(rule, rows_of(mask), f"{expected}, found {seen:g} first", count=int(mask.sum())))
            for row in np.flatnonzero(mask):
                reasons[int(row) + 1].append(rule)
    clean = np.isfinite(wavelength)
    if order is None and clean.any() and not (_monotone(wavelength[clean])):
        found.append(finding("SPEC-009", "wavelength", "expected increasing wavelengths, found another order"))
    return found, dict(reasons)


def _monotone(values: np.ndarray) -> bool:
    steps = np.diff(values)
    return bool((steps >= 0).all() or (steps <= 0).all())


def check_spectrum(spectrum: Spectrum) -> list[Finding]:
    """A spectrum of the contract: range of the values, points off their neighbours, scatter against σ."""
    found = []
    low, high = (0.0, 1.5) if spectrum.kind == "reflection" else (0.0, 1e6)
    slack = 5.0 * spectrum.sigma  # noise may carry a faint point below zero
    outside = (spectrum.value < low - slack) | (spectrum.value > high + slack)
    if outside.any():
        message = f"expected {low:g}…{high:g}, found {spectrum.value[outside][0]:g}"
        found.append(finding("SPEC-004", rows_of(outside), message, count=int(outside.sum())))
    if len(spectrum.value) < 8:
        return found
    curvature = spectrum.value[1:-1] - (spectrum.value[:-2] + spectrum.value[2:]) / 2
    expected = np.sqrt(spectrum.sigma[1:-1] ** 2 + (spectrum.sigma[:-2] ** 2 + spectrum.sigma[2:] ** 2) / 4)
    spread = MAD_TO_SIGMA * float(np.median(np.abs(curvature - np.median(curvature))))
    off = np.zeros(len(spectrum.value), bool)
    off[1:-1] = np.abs(curvature) > POINT_SIGMAS * np.maximum(spread, expected)
    if off.any():
        where = named([f"{w:.4g} µm" for w in spectrum.wavelength[off]])
        found.append(finding("SPEC-005", where, "expected points near their neighbours", count=int(off.sum())))
    ratio = float(np.median(np.abs(curvature) / expected)) * MAD_TO_SIGMA
    if not SCATTER_RATIO[0] <= ratio <= SCATTER_RATIO[1]:
        message = f"expected scatter near the stated σ, found {ratio:.2g} times it"
        found.append(finding("SPEC-008", "uncertainties", message))
    return found


def stoichiometric_residual(graph: MetabolicGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([R, E] atoms created, [R] charge created, [R] whether all formulae of the reaction are known)."""
    reactions = len(graph.reactions)
    known = np.isfinite(graph.elements.sum(axis=1))
    atoms = np.zeros((reactions, graph.elements.shape[1]))
    amounts = np.nan_to_num(graph.elements)[graph.edge_compound] * graph.stoichiometry[:, None]
    np.add.at(atoms, graph.edge_reaction, amounts)
    charge = np.zeros(reactions)
    np.add.at(charge, graph.edge_reaction, graph.charge[graph.edge_compound] * graph.stoichiometry)
    complete = np.ones(reactions, bool)
    complete[graph.edge_reaction[np.logical_not(known[graph.edge_compound])]] = False
    return atoms, charge, complete


def check_metabolism(graph: MetabolicGraph) -> list[Finding]:
    """A graph of the contract: mass and charge balance, bounds, copies, formulae, thermodynamics, known fluxes."""
    atoms, charge, complete = stoichiometric_residual(graph)
    unbalanced = complete & (np.abs(atoms).max(axis=1) > BALANCE_TOLERANCE)
    found = balance_findings([graph.reactions[i] for i in np.flatnonzero(unbalanced)], int(complete.sum()))
    charged = complete & ~unbalanced & (np.abs(charge) > BALANCE_TOLERANCE)
    if charged.any():
        names = named([graph.reactions[i] for i in np.flatnonzero(charged)])
        found.append(finding("MET-003", names, "expected charge to balance", count=int(charged.sum())))
    crossed = graph.lower_bound > graph.upper_bound
    if crossed.any():
        names = named([graph.reactions[i] for i in np.flatnonzero(crossed)])
        found.append(finding("MET-007", names, "expected lower ≤ upper bound", count=int(crossed.sum())))
    unknown = np.isnan(graph.elements.sum(axis=1))
    if unknown.mean() > 0.1:
        message = f"expected formulae, found none for {unknown.sum()} of {len(unknown)} compounds"
        found.append(finding("MET-009", "compounds", message, count=int(unknown.sum())))
    return found + _copies(graph) + _uphill(graph) + _flux_balance(graph)


def balance_findings(unbalanced: list[str], judged: int) -> list[Finding]:
    """Reactions that create or destroy atoms, out of those that could be judged: a warning, or an error where many."""
    if not unbalanced:
        return []
    rule = "MET-001" if len(unbalanced) > UNBALANCED_SHARE * judged else "MET-002"
    message = f"expected E·S = 0, found {len(unbalanced)} of {judged} reactions out of balance"
    return [finding(rule, named(unbalanced), message, count=len(unbalanced))]


def _copies(graph: MetabolicGraph) -> list[Finding]:
    """Reactions with the same compounds and coefficients, up to direction and scale."""
    order = np.lexsort((graph.edge_compound, graph.edge_reaction))
    compound, coefficient = graph.edge_compound[order], graph.stoichiometry[order]
    starts = np.searchsorted(graph.edge_reaction[order], np.arange(len(graph.reactions) + 1))
    seen: dict[tuple[bytes, bytes], str] = {}
    copies = []
    for index, name in enumerate(graph.reactions):
        part = slice(starts[index], starts[index + 1])
        if starts[index] == starts[index + 1]:
            continue
        scaled = np.round(coefficient[part] / coefficient[part][0], 9)
        first = seen.setdefault((compound[part].tobytes(), scaled.tobytes()), name)
        if first != name:
            copies.append(f"{name} = {first}")
    return [finding("MET-008", named(copies), "expected each once", count=len(copies))] if copies else []


def _uphill(graph: MetabolicGraph) -> list[Finding]:
    from astrobio.batch.graph import minimum_gibbs_energy  # stands on torch, which other kinds of files do without

    lowest = minimum_gibbs_energy(graph)
    with np.errstate(invalid="ignore"):
        forced = (graph.lower_bound >= 0) & (graph.upper_bound > 0) & (lowest > 0)
    if not forced.any():
        return []
    names = named([f"{graph.reactions[i]} ({lowest[i]:+.0f} kJ/mol)" for i in np.flatnonzero(forced)])
    return [finding("MET-011", names, "expected ΔG′ ≤ 0 at 1 µM–10 mM", count=int(forced.sum()))]


def _flux_balance(graph: MetabolicGraph) -> list[Finding]:
    if graph.flux is None:
        return []
    net, gross = np.zeros(len(graph.compounds)), np.zeros(len(graph.compounds))
    turnover = graph.stoichiometry * graph.flux[graph.edge_reaction]
    np.add.at(net, graph.edge_compound, turnover)
    np.add.at(gross, graph.edge_compound, np.abs(turnover))
    off = ~graph.external & (np.abs(net) > FLUX_TOLERANCE * np.maximum(1.0, gross))
    if not off.any():
        return []
    names = named([graph.compounds[i] for i in np.flatnonzero(off)])
    message = f"expected S·v = 0, found a largest residual of {np.abs(net[off]).max():.3g} mmol/gDW/h"
    return [finding("MET-012", names, message, count=int(off.sum()))]


def check_sample(sample: Sample) -> list[Finding]:
    """Everything that can be said about one world of the contract."""
    found = []
    if sample.spectrum is not None:
        found += check_spectrum(sample.spectrum)
    if sample.climate is not None:
        found += check_climate(sample.climate)
    if sample.metabolism is not None:
        found += check_metabolism(sample.metabolism)
    return found
