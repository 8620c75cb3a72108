"""What a joint system has to beat: systems trained on one modality, their late fusion, and boosted trees.

Dimension letters: N worlds, C world states, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from astrobio.batch import IGNORED, MODALITIES, WORLD_STATES
from astrobio.evaluation.calibrate import fit_temperature
from astrobio.evaluation.features import FeatureExtractor
from astrobio.evaluation.metrics import macro_accuracy, negative_log_likelihood
from astrobio.evaluation.predictions import Predictions, log_softmax
from astrobio.losses import needed
from astrobio.training.checkpoint import checkpoints, read_json
from astrobio.training.config import RunConfig
from astrobio.training.feed import Worlds
from astrobio.training.loop import Stores, train

RATES = (1.0, 0.5, 2.0, 0.25, 4.0)  # factors on the learning rate that successive tuning trials take
STRENGTHS = (1.0, 0.1, 10.0, 0.01, 100.0)  # inverse regularisation of the late fusion, one a trial
TREES = (  # learning rate and leaves of the boosted trees, one a trial
    (0.1, 31), (0.05, 15), (0.05, 63), (0.03, 31), (0.2, 15),
)  # fmt: skip
BOOSTING_ROUNDS = 200
VOCABULARY_WORLDS = 512  # training worlds in which the trees' words, units and guilds are looked for
FEATURE_CHUNK = 16  # worlds whose features a loader process hands over at a time
FOLDS = 5  # of the late fusion's cross-validation


class Tuned(NamedTuple):
    """A finished run and the factor on the learning rate that it was trained with."""

    run: Path
    factor: float


def isolated_config(config: RunConfig, modality: str) -> RunConfig:
    """The same system and training, shown one modality only, which is never dropped."""
    return restricted_to(replace(config, training=replace(config.training, modality_dropout=0.0)), (modality,))


def restricted_to(config: RunConfig, modalities: tuple[str, ...]) -> RunConfig:
    """The same system and training, shown some modalities only; encoders and losses that would idle are left out."""
    return replace(
        config,
        system=replace(config.system, encoders=modalities),
        training=replace(config.training, modalities=modalities),
        loss=needed(config.loss, modalities),
    )


def train_tuned(
    config: RunConfig,
    data_dir: Path,
    folder: Path,
    *,
    factors: Sequence[float],
    stores: Stores,
    like: Path | None = None,
    console: Console | None = None,
    label: str = "train",
) -> Tuned:
    """Train one run for each factor on the learning rate and return the one that validates best.

    Finished runs are not repeated, interrupted ones continue.

    Args:
        folder: holds `rate-…` run folders. like: a run whose tokenizer and statistics are shared.
    """
    for factor in factors:
        run, trial = trial_folder(folder, factor), trial_config(config, factor)
        if not is_finished(run, trial):
            train(trial, data_dir, run, stores=stores, like=like, console=console, label=label)
    return best_trial(config, folder, factors)


def best_trial(config: RunConfig, folder: Path, factors: Sequence[float]) -> Tuned:
    """The finished trial in `folder` whose validation loss is least."""
    trials = [Tuned(trial_folder(folder, factor), factor) for factor in factors]
    return min(trials, key=lambda trial: best_score(trial.run, config))


def trial_folder(folder: Path, factor: float) -> Path:
    """Run folder of the trial at `factor` times the learning rate."""
    return folder / f"rate-{factor:g}"


def trial_config(config: RunConfig, factor: float) -> RunConfig:
    """The configuration with its learning rate times `factor`."""
    return replace(config, training=replace(config.training, lr=config.training.lr * factor))


def is_finished(run: Path, config: RunConfig) -> bool:
    """Whether the run reached its last step under this configuration (which training checks otherwise)."""
    done = checkpoints(run)
    if not done or not (run / "best.json").is_file():
        return False
    same = RunConfig.from_dict(read_json(run / "config.json")) == config
    return same and done[-1].name == f"step-{config.training.steps:08d}"


def best_score(run: Path, config: RunConfig) -> float:
    """The validation loss that chose the run's weights."""
    scores = read_json(run / "best.json")
    return scores.get(config.training.select, scores["total"])


@dataclass(frozen=True)
class LateFusion:
    """Calibrated answers of isolated systems, combined.

    Args:
        method: "logistic regression" or "product of experts", whichever cross-validated better.
        probabilities: [N, C] of the test worlds. validation: macro accuracy of each method on the validation split.
    """

    method: str
    probabilities: Float[np.ndarray, "N C"]
    validation: dict[str, float]


def late_fusion(
    validation: Mapping[str, Predictions], test: Mapping[str, Predictions], *, trials: int = 1, seed: int = 0
) -> LateFusion:
    """Fit both ways of combining on validation worlds, keep the better there, apply it to test worlds.

    Args:
        validation, test: labelled predictions of the isolated system of each modality on the same worlds.
    """
    first = next(iter(validation.values()))
    temperatures = {name: fit_temperature(p.logits, p.labels) for name, p in validation.items()}
    fitted, wanted = (
        {name: log_softmax(p.logits / temperatures[name]) for name, p in split.items()} for split in (validation, test)
    )
    prior = np.bincount(first.labels, minlength=len(WORLD_STATES)) + 1.0
    products = [
        _product(logs, split, np.log(prior / prior.sum())) for logs, split in ((fitted, validation), (wanted, test))
    ]
    scores = {"product of experts": macro_accuracy(first.labels, products[0].argmax(axis=1))}
    features, test_features = (np.concatenate(list(logs.values()), axis=1) for logs in (fitted, wanted))
    best_strength, best = STRENGTHS[0], -1.0
    for strength in STRENGTHS[:trials]:
        score = macro_accuracy(first.labels, _cross_fitted(features, first, strength, seed).argmax(axis=1))
        if score > best:
            best_strength, best = strength, score
    scores["logistic regression"] = best
    if best >= scores["product of experts"]:
        model = _logistic(features, first.labels, best_strength)
        return LateFusion(
            "logistic regression", _for_all_states(model.classes_, model.predict_proba(test_features)), scores
        )
    temperature = fit_temperature(products[0], first.labels)
    return LateFusion("product of experts", np.exp(log_softmax(products[1] / temperature)), scores)


def _product(
    logs: Mapping[str, Float[np.ndarray, "N C"]], split: Mapping[str, Predictions], log_prior: Float[np.ndarray, "C"]
) -> Float[np.ndarray, "N C"]:
    """Log of ∏ pₘ / prior^(M − 1) over the modalities that each world has, not normalised."""
    total = np.zeros_like(next(iter(logs.values()))) + log_prior
    for name, log in logs.items():
        there = split[name].present[:, MODALITIES.index(name)]
        total += np.where(there[:, None], log - log_prior, 0.0)
    return total


def _logistic(features: Float[np.ndarray, "N F"], labels: Int[np.ndarray, "N"], strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000).fit(features, labels)


def _for_all_states(classes: np.ndarray, probabilities: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N C"]:
    """A column for every state, 0 for those that a model never met."""
    out = np.zeros((len(probabilities), len(WORLD_STATES)))
    out[:, classes] = probabilities
    return out


def _cross_fitted(
    features: Float[np.ndarray, "N F"], split: Predictions, strength: float, seed: int
) -> Float[np.ndarray, "N C"]:
    """Each world's probabilities by a fit that saw neither it nor its star."""
    hosts = np.unique(split.groups)
    fold_of = dict(zip(np.random.default_rng(seed).permutation(hosts), np.arange(len(hosts)) % FOLDS, strict=True))
    fold = np.array([fold_of[host] for host in split.groups])
    out = np.full((len(features), len(WORLD_STATES)), 1.0 / len(WORLD_STATES))
    for k in np.unique(fold):
        rest = fold != k
        if len(np.unique(split.labels[rest])) > 1:
            model = _logistic(features[rest], split.labels[rest], strength)
            out[~rest] = _for_all_states(model.classes_, model.predict_proba(features[~rest]))
    return out


@dataclass(frozen=True)
class Table:
    """Hand-made features and labels of a split, worlds of known state only."""

    features: Float[np.ndarray, "N F"]
    labels: Int[np.ndarray, "N"]


class _Features:
    """Map-style features and labels of a split's worlds, for loader processes."""

    def __init__(self, worlds: Worlds, extract: FeatureExtractor) -> None:
        self.worlds, self.extract = worlds, extract

    def __len__(self) -> int:
        return len(self.worlds)

    def __getitem__(self, index: int) -> tuple[Float[np.ndarray, "F"], int]:
        sample = self.worlds[index]
        return self.extract(sample), IGNORED if sample.state is None else WORLD_STATES.index(sample.state)


def feature_tables(splits: Mapping[str, Worlds], *, progress: bool = True, workers: int = 0) -> dict[str, Table]:
    """Features of each split, with vocabularies of the "train" one, by so many loader processes (0: in this one)."""
    training = splits["train"]
    extract = FeatureExtractor.fit(training[i] for i in range(min(len(training), VOCABULARY_WORLDS)))
    tables = {}
    for name, worlds in splits.items():
        loader = DataLoader(_Features(worlds, extract), FEATURE_CHUNK, num_workers=workers, collate_fn=list)  # pyright: ignore[reportArgumentType]
        found = [
            pair
            for chunk in track(loader, f"features of {name}", disable=not progress, transient=True)
            for pair in chunk
        ]
        rows, labels = np.array([row for row, _ in found]), np.array([label for _, label in found])
        known = labels != IGNORED
        tables[name] = Table(rows[known], labels[known])
    measured = np.isfinite(tables["train"].features).any(axis=0)  # the rest no training world has
    return {name: Table(table.features[:, measured], table.labels) for name, table in tables.items()}


def gradient_boosting(tables: Mapping[str, Table], *, trials: int = 1, seed: int = 0) -> Float[np.ndarray, "N C"]:
    """[N, C] probabilities of the test worlds by histogram gradient boosting; see `boosted_trees`."""
    return boosted_trees(tables, trials=trials, seed=seed)["test"]


def boosted_trees(
    tables: Mapping[str, Table], *, trials: int = 1, seed: int = 0
) -> dict[str, Float[np.ndarray, "N C"]]:
    """Calibrated probabilities of all worlds but the training ones, by split.

    Settings and number of trees are those of least negative log-likelihood on the validation worlds.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    train_table, validation = tables["train"], tables["validation"]
    best_loss, best, best_count = np.inf, None, 0
    for rate, leaves in TREES[:trials]:
        settings: dict[str, Any] = {"max_iter": BOOSTING_ROUNDS, "early_stopping": False, "random_state": seed}
        model = HistGradientBoostingClassifier(learning_rate=rate, max_leaf_nodes=leaves, **settings).fit(
            train_table.features, train_table.labels
        )
        losses = [negative_log_likelihood(p, validation.labels) for p in _staged(model, validation.features)]
        if min(losses) < best_loss:
            best_loss, best, best_count = min(losses), model, int(np.argmin(losses))
    logs = {
        name: _log(next(islice(_staged(best, table.features), best_count, None)))
        for name, table in tables.items() if name != "train"
    }  # fmt: skip
    temperature = fit_temperature(logs["validation"], validation.labels)
    return {name: np.exp(log_softmax(log / temperature)) for name, log in logs.items()}


def _staged(model: Any, features: Float[np.ndarray, "N F"]) -> Iterator[Float[np.ndarray, "N C"]]:
    """Probabilities after one round of boosting, two, …"""
    for probabilities in model.staged_predict_proba(features):
        yield _for_all_states(model.classes_, probabilities)


def _log(probabilities: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    return np.log(np.maximum(probabilities, 1e-12))
