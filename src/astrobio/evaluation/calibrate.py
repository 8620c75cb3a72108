"""Honest answers: scales of the experts, conformal sets and ranges, outlier scores, all from held-out worlds.

Dimension letters: N worlds, C world states, D embedding width, Q principal directions, K physics targets.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize, minimize_scalar

from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.errors import InputError
from astrobio.evaluation.metrics import negative_log_likelihood
from astrobio.evaluation.predictions import Predictions, log_softmax
from astrobio.evaluation.ranges import Quantiles, fit_ranges, ranges_of_worlds, world_ranges
from astrobio.training.checkpoint import read_json, write_json

MISCOVERAGE = 0.1  # conformal sets hold the truth in at least 90% of the worlds of every state, ranges in 90% of worlds
FALSE_ALARM = 0.01  # share of ordinary held-out worlds that the outlier threshold flags
DIRECTIONS = 16  # principal directions of an embedding that get their own scale
MAX_LOG_TEMPERATURE = 3.0


@dataclass(frozen=True)
class OutlierModel:
    """Mahalanobis distance in the leading principal directions plus the scaled length of what lies outside them.

    Lee et al. 2018 (arXiv:1807.03888) with one Gaussian for all states, so that an unseen kind of world is not
    compared with a label it doesn't have; the residual term follows Wang et al. 2022 (arXiv:2203.10807).

    Args:
        mean: [D]. directions: [Q, D] orthonormal. scale: [Q] standard deviations. residual: rms length outside.
        threshold: distance exceeded by `FALSE_ALARM` of held-out ordinary worlds.
    """

    mean: np.ndarray
    directions: np.ndarray
    scale: np.ndarray
    residual: float
    threshold: float = math.inf

    @classmethod
    def fit(cls, embeddings: Float[np.ndarray, "N D"], held_out: Float[np.ndarray, "M D"]) -> OutlierModel:
        """Shape from training worlds, threshold from held-out ones."""
        mean = embeddings.mean(axis=0)
        _, singular, rows = np.linalg.svd(embeddings - mean, full_matrices=False)
        kept = min(DIRECTIONS, int((singular > 1e-6 * singular[0]).sum()), len(embeddings) - 1)
        outside = np.sqrt((singular[kept:] ** 2).sum() / len(embeddings))
        model = cls(
            mean, rows[:kept], singular[:kept] / np.sqrt(len(embeddings) - 1), float(max(outside, 1e-6 * singular[0]))
        )
        threshold = float(np.quantile(model.distance(held_out), 1.0 - FALSE_ALARM))
        return cls(model.mean, model.directions, model.scale, model.residual, threshold)

    def distance(self, embeddings: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N"]:
        """How unlike the training worlds, per √(Q + 1); about 1 for ordinary ones."""
        centred = embeddings - self.mean
        along = centred @ self.directions.T  # [N, Q]
        outside = np.linalg.norm(centred - along @ self.directions, axis=1) / self.residual
        return np.sqrt((((along / self.scale) ** 2).sum(axis=1) + outside**2) / (len(self.scale) + 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "mean": self.mean.tolist(), "directions": self.directions.tolist(), "scale": self.scale.tolist(),
            "residual": self.residual, "threshold": self.threshold,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OutlierModel:
        """The inverse of `to_dict`."""
        arrays = {name: np.array(data[name]) for name in ("mean", "directions", "scale")}
        return cls(**arrays, residual=data["residual"], threshold=data["threshold"])


@dataclass(frozen=True)
class Calibration:
    """How to read a system's logits and its retrieved physics.

    Args:
        scales: factors on the joint logits and on each modality's expert (`fit_expert_scales`).
        conformal: [C] largest 1 − p with which a state stays in the prediction set.
        outliers: modality → its outlier model, fitted where enough worlds had that modality.
        ranges: quantiles of what the retrieved physics misses; empty in a calibration of an older version.
    """

    scales: tuple[float, ...]
    conformal: tuple[float, ...]
    outliers: dict[str, OutlierModel]
    ranges: Quantiles = field(default_factory=dict)

    @classmethod
    def fit(cls, training: Predictions, held_out: Predictions, parts: Iterable[Predictions] = ()) -> Calibration:
        """From predictions on training worlds (the outliers' shape) and on worlds no weight was fitted to.

        Args:
            parts: the same of held-out worlds that were shown fewer inputs, which get ranges of their own.

        Raises:
            InputError: no held-out world has a known state.
        """
        labelled = held_out.labelled()
        if not len(labelled.labels):
            raise InputError("validation split: expected worlds with known states, found none; calibration needs them")
        scales = tuple(fit_expert_scales(labelled).tolist())
        conformal = conformal_thresholds(scaled_probabilities(labelled, scales), labelled.labels)
        outliers = {}
        for index, name in enumerate(MODALITIES):
            seen, unseen = (p.embeddings[name][p.present[:, index]] for p in (training, held_out))
            if len(seen) > DIRECTIONS and len(unseen):
                outliers[name] = OutlierModel.fit(seen.astype(np.float64), unseen.astype(np.float64))
        return cls(scales, conformal, outliers).with_ranges(chain([held_out], parts))

    def with_ranges(self, held_out: Iterable[Predictions]) -> Calibration:
        """The same with ranges of the physics from these worlds, each set of inputs from predictions of its own."""
        ranges: Quantiles = {}
        for found in held_out:
            ranges |= fit_ranges(found, self.likeliest(found), MISCOVERAGE)
        return replace(self, ranges=ranges)

    def probabilities(self, found: Predictions) -> Float[np.ndarray, "N C"]:
        """Calibrated probabilities."""
        return scaled_probabilities(found, self.scales)

    def likeliest(self, found: Predictions) -> Int[np.ndarray, "N"]:
        """[N] the state of greatest calibrated probability."""
        return self.probabilities(found).argmax(axis=1)

    def physics_ranges(self, found: Predictions) -> list[dict[str, tuple[float, float]]]:
        """`physics_range` of every world."""
        return ranges_of_worlds(self.ranges, found, self.likeliest(found))

    def physics_range(
        self, physics: Mapping[str, float], inputs: Collection[str], state: str
    ) -> dict[str, tuple[float, float]]:
        """90% ranges of one world's predicted physics, in its units; empty where these inputs have none."""
        return world_ranges(self.ranges, physics, inputs, state)

    def prediction_set(self, probabilities: Float[np.ndarray, "C"]) -> tuple[str, ...]:
        """The states that can't be ruled out at 90% coverage; an empty set says that the world fits none."""
        kept = 1.0 - probabilities <= np.array(self.conformal)
        return tuple(state for state, k in zip(WORLD_STATES, kept, strict=True) if k)

    def outlier_ratio(self, name: str, embedding: Float[np.ndarray, "D"]) -> float | None:
        """Distance of one world's modality over its threshold: above 1 is unlike anything trained on; None unknown."""
        if name not in self.outliers:
            return None
        model = self.outliers[name]
        return float(model.distance(embedding[None].astype(np.float64))[0] / model.threshold)

    def save(self, path: Path) -> None:
        """Write `RUN/calibration.json`."""
        outliers = {name: model.to_dict() for name, model in self.outliers.items()}
        values = {"scales": list(self.scales), "conformal": list(self.conformal), "outliers": outliers}
        write_json(path, {**values, "physics_ranges": self.ranges})

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read `RUN/calibration.json`; one without `physics_ranges`, of an older version, gives no ranges.

        Raises:
            InputError: the file is absent, not JSON, or of an older version.
        """
        remedy = f"make it with `astrobio evaluate {path.parent}`"
        if not path.is_file():
            raise InputError(f"{path}: expected a calibration, found none; {remedy}")
        data = read_json(path)
        if "scales" not in data:
            raise InputError(f"{path}: expected the key 'scales', found {sorted(data)}; {remedy}")
        outliers = {name: OutlierModel.from_dict(model) for name, model in data["outliers"].items()}
        ranges = {
            inputs: {target: {state: tuple(pair) for state, pair in states.items()} for target, states in each.items()}
            for inputs, each in data.get("physics_ranges", {}).items()
        }
        return cls(tuple(data["scales"]), tuple(data["conformal"]), outliers, ranges)


def fit_temperature(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]) -> float:
    """The temperature of least negative log-likelihood (Guo et al. 2017, arXiv:1706.04599), within e^±3."""

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(np.exp(log_softmax(logits / np.exp(log_temperature))), labels)

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))  # pyright: ignore


def fit_expert_scales(found: Predictions) -> Float[np.ndarray, "5"]:
    """Factors on the joint logits and on each modality's expert, of least negative log-likelihood.

    An expert that learned its training worlds by heart is too sure of new ones, and each by another factor. The fit is
    convex: a logistic regression with five weights, none negative, held to one common temperature by a penalty that
    weighs as much as one world.
    """
    parts, labels = expert_parts(found), found.labels  # [N, 5, C]
    rows, common = np.arange(len(labels)), 1.0 / fit_temperature(found.logits, labels)

    def loss(scales: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.einsum("nkc,k->nc", parts, scales))
        wrong = np.exp(logs)
        wrong[rows, labels] -= 1.0
        apart = scales / common - 1.0
        value = (apart @ apart - logs[rows, labels].sum()) / len(labels)
        return float(value), (np.einsum("nkc,nc->k", parts, wrong) + 2.0 * apart / common) / len(labels)

    start = np.full(parts.shape[1], common)
    return minimize(loss, start, jac=True, bounds=[(0.0, None)] * len(start), method="L-BFGS-B").x


def expert_parts(found: Predictions) -> Float[np.ndarray, "N 5 C"]:
    """The logits' summands: what only the joint reading adds, then each modality's expert."""
    joint = found.logits - found.unimodal.sum(axis=1)
    return np.concatenate([joint[:, None], found.unimodal], axis=1)


def scaled_probabilities(found: Predictions, scales: Sequence[float] | np.ndarray) -> Float[np.ndarray, "N C"]:
    """Probabilities with each summand of the logits scaled."""
    return np.exp(log_softmax(np.einsum("nkc,k->nc", expert_parts(found), np.asarray(scales))))


def conformal_thresholds(
    probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"], miscoverage: float = MISCOVERAGE
) -> tuple[float, ...]:
    """Per state the ⌈(n+1)(1−α)⌉-th smallest 1 − p(truth): class-conditional split conformal (Vovk 2012).

    A state with too few held-out worlds for the guarantee is never ruled out (threshold 1).
    """
    out = []
    for state in range(probabilities.shape[1]):
        scores = np.sort(1.0 - probabilities[labels == state, state])
        rank = math.ceil((len(scores) + 1) * (1.0 - miscoverage))
        out.append(float(scores[rank - 1]) if 0 < rank <= len(scores) else 1.0)
    return tuple(out)
