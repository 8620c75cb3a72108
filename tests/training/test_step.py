"""Accumulation, the guard against non-finite numbers, and the gradient report."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from traceback import extract_stack

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from astrobio.batch import Collator, MultiModalBatch, Sample, note_sizes
from astrobio.losses.combined import LossWeights
from astrobio.system import SystemConfig, UnifiedMultiModalSystem
from astrobio.training.eight_bit import AdamW8bit
from astrobio.training.gradients import KeptGradients, StepInBackward
from astrobio.training.step import forward_loss, global_counts, gradient_norms, norms_by_part, train_step

# InfoNCE compares the worlds of one forward pass, so it depends on the cut; links draw their negative pairs at random.
COMPARABLE = LossWeights(alignment=0.0, graph_vae=0.0)


class Recorded(KeptGradients):
    """Keeps a copy of the gradients instead of taking a step."""

    def finish(self) -> torch.Tensor:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        return torch.ones(())


class Asked(TorchDispatchMode):
    """Our lines that would make the host wait for a device: values read back, sizes by values, constants sent."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if any(mark in name for mark in ("local_scalar", "nonzero", "masked_select", "unique", "lift_fresh")):
            self.found.add(next(f.line or "" for f in reversed(extract_stack()) if "src/astrobio" in f.filename))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def system(tiny_system: SystemConfig) -> UnifiedMultiModalSystem:
    return UnifiedMultiModalSystem(tiny_system).eval()  # no sampling, so that two passes can be compared


def policy_for(system: UnifiedMultiModalSystem, kind: type[KeptGradients] = KeptGradients) -> KeptGradients:
    return kind(torch.optim.SGD(system.parameters(), lr=0.1), 1.0)


def test_losses_of_micro_batches_add_up_to_those_of_one_batch(
    system: UnifiedMultiModalSystem, sample_factory: Callable[..., Sample], collator: Collator
):
    without = [(), ("climate",), ("metabolism", "text"), (), ("spectrum",), ("climate", "metabolism")]
    samples = [sample_factory(i, without=w, assessment="one " * (1 + 5 * i)) for i, w in enumerate(without)]
    samples[3] = replace(samples[3], state=None)
    whole, uneven = (
        train_step(system, policy_for(system, Recorded), [collator(part) for part in parts], COMPARABLE, "fp32").losses
        for parts in ([samples], [samples[:1], samples[1:4], samples[4:]])
    )
    assert uneven == pytest.approx(whole, rel=1e-4)


def test_gradients_of_micro_batches_add_up_too(
    system: UnifiedMultiModalSystem, sample_factory: Callable[..., Sample], collator: Collator
):
    samples = [sample_factory(i, assessment="one " * (1 + 5 * i)) for i in range(4)]
    gradients = []
    for parts in ([samples], [samples[:1], samples[1:]]):
        policy = policy_for(system, Recorded)
        train_step(system, policy, [collator(part) for part in parts], COMPARABLE, "fp32")
        assert isinstance(policy, Recorded)
        gradients.append(torch.cat([g.flatten() for g in policy.gradients]))
        system.zero_grad()
    assert torch.linalg.norm(gradients[0]) > 0
    assert torch.linalg.norm(gradients[0] - gradients[1]) < 1e-4 * torch.linalg.norm(gradients[0])


def test_non_finite_loss_leaves_the_weights_alone(system: UnifiedMultiModalSystem, batch: MultiModalBatch):
    broken = copy.copy(batch)
    broken.physics = batch.physics * float("nan")
    before = copy.deepcopy(system.state_dict())
    result = train_step(system, policy_for(system), [batch, broken], LossWeights(), "fp32")
    assert "not finite" in result.skipped and "retrieval" in result.skipped and batch.world_ids[0] in result.skipped
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())
    assert all(p.grad is None for p in system.parameters())


def test_non_finite_loss_is_seen_before_a_backward_that_updates(
    system: UnifiedMultiModalSystem, batch: MultiModalBatch
):
    broken = copy.copy(batch)
    broken.physics = batch.physics * float("nan")
    before = copy.deepcopy(system.state_dict())
    policy = StepInBackward(AdamW8bit(system.parameters(), lr=0.1), 1.0)
    assert "retrieval" in train_step(system, policy, [broken], LossWeights(), "fp32").skipped
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())
    assert not train_step(system, policy, [batch], LossWeights(), "fp32").skipped
    assert any(not torch.equal(before[name], value) for name, value in system.state_dict().items())


def test_a_pass_over_a_batch_of_known_sizes_never_waits_for_the_device(
    system: UnifiedMultiModalSystem, batch: MultiModalBatch
):
    counts = global_counts([batch])
    expected = forward_loss(system, batch, LossWeights(), counts, "fp32")[1].total
    note_sizes([batch])
    with Asked() as asked:
        loss = forward_loss(system, batch, LossWeights(), counts, "fp32")[1].total
        global_counts([batch])
        loss.backward()
    # One-hot codes check their range on CPUs only, and a number given to a slice is filled in by the device.
    assert {line for line in asked.found if "one_hot(" not in line and not line.endswith("] = 0.0")} == set()
    assert torch.equal(loss, expected)
    assert replace(batch, labels=batch.labels).sizes is None, "a copy may have other labels"


def test_non_finite_gradient_leaves_the_weights_alone(system: UnifiedMultiModalSystem, batch: MultiModalBatch):
    def explode(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf")

    system.absent.register_hook(explode)
    before = copy.deepcopy(system.state_dict())
    result = train_step(system, policy_for(system), [batch], LossWeights(), "fp32")
    assert result.skipped.startswith("the gradient is not finite")
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


def test_ordinary_step_moves_the_weights(system: UnifiedMultiModalSystem, batch: MultiModalBatch):
    before = copy.deepcopy(system.state_dict())
    result = train_step(system, policy_for(system), [batch], LossWeights(), "fp32")
    assert not result.skipped and result.gradient_norm > 0
    assert any(not torch.equal(before[name], value) for name, value in system.state_dict().items())


def test_gradient_report_names_who_reaches_whom(system: UnifiedMultiModalSystem, batch: MultiModalBatch):
    state = torch.get_rng_state()
    norms = gradient_norms(system, policy_for(system), batch, LossWeights(retrieval=0.0), "fp32")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in system.parameters())
    assert "retrieval" not in norms
    assert norms["classification"]["climate_cnn"] > 0 and norms["classification"]["spectrum_encoder"] > 0
    assert norms["mass_balance"]["decoder"] == 0.0 and norms["mass_balance"]["metabolic_vae"] > 0


def test_norms_by_part_are_those_of_the_step_before_clipping(system: UnifiedMultiModalSystem, batch: MultiModalBatch):
    policy = policy_for(system)
    result = train_step(system, policy, [batch], LossWeights(), "fp32")
    parts = norms_by_part(system, policy)
    assert set(parts) == {name for name, _ in system.named_children()} and min(parts.values()) > 0
    absent = float(policy.norms[system.absent])
    assert sum(norm**2 for norm in parts.values()) + absent**2 == pytest.approx(result.gradient_norm**2, rel=1e-4)
