"""Prepared worlds as one safetensors file, which many processes read at once instead of preparing them again.

Every field of every row lies flat, one behind the other, beside a table of shapes: rows may differ in length and grid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch_geometric.data import Batch, Data

from astrobio.batch import MultiModalBatch
from astrobio.errors import InputError
from astrobio.training.feed import Row, Store

CUBES = "climate"


def save_store(store: Store, path: Path, *, half: bool = False) -> None:
    """Write all rows of a store, prepared now where they are not yet; `half` keeps cubes in bf16."""
    rows = [store[index] for index in range(len(store))]
    fields = [name for name, value in vars(rows[0].batch).items() if isinstance(value, Tensor)]
    columns = {name: [getattr(row.batch, name) for row in rows] for name in fields}
    columns |= {"context": [row.context for row in rows], "target": [row.target for row in rows]}
    if half:
        columns[CUBES] = [cube.bfloat16() for cube in columns[CUBES]]
    tensors = {"shown": torch.tensor([row.present for row in rows])}
    for name, values in columns.items():
        tensors[name] = torch.cat([value.flatten().cpu() for value in values])
        tensors[f"{name}.shape"] = torch.tensor([value.shape for value in values])
    names = {"world_ids": [row.batch.world_ids[0] for row in rows], "groups": [row.group for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file(tensors, temporary, metadata={"names": json.dumps(names)})
    os.replace(temporary, path)


def load_store(store: Store, path: Path) -> Store:
    """Fill a store on the same worlds with rows that `save_store` wrote; returns it.

    Raises:
        InputError: no such file, or one of other worlds.
    """
    try:
        with safe_open(path, "pt") as file:
            names = json.loads(file.metadata()["names"])
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected prepared worlds, found {type(error).__name__}; remove it to prepare them again"
        ) from None
    if len(names["world_ids"]) != len(store):
        raise InputError(
            f"{path}: expected {len(store)} worlds, found {len(names['world_ids'])}; remove it to prepare them again"
        )
    columns[CUBES] = store.place(columns[CUBES])
    graphs = [store.graph(store.worlds.metabolism(index)) for index in range(len(store))]
    store.adopt(enumerate(_rows(columns, names, graphs, store.absent.batch.graph)))
    return store


def _rows(
    columns: dict[str, Tensor], names: dict[str, list[str]], graphs: Sequence[Data], stand_in: Batch
) -> Iterator[Row]:
    """Rows as views of the flat columns."""
    shapes = {name.removesuffix(".shape"): table.tolist() for name, table in columns.items() if ".shape" in name}
    parts: dict[str, Sequence[Tensor]] = {
        name: columns[name].split([torch.Size(shape).numel() for shape in table]) for name, table in shapes.items()
    }
    for index, graph in enumerate(graphs):
        row: dict[str, Any] = {name: parts[name][index].view(shapes[name][index]) for name in shapes}
        context, target = row.pop("context"), row.pop("target")
        batch = MultiModalBatch(**row, graph=stand_in, world_ids=(names["world_ids"][index],))
        yield Row(batch, graph, context, target, tuple(columns["shown"][index].tolist()), names["groups"][index])
