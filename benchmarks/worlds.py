"""Batches for the joint benchmarks: real worlds from a file, or random ones of the same shapes.

python benchmarks/worlds.py DATASET FILE [--batches 4]   # 16 worlds a batch, text padded to 512 tokens
"""

from __future__ import annotations

import argparse
import gzip
from dataclasses import replace
from pathlib import Path

import torch
from torch_geometric.data import Batch, Data

from astrobio.batch import CLIMATE_VARIABLES, ELEMENTS, GASES, IGNORED, PHYSICS_TARGETS, WORLD_STATES, MultiModalBatch
from astrobio.batch.collate import DEFAULT_ENCODINGS
from astrobio.batch.graph import NODE_FEATURES

WORLDS, TEXT, POINTS, TIMES, GRID = 16, 512, 300, 4, (10, 32, 64)
COMPOUNDS, REACTIONS, ENTRIES = 800, 1000, 4400  # about those of E. coli's core-plus models


def pad_text(batch: MultiModalBatch, length: int = TEXT) -> MultiModalBatch:
    """The same worlds with text of one length, so that every micro-batch has one shape."""
    more = length - batch.input_ids.shape[1]
    assert more >= 0, batch.input_ids.shape
    pad = torch.nn.functional.pad
    return replace(
        batch,
        input_ids=pad(batch.input_ids, (0, more)),
        attention_mask=pad(batch.attention_mask, (0, more)),
        context_mask=pad(batch.context_mask, (0, more)),
        lm_labels=pad(batch.lm_labels, (0, more), value=IGNORED),
    )


def random_graph(generator: torch.Generator) -> Data:
    """A random bipartite graph with every field that the models and losses read."""
    nodes, exchange = COMPOUNDS + REACTIONS, torch.randn(1, len(GASES), generator=generator)
    entry = torch.stack([
        torch.randint(0, COMPOUNDS, (ENTRIES,), generator=generator),
        COMPOUNDS + torch.randint(0, REACTIONS, (ENTRIES,), generator=generator),
    ])  # fmt: skip
    reaction = torch.arange(nodes) >= COMPOUNDS
    sign = torch.randint(0, 2, (ENTRIES,), generator=generator).float() * 2 - 1
    return Data(
        x=torch.randn(nodes, NODE_FEATURES, generator=generator), edge_index=entry, stoichiometry=sign,
        encodings=torch.rand(nodes, DEFAULT_ENCODINGS, generator=generator), is_reaction=reaction,
        elements=torch.rand(nodes, len(ELEMENTS), generator=generator), formula_known=~reaction, internal=~reaction,
        dg_min=-torch.rand(nodes, generator=generator), dg_max=torch.rand(nodes, generator=generator),
        dg_known=reaction, flux=torch.randn(nodes, generator=generator) * reaction, flux_known=reaction,
        exchange=exchange, exchange_known=torch.ones_like(exchange, dtype=torch.bool),
        num_nodes=nodes,
    )  # fmt: skip


def random_batch(seed: int) -> MultiModalBatch:
    """16 random worlds with everything known; half of the text is the target."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 4096, (WORLDS, TEXT), generator=g)
    context = (torch.arange(TEXT) < TEXT // 2).expand(WORLDS, -1)
    yes = torch.ones(WORLDS, TEXT, dtype=torch.bool)
    k, v = len(PHYSICS_TARGETS), len(CLIMATE_VARIABLES)
    _, y, x = GRID
    fields = {
        "input_ids": ids, "attention_mask": yes, "context_mask": context,
        "lm_labels": torch.where(context, IGNORED, ids), "spectrum": torch.randn(WORLDS, POINTS, 3, generator=g),
        "spectrum_mask": yes[:, :POINTS], "spectrum_width": torch.randn(WORLDS, POINTS, generator=g),
        "spectrum_mean": torch.full((WORLDS,), 3.5), "spectrum_kind": torch.zeros(WORLDS, dtype=torch.int64),
        "climate": torch.randn(WORLDS, v, TIMES, *GRID, generator=g), "climate_mask": yes[:, :v],
        "climate_levels": torch.linspace(5, 2, GRID[0]).expand(WORLDS, -1),
        "latitude": torch.linspace(-87, 87, y).expand(WORLDS, -1),
        "longitude": (torch.arange(x) * 360 / x - 180).expand(WORLDS, -1),
        "time_kind": torch.zeros(WORLDS, dtype=torch.int64),
        "graph": Batch.from_data_list([random_graph(g) for _ in range(WORLDS)]),
        "present": torch.ones(WORLDS, 4, dtype=torch.bool),
        "labels": torch.randint(0, len(WORLD_STATES), (WORLDS,), generator=g),
        "physics": torch.randn(WORLDS, k, generator=g), "physics_mask": torch.ones(WORLDS, k, dtype=torch.bool),
        "physics_mean": torch.zeros(WORLDS, k), "physics_std": torch.ones(WORLDS, k),
        "toa_net": torch.randn(WORLDS, generator=g), "toa_net_mask": torch.ones(WORLDS, dtype=torch.bool),
        "habitat": torch.randn(WORLDS, generator=g), "habitat_mask": torch.ones(WORLDS, dtype=torch.bool),
        "growth": torch.randn(WORLDS, generator=g), "growth_mask": torch.ones(WORLDS, dtype=torch.bool),
        "world_ids": tuple(f"random-{seed}-{index}" for index in range(WORLDS)),
    }  # fmt: skip
    return MultiModalBatch(**fields)


def load_batches(file: Path | None, count: int) -> list[MultiModalBatch]:
    """`count` batches, from a file made by this script or random."""
    if file is None:
        return [random_batch(seed) for seed in range(count)]
    with gzip.open(file) as stream:
        found: list[MultiModalBatch] = torch.load(stream, weights_only=False)
    return [replace(batch, climate=batch.climate.float()) for batch in (found * count)[:count]]


def main() -> None:
    """Write batches of a data set's training worlds to one file (cubes in half precision, to be small)."""
    from astrobio.batch import Collator, Statistics
    from astrobio.dataset.reader import WorldDataset
    from astrobio.dataset.tokenizer import WorldTokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--batches", type=int, default=4)
    options = parser.parse_args()
    data = WorldDataset(options.dataset, "train")
    samples = [data[index] for index in range(WORLDS * options.batches)]
    texts = [text for sample in samples for text in (sample.context, sample.assessment) if text is not None]
    collate = Collator(WorldTokenizer.train(texts, 4096), Statistics.fit(samples), TEXT)
    batches = [pad_text(collate(samples[start : start + WORLDS])) for start in range(0, len(samples), WORLDS)]
    with gzip.open(options.file, "wb", compresslevel=1) as stream:
        torch.save([replace(batch, climate=batch.climate.half()) for batch in batches], stream)


if __name__ == "__main__":
    main()
