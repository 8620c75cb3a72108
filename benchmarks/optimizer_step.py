"""One optimizer step against its byte limit and against torchao's and bitsandbytes' 8-bit AdamW, same card, same run.

    python benchmarks/optimizer_step.py [--layers 6]

The tensors are those of layers of the 13.14B decoder; seconds are scaled to its whole by weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from astrobio.training.eight_bit import AdamW8bit
from astrobio.training.gradients import KeptGradients
from machine import parser, seconds, table, write

WIDTH, INNER, KEYS = 5120, 15104, 1024
DECODER = 13_139_072_000  # weights
BYTES = 2 + 2 + 2 + 4 + 4 * 4 / 256  # a weight: read weight, gradient, moments; write weight, moments; scales both ways


def parameters(layers: int) -> list[nn.Parameter]:
    """bfloat16 weights with gradients of decoder layers."""
    shapes = [
        (WIDTH, WIDTH),
        (KEYS, WIDTH),
        (KEYS, WIDTH),
        (WIDTH, WIDTH),
        (INNER, WIDTH),
        (INNER, WIDTH),
        (WIDTH, INNER),
    ]
    out = []
    for shape in shapes * layers:
        parameter = nn.Parameter(torch.randn(shape, device="cuda", dtype=torch.bfloat16) * 0.02)
        parameter.grad = torch.randn_like(parameter) * 1e-3
        out.append(parameter)
    return out


def copy_rate() -> float:
    """Bytes per second of a large copy, read and written both counted."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source))


def optimizers(weights: list[nn.Parameter]) -> dict[str, Any]:
    """Name → a function that makes it; those whose package is missing fail when called."""

    def torchao() -> torch.optim.Optimizer:
        from torchao.optim import AdamW8bit as Theirs

        return Theirs(weights, lr=1e-4, bf16_stochastic_round=True)

    def bitsandbytes() -> torch.optim.Optimizer:
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(weights, lr=1e-4)

    return {"astrobio": lambda: AdamW8bit(weights, lr=1e-4), "torchao": torchao, "bitsandbytes": bitsandbytes}


def main() -> None:
    """Time the bare step of each, and ours with the global norm."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--layers", type=int, default=6)
    options = arguments.parse_args()
    weights = parameters(options.layers)
    count, rate = sum(p.numel() for p in weights), copy_rate()
    limit = BYTES * DECODER / rate
    result: dict[str, Any] = {"weights": count, "copy_bytes_per_second": rate, "limit_seconds": limit, "seconds": {}}
    for name, make in optimizers(weights).items():
        try:
            optimizer = make()
            result["seconds"][name] = seconds(optimizer.step) * DECODER / count
            if name == "astrobio":
                result["seconds"]["astrobio_with_norm"] = _with_norm(optimizer, weights) * DECODER / count
            del optimizer
        except Exception as error:  # a missing or broken peer must not cost our own numbers
            result["seconds"][name] = None
            result[f"error_{name}"] = repr(error)[:300]
        torch.cuda.empty_cache()
    write(options.out, "optimizer_step", result)
    table([("8-bit AdamW, 13.14B", "s", "× byte limit")] + [
        (name, time, time / limit) for name, time in result["seconds"].items() if time is not None
    ])  # fmt: skip


def _with_norm(optimizer: AdamW8bit, weights: list[nn.Parameter]) -> float:
    """Clipping by the global norm included; gradients are put back, because the policy drops them."""
    policy, gradients = KeptGradients(optimizer, 1.0), [p.grad for p in weights]

    def step() -> None:
        policy.finish()
        for parameter, gradient in zip(weights, gradients, strict=True):
            parameter.grad = gradient

    return seconds(step)


if __name__ == "__main__":
    main()
