"""The one table by which every parameter of every part gets its first value."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn

# (pattern of the parameter's name, rule); the first that matches counts, every parameter must match one.
TABLE: tuple[tuple[str, str], ...] = (
    (r"norm\.weight$", "one"),
    (r"bias$", "zero"),
    (r"gate$", "zero"),  # tanh gates: a pretrained decoder starts bit-identical (Flamingo, arXiv:2204.14198)
    (r"(embed_tokens|embedding)\.weight$", "token"),
    (r"state_head\.weight$", "token"),  # near-uniform probabilities at the start, whatever the number of experts
    (r"(query|absent)$", "token"),
    (r"(o_proj|down_proj|contract)\.weight$", "residual"),
    (r"weight$", "fan_in"),
)
TOKEN_STD = 0.02  # GPT-2's and Llama's standard deviation of embeddings


def rule_of(name: str) -> str:
    """The rule that initialises the parameter of this name."""
    for pattern, rule in TABLE:
        if re.search(pattern, name):
            return rule
    raise AssertionError(f"no rule initialises {name}")


@torch.no_grad()
def init_weights(module: nn.Module, depth: int) -> None:
    """Initialise all parameters in place; outputs into a residual stream are scaled by 1/√(2·depth) (GPT-2)."""
    for name, parameter in module.named_parameters():
        init_parameter(name, parameter, depth)


@torch.no_grad()
def init_parameter(name: str, parameter: Tensor, depth: int) -> None:
    """Initialise one parameter in place, by the rule for its name."""
    _fill(parameter, rule_of(name), depth)


def _fill(parameter: Tensor, rule: str, depth: int) -> None:
    if rule == "one":
        parameter.fill_(1.0)
    elif rule == "zero":
        parameter.zero_()
    elif rule == "token":
        parameter.normal_(0.0, TOKEN_STD)
    else:
        fan_in = parameter[0].numel()
        scale = 1.0 / math.sqrt(2 * depth) if rule == "residual" else 1.0
        parameter.normal_(0.0, scale / math.sqrt(fan_in))
