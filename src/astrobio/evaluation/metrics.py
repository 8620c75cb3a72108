"""Scores of world-state predictions and their uncertainty: pure functions of arrays.

Dimension letters: N worlds, C classes, D bootstrap draws, R runs (seeds), F crossed factors. `groups` are names [N] of
what is resampled whole, such as host stars, or [N, F] of factors that cross, such as stars and clades of organisms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

DRAWS = 2000  # bootstrap replicates; the ends of a 95% interval then have a Monte-Carlo error of about 0.1 sd


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | list[float]]:
        """`{"mean": …, "ci95": [low, high]}`."""
        return {"mean": self.mean, "ci95": [self.low, self.high]}


def confusion(labels: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"], classes: int) -> Int[np.ndarray, "C C"]:
    """Counts with the true class in rows and the predicted one in columns."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def macro_accuracy(labels: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"]) -> float:
    """Mean over the classes that occur of the share recognised (also called balanced accuracy)."""
    return float(np.mean([np.mean(predicted[labels == c] == c) for c in np.unique(labels)]))


def negative_log_likelihood(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]) -> float:
    """Mean −ln p(true class), nats; probabilities are floored at 1e-12."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def expected_calibration_error(
    probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"], bins: int = 15
) -> float:
    """Mean |confidence − accuracy| over equal-width confidence bins, weighted by count (Guo et al. 2017)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.zeros(bins)
    np.add.at(gaps, where, confidence - correct)
    return float(np.abs(gaps).sum() / len(labels))


def reliability(
    probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"], bins: int = 10
) -> list[dict[str, float]]:
    """What a reliability diagram shows: mean confidence, accuracy and worlds of each confidence bin that holds any."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {"confidence": float(confidence[inside].mean()), "accuracy": float(correct[inside].mean()),
         "worlds": int(inside.sum())}
        for inside in (where == k for k in range(bins)) if inside.any()
    ]  # fmt: skip


def area_under_roc(scores: Float[np.ndarray, "N"], positive: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN where one side is empty."""
    from scipy.stats import rankdata

    positive = positive.astype(bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def macro_accuracy_interval(
    labels: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"], groups: np.ndarray, *, seed: int = 0
) -> Interval:
    """Macro accuracy with the interval from resampling whole groups: worlds of one star are not independent."""
    draws = _draw_macro(labels, (predicted == labels)[None], groups, seed)
    return _interval(macro_accuracy(labels, predicted), draws[:, 0])


def share_interval(hits: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> Interval:
    """Share of worlds that are hit [N] with the interval from resampling whole groups."""
    return macro_accuracy_interval(np.zeros(len(hits), dtype=int), (~hits.astype(bool)).astype(int), groups, seed=seed)


def macro_accuracy_over_runs(
    labels: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "R N"], groups: np.ndarray, *, seed: int = 0
) -> Interval:
    """Mean macro accuracy of runs that differ by seed, resampling groups and runs."""
    draws = _draw_macro(labels, predicted == labels, groups, seed)
    mean = float(np.mean([macro_accuracy(labels, row) for row in predicted]))
    return _interval(mean, _draw_runs(draws, seed))


def paired_difference(
    labels: Int[np.ndarray, "N"],
    better: Int[np.ndarray, "R N"],
    other: Int[np.ndarray, "R N"],
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> Interval:
    """Macro accuracy of `better` minus that of `other` on the same worlds, under the same resampled groups and runs.

    Run r of one is paired with run r of the other (same seed, same data).
    """
    difference = _draw_macro(labels, better == labels, groups, seed) - _draw_macro(
        labels, other == labels, groups, seed
    )
    pairs = zip(better, other, strict=True)
    mean = float(np.mean([macro_accuracy(labels, a) - macro_accuracy(labels, b) for a, b in pairs]))
    return _interval(mean, _draw_runs(difference, seed))


def _draw_macro(
    labels: Int[np.ndarray, "N"], correct: np.ndarray, groups: np.ndarray, seed: int
) -> Float[np.ndarray, "D R"]:
    """Macro accuracies of each run in draws of as many groups as there are; the same draws for the same seed.

    Of crossed factors [N, F] each is drawn by itself, and a world counts as often as the product says (Owen & Eckles
    2012, doi:10.1214/12-AOAS547). A class that a draw misses is left out of that draw's mean.
    """
    cells, cell = np.unique(_members(groups), axis=0, return_inverse=True)  # worlds of one cell count alike
    classes, column = np.unique(labels, return_inverse=True)
    weights, place = _draw_weights(cells, np.random.default_rng(seed)), (cell.reshape(-1), column)
    total = np.zeros((len(cells), len(classes)))
    np.add.at(total, place, 1.0)
    count = weights @ total  # [D, C]
    out = np.empty((DRAWS, len(correct)))
    for run, hits in enumerate(correct):
        right = np.zeros_like(total)
        np.add.at(right, place, hits.astype(float))
        recall = np.divide(weights @ right, count, out=np.full_like(count, np.nan), where=count > 0)
        out[:, run] = np.nanmean(recall, axis=1)
    return out


def _members(groups: np.ndarray) -> Int[np.ndarray, "N F"]:
    """Number of each world's group of every factor."""
    factors = groups.reshape(len(groups), -1).T
    return np.stack([np.unique(names, return_inverse=True)[1] for names in factors], axis=1)


def _draw_weights(cells: Int[np.ndarray, "K F"], rng: np.random.Generator) -> Float[np.ndarray, "D K"]:
    """How often each of the K combinations of groups counts in each draw."""
    weights = np.ones((DRAWS, len(cells)))
    for members in cells.T:
        size = int(members.max()) + 1
        weights *= rng.multinomial(size, np.full(size, 1 / size), size=DRAWS)[:, members]
    return weights


def _draw_runs(values: Float[np.ndarray, "D R"], seed: int) -> Float[np.ndarray, "D"]:
    """Means over as many runs as there are, drawn with replacement in each draw."""
    chosen = np.random.default_rng([seed, 1]).integers(values.shape[1], size=values.shape)
    return np.take_along_axis(values, chosen, axis=1).mean(axis=1)


def _interval(mean: float, draws: Float[np.ndarray, "D"]) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(mean, float(low), float(high))
