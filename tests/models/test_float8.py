"""Which layers multiply in 8 bits, and that they still compute the same product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from astrobio.models.float8 import eligible, use_float8


def test_small_odd_and_output_layers_stay() -> None:
    with torch.device("meta"):
        large, small, odd = nn.Linear(4096, 4096), nn.Linear(64, 64), nn.Linear(4097, 4096)
        assert eligible(large, "layers.0.mlp.up_proj")
        assert not eligible(small, "layers.0.mlp.up_proj")
        assert not eligible(odd, "layers.0.mlp.up_proj")
        assert not eligible(large, "decoder.lm_head")
        assert not eligible(nn.Conv2d(256, 256, 16), "stem")


def test_layers_are_replaced_in_place_and_keep_their_parameters() -> None:
    pytest.importorskip("torchao")
    with torch.device("meta"):
        model = nn.ModuleDict({"big": nn.Linear(4096, 1024), "small": nn.Linear(64, 64)})
    before = dict(model.named_parameters())
    assert use_float8(model) == 1
    assert type(model["big"]).__name__ == "Float8Linear"
    assert list(dict(model.named_parameters())) == list(before)
    assert type(model["small"]) is nn.Linear
