"""The climate network's symmetries and what it hides from itself."""

from __future__ import annotations

import pytest
import torch

from astrobio.batch import CLIMATE_VARIABLES, SURFACE_VARIABLES, TIME_KINDS, MultiModalBatch
from astrobio.errors import InputError
from astrobio.models.climate_cnn import ClimateCNN, ClimateCNNConfig
from astrobio.models.initialise import init_weights

CONFIG = ClimateCNNConfig(patch=(5, 4, 4), widths=(8, 12, 16), blocks=(1, 1, 1), tokens=3, heads=2)


@pytest.fixture
def network() -> ClimateCNN:
    network = ClimateCNN(CONFIG)
    init_weights(network, 3)
    return network.eval()


@pytest.fixture
def inputs(batch: MultiModalBatch) -> dict[str, torch.Tensor]:
    names = ("climate", "climate_mask", "climate_levels", "latitude", "longitude", "time_kind")
    return {name: getattr(batch, name)[:3] for name in names}


def feature_map(network: ClimateCNN, values: dict[str, torch.Tensor]) -> torch.Tensor:
    return network.feature_map(*values.values())


def test_turning_the_planet_turns_the_map(network: ClimateCNN, inputs: dict[str, torch.Tensor]) -> None:
    """X = 32, patches of 4, two halvings: 16 cells in, one of the two positions out."""
    turned = inputs | {"climate": inputs["climate"].roll(16, -1), "longitude": inputs["longitude"].roll(16, -1)}
    before, after = feature_map(network, inputs), feature_map(network, turned)
    assert before.shape == (3, 16, 1, 1, 2)
    torch.testing.assert_close(after, before.roll(1, -1))
    assert not torch.allclose(after, before, atol=1e-4)


def test_realizations_have_no_order_and_months_have(network: ClimateCNN, inputs: dict[str, torch.Tensor]) -> None:
    swapped = inputs | {"climate": inputs["climate"].flip(2)}
    torch.testing.assert_close(feature_map(network, swapped), feature_map(network, inputs), rtol=1e-4, atol=1e-5)
    months = {"time_kind": torch.full((3,), TIME_KINDS.index("months"))}
    first, second = feature_map(network, inputs | months), feature_map(network, swapped | months)
    assert not torch.allclose(first, second, atol=1e-5)


def test_any_number_of_time_steps(network: ClimateCNN, inputs: dict[str, torch.Tensor]) -> None:
    """A climate repeated in time is the same climate."""
    twice = inputs | {"climate": inputs["climate"].repeat(1, 1, 2, 1, 1, 1)}
    torch.testing.assert_close(feature_map(network, twice), feature_map(network, inputs), rtol=1e-4, atol=1e-5)


def test_diagnostics_never_see_what_they_predict(network: ClimateCNN, inputs: dict[str, torch.Tensor]) -> None:
    changed = inputs["climate"].clone()
    changed[:, : len(SURFACE_VARIABLES)] += 1.0
    before, after = network(**inputs), network(**inputs | {"climate": changed})
    assert torch.equal(before.diagnostics, after.diagnostics)
    assert not torch.allclose(before.tokens, after.tokens)  # the tokens do see them
    other = inputs["climate"].clone()
    other[:, len(SURFACE_VARIABLES) :] += 1.0
    assert not torch.allclose(network(**inputs | {"climate": other}).diagnostics, before.diagnostics)


def test_training_hides_half_and_counts_it_twice(network: ClimateCNN, inputs: dict[str, torch.Tensor]) -> None:
    network.train()
    many = {name: value[:1].repeat(64, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
    weight = network(**many).diagnostics_weight
    assert set(weight.tolist()) == {0.0, 2.0}
    assert 16 < int((weight > 0).sum()) < 48


def test_absent_variables_differ_from_zeros(network: ClimateCNN, inputs: dict[str, torch.Tensor]) -> None:
    index = CLIMATE_VARIABLES.index("specific_humidity")
    climate, mask = inputs["climate"].clone(), inputs["climate_mask"].clone()
    climate[:, index] = 0.0
    shown = network(**inputs | {"climate": climate}).tokens
    mask[:, index] = False
    assert not torch.allclose(network(**inputs | {"climate": climate, "climate_mask": mask}).tokens, shown)


def test_unfit_grids_are_refused(network: ClimateCNN, inputs: dict[str, torch.Tensor]) -> None:
    narrow = {"climate": inputs["climate"][..., :30], "longitude": inputs["longitude"][:, :30]}
    with pytest.raises(InputError, match="multiples of"):
        network(**inputs | narrow)
