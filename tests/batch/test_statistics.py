"""Normalisation fitted on samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.batch import CLIMATE_VARIABLES, PHYSICS_TARGETS, Sample, Statistics
from astrobio.batch.statistics import HUMIDITY_FLOOR, _Moments, transform_variable


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), min_size=1, max_size=5))
def test_moments_in_pieces_equal_those_of_the_whole(parts: list[list[float]]) -> None:
    moments = _Moments()
    for part in parts:
        moments.add(np.array(part))
    whole = np.concatenate([np.array(part) for part in parts])
    assert moments.mean == pytest.approx(whole.mean(), abs=1e-8)
    if whole.var() > 1e-9:
        assert moments.std == pytest.approx(whole.std(), rel=1e-6)


def test_training_samples_become_standard(sample_factory: Callable[..., Sample]) -> None:
    samples = [sample_factory(index) for index in range(5)]
    statistics = Statistics.fit(samples)
    values = np.stack([statistics.normalise_climate(s.climate)[0] for s in samples if s.climate is not None])
    np.testing.assert_allclose(values.mean(axis=(0, 2, 3, 4, 5)), 0.0, atol=1e-4)
    np.testing.assert_allclose(values.std(axis=(0, 2, 3, 4, 5)), 1.0, atol=1e-4)
    targets = np.stack([statistics.normalise_physics(s.physics)[0] for s in samples])
    np.testing.assert_allclose(targets[:, 0].mean(), 0.0, atol=1e-5)


def test_nothing_seen_stays_finite() -> None:
    statistics = Statistics.fit([Sample(world_id="w")])
    assert statistics.climate_std == (1.0,) * len(CLIMATE_VARIABLES)
    values, known = statistics.normalise_physics({"asr": 3.0})
    assert values[PHYSICS_TARGETS.index("asr")] == 3.0 and known.sum() == 1


def test_humidity_is_logarithmic_with_a_floor() -> None:
    found = transform_variable("specific_humidity", np.array([1e-2, 0.0, -1e-4]))
    np.testing.assert_allclose(found, [-2.0, np.log10(HUMIDITY_FLOOR), np.log10(HUMIDITY_FLOOR)])


def test_round_trip(statistics: Statistics) -> None:
    assert Statistics.from_dict(statistics.to_dict()) == statistics
