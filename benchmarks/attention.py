"""Attention kernels by sequence length: causal, 40 query and 8 key-value heads of 128, bfloat16, forward and backward.

    python benchmarks/attention.py

`astrobio.models.attention_backends.MEASURED` holds what this prints.
"""

from __future__ import annotations

from typing import Any

import torch

from astrobio.models.attention_backends import causal_attention
from machine import parser, seconds, table, write

SHAPES = ((16, 512), (4, 2048), (2, 4096), (1, 8192))
KERNELS = ("flash4", "flash3", "cudnn", "flash")
HEADS, GROUPS, WIDTH = 40, 8, 128


def measure(kernel: str, batch: int, length: int) -> dict[str, Any]:
    """TFLOP/s of forward and backward together, and the relative error of the forward against float32."""
    q = torch.randn(batch, HEADS, length, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k, v = (
        torch.randn(batch, GROUPS, length, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(2)
    )
    out = causal_attention(q, k, v, kernel)  # pyright: ignore[reportArgumentType]
    upstream = torch.randn_like(out)

    def step() -> None:
        causal_attention(q, k, v, kernel).backward(upstream)  # pyright: ignore[reportArgumentType]
        q.grad = k.grad = v.grad = None

    time = seconds(step, warmup=3, repeats=10)
    flops = 3.5 * 4 * batch * HEADS * length * length * WIDTH / 2  # backward = 2.5 forwards, causal = half
    one = slice(0, 1)
    exact = torch.nn.functional.scaled_dot_product_attention(
        q[one, :4].float(), k[one, :1].float(), v[one, :1].float(), is_causal=True, enable_gqa=True
    )
    error = float(((out[one, :4].float() - exact).norm() / exact.norm()).detach())
    return {"tflops": flops / time / 1e12, "ms": time * 1e3, "error": error}


def main() -> None:
    """Measure every kernel that is installed at every shape."""
    arguments = parser(__doc__ or "").parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for batch, length in SHAPES:
        for kernel in KERNELS:
            try:
                rows.setdefault(f"{batch}x{length}", {})[kernel] = measure(kernel, batch, length)
            except (RuntimeError, ValueError) as error:  # a kernel that this machine lacks
                rows.setdefault(f"{batch}x{length}", {})[kernel] = {"error": str(error).splitlines()[0][:200]}
    write(arguments.out, "attention", {"shapes": rows})
    table(
        [("shape", *KERNELS)]
        + [(shape, *(found[kernel].get("tflops", "–") for kernel in KERNELS)) for shape, found in rows.items()]
    )


if __name__ == "__main__":
    main()
