"""The depthwise kernel on the sphere against PyTorch's convolution, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from astrobio.models.climate_cnn import ConvBlock
from astrobio.models.depthwise import sphere_depthwise

INTERPRETED = """
import torch
from torch import nn
from astrobio.models.climate_cnn import ConvBlock
from astrobio.models.depthwise import sphere_depthwise
from astrobio.models.kernels import depthwise
depthwise.ROWS, depthwise.CHANNELS, depthwise.SHARE = 32, 8, 64  # several programs, the last only partly filled
torch.manual_seed(0)
for size, grid in ((2, (2, 3, 6)), (3, (1, 1, 2))):
    block = ConvBlock(10)
    conv = block.depthwise
    x = torch.randn(size, 10, *grid, requires_grad=True)
    rows = x.permute(0, 2, 3, 4, 1)
    expected, found = block._mix(x, rows), sphere_depthwise(rows, conv.weight, conv.bias)
    torch.testing.assert_close(found, expected)
    up = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, (x, conv.weight, conv.bias), up)
    ours = torch.autograd.grad(found, (x, conv.weight, conv.bias), up)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
compiled = torch.compile(lambda r: sphere_depthwise(r, conv.weight, conv.bias), backend="aot_eager", fullgraph=True)
torch.testing.assert_close(torch.autograd.grad(compiled(rows), (x, conv.weight, conv.bias), up), ours)
"""


def test_the_kernel_equals_the_convolution() -> None:
    """The interpreter must be chosen before Triton is imported."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_shapes_are_known_without_running() -> None:
    """What compilation and the forecast of memory rely on."""
    with torch.device("meta"):
        block, rows = ConvBlock(6), torch.empty(2, 2, 4, 8, 6, requires_grad=True)
    assert block.depthwise.bias is not None
    out = sphere_depthwise(rows, block.depthwise.weight, block.depthwise.bias)
    out.sum().backward()
    assert out.shape == rows.shape and out.is_contiguous()
    assert rows.grad is not None and block.depthwise.weight.grad is not None
    assert rows.grad.shape == rows.shape
    assert block.depthwise.weight.grad.shape == (6, 1, 3, 3, 3)
