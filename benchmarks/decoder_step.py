"""The 13.14B decoder's training step against `transformers` with two 8-bit optimizers, same card, same run.

    python benchmarks/decoder_step.py [--layers 40] [--accumulation 4]

4 × 2,048 random tokens a micro-batch, every next token a target. Each variant runs in a process of its own. `profile`
is one more micro-batch, after the steps that count.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from machine import parser, profile, run_variant, table, write

BATCH, LENGTH = 4, 2048
PEAK = 989e12  # FLOP/s, dense bfloat16 of an H100 or H200 SXM (vendor's data sheet)
VARIANTS = ("ours_bf16", "ours_fp8", "hf_bitsandbytes", "hf_torchao")
LIMIT = 220.0  # seconds a variant may take


def flops_per_token(parameters: int, embedding: int, layers: int, width: int) -> float:
    """6 · (parameters − input embedding) + 6 · layers · S · d: causal attention, recomputation not counted."""
    return 6 * (parameters - embedding) + 6 * layers * LENGTH * width


def ours(layers: int, float8: bool, recompute: int) -> tuple[Callable[[Tensor], Tensor], Callable[[], Any], int]:
    """(loss of tokens, step, parameters) of this package's decoder."""
    from astrobio.models.decoder import Decoder
    from astrobio.models.initialise import init_weights
    from astrobio.system.presets import preset
    from astrobio.training.eight_bit import AdamW8bit
    from astrobio.training.execution import ExecutionConfig
    from astrobio.training.gradients import gradient_policy
    from astrobio.training.parallel import transform

    config = replace(preset("full_16_8b").decoder, layers=layers, bridge_every=layers + 1)  # no bridges
    with torch.device("meta"):
        decoder = Decoder(config).to(torch.bfloat16)
    decoder.to_empty(device="cuda")
    init_weights(decoder, layers)
    execution = ExecutionConfig(optimizer="adamw8bit", weights="bf16", float8=float8, compile=True)
    transform(decoder, execution, tuple(f"model.layers.{index}" for index in range(recompute)))
    policy = gradient_policy("stochastic", AdamW8bit(decoder.parameters(), lr=1e-4), 1.0)

    def loss(tokens: Tensor) -> Tensor:
        _, nll = decoder(tokens, tokens)
        return nll.total / nll.each.numel()

    policy.begin()
    return loss, policy.finish, sum(p.numel() for p in decoder.parameters())


def theirs(layers: int, optimizer: str) -> tuple[Callable[[Tensor], Tensor], Callable[[], Any], int]:
    """(loss of tokens, step, parameters) of `transformers` with gradient checkpointing and SDPA."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=5120, num_hidden_layers=layers, num_attention_heads=40, num_key_value_heads=8,
        intermediate_size=15104, vocab_size=131072, tie_word_embeddings=False, attn_implementation="sdpa",
        max_position_embeddings=LENGTH, use_cache=False,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if optimizer == "bitsandbytes":
        from bitsandbytes.optim import AdamW8bit
    else:
        from torchao.optim import AdamW8bit
    stepper = AdamW8bit(model.parameters(), lr=1e-4)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step()
        stepper.zero_grad(set_to_none=True)

    return lambda tokens: model(tokens, labels=tokens).loss, step, sum(p.numel() for p in model.parameters())


def measure(variant: str, layers: int, accumulation: int, recompute: int, steps: int, warmup: int) -> dict[str, Any]:
    """Tokens per second of the median step after the warm-up steps, peak memory, losses."""
    torch.manual_seed(0)
    kind, _, detail = variant.partition("_")
    loss, step, count = ours(layers, detail == "fp8", recompute) if kind == "ours" else theirs(layers, detail)
    generator = torch.Generator("cuda").manual_seed(1)
    batches = [
        torch.randint(0, 131072, (BATCH, LENGTH), device="cuda", generator=generator) for _ in range(accumulation)
    ]
    times, losses, found = [], [], {}
    for _ in range(steps + warmup):
        torch.cuda.synchronize()
        start = time.perf_counter()
        values = []
        for tokens in batches:
            value = loss(tokens) / accumulation
            value.backward()
            values.append(value.detach())
        step()
        losses.append(float(torch.stack(values).sum()))
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        print(f"{variant}: {times[-1]:.2f} s, loss {losses[-1]:.4f}", file=sys.stderr, flush=True)
        found = _result(times, warmup, losses, count, layers, accumulation) | {"recomputed_layers": recompute}
        print(json.dumps(found), flush=True)

    def micro_batch() -> float:
        start = time.perf_counter()
        (loss(batches[0]) / accumulation).backward()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    found["profile"] = profile(micro_batch)
    print(json.dumps(found), flush=True)
    return found


def _result(
    times: list[float], warmup: int, losses: list[float], count: int, layers: int, accumulation: int
) -> dict[str, Any]:
    warm = sorted(times[warmup:] or times)
    seconds = warm[len(warm) // 2]
    rate = accumulation * BATCH * LENGTH / seconds
    flops = flops_per_token(count, 131072 * 5120, layers, 5120)
    return {
        "tok_s": rate, "step_seconds": seconds, "all_seconds": times, "mfu": rate * flops / PEAK, "losses": losses,
        "peak_bytes": torch.cuda.max_memory_allocated(), "parameters": count, "measured_steps": len(times) - warmup,
    }  # fmt: skip


def main() -> None:
    """Run one variant, or all of them and their ratios."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--variant", choices=VARIANTS)
    arguments.add_argument("--only", nargs="*", default=list(VARIANTS), help="variants to run")
    for name, value in (("layers", 40), ("accumulation", 4), ("recompute", 0), ("steps", 3), ("warmup", 2)):
        arguments.add_argument(f"--{name}", type=int, default=value)
    options = arguments.parse_args()
    if options.variant:
        o = options
        measure(o.variant, o.layers, o.accumulation, o.recompute, o.steps, o.warmup)
        return
    passed = [
        f"--{name}={getattr(options, name)}" for name in ("layers", "accumulation", "recompute", "steps", "warmup")
    ]
    variants = {}
    for variant in options.only:
        log = options.out / "decoder_step.log"
        variants[variant] = run_variant(sys.argv[0], variant, passed, LIMIT, log, print)
        write(options.out, "decoder_step", _summary(variants))
    table([("decoder", "tok/s", "MFU", "GB")] + [
        (name, found.get("tok_s", "–"), found.get("mfu", "–"), found.get("peak_bytes", 0) / 1e9)
        for name, found in variants.items()
    ])  # fmt: skip


def _summary(variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rates = {name: found.get("tok_s") for name, found in variants.items()}
    base = rates.get("hf_bitsandbytes")
    ratios = {
        f"ratio_{kind}": rates[f"ours_{kind}"] / base for kind in ("bf16", "fp8") if base and rates.get(f"ours_{kind}")
    }
    return {
        **ratios, "tok_s_bf16": rates.get("ours_bf16"), "tok_s_fp8": rates.get("ours_fp8"), "variants": variants
    }  # fmt: skip


if __name__ == "__main__":
    main()
