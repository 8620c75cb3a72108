"""Hand-made features of a world, for gradient-boosted trees: what an expert would measure in each modality.

Dimension letters: N worlds, F features, L spectral points, Y latitudes, X longitudes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from astrobio.batch import CLIMATE_VARIABLES, GASES, ClimateCube, MetabolicGraph, Sample, Spectrum
from astrobio.batch.graph import EC_CLASSES
from astrobio.batch.statistics import transform_variable


class Band(NamedTuple):
    """An absorption band and the continuum beside it, µm."""

    name: str
    inside: tuple[float, float]
    beside: tuple[tuple[float, float], ...]


# Band positions after Schwieterman et al. 2018 (doi:10.1089/ast.2017.1729), widened to the points of R ≈ 30 spectra.
BANDS = (
    Band("O2_0.76", (0.755, 0.775), ((0.73, 0.75), (0.78, 0.80))),
    Band("H2O_0.94", (0.92, 0.98), ((0.86, 0.90), (1.00, 1.06))),
    Band("H2O_1.14", (1.10, 1.17), ((1.02, 1.07), (1.20, 1.25))),
    Band("O2_1.27", (1.255, 1.285), ((1.20, 1.25), (1.29, 1.31))),
    Band("H2O_1.4", (1.34, 1.48), ((1.22, 1.30), (1.52, 1.56))),
    Band("CH4_1.7", (1.62, 1.76), ((1.52, 1.60), (1.78, 1.80))),
    Band("H2O_1.9", (1.82, 1.94), ((1.74, 1.80), (2.10, 2.16))),
    Band("CO2_2.0", (1.94, 2.08), ((1.74, 1.80), (2.10, 2.20))),
    Band("CH4_2.3", (2.25, 2.45), ((2.10, 2.20), (2.48, 2.52))),
    Band("CO_2.35", (2.30, 2.40), ((2.10, 2.25), (2.45, 2.52))),
    Band("CO2_2.7", (2.66, 2.84), ((2.45, 2.55), (2.95, 3.05))),
    Band("CH4_3.3", (3.15, 3.50), ((2.95, 3.05), (3.70, 3.95))),
    Band("CO2_4.3", (4.18, 4.45), ((3.80, 4.10), (4.90, 5.20))),
    Band("CO_4.6", (4.50, 4.80), ((3.80, 4.10), (4.90, 5.20))),
    Band("H2O_6.3", (5.50, 7.00), ((5.10, 5.30), (8.20, 8.80))),
    Band("CH4_7.7", (7.40, 8.00), ((8.20, 8.80),)),
    Band("O3_9.6", (9.40, 9.90), ((8.40, 9.00), (10.40, 11.40))),
)
NUMBER = re.compile(r"(?P<number>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?P<unit>[A-Za-z%µ⊕☉][\w/%µ⊕☉·²³⁻¹]*)?")
WORD = re.compile(r"[A-Za-z][A-Za-z-]+")
UNITS, WORDS = 24, 64  # most frequent units (two numbers each) and words that become features
RARE, COMMON = 0.02, 0.98  # words in fewer or more of the training texts say nothing


@dataclass(frozen=True)
class FeatureExtractor:
    """Samples → numbers, NaN where a modality or band is not there.

    Args:
        units, words, guilds: vocabularies found in the training worlds.
    """

    units: tuple[str, ...]
    words: tuple[str, ...]
    guilds: tuple[str, ...]

    @classmethod
    def fit(cls, samples: Iterable[Sample]) -> FeatureExtractor:
        """Collect the vocabularies of training worlds."""
        units, words, guilds, texts = Counter(), Counter(), set(), 0
        for sample in samples:
            if sample.context is not None:
                texts += 1
                units.update(unit for unit, _ in _numbers(sample.context))
                words.update(set(_words(sample.context)))
            if sample.metabolism is not None:
                guilds.add(sample.metabolism.guild)
        telling = [w for w, n in words.most_common() if RARE * texts <= n <= COMMON * texts]
        return cls(tuple(u for u, _ in units.most_common(UNITS)), tuple(telling[:WORDS]), tuple(sorted(guilds)))

    def __call__(self, sample: Sample) -> Float[np.ndarray, "F"]:
        """[F] text, then spectrum, climate and metabolism."""
        return np.array([
            *self._text(sample.context),
            *spectrum_features(sample.spectrum),
            *_climate(sample.climate),
            *self._metabolism(sample.metabolism),
        ])  # fmt: skip

    def columns(self) -> dict[str, slice]:
        """Which features are whose: modality → its columns."""
        widths = {
            "text": 2 * len(self.units) + len(self.words), "spectrum": 2 * len(BANDS) + 5,
            "climate": 8 * len(CLIMATE_VARIABLES), "metabolism": len(GASES) + len(self.guilds) + EC_CLASSES + 6,
        }  # fmt: skip
        ends = np.cumsum(list(widths.values())).tolist()
        return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}

    def _text(self, text: str | None) -> list[float]:
        if text is None:
            return [np.nan] * (2 * len(self.units) + len(self.words))
        found: dict[str, list[float]] = {}
        for unit, number in _numbers(text):
            found.setdefault(unit, []).append(number)
        numbers = [value for unit in self.units for value in (*found.get(unit, []), np.nan, np.nan)[:2]]
        there = set(_words(text))
        return numbers + [float(word in there) for word in self.words]

    def _metabolism(self, graph: MetabolicGraph | None) -> list[float]:
        if graph is None:
            return [np.nan] * (len(GASES) + len(self.guilds) + EC_CLASSES + 6)
        exchange = graph.exchange or {}
        classes = [sum(ec.startswith(f"{k}.") for ec in graph.ec) / len(graph.ec) for k in range(1, EC_CLASSES + 1)]
        known = np.isfinite(graph.dg_prime)
        return [
            *(np.arcsinh(exchange[gas]) if gas in exchange else np.nan for gas in GASES),
            *(float(graph.guild == guild) for guild in self.guilds),
            *classes,
            len(graph.compounds), len(graph.reactions), float(graph.reversible.mean()),
            float(graph.dg_prime[known].mean()) if known.any() else np.nan,
            float(graph.external.mean()),
            np.nan if graph.growth_temperature is None else graph.growth_temperature,
        ]  # fmt: skip


def _numbers(text: str) -> list[tuple[str, float]]:
    return [(match["unit"] or "", float(match["number"])) for match in NUMBER.finditer(text)]


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def _weighted_mean(spectrum: Spectrum, windows: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Inverse-variance mean over windows and its standard error; NaN where no point falls in."""
    inside = np.zeros(len(spectrum.wavelength), dtype=bool)
    for low, high in windows:
        inside |= (spectrum.wavelength >= low) & (spectrum.wavelength <= high)
    if not inside.any():
        return np.nan, np.nan
    weights = spectrum.sigma[inside] ** -2.0
    return float(np.average(spectrum.value[inside], weights=weights)), float(weights.sum() ** -0.5)


def spectrum_features(spectrum: Spectrum | None) -> list[float]:
    """Depth and signal-to-noise of each band, mean depth, precision and coverage."""
    if spectrum is None:
        return [np.nan] * (2 * len(BANDS) + 5)
    out: list[float] = []
    for band in BANDS:
        (peak, error), (base, base_error) = (_weighted_mean(spectrum, w) for w in ((band.inside,), band.beside))
        out += [peak - base, (peak - base) / float(np.hypot(error, base_error))]
    mean = float(np.average(spectrum.value, weights=spectrum.sigma**-2.0))
    ends = [float(spectrum.wavelength[0]), float(spectrum.wavelength[-1])]
    blue, red = (_weighted_mean(spectrum, [w])[0] for w in ((0.6, 1.0), (1.0, 1.8)))
    return [*out, mean, float(np.median(spectrum.sigma)), *ends, blue - red]


def _climate(cube: ClimateCube | None) -> list[float]:
    """Per variable, at the surface and aloft: mean, spread, day − night and equator − pole contrast."""
    out: list[float] = []
    for name in CLIMATE_VARIABLES:
        if cube is None or name not in cube.fields:
            out += [np.nan] * 8
            continue
        values = transform_variable(name, cube.fields[name].mean(axis=0))
        out += _contrasts(values[0], cube) + _contrasts(values[-1], cube)
    return out


def _contrasts(field: Float[np.ndarray, "Y X"], cube: ClimateCube) -> list[float]:
    weights = cube.area_weights()
    day, tropics = np.abs(cube.longitude) < 90.0, np.abs(cube.latitude) < 30.0
    mean = float((field * weights).sum())
    spread = float(np.sqrt(((field - mean) ** 2 * weights).sum()))

    def average(mask: np.ndarray) -> float:
        return float(np.average(field, weights=weights * mask)) if mask.any() else np.nan

    columns, rows = np.broadcast_to(day[None, :], field.shape), np.broadcast_to(tropics[:, None], field.shape)
    return [mean, spread, average(columns) - average(~columns), average(rows) - average(~rows)]
