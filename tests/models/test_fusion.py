"""Presence, adaptive weights, embeddings."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.batch import MODALITIES
from astrobio.models.fusion import (
    AGREEMENT_SCALE,
    PAIRS,
    Fusion,
    FusionConfig,
    adaptive_weights,
    agreements,
    show_present,
    thermal_suitability,
)
from astrobio.models.initialise import init_weights

NAMED_PAIRS = [(MODALITIES[i], MODALITIES[j]) for i, j in PAIRS]
SUITED = torch.zeros(3, 3)
CONFIG = FusionConfig(width=16, layers=2, heads=2, inner_width=16, alignment_width=8, context_width=12, text_width=10)


def make_inputs(worlds: int = 3) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    tokens = {name: torch.randn(worlds, 4 + i, 12) for i, name in enumerate(MODALITIES)}
    visible = {name: torch.ones(value.shape[:2], dtype=torch.bool) for name, value in tokens.items()}
    return tokens, visible, torch.randn(4, 12), torch.randn(worlds, 10)


def make_fusion() -> Fusion:
    fusion = Fusion(CONFIG)
    init_weights(fusion, 2)
    return fusion.eval()


@settings(max_examples=30, deadline=None)
@given(present=st.lists(st.booleans(), min_size=4, max_size=4))
def test_weights_are_shared_among_what_is_there(present: list[bool]) -> None:
    weights = adaptive_weights(torch.randn(1, 4) * 5, torch.tensor([present]))[0]
    assert torch.isfinite(weights).all()
    assert not weights[~torch.tensor(present)].any()
    torch.testing.assert_close(weights.sum(), torch.tensor(float(any(present))))


def test_what_is_absent_cannot_be_heard() -> None:
    fusion = make_fusion()
    tokens, visible, absent, text = make_inputs()
    present = torch.ones(3, 4, dtype=torch.bool)
    present[:, 2] = False
    before = fusion(tokens, visible, absent, present, text, SUITED)
    changed = fusion(tokens | {"climate": torch.randn(3, 6, 12)}, visible, absent, present, text, SUITED)
    assert torch.equal(before.state_logits, changed.state_logits)
    heard = fusion(tokens | {"spectrum": torch.randn(3, 5, 12)}, visible, absent, present, text, SUITED)
    assert not torch.allclose(before.state_logits, heard.state_logits)


def test_an_absent_modality_is_its_learned_token_and_nothing_at_all_is_finite() -> None:
    fusion = make_fusion()
    tokens, visible, absent, text = make_inputs()
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    out = fusion(tokens, visible, absent, nothing, text, SUITED)
    assert torch.isfinite(out.state_logits).all()
    assert not torch.allclose(fusion(tokens, visible, absent + 1, nothing, text, SUITED).state_logits, out.state_logits)
    context, shown = show_present(tokens, visible, absent, nothing)
    torch.testing.assert_close(context[shown].reshape(3, 4, 12), absent.expand(3, 4, 12))


def test_embeddings_are_unit_vectors() -> None:
    tokens, visible, absent, text = make_inputs()
    out = make_fusion()(tokens, visible, absent, torch.ones(3, 4, dtype=torch.bool), text, SUITED)
    for name in MODALITIES:
        torch.testing.assert_close(out.embeddings[name].norm(dim=-1), torch.ones(3))


def test_agreement_is_of_pairs_that_are_both_there() -> None:
    same = torch.nn.functional.normalize(torch.ones(2, 8), dim=-1)
    embeddings = {name: same if name != "metabolism" else -same for name in MODALITIES}
    present = torch.ones(2, 4, dtype=torch.bool)
    present[1, MODALITIES.index("climate")] = False
    found = agreements(embeddings, present) * AGREEMENT_SCALE
    expected = {0: [1.0 if "metabolism" not in pair else -1.0 for pair in NAMED_PAIRS]}
    expected[1] = [0.0 if "climate" in pair else value for pair, value in zip(NAMED_PAIRS, expected[0], strict=True)]
    torch.testing.assert_close(found, torch.tensor([expected[0], expected[1]]))


def test_suitability_is_a_bounded_distance_where_both_are_known() -> None:
    growth, habitat = torch.tensor([1.0, 0.0, 5.0, 1.0]), torch.tensor([1.0, 0.8, -5.0, 0.0])
    known = torch.tensor([True, True, True, False])
    found = thermal_suitability(growth, habitat, known)
    expected = [[1.0, 0.0, 0.0], [1.0, -1.5, 2.25], [1.0, 3.0, 9.0], [0.0, 0.0, 0.0]]  # 12 K are 1.5 niches of 8 K
    torch.testing.assert_close(found, torch.tensor(expected))
