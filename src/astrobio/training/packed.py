"""Prepared worlds in safetensors files: many processes write them side by side, and many read them instead.

Every field of every row lies flat, one behind the other, beside a table of shapes: rows may differ in length and grid.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch_geometric.data import Batch, Data

from astrobio.batch import IGNORED, Collator, MultiModalBatch, Sample
from astrobio.batch.collate import text_tokens
from astrobio.dataset.reader import WorldDataset
from astrobio.errors import InputError
from astrobio.training.checkpoint import read_run
from astrobio.training.feed import Row, Store, prepare_row

CUBES = "climate"
TEXT = ("input_ids", "attention_mask", "context_mask", "lm_labels")  # of the batch of one; made again from the tokens
NAMES = ("world_ids", "groups", "noise_seeds")
PART = 256  # worlds of a file that one process prepares: 0.3 GB in half precision


class Part(NamedTuple):
    """One file of a split: worlds `start` … `stop − 1`, as the run `like` prepares them."""

    like: Path
    data: Path
    split: str
    start: int
    stop: int
    path: Path
    half: bool


def parts_of(like: Path, data: Path, split: str, folder: Path, *, half: bool) -> list[Part]:
    """The files of a split, `PART` worlds each, in the order of their worlds, for `prepare_part` and `load_store`.

    Args:
        like: run folder whose tokenizer and statistics are taken. folder: for the files. half: keep cubes in bf16.
    """
    size = len(open_worlds(data, split))
    return [
        Part(like, data, split, start, min(start + PART, size), _path(folder, split, start // PART), half)
        for start in range(0, size, PART)
    ]


def prepare_parts(parts: Sequence[Part], processes: int, label: str = "preparing worlds") -> list[Path]:
    """Write the files that are not there yet by so many processes; returns the paths of all."""
    missing = [part for part in parts if not part.path.is_file()]
    if processes <= 1:
        for part in missing:
            prepare_part(part)
    elif missing:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(missing)), mp_context=context) as pool:
            for _ in track(pool.map(prepare_part, missing), label, total=len(missing), transient=True):
                pass
    return [part.path for part in parts]


def prepare_part(part: Part) -> None:
    """Write one file."""
    worlds = open_worlds(part.data, part.split)
    save_samples(part, (worlds[index] for index in range(part.start, part.stop)))


def save_samples(part: Part, samples: Iterable[Sample]) -> None:
    """Prepare the worlds of a part, wherever they come from, and write its file."""
    torch.set_num_threads(1)
    collator = _collator(part.like)
    save_rows([prepare_row(sample, collator, Data()) for sample in samples], part.path, half=part.half)


def _path(folder: Path, split: str, number: int) -> Path:
    return folder / f"{split}-{number:05d}.safetensors"


@lru_cache(maxsize=16)
def open_worlds(data: Path, split: str) -> WorldDataset:
    """A split, opened once a process."""
    return WorldDataset(data, split)


@lru_cache(maxsize=1)
def _collator(like: Path) -> Collator:
    config, tokenizer, statistics = read_run(like)
    return Collator(tokenizer, statistics, config.training.max_length)


def save_rows(rows: Sequence[Row], path: Path, *, half: bool = False) -> None:
    """Write rows, whole or not at all; `half` keeps cubes in bf16."""
    fields = [name for name, value in vars(rows[0].batch).items() if isinstance(value, Tensor) and name not in TEXT]
    columns = {name: [getattr(row.batch, name) for row in rows] for name in fields}
    columns |= {"context": [row.context for row in rows], "target": [row.target for row in rows]}
    if half:
        columns[CUBES] = [cube.bfloat16() for cube in columns[CUBES]]
    tensors = {"shown": torch.tensor([row.present for row in rows])}
    for name, values in columns.items():
        tensors[name] = torch.cat([value.flatten().cpu() for value in values])
        tensors[f"{name}.shape"] = torch.tensor([value.shape for value in values])
    told = ([row.batch.world_ids[0] for row in rows], [row.group for row in rows], [row.noise_seed for row in rows])
    names = dict(zip(NAMES, told, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    save_file(tensors, temporary, metadata={"names": json.dumps(names)})
    os.replace(temporary, path)


def load_store(
    store: Store, files: Path | Sequence[Path], *, records: Sequence[Mapping[str, Any]] | None = None
) -> Store:
    """Fill a store on the same worlds with rows that `save_rows` or `prepare_parts` wrote; returns it.

    Args:
        files: one, or those of all parts in order.
        records: `world_id`, `context` and `assessment` of each world, where the store's tokenizer is another than that
            which prepared the files: texts are then made into tokens again.

    Raises:
        InputError: no such file, or files of other worlds.
    """
    paths = [files] if isinstance(files, Path) else list(files)
    found = 0
    for path in paths:
        names, columns = _read(path)
        indices = range(found, found + len(names["world_ids"]))
        found = indices.stop
        if found > len(store):
            break
        columns[CUBES] = store.place(columns[CUBES])
        tokens = None if records is None else [_tokens(records[index], store.collator) for index in indices]
        graphs = [store.graph(store.worlds.metabolism(index)) for index in indices]
        store.adopt(zip(indices, _rows(columns, names, graphs, store.absent.batch.graph, tokens), strict=True))
    if found != len(store):
        raise InputError(f"{paths[0]}: expected {len(store)} worlds, found {found}; remove it to prepare them again")
    return store


def _read(path: Path) -> tuple[dict[str, list[Any]], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            found = json.loads(file.metadata()["names"])
            return {name: found[name] for name in NAMES}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected prepared worlds, found {type(error).__name__}; remove it to prepare them again"
        ) from None


def _tokens(record: Mapping[str, Any], collator: Collator) -> tuple[Tensor, Tensor]:
    sample = Sample(**{name: record[name] for name in ("world_id", "context", "assessment")})
    context, target = text_tokens(sample, collator.tokenizer, collator.max_length)
    return torch.tensor(context, dtype=torch.int64), torch.tensor(target, dtype=torch.int64)


def _rows(
    columns: dict[str, Tensor],
    names: dict[str, list[Any]],
    graphs: Sequence[Data],
    stand_in: Batch,
    tokens: Sequence[tuple[Tensor, Tensor]] | None,
) -> Iterator[Row]:
    """Rows as views of the flat columns."""
    shapes = {name.removesuffix(".shape"): table.tolist() for name, table in columns.items() if ".shape" in name}
    parts: dict[str, Sequence[Tensor]] = {
        name: columns[name].split([torch.Size(shape).numel() for shape in table]) for name, table in shapes.items()
    }
    for index, graph in enumerate(graphs):
        row: dict[str, Any] = {name: parts[name][index].view(shapes[name][index]) for name in shapes}
        context, target = row.pop("context"), row.pop("target")
        if tokens is not None:
            context, target = tokens[index]
        texts = _text_of_one(context, target)
        batch = MultiModalBatch(**row, **texts, graph=stand_in, world_ids=(names["world_ids"][index],))
        present, rest = tuple(columns["shown"][index].tolist()), (names["groups"][index], names["noise_seeds"][index])
        yield Row(batch, graph, context, target, present, *rest)


def _text_of_one(context: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The four text fields of a batch of one world."""
    ids = torch.cat([context, target])[None]
    known = torch.ones_like(ids, dtype=torch.bool)
    is_context = known.clone()
    is_context[:, len(context) :] = False
    return {
        "input_ids": ids, "attention_mask": known, "context_mask": is_context,
        "lm_labels": ids.masked_fill(is_context, IGNORED),
    }  # fmt: skip
