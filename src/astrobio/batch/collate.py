"""Samples → `MultiModalBatch`.

Dimension letters: B worlds, S text positions, L spectral points, V variables, T time steps, P levels, Y latitudes,
X longitudes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch_geometric.data import Batch, Data

from astrobio.batch.batch import GROWTH_SCALE, IGNORED, MultiModalBatch
from astrobio.batch.graph import dummy_data, merge_graphs, to_data
from astrobio.batch.sample import (
    CLIMATE_VARIABLES,
    SPECTRUM_KINDS,
    TIME_KINDS,
    WORLD_STATES,
    ClimateCube,
    MetabolicGraph,
    Sample,
    Spectrum,
)
from astrobio.batch.statistics import DEPTH_SCALE, Statistics
from astrobio.errors import InputError

LEAST_MEAN = 1e-3  # ppm or albedo: floor under the logarithm of a spectrum's mean
DEFAULT_CUBE = (1, 5, 16, 16)  # T, P, Y, X of the stand-in where no world of a batch has a climate: the least that runs
DEFAULT_ENCODINGS = 16  # structural encodings of the stand-in graph where no world of a batch has a metabolism


@runtime_checkable
class Tokenizer(Protocol):
    """What collation needs of a tokenizer."""

    bos_id: int
    eos_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]: ...


def multimodal_collate_fn(
    samples: Sequence[Sample], *, tokenizer: Tokenizer, statistics: Statistics, max_length: int = 512
) -> MultiModalBatch:
    """Collate worlds into one batch; any modality of any world may be absent.

    The assessment, where given, follows the context as the language target. Text beyond `max_length` tokens is cut
    from the context's end, so that the target stays whole.

    Raises:
        InputError: an empty batch, cubes or encodings of different shape, or a text target beyond `max_length`.
    """
    if not samples:
        raise InputError("multimodal_collate_fn: expected at least one sample, found an empty list")
    net = [_toa_net(s.climate) for s in samples]
    habitat, growth = [_habitat(s.climate) for s in samples], [growth_of(s) for s in samples]
    physics = [statistics.normalise_physics(s.physics) for s in samples]
    return MultiModalBatch(
        **_text(samples, tokenizer, max_length),
        **_spectra([s.spectrum for s in samples]),
        **_climates(samples, statistics),
        graph=_graphs([s.metabolism for s in samples]),
        present=torch.tensor([s.present for s in samples]),
        labels=torch.tensor([IGNORED if s.state is None else WORLD_STATES.index(s.state) for s in samples]),
        physics=torch.from_numpy(np.stack([values for values, _ in physics])),
        physics_mask=torch.from_numpy(np.stack([known for _, known in physics])),
        physics_mean=torch.tensor([statistics.physics_mean] * len(samples), dtype=torch.float32),
        physics_std=torch.tensor([statistics.physics_std] * len(samples), dtype=torch.float32),
        toa_net=torch.tensor([0.0 if n is None else n for n in net], dtype=torch.float32),
        toa_net_mask=torch.tensor([n is not None for n in net]),
        habitat=torch.tensor([0.0 if h is None else h for h in habitat], dtype=torch.float32),
        habitat_mask=torch.tensor([h is not None for h in habitat]),
        growth=torch.tensor([0.0 if g is None else g for g in growth], dtype=torch.float32),
        growth_mask=torch.tensor([g is not None for g in growth]),
        world_ids=tuple(s.world_id for s in samples),
    )


@dataclass(frozen=True)
class Collator:
    """`multimodal_collate_fn` with its tokenizer and statistics bound, picklable for `DataLoader` workers."""

    tokenizer: Tokenizer
    statistics: Statistics
    max_length: int = 512
    with_assessment: bool = True

    def __call__(self, samples: Sequence[Sample]) -> MultiModalBatch:
        if not self.with_assessment:
            samples = [_without_assessment(s) for s in samples]
        return multimodal_collate_fn(
            samples, tokenizer=self.tokenizer, statistics=self.statistics, max_length=self.max_length
        )


def _without_assessment(sample: Sample) -> Sample:
    return Sample(**{**sample.__dict__, "assessment": None})


def text_tokens(sample: Sample, tokenizer: Tokenizer, max_length: int) -> tuple[list[int], list[int]]:
    """Ids of a world's context and of its language target, together at most `max_length`: the context is cut.

    Raises:
        InputError: a target that leaves no room for any context.
    """
    context = [tokenizer.bos_id, *(tokenizer.encode(sample.context) if sample.context is not None else [])]
    target = [] if sample.assessment is None else [*tokenizer.encode(sample.assessment), tokenizer.eos_id]
    if len(target) >= max_length:
        raise InputError(
            f"Sample.assessment of {sample.world_id}: expected < {max_length} tokens, found {len(target)}; "
            "raise max_length"
        )
    return context[: max_length - len(target)], target


def _text(samples: Sequence[Sample], tokenizer: Tokenizer, max_length: int) -> dict[str, torch.Tensor]:
    rows = [text_tokens(sample, tokenizer, max_length) for sample in samples]
    length = max(len(context) + len(target) for context, target in rows)
    ids = torch.full((len(rows), length), tokenizer.pad_id, dtype=torch.int64)
    attention = torch.zeros(len(rows), length, dtype=torch.bool)
    context_mask = torch.zeros(len(rows), length, dtype=torch.bool)
    labels = torch.full((len(rows), length), IGNORED, dtype=torch.int64)
    for row, (context, target) in enumerate(rows):
        start, end = len(context), len(context) + len(target)
        ids[row, :end] = torch.tensor(context + target)
        attention[row, :end] = True
        context_mask[row, :start] = True
        labels[row, start:end] = torch.tensor(target, dtype=torch.int64)
    return {"input_ids": ids, "attention_mask": attention, "context_mask": context_mask, "lm_labels": labels}


def _spectra(spectra: Sequence[Spectrum | None]) -> dict[str, torch.Tensor]:
    size, length = len(spectra), max((len(s.wavelength) for s in spectra if s is not None), default=2)
    tokens, width = np.zeros((size, length, 3), np.float32), np.zeros((size, length), np.float32)
    mask, mean = np.zeros((size, length), bool), np.zeros(size, np.float32)
    kind = np.zeros(size, np.int64)
    for row, spectrum in enumerate(spectra):
        if spectrum is None:
            continue
        n = len(spectrum.wavelength)
        scale = _scale_of(spectrum.kind)
        weighted = float(np.average(spectrum.value, weights=spectrum.sigma**-2.0))
        tokens[row, :n, 0] = np.log(spectrum.wavelength)
        tokens[row, :n, 1] = (spectrum.value - weighted) / scale
        tokens[row, :n, 2] = spectrum.sigma / scale
        width[row, :n] = np.log(spectrum.bin_width / spectrum.wavelength)
        mean[row] = np.log10(max(weighted, LEAST_MEAN))
        mask[row, :n], kind[row] = True, SPECTRUM_KINDS.index(spectrum.kind)
    return {
        "spectrum": torch.from_numpy(tokens), "spectrum_mask": torch.from_numpy(mask),
        "spectrum_width": torch.from_numpy(width), "spectrum_mean": torch.from_numpy(mean),
        "spectrum_kind": torch.from_numpy(kind),
    }  # fmt: skip


def _scale_of(kind: str) -> float:
    """What a unit of a spectrum's tokens is worth: ppm, and for albedos, which are of order 0.1, 0.1."""
    return DEPTH_SCALE if kind != "reflection" else 0.1


def with_noise(batch: MultiModalBatch, draws: torch.Tensor) -> MultiModalBatch:
    """A batch of one world as it would be, had its spectrum come with so much noise more.

    Args:
        draws: [L] in units of each bin's standard error.
    """
    wavelength, value, sigma = batch.spectrum[0].unbind(-1)
    more = sigma * draws
    shift = float(torch.sum(more / sigma**2) / torch.sum(sigma**-2))  # of the inverse-variance mean
    scale = _scale_of(SPECTRUM_KINDS[int(batch.spectrum_kind)])
    mean = max(10.0 ** float(batch.spectrum_mean) + shift * scale, LEAST_MEAN)
    return replace(
        batch,
        spectrum=torch.stack([wavelength, value + more - shift, sigma], dim=-1)[None],
        spectrum_mean=torch.tensor([math.log10(mean)]),
    )


def _climates(samples: Sequence[Sample], statistics: Statistics) -> dict[str, torch.Tensor]:
    cubes = [s.climate for s in samples]
    shapes = {c.shape for c in cubes if c is not None}
    if len(shapes) > 1:
        raise InputError(f"Sample.climate: expected one cube shape (V, T, P, Y, X) per batch, found {sorted(shapes)}")
    _, t, p, y, x = shapes.pop() if shapes else (0, *DEFAULT_CUBE)
    size, variables = len(cubes), len(CLIMATE_VARIABLES)
    values, mask = np.zeros((size, variables, t, p, y, x), np.float32), np.zeros((size, variables), bool)
    levels = np.repeat(np.linspace(5.0, 2.0, p, dtype=np.float32)[None], size, axis=0)  # 1 bar … 1 hPa where absent
    latitude = np.repeat(np.linspace(-87.0, 87.0, y, dtype=np.float32)[None], size, axis=0)
    longitude = np.repeat(np.linspace(-180.0, 180.0, x, endpoint=False, dtype=np.float32)[None], size, axis=0)
    kind = np.zeros(size, np.int64)
    for row, cube in enumerate(cubes):
        if cube is not None:
            values[row], mask[row] = statistics.normalise_climate(cube)
            levels[row] = np.log10(cube.levels)
            latitude[row], longitude[row] = cube.latitude, cube.longitude
            kind[row] = TIME_KINDS.index(cube.time_kind)
    return {
        "climate": torch.from_numpy(values), "climate_mask": torch.from_numpy(mask),
        "climate_levels": torch.from_numpy(levels), "latitude": torch.from_numpy(latitude),
        "longitude": torch.from_numpy(longitude), "time_kind": torch.from_numpy(kind),
    }  # fmt: skip


def _toa_net(cube: ClimateCube | None) -> float | None:
    """W/m², global mean absorbed minus outgoing radiation of the cube; None where a field is missing."""
    names = ("toa_net_downward_shortwave_flux", "toa_outgoing_longwave_flux")
    if cube is None or any(name not in cube.fields for name in names):
        return None
    return cube.global_mean(names[0]) - cube.global_mean(names[1])


def _habitat(cube: ClimateCube | None) -> float | None:
    """Mean temperature of the ice-free surface on the scale of growth temperatures; None where nobody knows it."""
    if cube is None or "surface_temperature" not in cube.fields:
        return None
    return _on_growth_scale(cube.habitat_temperature())


def growth_of(sample: Sample) -> float | None:
    """The growth temperature of a world's candidate on `GROWTH_SCALE`; None where nobody knows it."""
    graph = sample.metabolism
    return None if graph is None or graph.growth_temperature is None else _on_growth_scale(graph.growth_temperature)


def _on_growth_scale(temperature: float) -> float:
    return (temperature - GROWTH_SCALE[0]) / GROWTH_SCALE[1]


_CONVERTED: WeakKeyDictionary[MetabolicGraph, Data] = WeakKeyDictionary()


def _convert(graph: MetabolicGraph) -> Data:
    """`to_data`, remembered while the network lives: many worlds share one organism."""
    network = graph.network
    if network not in _CONVERTED:
        _CONVERTED[network] = to_data(network)
    return _CONVERTED[network]


def _graphs(graphs: Sequence[MetabolicGraph | None]) -> Batch:
    widths = {g.encodings.shape[1] for g in graphs if g is not None}
    if len(widths) > 1:
        raise InputError(f"Sample.metabolism: expected one width of encodings per batch, found {sorted(widths)}")
    width = widths.pop() if widths else DEFAULT_ENCODINGS
    return merge_graphs([dummy_data(width) if g is None else _convert(g) for g in graphs])
