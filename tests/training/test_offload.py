"""Blocks whose weights live in host memory train exactly as resident ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from astrobio.training.eight_bit import AdamW8bit
from astrobio.training.gradients import StepInBackward
from astrobio.training.offload import stream_blocks


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(256, 256), nn.Linear(256, 256)

    def forward(self, x: Tensor, *, memory: Tensor) -> tuple[Tensor, Tensor]:
        y = x + nn.functional.dropout(self.outer(self.inner(x).relu() + memory), 0.1)
        return y, y.mean()


class _Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.blocks = nn.Linear(8, 256), nn.ModuleList(_Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        memory = self.enter(x)
        y, total = memory, torch.zeros(())
        for block in self.blocks:
            y, mean = block(y, memory=memory)
            total = total + mean
        return y.square().mean() + total.square()


def _train(streamed: bool, steps: int = 4) -> tuple[list[float], list[float], list[Tensor]]:
    torch.manual_seed(0)
    model = _Stack()
    optimizer = AdamW8bit(model.parameters(), lr=1e-2, weight_decay=0.1)
    streamer = (
        stream_blocks(dict(model.blocks.named_children()), optimizer, torch.device("cpu"), limit=0.5)
        if streamed
        else None
    )
    policy = StepInBackward(optimizer, 0.5, streamer)
    losses, norms = [], []
    torch.manual_seed(1)
    for _ in range(steps):
        policy.begin()
        loss = model(torch.randn(4, 8))
        loss.backward()
        norms.append(float(policy.finish()))
        losses.append(float(loss.detach()))
    if streamer is not None:
        streamer.synchronize()
    return losses, norms, [p.detach().clone() for p in model.parameters()]


def test_streamed_blocks_train_as_resident_ones() -> None:
    plain, streamed = _train(False), _train(True)
    torch.testing.assert_close(torch.tensor(plain[0]), torch.tensor(streamed[0]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(plain[1]), torch.tensor(streamed[1]), rtol=1e-4, atol=1e-6)
    for a, b in zip(plain[2], streamed[2], strict=True):
        difference = (a - b).abs()  # sums differ in order, so a few codes round apart
        assert float(difference.mean()) < 1e-6
        assert float(difference.max()) < 2e-3


def test_streamed_blocks_evaluate_without_gradients() -> None:
    torch.manual_seed(0)
    model = _Stack().eval()
    x = torch.randn(4, 8)
    torch.manual_seed(2)
    with torch.no_grad():
        before = model(x)
    stream_blocks(dict(model.blocks.named_children()), AdamW8bit(model.parameters()), torch.device("cpu"), 1.0)
    torch.manual_seed(2)
    with torch.no_grad():
        assert torch.equal(model(x), before)
