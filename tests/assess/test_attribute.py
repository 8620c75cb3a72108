"""Shapley values and integrated gradients on games and systems whose answers are known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrobio.assess import attribute
from astrobio.assess.attribute import coalition_logits, life_log_odds, saliency, shapley, shown_only
from astrobio.batch import MODALITIES, WORLD_STATES, Collator
from astrobio.system import SystemConfig
from astrobio.system.unified import UnifiedMultiModalSystem


def _game(values: list[float]) -> dict[tuple[str, ...], float]:
    subsets = [subset for size in range(5) for subset in combinations(MODALITIES, size)]
    return dict(zip(subsets, values, strict=True))


@given(st.lists(st.floats(-10, 10), min_size=16, max_size=16))
def test_shares_add_up(values: list[float]) -> None:
    game = _game(values)
    assert sum(shapley(game).values()) == pytest.approx(game[MODALITIES] - game[()], abs=1e-9)


def test_additive_and_dummy_and_synergy() -> None:
    worth = {"text": 0.0, "spectrum": 2.0, "climate": -1.0, "metabolism": 0.5}
    game = {s: sum(worth[m] for m in s) + 3.0 * ({"spectrum", "climate"} <= set(s)) for s in _game([0.0] * 16)}
    assert shapley(game) == pytest.approx({"text": 0.0, "spectrum": 3.5, "climate": 0.5, "metabolism": 0.5})
    assert shapley({(): 1.0}) == {}


def test_log_odds_of_life() -> None:
    logits = torch.randn(5, len(WORLD_STATES), dtype=torch.float64)
    inhabited = logits.softmax(-1)[:, -2:].sum(-1)
    torch.testing.assert_close(life_log_odds(logits), (inhabited / (1 - inhabited)).log())


@pytest.fixture
def system(tiny_system: SystemConfig) -> UnifiedMultiModalSystem:
    return UnifiedMultiModalSystem(tiny_system).eval()


def test_coalitions_show_exactly_their_members(system, collator: Collator, sample_factory) -> None:
    world = sample_factory(4, without=("climate",))
    found = coalition_logits(system, collator, world)
    assert len(found) == 8 and () in found
    alone = collator([shown_only(world, ("spectrum",))])
    assert alone.present.tolist() == [[False, True, False, False]]
    np.testing.assert_allclose(found[("spectrum",)], system(alone).state_logits[0].detach().numpy(), atol=1e-4)


def test_integrated_gradients_are_complete(system, collator: Collator, sample_factory, monkeypatch) -> None:
    """The saliency adds up to the change of the answer from the baseline, and the padding gets none of it."""
    monkeypatch.setattr(attribute, "STEPS", 48)
    world = sample_factory(4)
    found = saliency(system, collator, world)
    assert found.spectrum is not None and found.climate is not None
    batch = collator([world])

    def odds() -> float:
        with torch.no_grad():
            return float(life_log_odds(system(batch).state_logits))

    whole = odds()
    original = batch.spectrum.clone()
    batch.spectrum[..., 1] = 0.0
    assert float(found.spectrum.sum()) == pytest.approx(whole - odds(), abs=0.03 * abs(whole - odds()) + 2e-3)
    batch.spectrum = original
    batch.climate = torch.zeros_like(batch.climate)
    assert float(found.climate.sum()) == pytest.approx(whole - odds(), abs=0.03 * abs(whole - odds()) + 2e-3)
    assert sum(found.climate_variables.values()) == pytest.approx(float(found.climate.sum()), abs=1e-4)


def test_absent_modalities_have_no_saliency(system, collator: Collator, sample_factory) -> None:
    found = saliency(system, collator, sample_factory(1, without=("spectrum", "climate")))
    assert found.spectrum is None and found.climate is None and found.climate_variables == {}
