"""Sharded training on two gloo ranks equals one process; a rank without a modality joins every collective."""

from __future__ import annotations

import os
import runpy
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from astrobio.batch import Collator, MultiModalBatch, Sample
from astrobio.errors import InputError
from astrobio.system.presets import preset
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training import loop
from astrobio.training.activations import BatchShape, block_costs, blocks_of, gathered_blocks, recomputed_blocks
from astrobio.training.config import RunConfig, TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import check_execution, choose_recomputed, empty_system, prepare, sum_type, transform

SCRIPT = Path(__file__).with_name("two_ranks.py")
train, steps = (runpy.run_path(str(SCRIPT))[name] for name in ("train", "steps"))
PLAIN = "ExecutionConfig(optimizer='adamw8bit')"
WHOLE = "ExecutionConfig(optimizer='adamw8bit', gather='step', reduce='step')"
RECOMPUTED = "ExecutionConfig(optimizer='adamw8bit', activation_gib=0.0)"
OFFLOADED = "ExecutionConfig(optimizer='adamw8bit', offload=True)"


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _run(folder: Path, execution: str = PLAIN, mode: str = "start") -> list:
    """Two ranks."""
    port, processes = str(_port()), []
    for rank in range(2):
        environment = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, str(SCRIPT), str(folder), execution, mode]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        try:
            _, errors = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
            pytest.fail("a rank hangs")
        assert process.returncode == 0, errors[-3000:]
    return torch.load(folder / "losses.pt")


def _alone(folder: Path, execution: str = PLAIN, mode: str = "start") -> list:
    """This process on all batches."""
    if mode == "steps":
        return steps(folder, eval(execution, {"ExecutionConfig": ExecutionConfig}))
    return train(folder, eval(execution, {"ExecutionConfig": ExecutionConfig}), resume=mode == "resume")


def _case(folder: Path, batches: list[list[MultiModalBatch]]) -> Path:
    config = preset("mini")
    torch.manual_seed(0)
    weights = UnifiedMultiModalSystem(config).state_dict()
    torch.save({"config": config, "weights": weights, "batches": batches}, folder / "case.pt")
    return folder


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, collator: Collator, sample_factory: Callable[..., Sample]
) -> tuple[Path, list]:
    """Rank 0 has everything; rank 1 has no climate at all, then no metabolism at all. And one process's losses."""
    full = [collator([sample_factory(i) for i in (0, 1)]), collator([sample_factory(i) for i in (2, 3)])]
    bare = [
        collator([sample_factory(i, without=("climate",)) for i in (4, 5)]),
        collator([sample_factory(i, without=("metabolism", "spectrum")) for i in (6, 7)]),
    ]
    folder = _case(tmp_path_factory.mktemp("ranks"), [full, bare])
    return folder, _alone(folder)


def _assert_same(found: list, expected: list) -> None:
    for (losses, norm, skipped), (other, other_norm, _) in zip(found, expected, strict=True):
        assert skipped == ""
        assert norm == pytest.approx(other_norm, rel=1e-4)
        assert losses["total"] == pytest.approx(other["total"], rel=1e-5)
        # Single parts amplify what two sums in another order leave after some steps, differently on each processor.
        assert losses == pytest.approx(other, rel=3e-5, abs=1e-5)


def test_two_ranks_equal_one_and_one_without_a_modality_never_hangs(whole: tuple[Path, list]) -> None:
    folder, alone = whole
    _assert_same(_run(folder, WHOLE), alone)


@pytest.mark.slow
@pytest.mark.parametrize("execution", [PLAIN, OFFLOADED, RECOMPUTED])
def test_two_ranks_equal_one_in_any_execution(whole: tuple[Path, list], execution: str) -> None:
    folder, alone = whole
    _assert_same(_run(folder, execution), alone)


def _assert_same_steps(found: list, expected: list, tolerance: float = 0.0) -> None:
    """What `steps` of `two_ranks.py` said: of four steps, and between the second and the third of each part."""
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, tuple):
            assert one[:2] == pytest.approx(other[:2], rel=tolerance, nan_ok=True)
            assert one[2].partition(" in worlds")[0] == other[2].partition(" in worlds")[0]
        elif isinstance(other, dict):
            assert one == pytest.approx(other, rel=10 * tolerance)
        else:
            assert one == other
    assert "retrieval) in worlds w0" in found[4][2]
    losses = [found[place][0] for place in (0, 1, 5)]
    assert losses[2] < 0.9 * losses[0] and losses[1] != losses[0], "a step sees what the one before it learned"


@pytest.mark.slow
def test_gradients_shared_once_a_step_are_those_of_every_micro_batch(whole: tuple[Path, list]) -> None:
    """Whatever comes between the steps; sums of rounded numbers in another order are the same within their rounding."""
    folder, _ = whole
    once = _run(folder, WHOLE, mode="steps")
    _assert_same_steps(once, _alone(folder, mode="steps"), 1e-4)


@pytest.mark.slow
def test_what_ranks_share_once_a_step_goes_once(whole: tuple[Path, list]) -> None:
    """Of the two micro-batches of a rank."""
    folder, _ = whole
    kinds = ("gather='block'", "gather='step'", "gather='step', reduce='step'")
    counts = [_run(folder, f"ExecutionConfig(optimizer='adamw8bit', {kind})", mode="count") for kind in kinds]
    (sent, came), (sent_still, came_once), (sent_once, came_once_too) = counts
    assert sent == sent_still == 2 * sent_once > 0
    assert came > came_once == came_once_too > 0


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["", ", shards=1"])
def test_bfloat16_gradients_shared_once_a_step_follow_those_of_every_micro_batch(
    whole: tuple[Path, list], shared: str
) -> None:
    folder, _ = whole
    kinds = "optimizer='adamw8bit', weights='bf16', gradients='stochastic', gather='step'" + shared
    each = _run(folder, f"ExecutionConfig({kinds})", mode="steps")
    _assert_same_steps(_run(folder, f"ExecutionConfig({kinds}, reduce='step')", mode="steps"), each, 2e-2)


@pytest.mark.slow
def test_weights_gathered_once_a_step_are_those_of_every_step(whole: tuple[Path, list]) -> None:
    folder, _ = whole
    once = _run(folder, "ExecutionConfig(optimizer='adamw8bit', gather='step')", mode="steps")
    _assert_same_steps(once, _alone(folder, mode="steps"), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "execution",
    [
        "{}",
        "optimizer='adamw8bit', weights='bf16', gradients='stochastic', {}",
        "optimizer='adamw8bit', gradients='host', activation_gib=0.0, {}",
        "optimizer='adamw8bit', shards=1, {}",
    ],
)
def test_gathering_once_a_step_changes_no_bit(whole: tuple[Path, list], execution: str) -> None:
    folder, _ = whole
    once, each = (
        _run(folder, f"ExecutionConfig({execution.format(kind)})", mode="steps")
        for kind in ("gather='step'", "gather='block'")
    )
    _assert_same_steps(once, each)


@pytest.mark.slow
def test_a_checkpoint_moves_between_one_rank_and_two(whole: tuple[Path, list]) -> None:
    folder, _ = whole
    shutil.rmtree(folder / "checkpoints")
    _alone(folder)
    expected = _alone(folder, mode="resume")
    _assert_same(_run(folder, mode="resume"), expected)
    shutil.rmtree(folder / "checkpoints")
    _run(folder)
    _assert_same(_alone(folder, mode="resume"), _run(folder, mode="resume"))


def test_blocks_cover_every_part() -> None:
    names = list(blocks_of(empty_system(preset("mini"), torch.float32)))
    for part in ("spectrum_encoder", "climate_cnn", "metabolic_vae", "decoder", "fusion"):
        assert any(name.startswith(part) for name in names)
    assert not any(name.startswith(f"{other}.") for name in names for other in names)


def test_small_blocks_are_gathered_with_their_part() -> None:
    system = empty_system(preset("full_16_8b"), torch.bfloat16)
    apart = gathered_blocks(system)
    starts = {name.rpartition(".")[0] for name in apart}
    assert starts == {"climate_cnn.stages.2", "metabolic_vae.core", "decoder.model.layers", "climate_cnn.halves"}
    small = {name: block for name, block in blocks_of(system).items() if name not in apart}
    assert sum(p.numel() for block in small.values() for p in block.parameters()) < 0.03 * 17.1e9


def test_the_memory_budget_decides_what_is_recomputed() -> None:
    costs = block_costs(
        empty_system(preset("mini"), torch.float32), BatchShape(worlds=2, text=64, nodes=100, entries=300)
    )
    total = sum(cost.kept for cost in costs.values())
    assert list(recomputed_blocks(costs, None)) == []
    assert list(recomputed_blocks(costs, total)) == []
    assert len(list(recomputed_blocks(costs, 0))) == len(costs)
    some = set(recomputed_blocks(costs, total // 2))
    kept = sum(cost.recomputed if name in some else cost.kept for name, cost in costs.items())
    assert 0 < len(some) < len(costs)
    assert kept <= total // 2


def test_recomputation_keeps_losses_gradients_and_names(batch: MultiModalBatch) -> None:
    torch.manual_seed(0)
    system = UnifiedMultiModalSystem(preset("mini")).eval()
    names = list(system.state_dict())
    plain = system(batch).state_logits
    plain.sum().backward()
    before = [p.grad.clone() for p in system.parameters() if p.grad is not None]
    system.zero_grad()
    execution = ExecutionConfig(activation_gib=0.0)
    recomputed = choose_recomputed(preset("mini"), execution, BatchShape())
    transform(system, execution, recomputed)
    again = system(batch).state_logits
    again.sum().backward()
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close([p.grad for p in system.parameters() if p.grad is not None], before)
    assert list(system.state_dict()) == names
    assert len(recomputed) > 10


def test_streaming_from_host_memory_trains_as_on_the_device(batch: MultiModalBatch) -> None:
    config, training = preset("mini"), TrainingConfig(lr=1e-3, clip=1.0)
    torch.manual_seed(0)
    weights = UnifiedMultiModalSystem(config).state_dict()

    def losses(offload: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
        execution = ExecutionConfig(optimizer="adamw8bit", gradients="backward", offload=offload)
        prepared = prepare(
            config, execution, training, torch.device("cpu"), BatchShape(),
            load=lambda system: system.load_state_dict(weights) and None,
        )  # fmt: skip
        prepared.system.eval()
        out = []
        for _ in range(3):
            prepared.policy.begin()
            found = prepared.system(batch)
            loss = found.state_logits.square().mean() + found.language_nll + found.metabolism.fluxes.square().mean()
            loss.backward()
            out += [float(loss.detach()), float(prepared.policy.finish())]
        prepared.save_barrier()
        return out, prepared.system.state_dict()

    (resident, plain), (streamed, other) = losses(False), losses(True)
    assert streamed == pytest.approx(resident, rel=1e-4)
    for name, value in plain.items():
        assert float((value - other[name]).abs().mean()) < 1e-5, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "bf16"}, "bf16 needs execution.optimizer=adamw8bit"),
        ({"gradients": "host"}, "'host' needs execution.optimizer=adamw8bit"),
        ({"activation_gib": -1.0}, "at least 0"),
        ({"graphs": True, "optimizer": "adamw8bit", "offload": True}, "set execution.offload=false"),
    ],
)
def test_contradictions_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExecutionConfig(**options)


@pytest.mark.parametrize(
    ("options", "ranks", "message"),
    [
        ({"gradients": "backward"}, 2, "would leave 1 of 2 ranks idle; expected keep, stochastic or host"),
        ({"gradients": "stochastic", "offload": True}, 2, "set execution.gradients=keep, found stochastic"),
        ({"gradients": "keep", "offload": True}, 1, "set execution.gradients=backward, found keep"),
        ({"gather": "step", "offload": True}, 2, "set execution.gather=block, found step"),
        ({"graphs": True}, 2, "set execution.graphs=false"),
        ({"shards": 3}, 4, "a divisor of the 4 ranks, found 3"),
    ],
)
def test_what_a_number_of_ranks_cannot_do_is_refused(options: dict, ranks: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_execution(ExecutionConfig(optimizer="adamw8bit", **options), ranks)


def test_what_is_refused_is_refused_before_anything_is_loaded(tiny_run: RunConfig, tmp_path: Path) -> None:
    config = replace(tiny_run, execution=ExecutionConfig(optimizer="adamw8bit", offload=True))
    with pytest.raises(InputError, match="gradients=backward"):
        loop.train(config, tmp_path / "no data here", tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_streaming_needs_steps_in_the_backward() -> None:
    execution = ExecutionConfig(optimizer="adamw8bit", offload=True)
    with pytest.raises(InputError, match="gradients=backward"):
        prepare(preset("mini"), execution, TrainingConfig(), torch.device("cpu"), BatchShape())


def test_compiled_blocks_keep_their_names() -> None:
    model = nn.ModuleDict({"decoder": nn.ModuleDict({"layers": nn.ModuleList([nn.LayerNorm(4)])})})
    names = list(model.state_dict())
    transform(model, ExecutionConfig(compile=True), ())
    assert list(model.state_dict()) == names
    assert model["decoder"]["layers"][0]._compiled_call_impl is not None  # pyright: ignore


def test_blocks_of_fixed_size_are_compiled_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for any size take minutes to compile in FP8; message passing, whose size varies, is left as it is."""
    seen: dict[nn.Module, dict] = {}
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: seen.update({self: options}))
    system = empty_system(preset("mini"), torch.bfloat16)
    transform(system, ExecutionConfig(compile=True), ())
    assert seen and all(options == {"dynamic": False} for options in seen.values())
    left = {name.rpartition(".")[0] for name, block in blocks_of(system).items() if block not in seen}
    small = {"climate_cnn.halves", "spectrum_encoder.blocks", "fusion.layers", "fusion.pools"}
    heads = {"fusion.experts", "fusion.retrievers"}
    assert left == small | heads | {"metabolic_vae.layers"}


def test_two_ranks_sum_the_gradients_of_bf16_weights_in_bf16_and_all_others_in_float32() -> None:
    short, long = ExecutionConfig(optimizer="adamw8bit", weights="bf16"), ExecutionConfig()
    assert sum_type(short, (2,)) == torch.bfloat16
    assert {sum_type(long, (2,)), sum_type(short, (4,)), sum_type(short, (2, 2))} == {torch.float32}
    one, two = (torch.randn(100_000).bfloat16() for _ in range(2))
    assert torch.equal(one + two, (one.float() + two.float()).bfloat16())  # why it loses nothing
