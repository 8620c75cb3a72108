"""What two gloo ranks run for `test_parallel.py`: the same steps as one process, on half of the worlds each.

    python two_ranks.py FOLDER EXECUTION start|resume|steps|count, under RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

FOLDER holds `case.pt`: the system's configuration and weights, and the batches of each rank. `steps` takes four, looks
at every part's gradient and at a pass without one in between, and skips the third, whose loss is not finite. `count`
says how often a step's gradients went to the other rank, and its weights came.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from astrobio.batch import MultiModalBatch
from astrobio.losses.combined import LossWeights
from astrobio.training import activations
from astrobio.training.activations import BatchShape
from astrobio.training.checkpoint import restore_checkpoint, save_checkpoint
from astrobio.training.config import TrainingConfig
from astrobio.training.execution import ExecutionConfig
from astrobio.training.parallel import Prepared, prepare
from astrobio.training.ranks import join_ranks, leave_ranks, rank, world_size
from astrobio.training.step import forward_loss, gradient_norms, norms_by_part, train_step

TRAINING = TrainingConfig(lr=1e-3, warmup_steps=0, clip=1.0)
STEPS = 2


def _prepared(folder: Path, execution: ExecutionConfig) -> tuple[Prepared, list[MultiModalBatch]]:
    """The case's system on this rank, and this rank's batches (all of them if alone)."""
    device = join_ranks(torch.device("cpu"))
    case: dict[str, Any] = torch.load(folder / "case.pt", weights_only=False)
    prepared = prepare(
        case["config"], execution, TRAINING, device, BatchShape(),
        load=lambda system: system.load_state_dict(case["weights"]) and None,
    )  # fmt: skip
    batches = case["batches"][rank()] if world_size() > 1 else [b for ranks in case["batches"] for b in ranks]
    return prepared, batches


def train(folder: Path, execution: ExecutionConfig, resume: bool) -> list[tuple[dict[str, float], float, str]]:
    """Losses, gradient norm and reason of skipping of each step, on this rank's batches (all of them if alone)."""
    prepared, batches = _prepared(folder, execution)
    prepared.system.eval()  # no random hiding: the ranks must see what one process sees
    if resume:
        assert restore_checkpoint(folder, prepared.system, prepared.optimizer) == (STEPS, {})
    losses = []
    for _ in range(STEPS):
        result = train_step(prepared.system, prepared.policy, batches, LossWeights(alignment=0.0), "fp32")
        losses.append((result.losses, result.gradient_norm, result.skipped))
    if not resume:
        save_checkpoint(folder, STEPS, prepared.system, prepared.optimizer, {}, keep=1)
    return losses


def steps(folder: Path, execution: ExecutionConfig) -> list[Any]:
    """What four steps say, with everything that may happen between two of them."""
    prepared, batches = _prepared(folder, execution)
    system, policy, weights = prepared.system.eval(), prepared.policy, LossWeights(alignment=0.0)
    out = []
    for step in range(4):
        bad = [replace(b, physics=b.physics * float("nan")) for b in batches] if step == 2 else batches
        result = train_step(system, policy, bad, weights, "fp32")
        out.append((result.losses["total"], result.gradient_norm, result.skipped))
        if step == 1:
            out.append(norms_by_part(system, policy))
            own = batches[0]  # two ranks measure that of both together: only the names can be compared with one's
            norms = gradient_norms(system, policy, own, weights, "fp32")
            assert norms["classification"]["decoder"] > 0.0, "the gradients of whole weights are elsewhere"
            out.append(set(norms))
            with torch.no_grad():
                forward_loss(system, own, weights, None, "fp32")
            prepared.save_barrier()
    return out


def count(folder: Path, execution: ExecutionConfig) -> list[Any]:
    """Reduce-scatters and all-gathers of a second step."""
    prepared, batches = _prepared(folder, execution)
    for _ in range(2):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            train_step(prepared.system.eval(), prepared.policy, batches, LossWeights(alignment=0.0), "fp32")
    names = [event.name for event in seen.events() or [] if event.name.startswith("c10d::")]
    return [sum(kind in name for name in names) for kind in ("reduce_scatter", "allgather")]


if __name__ == "__main__":
    torch.set_num_threads(1)
    activations.SMALLEST_GROUP = 20_000  # the smallest system has blocks on both sides of it
    where, what = Path(sys.argv[1]), eval(sys.argv[2], {"ExecutionConfig": ExecutionConfig})
    mode = sys.argv[3]
    others = {"steps": steps, "count": count}
    found = others[mode](where, what) if mode in others else train(where, what, resume=mode == "resume")
    if rank() == 0:
        torch.save(found, where / "losses.pt")
    leave_ranks()
