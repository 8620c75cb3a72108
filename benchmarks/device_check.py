"""Kernels and modes on a GPU against their references: a quick look before the long benchmarks.

python benchmarks/device_check.py
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import worlds
from astrobio.batch import IGNORED
from astrobio.losses.combined import LossWeights
from astrobio.models.cross_entropy import linear_cross_entropy
from astrobio.system.presets import preset
from astrobio.training.activations import BatchShape
from astrobio.training.config import TrainingConfig
from astrobio.training.eight_bit import AdamW8bit, Hyperparameters, fresh_state, update_reference_
from astrobio.training.execution import ExecutionConfig
from astrobio.training.gradients import gradient_policy
from astrobio.training.kernels import update_
from astrobio.training.offload import stream_blocks
from astrobio.training.parallel import prepare
from astrobio.training.step import train_step


def update_kernel() -> str:
    """The fused update against its reference, bfloat16 and float32, blocks of 256 and of 64."""
    out = []
    torch.manual_seed(0)
    for dtype, columns in ((torch.bfloat16, 5120), (torch.float32, 320)):
        weight = torch.randn(64, columns, device="cuda").to(dtype)
        other, state = weight.clone(), fresh_state(weight)
        kernel = {name: value.clone() for name, value in state.items()}
        for step in range(1, 6):
            gradient = torch.randn_like(weight) * torch.rand_like(weight) ** 4
            numbers = Hyperparameters(1e-2, 0.9, 0.99, 1e-8, 0.1, step, 1000 * step)
            update_reference_(weight, gradient, state, torch.tensor(0.5, device="cuda"), numbers)
            update_(other, gradient, kernel, torch.tensor(0.5, device="cuda"), numbers)
        apart = float((weight != other).float().mean())
        codes = float((state["square"] != kernel["square"]).float().mean())
        assert apart < (0.02 if dtype == torch.bfloat16 else 1.0), apart
        torch.testing.assert_close(weight, other, rtol=0.02, atol=1e-3)
        assert codes < 0.01, codes
        out.append(f"{dtype}: weights apart {apart:.1e}, codes apart {codes:.1e}")
    return "; ".join(out)


def cross_entropy() -> str:
    """The chunked loss against PyTorch's in float32."""
    hidden = (torch.randn(3000, 512, device="cuda") * 0.5).bfloat16().requires_grad_()
    weight = (torch.randn(131072, 512, device="cuda") * 0.1).bfloat16().requires_grad_()
    targets = torch.randint(0, 131072, (3000,), device="cuda")
    total, ours = linear_cross_entropy(hidden, weight, targets)
    got = torch.autograd.grad(0.3 * total, (hidden, weight))
    exact = nn.functional.cross_entropy(hidden.float() @ weight.float().T, targets, reduction="none")
    expected = torch.autograd.grad(0.3 * exact.sum(), (hidden, weight))
    errors = [
        float(((a.float() - b.float()).norm() / b.float().norm()).detach()) for a, b in zip(got, expected, strict=True)
    ]
    error = float(((ours - exact).norm() / exact.norm()).detach())
    assert error < 1e-2 and max(errors) < 2e-2, (error, errors)
    return f"loss {error:.1e}, gradients {errors[0]:.1e} {errors[1]:.1e}"


class _Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(64, 1024, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(1024, 4096), nn.GELU(), nn.Linear(4096, 1024)) for _ in range(5)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return x.float().square().mean()


def streaming() -> str:
    """Blocks in host memory against resident ones, compiled and not."""
    losses: dict[str, list[float]] = {}
    for mode in ("resident", "streamed", "streamed and compiled"):
        torch.manual_seed(0)
        model = _Stack().to("cuda", torch.bfloat16)
        optimizer, device = AdamW8bit(model.parameters(), lr=1e-3), torch.device("cuda", 0)
        streamer = None
        if mode != "resident":
            names = ("",) if "compiled" in mode else ()
            streamer = stream_blocks(dict(model.blocks.named_children()), optimizer, device, 1.0, names)
        policy = gradient_policy("backward", optimizer, 1.0, streamer)
        for _ in range(6):
            policy.begin()
            loss = model(torch.randn(256, 64, device="cuda", dtype=torch.bfloat16))
            loss.backward()
            losses.setdefault(mode, []).append(float(loss.detach()))
            policy.finish()
    for mode, found in losses.items():
        assert max(abs(a / b - 1) for a, b in zip(found, losses["resident"], strict=True)) < 0.02, (mode, losses)
    return f"losses {losses['resident'][0]:.4f} … {losses['resident'][-1]:.4f} in every mode"


def accumulation() -> str:
    """32 micro-batches against one batch: relative difference of the gradient's norm."""
    norms = {}
    for kind in ("keep", "stochastic", "host"):
        for pieces in (1, 32):
            torch.manual_seed(0)
            model = _Stack().to("cuda", torch.bfloat16)
            policy = gradient_policy(kind, AdamW8bit(model.parameters(), lr=1e-3), 1e9)
            policy.begin()
            for rows in torch.randn(512, 64, device="cuda", dtype=torch.bfloat16).chunk(pieces):
                (model(rows) / pieces).backward()
            norms[kind, pieces] = float(policy.finish())
    apart = {kind: norms[kind, 32] / norms[kind, 1] - 1 for kind in ("keep", "stochastic", "host")}
    assert all(abs(value) < 0.02 for value in apart.values()), apart
    return ", ".join(f"{kind} {value:+.1e}" for kind, value in apart.items())


def replayed() -> str:
    """The mini system with recorded blocks against the plain one: two micro-batches a step, in two lengths of text."""
    device, losses, norms_of = torch.device("cuda", 0), {}, {}
    worlds.WORLDS, worlds.POINTS = 4, 60
    batches = {}
    for length in (64, 128):
        worlds.TEXT = length
        found = (worlds.random_batch(number) for number in range(2))
        batches[length] = [
            replace(b, input_ids=(ids := b.input_ids % 1024), lm_labels=ids.where(~b.context_mask, IGNORED))
            for b in found
        ]
    graph: Any = batches[64][0].graph
    shape = BatchShape(4, 128, graph.num_nodes, graph.edge_index.shape[1])
    for graphs in (False, True):
        torch.manual_seed(0)
        execution = ExecutionConfig(optimizer="adamw8bit", gradients="keep", graphs=graphs)
        prepared = prepare(preset("mini"), execution, TrainingConfig(lr=1e-3), device, shape)
        for step in range(8):
            chosen = [batch.to(device) for batch in batches[64 if step % 3 else 128]]
            found = train_step(
                prepared.system.train(), prepared.policy, chosen, LossWeights(), "bf16", (step, step + 1)
            )
            assert not found.skipped, found.skipped
            losses.setdefault(graphs, []).append(found.losses["total"])
            norms_of.setdefault(graphs, []).append(found.gradient_norm)
    apart = [abs(a / b - 1) for a, b in zip(losses[True], losses[False], strict=True)]
    norms = [abs(a / b - 1) for a, b in zip(norms_of[True], norms_of[False], strict=True)]
    assert max(apart) < 0.01 and norms[0] < 0.01, (apart, norms, losses)
    return f"losses {losses[False][0]:.4f} … {losses[False][-1]:.4f}, apart {max(apart):.1e}, norms {max(norms):.1e}"


def main() -> None:
    """Run every check; one that fails does not stop the others."""
    checks: tuple[Callable[[], str], ...] = (update_kernel, cross_entropy, streaming, accumulation, replayed)
    for check in checks:
        try:
            print(f"{check.__name__}: ok, {check()}", flush=True)
        except Exception:
            print(f"{check.__name__}: FAILED", traceback.format_exc()[-1500:], flush=True)


if __name__ == "__main__":
    main()
