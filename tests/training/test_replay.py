"""Which blocks are recorded as CUDA graphs, and what happens where they cannot be; `device_check.py` replays them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape, block_costs, blocks_of, empty_system, replayed_blocks
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import prepare
from astrobio.training.plan import forecast
from astrobio.training.replay import _kind, replay_blocks


def test_the_full_size_records_its_encoders_and_not_its_decoder_layers() -> None:
    system = empty_system(preset("full_16_8b"), torch.bfloat16)
    found = replayed_blocks(system, ("climate_cnn.stages.0.0",))
    assert "climate_cnn.stages.2.15" in found and "metabolic_vae.core.16" in found
    assert "climate_cnn.stages.0.0" not in found  # it is computed again in the backward
    assert not any(name.startswith(("decoder.model.layers", "metabolic_vae.layers")) for name in found)


def test_small_systems_record_their_decoder_too() -> None:
    assert "decoder.model.layers.29" in replayed_blocks(empty_system(preset("small"), torch.bfloat16), ())


def test_the_plan_counts_the_gradients_that_recordings_hold() -> None:
    system, shape = empty_system(preset("full_16_8b"), torch.bfloat16), BatchShape()
    how = ExecutionConfig(optimizer="adamw8bit", weights="bf16", activation_gib=18.0)
    costs = block_costs(system, shape)
    plain, recorded = (forecast(system, costs, replace(how, graphs=graphs), shape) for graphs in (False, True))
    held = replayed_blocks(system, recorded.recomputed).values()
    assert recorded.peak - plain.peak == 2 * sum(p.numel() for block in held for p in block.parameters())


def test_without_a_gpu_nothing_is_recorded() -> None:
    execution = ExecutionConfig(graphs=True)
    system = prepare(preset("mini"), execution, TrainingConfig(), torch.device("cpu"), BatchShape()).system
    assert all(block._compiled_call_impl is None for block in blocks_of(system).values())


def test_evaluation_and_passes_without_gradients_run_as_usual() -> None:
    block = nn.Linear(3, 3)
    expected = block(x := torch.randn(2, 3))
    names = list(block.state_dict())
    replay_blocks({"block": block})
    with torch.no_grad():
        assert torch.equal(block(x), expected)
    assert torch.equal(block.eval()(x), expected)
    assert list(block.state_dict()) == names


def test_a_recording_is_for_one_layout_type_and_constant() -> None:
    x = torch.zeros(2, 3)
    assert _kind(x) == _kind(torch.ones(2, 3))
    assert len({_kind(x), _kind(x.t().contiguous().t()), _kind(x.double()), _kind(x.requires_grad_()), _kind(3)}) == 5
