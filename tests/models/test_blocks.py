"""Norm, rotary positions, pooling."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.models.blocks import Pooling, RMSNorm, rotary_table, rotate
from astrobio.models.initialise import init_weights


def test_rms_norm_by_hand() -> None:
    norm = RMSNorm(2, eps=0.0)
    torch.testing.assert_close(norm(torch.tensor([3.0, 4.0])), torch.tensor([3.0, 4.0]) / 12.5**0.5)


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(0, 500), gap=st.integers(0, 50))
def test_rotary_products_depend_on_distance_only(shift: int, gap: int) -> None:
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(first: int, second: int) -> torch.Tensor:
        turned = [
            rotate(x, *rotary_table(torch.tensor([[place]]), 8, 10_000.0)) for x, place in ((q, first), (k, second))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(product(shift, shift + gap), product(0, gap), rtol=1e-3, atol=1e-3)


def test_pooling_ignores_hidden_tokens_and_order() -> None:
    pool = Pooling(8, 6, 3, 2, 16)
    init_weights(pool, 1)
    tokens, visible = torch.randn(1, 5, 6), torch.tensor([[True, True, True, False, False]])
    expected = pool(tokens[:, :3])
    assert expected.shape == (1, 3, 8)
    torch.testing.assert_close(pool(tokens, visible), expected)
    order = torch.tensor([4, 2, 0, 3, 1])
    torch.testing.assert_close(pool(tokens[:, order], visible[:, order]), expected)
