"""The forecast: exact parameter counts, bytes that add up, a strategy that fits, and refusals before anything loads."""

from __future__ import annotations

import json
import time

import pytest
import torch
from typer.testing import CliRunner

from astrobio.cli import app
from astrobio.errors import InputError
from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape
from astrobio.training.eight_bit import fresh_state
from astrobio.training.execution import ExecutionConfig
from astrobio.training.plan import GPUS, SLACK, make_plan, require_fit

FULL = preset("full_16_8b")


def test_the_full_size_is_planned_in_seconds_without_weights() -> None:
    start = time.perf_counter()
    found = make_plan(FULL, "h100-80")
    assert time.perf_counter() - start < 10
    parameters = found.parameters
    assert parameters["decoder"] == pytest.approx(13.14e9, rel=0.005)
    assert parameters["graph_vae"] == pytest.approx(1.2e9, rel=0.02)
    assert parameters["climate_cnn"] == pytest.approx(2.5e9, rel=0.02)
    assert parameters["total"] == sum(count for name, count in parameters.items() if name != "total")


@pytest.mark.parametrize(
    ("gpu", "gpus", "accumulation", "strategy"),
    [
        ("h200", 1, 32, "stochastic"),
        ("h100-80", 1, 1, "backward"),
        ("a5000-24", 1, 1, "offload"),
        ("24gib", 1, 1, "offload"),
        ("h100-80", 2, 32, "stochastic"),
        ("a5000-24", 2, 1, "offload"),
        ("h100-80", 8, 32, "stochastic"),
    ],
)
def test_each_card_gets_the_fastest_strategy_that_fits(gpu: str, gpus: int, accumulation: int, strategy: str) -> None:
    found = make_plan(FULL, gpu, gpus, accumulation=accumulation)
    assert found.fits
    assert found.strategy == strategy
    assert found.peak_bytes == pytest.approx(sum(found.bytes.values()))
    assert found.peak_bytes < GPUS[gpu].memory * SLACK


def test_moments_are_counted_as_the_optimizer_allocates_them() -> None:
    found = make_plan(preset("mini"), "h200", accumulation=1)
    with torch.device("meta"):
        from astrobio.system.unified import UnifiedMultiModalSystem

        system = UnifiedMultiModalSystem(preset("mini"))
    states = [fresh_state(parameter) for parameter in system.parameters()]
    expected = sum(value.numel() * value.element_size() for state in states for value in state.values())
    assert found.bytes["moments"] == pytest.approx(expected)


def test_more_cards_need_less_memory_and_time_each() -> None:
    one = make_plan(FULL, "h200", 1, accumulation=32)
    four = make_plan(FULL, "h200", 4, accumulation=32)
    assert four.bytes["weights"] == pytest.approx(one.bytes["weights"] / 4)
    assert four.tokens_per_second > 3 * one.tokens_per_second
    assert one.days == pytest.approx(1e9 / one.tokens_per_second / 86400)


def test_weights_are_gathered_once_a_step_where_that_is_faster_and_fits() -> None:
    roomy, tight = (make_plan(FULL, gpu, 2, accumulation=16) for gpu in ("h200", "h100-80"))
    assert roomy.execution["gather"] == "step" and tight.execution["gather"] == "block"
    assert roomy.bytes["unsharded"] > 2.0 * roomy.parameters["total"] > 5 * tight.bytes["unsharded"]
    one = make_plan(FULL, "h200", 1, accumulation=16)
    assert one.execution["gather"] == "block" and "unsharded" not in one.bytes


def test_gradients_are_shared_once_a_step_where_that_is_faster_than_recomputing_less() -> None:
    roomy, tight = (make_plan(FULL, gpu, 2, accumulation=16) for gpu in ("h200", "h100-80"))
    assert roomy.execution["reduce"] == "step" and tight.execution["reduce"] == "micro_batch"
    assert roomy.bytes["gradients"] > 2.0 * roomy.parameters["total"] > 1.8 * tight.bytes["gradients"]
    assert make_plan(FULL, "h200", 2, accumulation=1).execution["reduce"] == "micro_batch"  # it is once a step anyway


def test_what_fits_nowhere_is_said_with_the_gap() -> None:
    found = make_plan(FULL, "a5000-24", host_bytes=16e9)
    assert not found.fits
    assert found.strategy == "none"
    assert "host's memory" in found.note
    huge = make_plan(FULL, "rtx4090-24", shape=BatchShape(worlds=512, text=512))
    assert not huge.fits
    assert "GB too much" in huge.note


def test_an_execution_that_cannot_fit_is_refused_before_loading() -> None:
    with pytest.raises(InputError, match=r"GB are needed on each GPU \(activations .*found 85\.0 GB"):
        require_fit(FULL, ExecutionConfig(), BatchShape(), 85e9, 1)
    require_fit(preset("mini"), ExecutionConfig(), BatchShape(), 85e9, 1)


def test_unknown_cards_and_numbers_are_errors() -> None:
    with pytest.raises(InputError, match="expected one of"):
        make_plan(FULL, "h100")
    with pytest.raises(InputError, match="at least 1"):
        make_plan(FULL, "h200", 0)


def test_the_command_prints_json_and_exits_by_the_answer() -> None:
    found = CliRunner().invoke(app, ["plan", "--preset", "full_16_8b", "--gpu", "h100-80", "--gpus", "1", "--json"])
    assert found.exit_code == 0, found.output
    keys = json.loads(found.stdout)
    assert {"parameters", "bytes", "peak_bytes", "fits", "strategy", "step_seconds"} <= keys.keys()
    assert keys["fits"] is True
    refused = CliRunner().invoke(app, ["plan", "--gpu", "a5000-24", "--host-gb", "8"])
    assert refused.exit_code == 2
    assert "none" in refused.stdout
