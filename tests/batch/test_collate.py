"""Samples → batch, with absences, padding and refusals."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.batch import (
    CLIMATE_VARIABLES,
    IGNORED,
    MODALITIES,
    SPECTRUM_KINDS,
    WORLD_STATES,
    ClimateCube,
    Collator,
    MultiModalBatch,
    Sample,
    multimodal_collate_fn,
)
from astrobio.errors import InputError

SampleFactory = Callable[..., Sample]


@settings(max_examples=15, deadline=None)
@given(absent=st.lists(st.sets(st.sampled_from(MODALITIES)), min_size=1, max_size=4))
def test_any_subset_of_modalities_collates(
    absent: list[set[str]], sample_factory: SampleFactory, collator: Collator
) -> None:
    samples = [sample_factory(index, without=sorted(names)) for index, names in enumerate(absent)]
    batch = collator(samples)
    assert len(batch) == len(samples)
    expected = [[name not in names for name in MODALITIES] for names in absent]
    assert batch.present.tolist() == expected
    for name in ("spectrum", "climate", "physics"):
        assert torch.isfinite(getattr(batch, name)).all()
    assert batch.graph.num_graphs == len(samples)


@settings(max_examples=15, deadline=None)
@given(words=st.integers(0, 30), target=st.integers(0, 10))
def test_context_then_target_then_padding(
    words: int, target: int, sample_factory: SampleFactory, collator: Collator
) -> None:
    first = replace(sample_factory(0), context="word " * words, assessment="life " * target if target else None)
    batch = collator([first, sample_factory(1)])
    context, labelled = batch.context_mask[0], batch.lm_labels[0] != IGNORED
    assert int(context.sum()) == 1 + words  # the start token
    assert int(labelled.sum()) == (target + 1 if target else 0)  # the end token
    assert not (context & labelled).any()
    assert torch.equal(batch.attention_mask[0], context | labelled)
    assert torch.equal(batch.lm_labels[0][labelled], batch.input_ids[0][labelled])
    real = int(batch.attention_mask[0].sum())
    assert batch.attention_mask[0, :real].all()  # right padding alone


def test_too_long_texts_lose_context_never_target(sample_factory: SampleFactory, collator: Collator) -> None:
    sample = replace(sample_factory(0), context="word " * 50, assessment="life " * 5)
    batch = replace(collator, max_length=20)([sample])
    assert batch.input_ids.shape == (1, 20)
    assert int((batch.lm_labels != IGNORED).sum()) == 6
    with pytest.raises(InputError, match="raise max_length"):
        replace(collator, max_length=6)([sample])


def test_spectra_are_normalised_and_padded(sample_factory: SampleFactory, collator: Collator) -> None:
    first = sample_factory(0)
    assert first.spectrum is not None
    short = replace(
        first.spectrum,
        wavelength=np.array([1.0, math.e]),
        value=np.array([1000.0, 1300.0]),
        sigma=np.array([100.0, 50.0]),
        bin_width=np.array([0.1, 0.1]),
        kind="emission",
    )
    batch = collator([replace(first, spectrum=short), sample_factory(1)])
    mean = (1000 * 1 + 1300 * 4) / 5
    expected = [[0.0, (1000 - mean) / 100, 1.0], [1.0, (1300 - mean) / 100, 0.5]]
    torch.testing.assert_close(batch.spectrum[0, :2], torch.tensor(expected))
    assert float(batch.spectrum_mean[0]) == pytest.approx(math.log10(mean), rel=1e-6)
    assert batch.spectrum_mask[0].tolist() == [True, True] + [False] * 58
    assert int(batch.spectrum_kind[0]) == SPECTRUM_KINDS.index("emission")


def test_net_radiation_is_the_cubes_own(sample_factory: SampleFactory, collator: Collator) -> None:
    sample = sample_factory(0)
    cube = sample.climate
    assert cube is not None
    net = cube.global_mean("toa_net_downward_shortwave_flux") - cube.global_mean("toa_outgoing_longwave_flux")
    fields = {name: value for name, value in cube.fields.items() if name != "toa_outgoing_longwave_flux"}
    partial = ClimateCube(**{**cube.__dict__, "fields": fields})
    batch = collator([sample, replace(sample, climate=partial), sample_factory(1, without=["climate"])])
    assert float(batch.toa_net[0]) == pytest.approx(net, rel=1e-5)
    assert batch.toa_net_mask.tolist() == [True, False, False]
    assert batch.habitat_mask.tolist() == [True, True, False]
    assert batch.growth_mask.tolist() == [True, True, True]
    assert sample.metabolism is not None and sample.metabolism.growth_temperature is not None
    assert float(batch.growth[0]) * 15 + 288 == pytest.approx(sample.metabolism.growth_temperature, rel=1e-5)
    assert float(batch.habitat[0]) * 15 + 288 == pytest.approx(cube.habitat_temperature(), rel=1e-5)
    missing = CLIMATE_VARIABLES.index("toa_outgoing_longwave_flux")
    assert batch.climate_mask[1].tolist() == [index != missing for index in range(len(CLIMATE_VARIABLES))]
    assert not batch.climate[1, missing].any()


def test_physics_can_be_turned_back_into_units(sample_factory: SampleFactory, collator: Collator) -> None:
    sample = sample_factory(0)
    batch = collator([sample])
    assert sample.physics is not None
    back = batch.physics * batch.physics_std + batch.physics_mean
    assert float(back[0, 1]) == pytest.approx(sample.physics["asr"], rel=1e-5)
    assert batch.physics_mask[0].tolist() == [True] * 5 + [False] * 5


def test_unknown_states_are_ignored_labels(sample_factory: SampleFactory, collator: Collator) -> None:
    batch = collator([sample_factory(3), replace(sample_factory(3), state=None)])
    assert batch.labels.tolist() == [WORLD_STATES.index("lifeless-reducing"), IGNORED]


def test_refusals_name_field_expected_and_found(sample_factory: SampleFactory, collator: Collator) -> None:
    with pytest.raises(InputError, match="at least one sample"):
        multimodal_collate_fn([], tokenizer=collator.tokenizer, statistics=collator.statistics)
    one = sample_factory(0)
    cube = one.climate
    assert cube is not None and one.metabolism is not None
    half = ClimateCube(**{**cube.__dict__, "fields": {name: value[:1] for name, value in cube.fields.items()}})
    with pytest.raises(InputError, match=r"Sample\.climate: expected one cube shape"):
        collator([one, replace(one, climate=half)])
    narrow = replace(one.metabolism, encodings=one.metabolism.encodings[:, :4])
    with pytest.raises(InputError, match=r"Sample\.metabolism: expected one width"):
        collator([one, replace(one, metabolism=narrow)])


def test_batches_validate_themselves_and_move(batch: MultiModalBatch) -> None:
    with pytest.raises(InputError, match=r"MultiModalBatch\.labels: expected shape \(8,\), found \(7,\)"):
        replace(batch, labels=batch.labels[:7])
    moved = batch.to("cpu")
    assert moved.world_ids == batch.world_ids
    assert torch.equal(moved.climate, batch.climate)


def test_collators_travel_to_workers(collator: Collator) -> None:
    assert pickle.loads(pickle.dumps(collator)) == collator


def test_a_collator_without_assessment_has_no_target(sample_factory: SampleFactory, collator: Collator) -> None:
    batch = replace(collator, with_assessment=False)([sample_factory(0)])
    assert (batch.lm_labels == IGNORED).all()
