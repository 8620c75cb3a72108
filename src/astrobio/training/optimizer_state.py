"""An optimizer's state as named tensors and plain numbers, laid out as its parameters are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from astrobio.training.eight_bit import AdamW8bit


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """ "state.<parameter>.<name>" → the optimizer's own tensors, to be saved or filled in place.

    A parameter without a state yet gets its first one, zeros. Parameters are numbered in order of groups, which is the
    same whatever the number of ranks.
    """
    out: dict[str, Tensor] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        if isinstance(optimizer, AdamW8bit):
            optimizer.local_state(parameter)
        elif not optimizer.state[parameter]:
            optimizer.state[parameter].update(_first_adamw_state(optimizer, parameter))
        values = optimizer.state[parameter].items()
        out |= {f"state.{index}.{name}": value for name, value in values if isinstance(value, Tensor)}
    return out


def _first_adamw_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What `torch.optim.AdamW` gives a parameter at its first step."""
    assert isinstance(optimizer, torch.optim.AdamW)
    fused = bool(optimizer.defaults["fused"])
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu"),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }


def group_values(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The numbers of each parameter group (learning rate, betas …), ready for JSON."""
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    if isinstance(optimizer, AdamW8bit):
        groups = [group | {"updates": optimizer.updates} for group in groups]
    return groups


def set_group_values(optimizer: torch.optim.Optimizer, saved: list[dict[str, Any]]) -> None:
    """The inverse of `group_values`."""
    for group, values in zip(optimizer.param_groups, saved, strict=True):
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    if isinstance(optimizer, AdamW8bit):
        optimizer.updates = int(saved[0]["updates"])
