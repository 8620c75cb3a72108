"""Linear layers that multiply in 8-bit floating point, through torchao; their weights stay as they are."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import nn

from astrobio.errors import InputError

Float8Recipe = Literal["tensorwise", "rowwise"]
SMALLEST = 1 << 22  # weights of a layer; below, scaling costs more than the faster product saves
CAPABILITY = (8, 9)  # Ada and later have 8-bit matrix units
KEPT = ("lm_head", "embed_tokens")  # outputs and embeddings stay in bfloat16


def eligible(layer: nn.Module, name: str) -> bool:
    """Whether a layer gains: linear, large, sides that are multiples of 16, and neither head nor embedding."""
    if not isinstance(layer, nn.Linear) or any(kept in name for kept in KEPT):
        return False
    return layer.weight.numel() >= SMALLEST and layer.in_features % 16 == 0 and layer.out_features % 16 == 0


def use_float8(module: nn.Module, recipe: Float8Recipe = "tensorwise") -> int:
    """Replace the eligible linear layers inside a module in place; returns how many.

    The layers stay `nn.Linear` with the same parameters, so checkpoints do not change.

    Raises:
        InputError: torchao is missing, or the GPU has no 8-bit units.
    """
    if importlib.util.find_spec("torchao") is None:
        raise InputError("float8: needs the package torchao; install it or set execution.float8=false")
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < CAPABILITY:
        found = torch.cuda.get_device_capability()
        raise InputError(f"float8: needs compute capability {CAPABILITY} or higher, found {found}; set float8=false")
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # pyright: ignore[reportMissingImports]

    chosen = {name for name, layer in module.named_modules() if eligible(layer, name)}
    config = Float8LinearConfig.from_recipe_name(recipe)
    convert_to_float8_training(module, config=config, module_filter_fn=lambda _, name: name in chosen)
    return len(chosen)
