"""What an answer rests on: exact Shapley values over the modalities, integrated gradients inside them.

Dimension letters: B worlds, L spectral points, V variables, T time steps, P levels, Y latitudes, X longitudes, N steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from astrobio.batch import CLIMATE_VARIABLES, INHABITED_STATES, MODALITIES, WORLD_STATES, MultiModalBatch, Sample
from astrobio.system.unified import UnifiedMultiModalSystem

Collate = Callable[[Sequence[Sample]], MultiModalBatch]

CHUNK = 8  # worlds in one forward pass
STEPS = 16  # nodes of the path integral; it adds up within 1% on the mini preset
UNSCALED = (1.0,) * (1 + len(MODALITIES))  # of a system that is not calibrated
_FIELDS = dict(zip(MODALITIES, ("context", "spectrum", "climate", "metabolism"), strict=True))
_INHABITED = [WORLD_STATES.index(name) for name in INHABITED_STATES]
_LIFELESS = [index for index in range(len(WORLD_STATES)) if index not in _INHABITED]


def life_log_odds(logits: Float[Tensor, "B 6"]) -> Float[Tensor, "B"]:
    """log P(inhabited) − log P(lifeless), nats."""
    return logits[:, _INHABITED].logsumexp(-1) - logits[:, _LIFELESS].logsumexp(-1)


def shown_only(sample: Sample, modalities: Sequence[str]) -> Sample:
    """The same world of which only these modalities are known."""
    return replace(sample, **{_FIELDS[name]: None for name in MODALITIES if name not in modalities})


def coalition_logits(
    system: UnifiedMultiModalSystem, collate: Collate, sample: Sample, scales: Sequence[float] = UNSCALED
) -> dict[tuple[str, ...], np.ndarray]:
    """State logits [6] of every subset of the modalities that a world has, the empty one included (≤16 subsets).

    What is left out is truly absent: the system sees its learned token for an absent modality.
    """
    present = [name for name, there in zip(MODALITIES, sample.present, strict=True) if there]
    subsets = [subset for size in range(len(present) + 1) for subset in combinations(present, size)]
    logits = []
    device = next(system.parameters()).device
    for start in range(0, len(subsets), CHUNK):
        worlds = [shown_only(sample, subset) for subset in subsets[start : start + CHUNK]]
        with torch.inference_mode():
            logits.append(system(collate(worlds).to(device)).scaled_logits(scales).double().cpu())
    return dict(zip(subsets, torch.cat(logits).numpy(), strict=True))


def shapley(values: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    """Exact Shapley values (Shapley 1953) of a game given for every subset; they add up to v(all) − v(nothing)."""
    players = max(values, key=len)
    out = {}
    for player in players:
        total = 0.0
        for subset, value in values.items():
            if player in subset:
                continue
            joined = tuple(name for name in players if name in subset or name == player)
            size = len(subset)
            weight = math.factorial(size) * math.factorial(len(players) - size - 1) / math.factorial(len(players))
            total += weight * (values[joined] - value)
        out[player] = total
    return out


@dataclass(frozen=True)
class Saliency:
    """Where inside the spectrum and the climate the log-odds of life come from, nats; None where absent.

    Args:
        spectrum: [L] against a flat spectrum of the same mean. climate: [Y, X] summed over variables, times and
            levels, against the training worlds' mean climate. climate_variables: variable → its sum.
    """

    spectrum: np.ndarray | None
    climate: np.ndarray | None
    climate_variables: dict[str, float]


def saliency(
    system: UnifiedMultiModalSystem, collate: Collate, sample: Sample, scales: Sequence[float] = UNSCALED
) -> Saliency:
    """Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) of the log-odds of life."""
    batch = collate([sample]).to(next(system.parameters()).device)
    spectrum = climate = None
    variables: dict[str, float] = {}
    if sample.spectrum is not None:
        end = batch.spectrum.clone()
        start = end.clone()
        start[..., 1] = 0.0  # the value channel of a flat spectrum
        gradient = _path_integral(system, batch, "spectrum", start, end, scales)
        spectrum = gradient[0, :, 1].cpu().numpy()
    if sample.climate is not None:
        gradient = _path_integral(system, batch, "climate", torch.zeros_like(batch.climate), batch.climate, scales)
        sums = gradient[0].sum(dim=(1, 2))  # [V, Y, X]
        climate = sums.sum(dim=0).cpu().numpy()
        variables = {name: float(sums[i].sum()) for i, name in enumerate(CLIMATE_VARIABLES) if batch.climate_mask[0, i]}
    return Saliency(spectrum, climate, variables)


def _path_integral(
    system: UnifiedMultiModalSystem,
    batch: MultiModalBatch,
    name: str,
    start: Tensor,
    end: Tensor,
    scales: Sequence[float],
) -> Tensor:
    """(end − start) · mean gradient along the straight path between two values of one input (Gauss-Legendre)."""
    total = torch.zeros_like(end)
    for node, weight in zip(*np.polynomial.legendre.leggauss(STEPS), strict=True):
        point = (start + (node + 1) / 2 * (end - start)).detach().requires_grad_()
        with torch.enable_grad():
            odds = life_log_odds(system(replace(batch, **{name: point})).scaled_logits(scales).float())
            (gradient,) = torch.autograd.grad(odds.sum(), point)
        total += weight / 2 * gradient
    return (end - start) * total
