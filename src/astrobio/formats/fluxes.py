"""Flux balance analysis on a stoichiometric matrix, solved by SciPy's HiGHS (simplex): no other solver is needed.

Dimension letters: C compounds, R reactions.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.optimize import linprog

OBJECTIVE_WEIGHT = 1e6  # of the objective against the summed flux; growth costs at most about 3e4 mmol of flux per unit
FLUX_ZERO = 1e-7  # mmol/gDW/h; smaller fluxes are solver noise


def maximise(
    stoichiometry: sp.csr_matrix,
    lower: Float[np.ndarray, " R"],
    upper: Float[np.ndarray, " R"],
    objective: Float[np.ndarray, " R"],
) -> Float[np.ndarray, " R"] | None:
    """Fluxes (mmol/gDW/h) that maximise `objective · v` under S·v = 0 and the bounds; None where there is no optimum.

    Source: flux balance analysis, Orth et al. 2010, doi:10.1038/nbt.1614.
    """
    balance = np.zeros(len(stoichiometry.indptr) - 1)
    bounds = np.column_stack([lower, upper])
    solution = linprog(-objective, A_eq=stoichiometry, b_eq=balance, bounds=bounds, method="highs-ds")
    return solution.x if solution.status == 0 else None


def parsimonious(
    stoichiometry: sp.csr_matrix,
    lower: Float[np.ndarray, " R"],
    upper: Float[np.ndarray, " R"],
    objective: Float[np.ndarray, " R"],
) -> Float[np.ndarray, " R"] | None:
    """The optimum of `maximise` with the smallest weighted sum of absolute fluxes (pFBA, Lewis et al. 2010).

    One linear programme does both: the objective weighs so much more than the fluxes that none of it is given up. Flux
    balance optima are degenerate; this one carries no loops. The fluxes' own weights, 1 + 1e-3 · frac(i · φ), make it
    unique in general, so that it doesn't depend on the path the solver takes. Rounded to 1e-6 mmol/gDW/h.
    """
    size = len(lower)
    weights = 1.0 + 1e-3 * np.modf(np.arange(1, size + 1) * (np.sqrt(5) - 1) / 2)[0]
    back = np.flatnonzero(lower < 0)  # v = forward − backward, both non-negative
    gain = OBJECTIVE_WEIGHT * objective
    least = np.concatenate([np.maximum(lower, 0), np.maximum(-upper[back], 0)])
    most = np.concatenate([np.maximum(upper, 0), -lower[back]])
    solution = linprog(
        np.concatenate([weights - gain, (weights + gain)[back]]),
        A_eq=sp.hstack([stoichiometry, -stoichiometry[:, back]], format="csr"),
        b_eq=np.zeros(len(stoichiometry.indptr) - 1),
        bounds=np.column_stack([least, most]),
        method="highs-ds",
    )
    if solution.status != 0:
        return None
    fluxes = solution.x[:size].copy()
    fluxes[back] -= solution.x[size:]
    return np.where(np.abs(fluxes) < FLUX_ZERO, 0.0, np.round(fluxes, 6)) + 0.0
