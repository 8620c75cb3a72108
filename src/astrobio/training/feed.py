"""Worlds → batches: prepared once, kept where there is room, in an order that depends on seed and epoch alone.

Dimension letters: B worlds, S text positions, L spectral points, V variables, T time steps, P levels, Y latitudes,
X longitudes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, count, groupby
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data

from astrobio.batch import IGNORED, MODALITIES, Collator, MetabolicGraph, MultiModalBatch, Sample
from astrobio.batch.collate import DEFAULT_ENCODINGS, growth_of, with_noise
from astrobio.batch.graph import dummy_data, hide_reactions, merge_graphs, to_data
from astrobio.dataset.reader import keep_freed_memory
from astrobio.errors import InputError
from astrobio.worlds.instrument import other_noise

FILL_CHUNK = 16  # worlds that a loader process hands over at a time
ROOM = 0.4  # share of the free memory of a place that prepared worlds may take
SPECTRUM = ("spectrum", "spectrum_mask", "spectrum_width")
SPECTRUM_SCALARS = ("spectrum_mean", "spectrum_kind")
CLIMATE_COORDINATES = ("climate_levels", "latitude", "longitude")
CLIMATE_SCALARS = ("climate_mask", "time_kind", "toa_net", "toa_net_mask", "habitat", "habitat_mask")
GROWTH = ("growth", "growth_mask")
SEEN, METABOLISM = MODALITIES.index("spectrum"), MODALITIES.index("metabolism")
TRUTHS = ("labels", "physics", "physics_mask", "physics_mean", "physics_std")


class Worlds(Protocol):
    """A map-style data set of worlds."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def metabolism(self, index: int, /) -> MetabolicGraph | None: ...


@dataclass(frozen=True)
class Row:
    """One prepared world: its collated tensors (a batch of one without the graph), its graph, its text as tokens."""

    batch: MultiModalBatch
    graph: Data
    context: Tensor  # [n]
    target: Tensor  # [m]
    present: tuple[bool, ...]  # as `Sample.present`, on the host whatever the device
    group: str  # host star where the provenance names it, else the world itself: the unit of resampling
    noise_seed: int | None  # of the noise in the spectrum; None where there is none or it is not known

    def nbytes(self) -> int:
        """Bytes of the tensors without the graph, which worlds of one organism share."""
        return sum(value.nbytes for value in vars(self.batch).values() if isinstance(value, Tensor))


class Store:
    """Prepared worlds of one split, kept on the device, in memory or not at all.

    Args:
        worlds: the data set. collator: normalises and tokenises.
        device: where batches are wanted. cache, workers: see `TrainingConfig`.
        half: keep cubes on the device in bf16, to which mixed precision rounds them anyway.
        multiple: texts of a batch are padded to a multiple of so many tokens; compiled blocks want few lengths.

    Raises:
        InputError: an empty data set.
    """

    def __init__(
        self,
        worlds: Worlds,
        collator: Collator,
        device: torch.device,
        cache: str = "auto",
        workers: int = 0,
        half: bool = False,
        multiple: int = 1,
    ) -> None:
        if len(worlds) == 0:
            raise InputError(
                "data: expected at least one world in the split, found none; run `astrobio simulate` first"
            )
        self.worlds, self.collator, self.device, self.workers, self.half = worlds, collator, device, workers, half
        self.multiple = multiple
        self.cache = "none"
        self._graphs: WeakKeyDictionary[MetabolicGraph, Data] = WeakKeyDictionary()
        self._rows: dict[int, Row] = {}
        if cache == "auto":
            size = self._prepare(worlds[0]).nbytes() * len(worlds)
            cache = _choose_cache(size // 2 if half else size, device)  # cubes are nearly all of it
        self.cache = cache
        self.absent = self._keep(self._prepare(Sample(world_id="absent")))

    def __len__(self) -> int:
        return len(self.worlds)

    def __getitem__(self, index: int) -> Row:
        """World `index`, prepared now or before."""
        if index in self._rows:
            return self._rows[index]
        row = self._keep(self._prepare(self.worlds[index]))
        if self.cache != "none":
            self._rows[index] = row
        return row

    def fetch(self, batches: Sequence[Sequence[int]]) -> Iterator[list[Row]]:
        """The rows of each batch of indices, in order; by loader processes where nothing is cached."""
        if self.cache != "none" or self.workers == 0:
            for indices in batches:
                yield [self[index] for index in indices]
            return
        yield from _load(self, batches, self.workers)

    def fill(self, label: str = "preparing worlds") -> Store:
        """Prepare all worlds now by the loader processes, where they are kept and there are such; returns itself."""
        missing = [index for index in range(len(self)) if index not in self._rows]
        if self.cache == "none" or self.workers == 0 or not missing:
            return self
        chunks = [missing[start : start + FILL_CHUNK] for start in range(0, len(missing), FILL_CHUNK)]
        with Progress(*Progress.get_default_columns(), console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=len(missing))
            loaded = _load(_Ungraphed(self.worlds, self.collator), chunks, self.workers, _Packed.of)
            for indices, packed in zip(chunks, loaded, strict=True):
                graphs = [self.graph(self.worlds.metabolism(index)) for index in indices]
                cubes = [self.place(cubes) for cubes in packed.cubes]
                self._rows.update(zip(indices, packed.unpack(cubes, graphs, self.absent.batch.graph), strict=True))
                bar.advance(task, len(indices))
        return self

    def merge(
        self,
        rows: Sequence[Row],
        sources: Sequence[Sequence[Row]],
        *,
        assessments: bool = True,
        hidden: Tensor | None = None,
    ) -> MultiModalBatch:
        """Rows → one batch on the device, equal to collating the samples together.

        Args:
            rows: B worlds, which give labels, language targets and identifiers.
            sources: for each world the row that gives its text, spectrum, climate and metabolism: itself, or
                `absent` where the modality is hidden, or another world to break the link.
            assessments: whether the language targets follow the context.
            hidden: [N] nodes of the graphs whose reactions the encoder may not see (`hide_reactions`); None hides none.
        """
        text, spectra, climates, graphs = ([row[m] for row in sources] for m in range(len(MODALITIES)))
        graph = merge_graphs([row.graph for row in graphs])
        merged = MultiModalBatch(
            **_merge_text(text, rows, self.collator.tokenizer.pad_id, assessments, self.multiple),
            **{name: _pad([getattr(row.batch, name)[0] for row in spectra]) for name in SPECTRUM},
            **{name: torch.cat([getattr(row.batch, name) for row in spectra]) for name in SPECTRUM_SCALARS},
            **_merge_climates(climates),
            graph=graph if hidden is None else hide_reactions(graph, hidden),
            **{name: torch.cat([getattr(row.batch, name) for row in graphs]) for name in GROWTH},
            present=torch.tensor([[row.present[m] for m, row in enumerate(four)] for four in sources]),
            **{name: torch.cat([getattr(row.batch, name) for row in rows]) for name in TRUTHS},
            world_ids=tuple(row.batch.world_ids[0] for row in rows),
        )
        moved = merged.to(self.device, non_blocking=True)
        return replace(moved, climate=moved.climate.float())  # widened where it is fast, after half as much travelled

    def _prepare(self, sample: Sample) -> Row:
        return prepare_row(sample, self.collator, self.graph(sample.metabolism))

    def adopt(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Keep rows that were prepared elsewhere, by their indices."""
        self._rows.update(rows)

    def __getstate__(self) -> dict[str, Any]:
        """What a loader process needs; what was prepared stays here."""
        return {**vars(self), "_graphs": None, "_rows": {}, "absent": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _graphs=WeakKeyDictionary())

    def _keep(self, row: Row) -> Row:
        """The row where and how it is kept."""
        return replace(row, batch=replace(row.batch, climate=self.place(row.batch.climate)))

    def place(self, cubes: Tensor) -> Tensor:
        """Cubes where and how they are kept; all else is small and joins others faster on the host."""
        if self.cache != "device":
            return cubes
        return cubes.to(self.device, torch.bfloat16 if self.half else torch.float32)

    def graph(self, graph: MetabolicGraph | None) -> Data:
        """The graph as tensors, made once for all worlds that share it."""
        graph = None if graph is None else graph.network
        data = dummy_data(DEFAULT_ENCODINGS) if graph is None else self._graphs.get(graph) or to_data(graph)
        if self.cache == "device":
            data = data.to(str(self.device))
        if graph is not None:
            self._graphs[graph] = data
        return data


class _Ungraphed:
    """Worlds prepared in a loader process, without the graphs, which many worlds share."""

    def __init__(self, worlds: Worlds, collator: Collator) -> None:
        self.worlds, self.collator = worlds, collator

    def __len__(self) -> int:
        return len(self.worlds)

    def __getitem__(self, index: int) -> Row:
        return prepare_row(self.worlds[index], self.collator, Data())


class _Packed(NamedTuple):
    """Rows on their way between processes: cubes of one shape as one tensor, all else plain, the graphs left out."""

    cubes: list[Tensor]
    fields: list[dict[str, Any]]
    texts: list[tuple[np.ndarray, np.ndarray]]
    rest: list[tuple[tuple[bool, ...], str, int | None]]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Packed:
        names = [item.name for item in fields(MultiModalBatch) if item.name not in ("climate", "graph")]
        cubes = [row.batch.climate for row in rows]
        return cls(
            [torch.cat(cubes)] if len({cube.shape for cube in cubes}) == 1 else cubes,
            [{name: value.numpy() if isinstance(value := getattr(row.batch, name), Tensor) else value for name in names}
             for row in rows],
            [(row.context.numpy(), row.target.numpy()) for row in rows],
            [(row.present, row.group, row.noise_seed) for row in rows],
        )  # fmt: skip

    def unpack(self, cubes: Sequence[Tensor], graphs: Sequence[Data], stand_in: Batch) -> Iterator[Row]:
        """The rows again, with the cubes as they were placed and a stand-in for the batches' own graphs."""
        parts = zip(
            chain.from_iterable(cube.split(1) for cube in cubes),
            self.fields,
            self.texts,
            graphs,
            self.rest,
            strict=True,
        )
        for cube, values, texts, graph, rest in parts:
            tensors: dict[str, Any] = {
                k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in values.items()
            }
            batch = MultiModalBatch(**tensors, climate=cube, graph=stand_in)
            context, target = (torch.from_numpy(text) for text in texts)
            yield Row(batch, graph, context, target, *rest)


def _load(rows: Any, batches: Sequence[Sequence[int]], workers: int, pack: Callable[..., Any] = list) -> Iterator[Any]:
    """Rows of each batch, packed, by loader processes; `rows` is map-style."""
    # One open file a tensor would soon exceed a process's limit; this strategy closes them.
    torch.multiprocessing.set_sharing_strategy("file_system")
    yield from DataLoader(
        rows,
        batch_sampler=[list(indices) for indices in batches],
        num_workers=workers,
        collate_fn=pack,
        generator=torch.Generator().manual_seed(0),  # leaves the global generator, which resuming restores, alone
        worker_init_fn=_settle,
    )


def _settle(_: int) -> None:
    """Make a new process a loader."""
    keep_freed_memory()


@dataclass(frozen=True)
class Feed:
    """An endless, resumable stream of training batches.

    Args:
        store: prepared worlds. batch_size: worlds in a batch. seed: of order and dropout.
        dropout: probability of hiding each present modality. modalities: those shown at all.
        reaction_dropout: largest share of a graph's reactions to hide; 0 draws nothing.
        redraw_noise: observe simulated worlds anew in every epoch.
    """

    store: Store
    batch_size: int
    seed: int = 0
    dropout: float = 0.0
    modalities: tuple[str, ...] = MODALITIES
    reaction_dropout: float = 0.0
    redraw_noise: bool = False

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in an epoch; one smaller batch where there are fewer worlds than a batch."""
        return max(1, len(self.store) // self.batch_size)

    def stream(self, start: int = 0) -> Iterator[MultiModalBatch]:
        """Batches number `start`, `start + 1`, … as if the stream had run from 0."""
        return self.batches(count(start))

    def batches(self, numbers: Iterable[int]) -> Iterator[MultiModalBatch]:
        """Batches of these ascending numbers, without those between them being prepared."""
        for epoch, group in groupby(numbers, key=lambda number: number // self.batches_per_epoch):
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.store))
            draws = np.random.default_rng([self.seed, epoch, 1]).random((len(self.store), len(MODALITIES) + 1))
            places = [number % self.batches_per_epoch * self.batch_size for number in group]
            chosen = [order[place : place + self.batch_size].tolist() for place in places]
            for indices, rows in zip(chosen, self.store.fetch(chosen), strict=True):
                keep = [self._keep(row, draws[index]) for index, row in zip(indices, rows, strict=True)]
                sources = hide(rows, keep, self.store.absent)
                if self.redraw_noise:
                    for index, four in zip(indices, sources, strict=True):
                        four[SEEN] = observe_anew(four[SEEN], np.random.default_rng([self.seed, epoch, 3, index]))
                hidden = self._hidden(epoch, indices, [four[METABOLISM].graph for four in sources])
                yield self.store.merge(rows, sources, hidden=hidden)

    def _hidden(self, epoch: int, indices: Sequence[int], graphs: Sequence[Data]) -> Tensor | None:
        """[N] nodes that graphs lose, reactions or not, by numbers of each world's own, whatever batch it is in."""
        if self.reaction_dropout == 0.0:
            return None
        chosen = []
        for index, graph in zip(indices, graphs, strict=True):
            draws = np.random.default_rng([self.seed, epoch, 2, index]).random(1 + int(graph.num_nodes or 0))
            chosen.append(draws[1:] < self.reaction_dropout * draws[0])
        return torch.from_numpy(np.concatenate(chosen))

    def _keep(self, row: Row, draw: np.ndarray) -> list[bool]:
        """Which modalities a world shows, from five uniform numbers; one of those it has always stays."""
        there = [p and m in self.modalities for p, m in zip(row.present, MODALITIES, strict=True)]
        keep = [t and bool(d >= self.dropout) for t, d in zip(there, draw, strict=False)]
        candidates = [m for m, t in enumerate(there) if t]
        if candidates and not any(keep):
            keep[candidates[int(draw[-1] * len(candidates))]] = True
        return keep


def observe_anew(row: Row, rng: np.random.Generator | None) -> Row:
    """The world with other measurement noise in its spectrum, or none, if the noise that is there is known."""
    if row.noise_seed is None:
        return row
    draws = other_noise(row.noise_seed, row.batch.spectrum.shape[1], rng)
    return replace(row, batch=with_noise(row.batch, torch.from_numpy(draws).float()), noise_seed=None)


def hide(rows: Sequence[Row], keep: Sequence[Sequence[bool]], absent: Row) -> list[list[Row]]:
    """Sources for `Store.merge`: each world's own modalities where `keep` [B][4] says so, else the absent ones."""
    return [[row if k else absent for k in kept] for row, kept in zip(rows, keep, strict=True)]


def sweep(
    store: Store,
    size: int,
    *,
    batch_size: int,
    modalities: Sequence[str] = MODALITIES,
    permute: str | None = None,
    assessments: bool = True,
) -> Iterator[MultiModalBatch]:
    """The first `size` worlds once, in order, for evaluation.

    Args:
        modalities: those shown. permute: a modality that each world takes from another world instead, which breaks
            its link to the truth and keeps its distribution.
        assessments: whether the language targets follow the contexts.
    """
    shown = [name in modalities for name in MODALITIES]
    elsewhere = np.random.default_rng(0).permutation(size)
    indices = [list(range(start, min(start + batch_size, size))) for start in range(0, size, batch_size)]
    others = store.fetch([[int(elsewhere[i]) for i in chunk] for chunk in indices]) if permute else None
    for rows in store.fetch(indices):
        sources = hide(rows, [shown] * len(rows), store.absent)
        if permute and others is not None:
            column = MODALITIES.index(permute)
            for four, other in zip(sources, next(others), strict=True):
                four[column] = other
        yield store.merge(rows, sources, assessments=assessments)


def prepare_row(sample: Sample, collator: Collator, graph: Data) -> Row:
    """A world's row with `graph` as its metabolism."""
    batch = collator([replace(sample, metabolism=None)])
    growth = growth_of(sample)
    if growth is not None:
        batch = replace(batch, growth=torch.tensor([growth]), growth_mask=torch.tensor([True]))
    ids, context = batch.input_ids[0], batch.context_mask[0]
    return Row(batch, graph, ids[context], ids[~context], sample.present, host_of(sample), noise_seed_of(sample))


def host_of(sample: Sample) -> str:
    """The star a world belongs to, by its provenance; worlds that name none stand for themselves."""
    return str(sample.provenance.get("star", sample.world_id))


def noise_seed_of(sample: Sample) -> int | None:
    """The seed of the noise in a simulated spectrum; None where it was measured or nobody knows."""
    simulated = sample.spectrum is not None and sample.provenance.get("source") == "astrobio.worlds"
    return sample.provenance.get("noise_seed") if simulated else None


def _choose_cache(size: int, device: torch.device) -> str:
    """The fastest place with room for `size` bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if size < ROOM * free:
            return "device"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "memory" if size < ROOM * memory else "none"


def _pad(tensors: Sequence[Tensor], value: float = 0, multiple: int = 1) -> Tensor:
    """[B, longest, …] with `value` behind the shorter ones, to a multiple of a length; bool stays bool."""
    padded = torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True, padding_value=value)
    more = -padded.shape[1] % multiple
    return torch.nn.functional.pad(padded, (0, more), value=value) if more else padded


def _merge_text(
    contexts: Sequence[Row], rows: Sequence[Row], pad_id: int, assessments: bool, multiple: int
) -> dict[str, Tensor]:
    """Contexts and language targets → the four [B, S] tensors of `MultiModalBatch`."""
    pairs = [(a.context, b.target if assessments else b.target[:0]) for a, b in zip(contexts, rows, strict=True)]
    yes, no = (torch.full_like(pairs[0][0], flag, dtype=torch.bool)[:1] for flag in (True, False))
    return {
        "input_ids": _pad([torch.cat(pair) for pair in pairs], pad_id, multiple),
        "attention_mask": _pad([yes.expand(len(c) + len(t)) for c, t in pairs], False, multiple),
        "context_mask": _pad([torch.cat([yes.expand(len(c)), no.expand(len(t))]) for c, t in pairs], False, multiple),
        "lm_labels": _pad([torch.cat([torch.full_like(c, IGNORED), t]) for c, t in pairs], IGNORED, multiple),
    }


def _merge_climates(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Cubes of one shape, with zeros on the same grid where a world has none (its mask says so)."""
    shown = [row for row in rows if row.present[2]]
    shapes = {tuple(row.batch.climate.shape[1:]) for row in shown}
    if len(shapes) > 1:
        raise InputError(f"Sample.climate: expected one cube shape (V, T, P, Y, X) per batch, found {sorted(shapes)}")
    like = shown[0] if shown else rows[0]
    grids = [row if row.present[2] else like for row in rows]
    cubes = [row.batch.climate if row.present[2] else torch.zeros_like(like.batch.climate) for row in rows]
    return {
        "climate": torch.cat(cubes),
        **{name: torch.cat([getattr(row.batch, name) for row in grids]) for name in CLIMATE_COORDINATES},
        **{name: torch.cat([getattr(row.batch, name) for row in rows]) for name in CLIMATE_SCALARS},
    }
