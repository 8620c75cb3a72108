"""Does training in 8-bit floating point learn what BF16 does? Some layers of the full-size decoder on a language.

    python benchmarks/float8_parity.py [--layers 4] [--steps 100] [--result FILE]

The same first weights, the same tokens: BF16, BF16 with other random rounding (how far two equal trainings come apart),
and FP8 (tensor-wise, torchao). In the language half of all tokens follow from the one before, the others are drawn by
Zipf's law: its entropy is known and nothing can be learned by heart. `--tiny` rehearses it on a CPU.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from astrobio.models.decoder import Decoder
from astrobio.models.initialise import init_weights
from astrobio.system.presets import preset
from astrobio.training.eight_bit import AdamW8bit
from astrobio.training.execution import ExecutionConfig
from astrobio.training.gradients import gradient_policy
from astrobio.training.optim import set_learning_rate
from astrobio.training.parallel import transform
from machine import parser, run_variant, table, write

VARIANTS = ("bf16", "fp8", "bf16_again")
WORDS = 4096  # tokens of the language
FOLLOWS = 0.5  # share of tokens that follow from the one before
RATE, WARMUP = 1e-4, 10
LAST = 20  # steps whose mean loss is compared


def language() -> tuple[Tensor, Tensor, float]:
    """Each word's successor, the words' probabilities, and the entropy of the next word in nats."""
    generator = torch.Generator().manual_seed(7)
    successor = torch.randperm(WORDS, generator=generator)
    chance = 1.0 / torch.arange(1.0, WORDS + 1)
    chance /= chance.sum()
    mixed = (1 - FOLLOWS) * chance  # of each word; the successor's is FOLLOWS larger
    rest = -(mixed * mixed.log()).sum()
    gain = -(((mixed + FOLLOWS) * (mixed + FOLLOWS).log() - mixed * mixed.log()) * chance).sum()
    return successor, chance, float(rest + gain)


def texts(step: int, batch: int, length: int) -> Tensor:
    """[batch, length] words of one step."""
    generator = torch.Generator().manual_seed(step)
    successor, chance, _ = language()
    drawn = torch.multinomial(chance, batch * length, replacement=True, generator=generator).view(batch, length)
    follows = torch.rand(batch, length, generator=generator) < FOLLOWS
    out = drawn.clone()
    for place in range(1, length):
        out[:, place] = torch.where(follows[:, place], successor[out[:, place - 1]], drawn[:, place])
    return out


def measure(variant: str, options: Any) -> None:
    """Losses of all steps so far, a line of JSON every tenth step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = replace(preset("full_16_8b").decoder, layers=options.layers, bridge_every=options.layers + 1)
    batch, length = 4, 1024
    if options.tiny:
        config = replace(config, width=64, heads=2, kv_heads=1, inner_width=128, vocabulary=WORDS)
        batch, length = 2, 32
    with torch.device("meta"):
        decoder = Decoder(config).to(torch.bfloat16)
    decoder.to_empty(device=device)
    torch.manual_seed(0)
    init_weights(decoder, config.layers)
    how = ExecutionConfig(optimizer="adamw8bit", weights="bf16", float8=variant == "fp8", compile=not options.tiny)
    transform(decoder, how, ())
    optimizer = AdamW8bit(decoder.parameters(), lr=RATE, seed=int(variant == "bf16_again"))
    policy = gradient_policy("keep", optimizer, 1.0)
    losses: list[Tensor] = []
    start = time.perf_counter()
    for step in range(options.steps):
        tokens = texts(step, batch, length).to(device)
        set_learning_rate(optimizer, RATE * min(1.0, (step + 1) / WARMUP))
        policy.begin()
        loss = decoder(tokens, tokens)[1].mean()
        loss.backward()
        policy.finish()
        losses.append(loss.detach())
        if step in (0, options.steps - 1) or step % 10 == 9:
            values = torch.stack(losses).tolist()
            print(json.dumps({"losses": values, "seconds": time.perf_counter() - start}), flush=True)


def compare(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How far FP8 and a second BF16 run lie from BF16, over the steps that all have (one may have been stopped).

    Relative differences: of the first loss (forward only), of the mean of the last ones, and the largest of any step.
    The second BF16 run is the yardstick: it differs by the random rounding alone.
    """
    losses = {name: line["losses"] for name, line in found.items() if line.get("losses")}
    out: dict[str, Any] = {"entropy": language()[2]}
    base, others = losses.pop("bf16", None), losses
    if base is None or not others:
        return out
    count = min(len(base), *map(len, others.values()))
    out |= {"steps_compared": count, "last_steps": min(LAST, count)}
    for name, values in others.items():
        pairs = list(zip(values[:count], base[:count], strict=True))
        ends = [statistics.mean(side) for side in zip(*pairs[-LAST:], strict=True)]
        out[f"{name}_first"] = pairs[0][0] / pairs[0][1] - 1
        out[f"{name}_last"] = ends[0] / ends[1] - 1
        out[f"{name}_last_spread"] = statistics.mean(abs(a / b - 1) for a, b in pairs[-LAST:])
        out[f"{name}_largest"] = max(abs(math.log(a / b)) for a, b in pairs)
    return out


def main() -> None:
    """All variants, each in a process of its own, and their differences."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--variant", choices=VARIANTS)
    arguments.add_argument("--layers", type=int, default=4)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--limit", type=float, default=60.0, help="seconds of each variant")
    arguments.add_argument("--tiny", action="store_true")
    options = arguments.parse_args()
    if options.variant:
        measure(options.variant, options)
        return
    path = options.result or options.out / "float8_parity.json"
    passed = [f"--layers={options.layers}", f"--steps={options.steps}", *(["--tiny"] if options.tiny else [])]
    found: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:

        def note(line: dict[str, Any], variant: str = variant) -> None:
            found[variant] = line
            print(variant, len(line.get("losses", [])), [round(x, 4) for x in line.get("losses", [])[::20]], flush=True)
            write(path.parent, path.stem, {"layers": options.layers, **compare(found), "variants": found})

        note(run_variant(sys.argv[0], variant, passed, options.limit, path.with_suffix(".log"), note))
    rows = [(name, line.get("losses", ["–"])[0], line.get("losses", ["–"])[-1]) for name, line in found.items()]
    table([("decoder", "first loss", "last loss"), *rows])
    print(compare(found))


if __name__ == "__main__":
    main()
