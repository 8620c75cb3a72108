"""The forecast against steps of the full system that were measured: at most 5% off in memory and 15% in time.

The rates come from some of these steps (`astrobio.training.plan` says which), so that not every row is a test of them.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape, block_costs, empty_system
from astrobio.training.execution import ExecutionConfig
from astrobio.training.plan import GPUS, forecast, step_seconds

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SHAPE = BatchShape(worlds=16, text=512, nodes=16 * 1800, entries=16 * 4400, times=4)  # of benchmarks/worlds.py
HOST_SHARE = 0.06  # of host memory: slabs and libraries are not counted
# All rows were measured before the head's gradient was taken in the forward; it is now kept until it is scaled.
SINCE = 131_072 * 5120 * 2.0
BASE = {"optimizer": "adamw8bit", "weights": "bf16", "gradients": "backward", "compile": True, "activation_gib": 0.0}


def sharded(name: str) -> tuple[str, dict[str, Any], dict[str, Any], int, int]:
    """Card, settings, numbers, ranks and micro-batches a rank of a launch."""
    run = json.loads((RESULTS / "sharded_step.json").read_text())["runs"][name]
    found = run["phases"].get("speed") or run["phases"]["offload"]
    return run["forecast"]["card"], run["execution"], found, run["ranks"], found["accumulation"] // run["ranks"]


def joint(card: str, variant: str, plan_card: str) -> tuple[str, dict[str, Any], dict[str, Any], int, int]:
    """The same of a variant on one card."""
    found = json.loads((RESULTS / "joint_step.json").read_text())["cards"][card][variant]
    how = {"offload": variant.startswith("streamed"), "float8": variant.endswith("fp8")}
    return plan_card, BASE | how, found, 1, 1


ROWS = {
    "one H200, bf16": (lambda: sharded("bf16_1")),
    "one H200, fp8": (lambda: sharded("fp8_1")),
    "two H200, bf16": (lambda: sharded("bf16_2")),
    "two H200, fp8": (lambda: sharded("fp8_2")),
    "two H200, bf16, shared by micro-batch": (lambda: sharded("bf16_2_reduce_micro_batch")),
    "two H200, fp8, shared by micro-batch": (lambda: sharded("fp8_2_reduce_micro_batch")),
    "two H200, bf16, gathered by block": (lambda: sharded("bf16_2_gather_block")),
    "two H200 of 24 GiB, offloaded": (lambda: sharded("offload_2")),
    "one H200 of 24 GiB, streamed": (lambda: joint("H200", "streamed_bf16", "24gib")),
    "one H100, bf16, step in the backward": (lambda: joint("H100", "resident_bf16", "h100-80")),
    "one H100, fp8, step in the backward": (lambda: joint("H100", "resident_fp8", "h100-80")),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_forecast_is_near_what_was_measured(row: str) -> None:
    card, settings, measured, ranks, own = ROWS[row]()
    known = {field.name for field in fields(ExecutionConfig)}
    execution = ExecutionConfig(**{key: value for key, value in settings.items() if key in known})
    system = empty_system(preset("full_16_8b"), torch.bfloat16)
    found = forecast(system, block_costs(system, SHAPE, compiled=execution.compile), execution, SHAPE, ranks, own)
    seconds = step_seconds(system, found, GPUS[card], ranks, own, SHAPE)
    peak = found.peak if execution.offload and ranks == 1 else found.peak - SINCE  # a streamed peak lies in a block
    print(
        f"\n{row}: {peak / 1e9:.2f} GB ({peak / measured['peak_bytes'] - 1:+.1%}), {seconds:.2f} s "
        f"({seconds / measured['step_seconds'] - 1:+.1%}), host {found.host / 1e9:.1f} GB"
    )
    assert peak == pytest.approx(measured["peak_bytes"], rel=0.05)
    assert seconds == pytest.approx(measured["step_seconds"], rel=0.15)
    if found.host:
        assert found.host == pytest.approx(measured["host_peak_bytes"], rel=HOST_SHARE)
