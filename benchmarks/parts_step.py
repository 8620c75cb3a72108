"""Forward and backward of the 2.5B climate network and the 1.2B metabolic autoencoder against eager torch.nn and PyG.

    python benchmarks/parts_step.py

The same weights, inputs and arithmetic. Eager: `torch.nn.Conv3d` on padded fields, in the plain and in the
channels-last layout, and PyG's gather and scatter over edges × features. Ours: our kernels, blocks compiled
(`execution.compile`), and then recorded as CUDA graphs as well (`execution.graphs`). Before them, each depthwise
convolution by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

import astrobio.models.metabolic_vae as vae_module
from astrobio.batch import MultiModalBatch
from astrobio.models.bipartite import Incidence, gather_messages
from astrobio.models.climate_cnn import ClimateCNN, ConvBlock
from astrobio.models.depthwise import sphere_depthwise
from astrobio.models.initialise import init_weights
from astrobio.models.metabolic_vae import MetabolicVAE
from astrobio.models.sphere import pad_sphere
from astrobio.system.presets import preset
from astrobio.training.activations import replayed_blocks
from astrobio.training.replay import replay_blocks
from machine import parser, seconds, table, write
from worlds import random_batch


def scattered_messages(nodes: Tensor, incidence: Incidence) -> Tensor:
    """What PyG's message passing does: one row an edge, weighted, scattered to (receiver, role)."""
    counts = torch.cat([incidence.starts[1:], incidence.starts.new_tensor([len(incidence.sender)])]) - incidence.starts
    receiver = torch.repeat_interleave(torch.arange(len(counts), device=nodes.device), counts)
    rows = nodes[incidence.sender] * incidence.weight.to(nodes.dtype)[:, None]
    return scatter(rows, receiver, dim=0, dim_size=len(counts), reduce="sum").reshape(len(nodes), -1)


def plain_mix(layout: torch.memory_format) -> Any:
    """A block's depthwise convolution as `torch.nn` has it, in one layout."""

    def mix(self: ConvBlock, x: Tensor, rows: Tensor) -> Tensor:
        padded = pad_sphere(nn.functional.pad(x, (0, 0, 0, 0, 1, 1)), 1, 1)
        return self.depthwise(padded.contiguous(memory_format=layout)).permute(0, 2, 3, 4, 1)

    return mix


def climate(batch: MultiModalBatch, layout: torch.memory_format | None, graphs: bool = False) -> float:
    """Seconds of the climate network: compiled and by our kernels, or eager `torch.nn` in one layout."""
    with torch.device("meta"):
        network = ClimateCNN(preset("full_16_8b").climate_cnn).to(torch.bfloat16)
    network.to_empty(device="cuda")
    init_weights(network, 26)
    ours = ConvBlock._mix
    if layout is None:
        _accelerate(network, graphs)
    else:
        ConvBlock._mix = plain_mix(layout)

    def step() -> None:
        out = network(
            batch.climate, batch.climate_mask, batch.climate_levels, batch.latitude, batch.longitude, batch.time_kind
        )
        (out.tokens.float().square().mean() + out.diagnostics.float().square().mean()).backward()
        network.zero_grad()

    found = seconds(step)
    ConvBlock._mix = ours
    return found


def convolutions(width: int, rows: tuple[int, int, int, int]) -> dict[str, float]:
    """Milliseconds forward and backward of one depthwise convolution [B, C, P, Y, X], and the errors of ours."""
    torch.manual_seed(0)
    block = ConvBlock(width).to("cuda", torch.bfloat16)
    b, *grid = rows
    x = torch.randn(b, *grid, width, device="cuda", dtype=torch.bfloat16).permute(0, 4, 1, 2, 3).requires_grad_()
    up = torch.randn(b, *grid, width, device="cuda", dtype=torch.bfloat16)
    weight, bias = block.depthwise.weight, block.depthwise.bias
    assert bias is not None
    ways = {
        "channels_last": lambda: plain_mix(torch.channels_last_3d)(block, x, x),
        "plain": lambda: plain_mix(torch.contiguous_format)(block, x, x),
        "ours": lambda: sphere_depthwise(x.permute(0, 2, 3, 4, 1), weight, bias),
    }
    out, found = {}, {}
    for name, way in ways.items():
        y = way()
        found[name] = (y, *torch.autograd.grad(y, (x, weight, bias), up))
        out[name] = 1e3 * seconds(lambda way=way: torch.autograd.grad(way(), (x, weight, bias), up), repeats=3)
    for name, theirs, own in zip(("y", "x", "weight", "bias"), found["plain"], found["ours"], strict=True):
        out[f"error_{name}"] = float((theirs - own).float().norm() / theirs.float().norm())
    return out


def metabolism(batch: MultiModalBatch, compiled: bool, graphs: bool = False) -> float:
    """Seconds of the metabolic autoencoder."""
    with torch.device("meta"):
        network = MetabolicVAE(preset("full_16_8b").metabolic_vae).to(torch.bfloat16)
    network.to_empty(device="cuda")
    init_weights(network, 25)
    vae_module.gather_messages = gather_messages if compiled else scattered_messages
    if compiled:
        _accelerate(network, graphs)

    def step() -> None:
        out = network(batch.graph, batch.growth, batch.growth_mask)
        (out.tokens.float().square().mean() + out.edge_logits.float().square().mean()).backward()
        network.zero_grad()

    return seconds(step)


def _accelerate(network: torch.nn.Module, graphs: bool) -> None:
    """As `training.parallel.prepare` does it in the whole system."""
    for block in network.modules():
        if type(block).__name__ in ("ConvBlock", "EncoderBlock"):
            block.compile(dynamic=False)
    if graphs:
        replay_blocks(replayed_blocks(network, ()))


def main() -> None:
    """All parts, all ways."""
    options = parser(__doc__ or "").parse_args()
    batch = random_batch(0).to("cuda")
    result: dict[str, Any] = {"seconds": {}}
    pieces: dict[str, Callable[[], Any]] = {
        "depthwise_512": lambda: convolutions(512, (64, 2, 8, 16)),
        "depthwise_1536": lambda: convolutions(1536, (16, 2, 4, 8)),
        "depthwise_4096": lambda: convolutions(4096, (16, 2, 2, 4)),
        "climate_cnn_eager": lambda: climate(batch, torch.contiguous_format),
        "climate_cnn_compiled": lambda: climate(batch, None),
        "climate_cnn_graphs": lambda: climate(batch, None, graphs=True),
        "graph_vae_eager": lambda: metabolism(batch, False),
        "graph_vae_compiled": lambda: metabolism(batch, True),
        "graph_vae_graphs": lambda: metabolism(batch, True, graphs=True),
        "climate_cnn_eager_channels_last": lambda: climate(batch, torch.channels_last_3d),
    }
    for name, piece in pieces.items():
        try:
            found = piece()
            result["seconds" if isinstance(found, float) else "operator_ms"] = result.get(
                "seconds" if isinstance(found, float) else "operator_ms", {}
            ) | {name: found}
        except Exception as error:  # one part must not lose the other
            result[f"error_{name}"] = repr(error)[:500]
        torch.cuda.empty_cache()
        times = result["seconds"]
        for part in ("climate_cnn", "graph_vae"):
            for way in ("compiled", "graphs"):
                if f"{part}_eager" in times and f"{part}_{way}" in times:
                    result[f"ratio_{part}_{way}"] = times[f"{part}_eager"] / times[f"{part}_{way}"]
        print(name, result.get(f"error_{name}", result.get("operator_ms", {}).get(name, times.get(name))), flush=True)
        write(options.out, "parts_step", result)
    table([("part", "ms")] + [(name, time * 1e3) for name, time in result["seconds"].items()])
    print({key: value for key, value in result.items() if key != "seconds"})


if __name__ == "__main__":
    main()
