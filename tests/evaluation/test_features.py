"""Every feature belongs to a modality."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from astrobio.batch import Sample
from astrobio.evaluation.features import FeatureExtractor


def test_columns_hold_all_features_and_the_last_is_the_growth_temperature(
    sample_factory: Callable[..., Sample],
) -> None:
    samples = [sample_factory(index) for index in range(6)]
    extract = FeatureExtractor.fit(samples)
    columns = list(extract.columns().values())
    assert columns[0].start == 0 and columns[-1].stop == len(extract(samples[0]))
    assert all(a.stop == b.start for a, b in pairwise(columns))
    graph = samples[0].metabolism
    assert graph is not None
    strain = Sample(**{**samples[0].__dict__, "metabolism": graph.strain(311.0)})
    assert extract(strain)[extract.columns()["metabolism"]][-1] == 311.0
