"""Scores against numbers worked out by hand, and the bootstrap against known coverage."""

from __future__ import annotations

import numpy as np
import pytest

from astrobio.evaluation.metrics import (
    area_under_roc,
    confusion,
    expected_calibration_error,
    macro_accuracy,
    macro_accuracy_interval,
    macro_accuracy_over_runs,
    negative_log_likelihood,
    paired_difference,
)

LABELS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 2, 2])


def test_confusion_has_truth_in_rows():
    assert confusion(LABELS, PREDICTED, 3).tolist() == [[3, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_macro_accuracy_weighs_classes_not_worlds():
    assert macro_accuracy(LABELS, PREDICTED) == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)


def test_negative_log_likelihood_by_hand():
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert negative_log_likelihood(probabilities, np.array([0, 1])) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)


def test_calibration_error_by_hand():
    probabilities = np.array([[0.91, 0.09], [0.91, 0.09], [0.62, 0.38], [0.62, 0.38]])
    labels = np.array([0, 0, 0, 1])  # bin 0.9…: confidence 0.91, accuracy 1; bin 0.6…: 0.62 and 0.5
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx((0.09 + 0.12) / 2)


def test_calibration_error_of_a_certain_and_right_answer_is_zero():
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0.0


def test_area_under_roc_counts_ties_half():
    assert area_under_roc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1])) == pytest.approx(3.5 / 4)
    assert np.isnan(area_under_roc(np.array([0.1]), np.array([1])))


def test_bootstrap_interval_covers_at_its_rate():
    rng = np.random.default_rng(1)
    covered = 0
    labels = np.repeat([0, 1], 40)
    for trial in range(100):
        predicted = np.where(rng.random(80) < 0.8, labels, 1 - labels)
        interval = macro_accuracy_interval(labels, predicted, np.arange(80), seed=trial)
        covered += interval.low <= 0.8 <= interval.high
    assert 87 <= covered <= 99  # binomial: 95% of 100 is 95 ± 2.2; percentile intervals are a little narrow


def test_grouped_bootstrap_is_wider_where_worlds_of_a_star_agree():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 10)
    labels = np.tile([0, 1], 200)
    predicted = np.where(np.repeat(rng.random(40) < 0.7, 10), labels, 1 - labels)
    by_star = macro_accuracy_interval(labels, predicted, groups)
    by_world = macro_accuracy_interval(labels, predicted, np.arange(400))
    assert by_star.high - by_star.low > 2 * (by_world.high - by_world.low)


def test_crossed_factors_are_resampled_each_by_itself():
    rng = np.random.default_rng(6)
    stars, clades = np.repeat(np.arange(100), 6), np.tile(np.arange(6), 100)
    labels = rng.integers(2, size=600)
    missed = (clades == 0) | (rng.random(600) < 0.05)  # a clade that is always mistaken
    predicted = np.where(missed, 1 - labels, labels)
    by_star, by_both = (
        macro_accuracy_interval(labels, predicted, groups) for groups in (stars, np.stack([stars, clades], axis=1))
    )
    assert by_both.mean == by_star.mean
    assert by_both.high - by_both.low > 3 * (by_star.high - by_star.low)
    assert macro_accuracy_interval(labels, predicted, stars[:, None]) == by_star


def test_paired_difference_is_tighter_than_the_two_intervals():
    rng = np.random.default_rng(3)
    labels = np.tile([0, 1, 2], 100)
    hard = rng.random(300) < 0.3  # worlds that both get wrong
    other = np.where(hard | (rng.random(300) < 0.05), (labels + 1) % 3, labels)
    better = np.where(hard, (labels + 1) % 3, labels)
    difference = paired_difference(labels, better[None], other[None], np.arange(300))
    single = macro_accuracy_interval(labels, better, np.arange(300))
    assert difference.mean == pytest.approx(macro_accuracy(labels, better) - macro_accuracy(labels, other))
    assert difference.low > 0
    assert difference.high - difference.low < 0.6 * (single.high - single.low)


def test_difference_of_a_run_from_itself_is_exactly_zero():
    labels, runs = np.tile([0, 1], 20), np.random.default_rng(4).integers(2, size=(3, 40))
    assert paired_difference(labels, runs, runs, np.arange(40)).to_dict() == {"mean": 0.0, "ci95": [0.0, 0.0]}


def test_spread_between_runs_widens_the_interval():
    labels = np.tile([0, 1], 200)
    rng = np.random.default_rng(5)
    alike = np.stack([np.where(rng.random(400) < 0.7, labels, 1 - labels)] * 3)
    apart = np.stack([np.where(rng.random(400) < p, labels, 1 - labels) for p in (0.5, 0.7, 0.9)])
    narrow, wide = (macro_accuracy_over_runs(labels, runs, np.arange(400)) for runs in (alike, apart))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
