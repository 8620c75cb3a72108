"""Forward and backward of the 2.5B climate network and the 1.2B metabolic autoencoder against eager torch.nn and PyG.

    python benchmarks/parts_step.py

The same weights, inputs and arithmetic: eager `torch.nn` convolutions; PyG's gather and scatter over edges × features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

import astrobio.models.metabolic_vae as vae_module
from astrobio.batch import MultiModalBatch
from astrobio.models.bipartite import Incidence, gather_messages
from astrobio.models.climate_cnn import ClimateCNN
from astrobio.models.initialise import init_weights
from astrobio.models.metabolic_vae import MetabolicVAE
from astrobio.system.presets import preset
from machine import parser, seconds, table, write
from worlds import random_batch


def scattered_messages(nodes: Tensor, incidence: Incidence) -> Tensor:
    """What PyG's message passing does: one row an edge, weighted, scattered to (receiver, role)."""
    counts = torch.cat([incidence.starts[1:], incidence.starts.new_tensor([len(incidence.sender)])]) - incidence.starts
    receiver = torch.repeat_interleave(torch.arange(len(counts), device=nodes.device), counts)
    rows = nodes[incidence.sender] * incidence.weight.to(nodes.dtype)[:, None]
    return scatter(rows, receiver, dim=0, dim_size=len(counts), reduce="sum").reshape(len(nodes), -1)


def climate(batch: MultiModalBatch, compiled: bool) -> float:
    """Seconds of the climate network."""
    with torch.device("meta"):
        network = ClimateCNN(preset("full_16_8b").climate_cnn).to(torch.bfloat16)
    network.to_empty(device="cuda")
    init_weights(network, 26)
    if compiled:
        _compile(network.stages)

    def step() -> None:
        out = network(
            batch.climate, batch.climate_mask, batch.climate_levels, batch.latitude, batch.longitude, batch.time_kind
        )
        (out.tokens.float().square().mean() + out.diagnostics.float().square().mean()).backward()
        network.zero_grad()

    return seconds(step)


def metabolism(batch: MultiModalBatch, compiled: bool) -> float:
    """Seconds of the metabolic autoencoder."""
    with torch.device("meta"):
        network = MetabolicVAE(preset("full_16_8b").metabolic_vae).to(torch.bfloat16)
    network.to_empty(device="cuda")
    init_weights(network, 25)
    vae_module.gather_messages = gather_messages if compiled else scattered_messages
    if compiled:
        _compile(network)

    def step() -> None:
        out = network(batch.graph)
        (out.tokens.float().square().mean() + out.edge_logits.float().square().mean()).backward()
        network.zero_grad()

    return seconds(step)


def _compile(network: torch.nn.Module) -> None:
    for block in network.modules():
        if type(block).__name__ in ("ConvBlock", "MessageLayer", "EncoderBlock"):
            block.compile()


def main() -> None:
    """Both parts, both ways."""
    options = parser(__doc__ or "").parse_args()
    batch = random_batch(0).to("cuda")
    result: dict[str, Any] = {"seconds": {}}
    for name, part in (("climate_cnn", climate), ("graph_vae", metabolism)):
        for kind, compiled in (("eager", False), ("ours", True)):
            try:
                result["seconds"][f"{name}_{kind}"] = part(batch, compiled)
            except Exception as error:  # one part must not lose the other
                result[f"error_{name}_{kind}"] = repr(error)[:500]
            torch.cuda.empty_cache()
        times = result["seconds"]
        if f"{name}_eager" in times and f"{name}_ours" in times:
            result[f"ratio_{name}"] = times[f"{name}_eager"] / times[f"{name}_ours"]
        write(options.out, "parts_step", result)
    table([("part", "ms")] + [(name, time * 1e3) for name, time in result["seconds"].items()])
    print({key: value for key, value in result.items() if key != "seconds"})


if __name__ == "__main__":
    main()
