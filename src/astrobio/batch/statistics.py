"""Normalisation: how physical values become numbers near one, and back. The statistics travel with every checkpoint.

Dimension letters: V variables, T time steps, P levels, Y latitudes, X longitudes, K physics targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from astrobio.batch.sample import CLIMATE_VARIABLES, PHYSICS_TARGETS, ClimateCube, Sample

DEPTH_SCALE = 100.0  # ppm; spectral features of rocky planets around M dwarfs are 1…300 ppm (DESIGN, Fauchez 2019)
HUMIDITY_FLOOR = 1e-8  # kg/kg, below the stratospheric minimum of any model used here
MIXING_RATIO_FLOOR = 1e-12  # volume fraction below which a gas counts as absent


def transform_variable(name: str, values: np.ndarray) -> np.ndarray:
    """Physical values → the space in which the variable is roughly Gaussian (humidity: log10)."""
    if name == "specific_humidity":
        return np.log10(np.maximum(values, HUMIDITY_FLOOR))
    return values


@dataclass(frozen=True)
class Statistics:
    """Means and standard deviations over the training split, never over validation or test.

    Args:
        climate_mean, climate_std: one number per `CLIMATE_VARIABLES`, in the transformed space.
        physics_mean, physics_std: one number per `PHYSICS_TARGETS`.
    """

    climate_mean: tuple[float, ...]
    climate_std: tuple[float, ...]
    physics_mean: tuple[float, ...]
    physics_std: tuple[float, ...]

    def normalise_climate(self, cube: ClimateCube) -> tuple[np.ndarray, np.ndarray]:
        """Cube → ([V, T, P, Y, X] float32 with zeros where a variable is absent, [V] bool present)."""
        out = np.zeros(cube.shape, dtype=np.float32)
        mask = np.zeros(len(CLIMATE_VARIABLES), dtype=bool)
        for index, name in enumerate(CLIMATE_VARIABLES):
            if name in cube.fields:
                values = transform_variable(name, cube.fields[name].astype(np.float32))
                out[index] = (values - self.climate_mean[index]) / self.climate_std[index]
                mask[index] = True
        return out, mask

    def normalise_physics(self, physics: dict[str, float] | None) -> tuple[np.ndarray, np.ndarray]:
        """Known truths → ([K] float32 normalised, [K] bool known)."""
        known = np.array([name in (physics or {}) for name in PHYSICS_TARGETS])
        raw = np.array([(physics or {}).get(name, 0.0) for name in PHYSICS_TARGETS], dtype=np.float32)
        scaled = (raw - np.array(self.physics_mean)) / np.array(self.physics_std)
        return np.where(known, scaled, 0.0).astype(np.float32), known

    def to_dict(self) -> dict[str, list[float]]:
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, list[float]]) -> Statistics:
        return cls(**{name: tuple(values) for name, values in data.items()})

    @classmethod
    def fit(cls, samples: Iterable[Sample]) -> Statistics:
        """One pass over the training samples (Welford's merge of per-sample moments, stable in float64)."""
        climate = [_Moments() for _ in CLIMATE_VARIABLES]
        physics = [_Moments() for _ in PHYSICS_TARGETS]
        for sample in samples:
            if sample.climate is not None:
                for moments, name in zip(climate, CLIMATE_VARIABLES, strict=True):
                    if name in sample.climate.fields:
                        moments.add(transform_variable(name, sample.climate.fields[name]))
            for moments, name in zip(physics, PHYSICS_TARGETS, strict=True):
                if name in (sample.physics or {}):
                    moments.add(np.array([(sample.physics or {})[name]]))
        return cls(
            climate_mean=tuple(m.mean for m in climate),
            climate_std=tuple(m.std for m in climate),
            physics_mean=tuple(m.mean for m in physics),
            physics_std=tuple(m.std for m in physics),
        )


class _Moments:
    """Running count, mean and summed squared deviation of everything added (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self._m2 = 0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        values = values.astype(np.float64)
        count, mean = values.size, float(values.mean())
        delta, total = mean - self.mean, self.count + count
        self._m2 += float(((values - mean) ** 2).sum()) + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation, 1 where nothing or one constant value was seen (so that normalising stays finite)."""
        variance = self._m2 / self.count if self.count else 0.0
        return float(np.sqrt(variance)) if variance > 1e-12 else 1.0
