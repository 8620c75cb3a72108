"""Ranges that hold the truth of the retrieved physics: split-conformal quantiles of what predictions miss.

`Quantiles` are inputs → target → state → (lower, upper): inputs joined by `+` in the order of `MODALITIES`, targets of
`PHYSICS_TARGETS`, the likeliest state or `ANY`, and what to add to a prediction, in the units of `PHYSICS_UNITS`.

Dimension letters: N worlds, M modalities, K physics targets.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from astrobio.batch import MODALITIES, PHYSICS_TARGETS, WORLD_STATES
from astrobio.batch.statistics import MIXING_RATIO_FLOOR
from astrobio.evaluation.metrics import share_interval
from astrobio.evaluation.predictions import Predictions

ANY = "any"  # quantiles of all held-out worlds, for states that have too few of their own
STATE_WORLDS = 100  # fewest held-out worlds of a state, or of fewer inputs, for quantiles of its own: coverage then
# scatters by 3% (1 sd)
MIXING_RATIO = "log10 volume mixing ratio"
PHYSICS_UNITS = {
    name: MIXING_RATIO if name.startswith("log10_") else {"surface_temperature": "K"}.get(name, "W/m2")
    for name in PHYSICS_TARGETS
}
Quantiles = dict[str, dict[str, dict[str, tuple[float, float]]]]


def inputs_key(inputs: Collection[str]) -> str:
    """Modalities in any order → their key in `Quantiles`."""
    return "+".join(name for name in MODALITIES if name in inputs)


def residual_quantiles(residuals: Float[np.ndarray, "N"], miscoverage: float) -> tuple[float, float] | None:
    """The k-th smallest and the k-th largest residual, k = ⌊(n + 1)·α/2⌋; None where k = 0, as below 19 at α = 0.1.

    A new residual exchangeable with these lies below the one, and above the other, with a probability of at most α/2
    each (two one-sided bounds, Romano et al. 2019, arXiv:1905.03222).
    """
    rank = math.floor((len(residuals) + 1) * miscoverage / 2 + 1e-9)  # a product such as 60 · 0.05 must not fall short
    if rank == 0:
        return None
    ordered = np.sort(residuals)
    return float(ordered[rank - 1]), float(ordered[-rank])


def fit_ranges(found: Predictions, states: Int[np.ndarray, "N"], miscoverage: float) -> Quantiles:
    """Quantiles of truth − prediction over held-out worlds that were shown all inputs any of them was shown.

    Class-conditional (Mondrian: Vovk 2012, arXiv:1209.2673) by the likeliest state, which is known when a world is
    assessed, where `STATE_WORLDS` allow it.

    Args:
        states: [N] likeliest state, index into `WORLD_STATES`.
    """
    if found.physics is None or found.physics_truth is None:
        return {}
    inputs: np.ndarray = np.any(found.present, axis=0)
    complete = (found.present == inputs).all(axis=1)
    residuals, states = (found.physics_truth - found.physics)[complete], states[complete]
    targets = {}
    for name, column in zip(PHYSICS_TARGETS, residuals.T, strict=True):
        known = np.isfinite(column)
        quantiles = _by_state(column[known], states[known], miscoverage)
        if quantiles:
            targets[name] = quantiles
    key = inputs_key([name for name, shown in zip(MODALITIES, inputs, strict=True) if shown])
    return {key: targets} if key and targets else {}


def _by_state(
    residuals: Float[np.ndarray, "N"], states: Int[np.ndarray, "N"], miscoverage: float
) -> dict[str, tuple[float, float]]:
    groups = {ANY: residuals} | {name: residuals[states == index] for index, name in enumerate(WORLD_STATES)}
    found = {
        name: residual_quantiles(values, miscoverage)
        for name, values in groups.items() if name == ANY or len(values) >= STATE_WORLDS
    }  # fmt: skip
    return {name: quantiles for name, quantiles in found.items() if quantiles is not None}


def world_ranges(
    quantiles: Quantiles, physics: Mapping[str, float], inputs: Collection[str], state: str
) -> dict[str, tuple[float, float]]:
    """Target → (low, high) of one world, both within what is possible; targets without quantiles are left out.

    Args:
        physics: target → prediction. inputs: modalities shown. state: the likeliest.
    """
    out = {}
    for name, by_state in quantiles.get(inputs_key(inputs), {}).items():
        lower, upper = by_state.get(state) or by_state[ANY]
        least, most = possible(name)
        out[name] = (min(max(physics[name] + lower, least), most), min(max(physics[name] + upper, least), most))
    return out


def possible(target: str) -> tuple[float, float]:
    """Least and greatest value of a target: gases from the floor of `MIXING_RATIO_FLOOR` to all of the air."""
    return (math.log10(MIXING_RATIO_FLOOR), 0.0) if PHYSICS_UNITS[target] == MIXING_RATIO else (0.0, math.inf)


def ranges_of_worlds(
    quantiles: Quantiles, found: Predictions, states: Int[np.ndarray, "N"]
) -> list[dict[str, tuple[float, float]]]:
    """`world_ranges` of every world; empty where it has none, or predictions hold no physics."""
    if found.physics is None:
        return [{} for _ in found.world_ids]
    out = []
    for physics, present, state in zip(found.physics.tolist(), found.present, states, strict=True):
        shown = [name for name, p in zip(MODALITIES, present, strict=True) if p]
        values: dict[str, float] = dict(zip(PHYSICS_TARGETS, physics, strict=True))
        out.append(world_ranges(quantiles, values, shown, WORLD_STATES[int(state)]))
    return out


def score_ranges(
    found: Predictions, ranges: Sequence[Mapping[str, tuple[float, float]]], states: Int[np.ndarray, "N"]
) -> dict[str, dict[str, Any]]:
    """How good predictions and ranges are on worlds with known truths.

    Args:
        ranges: of every world (`ranges_of_worlds`). states: [N] likeliest state.

    Returns:
        target → `unit`; `worlds` with a known truth and the `rmse` over them; `ranged`, those of them that have a
        range, the `coverage` of it, `ci95` by resampling host stars, and its `median_width`; and the same without
        `ci95` under `by_state` (true) and `by_likeliest` (calibrated), state by state. What has no worlds is None.
    """
    if found.physics is None or found.physics_truth is None:
        return {}
    out, bounds = {}, _bounds(ranges)
    for k, name in enumerate(PHYSICS_TARGETS):
        known = np.isfinite(found.physics_truth[:, k])
        truth = np.clip(found.physics_truth[known, k], *possible(name))  # float32 may fall short of the floor
        error, (low, high) = found.physics[known, k] - truth, bounds[known, k].T
        inside, width = (low <= truth) & (truth <= high), high - low
        ranged = np.isfinite(width)
        interval = share_interval(inside[ranged], found.groups[known][ranged]) if ranged.any() else None
        entry = {"unit": PHYSICS_UNITS[name], **_scores(error, inside, width)}
        entry["ci95"] = None if interval is None else [interval.low, interval.high]
        for part, of in (("by_state", found.labels[known]), ("by_likeliest", states[known])):
            entry[part] = {state: _scores(error[of == i], inside[of == i], width[of == i])
                           for i, state in enumerate(WORLD_STATES) if (of == i).any()}  # fmt: skip
        out[name] = entry
    return out


def _bounds(ranges: Sequence[Mapping[str, tuple[float, float]]]) -> Float[np.ndarray, "N K 2"]:
    """The ranges of every world as one array, NaN where it has none."""
    bounds = np.full((len(ranges), len(PHYSICS_TARGETS), 2), np.nan)
    for out, of_world in zip(bounds, ranges, strict=True):
        for name, pair in of_world.items():
            out[PHYSICS_TARGETS.index(name)] = pair
    return bounds


def _scores(
    error: Float[np.ndarray, "N"], inside: np.ndarray, width: Float[np.ndarray, "N"]
) -> dict[str, int | float | None]:
    ranged = np.isfinite(width)
    return {
        "worlds": len(error),
        "rmse": float(np.sqrt((error**2).mean())) if len(error) else None,
        "ranged": int(ranged.sum()),
        "coverage": float(inside[ranged].mean()) if ranged.any() else None,
        "median_width": float(np.median(width[ranged])) if ranged.any() else None,
    }
