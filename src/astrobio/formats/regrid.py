"""The canonical climate grid, and how any rectilinear grid and column of pressures is brought onto it.

The grid is CLERO's: 32 Gaussian latitudes, 64 longitudes centred on the substellar point, 10 isobars (clero 0.1.4,
`climate_analysis.grid` and `.profiles`; https://pypi.org/project/clero).

Dimension letters: P source levels, Q target levels, Y source latitudes, X source longitudes, J target latitudes,
I target longitudes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

TOP_PRESSURE = 1000.0  # Pa, highest isobar, whatever the surface pressure (clero profiles: 10 mbar)
BOTTOM_FRACTION = 0.925  # lowest isobar as a fraction of the surface pressure (clero profiles)
_STEPS = np.linspace(1.0, 0.0, 10)
RELATIVE_ISOBARS = 0.75 * _STEPS + 1.75 * _STEPS**3 - 1.5 * _STEPS**4  # 1 = lowest isobar, 0 = top (clero profiles)

LATITUDE = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))  # [32] degrees north, increasing
LONGITUDE = np.linspace(-180.0 + 180.0 / 64, 180.0 - 180.0 / 64, 64)  # [64] degrees east, increasing


def canonical_levels(surface_pressure: float) -> np.ndarray:
    """The ten isobars [10], Pa, surface first, of a planet with this mean surface pressure (Pa)."""
    return RELATIVE_ISOBARS * (BOTTOM_FRACTION * surface_pressure - TOP_PRESSURE) + TOP_PRESSURE


SIGMA_LEVELS = canonical_levels(1e5) / 1e5  # [10] pressure over surface pressure at 1 bar; exact Pa: canonical_levels


def to_canonical(field: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """[..., Y, X] on increasing latitudes and longitudes (degrees, −180…180) → [..., 32, 64].

    An axis at least as fine as the target's is averaged over the overlap of the cells, so that area means are kept;
    a coarser one is interpolated linearly. Longitude is cyclic; poleward of the last row the field keeps its zonal
    mean there, which is the only value a scalar can have at a pole.
    """
    if not _same(latitude, LATITUDE):
        latitude, field = _with_poles(latitude, field)
        field = _latitude_weights(tuple(latitude.tolist())) @ field
    if not _same(longitude, LONGITUDE):
        field = field @ _longitude_weights(tuple(longitude.tolist())).T
    return field


def to_pressures(field: np.ndarray, pressure: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Interpolate columns linearly in log pressure; beyond the column's ends its last value is kept.

    Args:
        field: [P, Y, X]. pressure: [P] or [P, Y, X] Pa, decreasing along P. targets: [Q] Pa.

    Returns:
        [Q, Y, X].
    """
    logs = np.log(pressure).reshape(pressure.shape[0], -1)  # [P, 1] or [P, Y·X]
    columns = field.reshape(field.shape[0], -1)  # [P, Y·X]
    out = np.empty((len(targets), columns.shape[1]), dtype=np.float64)
    for index, target in enumerate(np.log(targets)):
        below = np.clip((logs >= target).sum(axis=0) - 1, 0, len(logs) - 2)  # last level at or below the target
        low = np.take_along_axis(logs, below[None], axis=0)[0]
        high = np.take_along_axis(logs, below[None] + 1, axis=0)[0]
        fraction = np.clip((low - target) / (low - high), 0.0, 1.0)
        lower = np.broadcast_to(below[None], (1, columns.shape[1]))
        first = np.take_along_axis(columns, lower, axis=0)[0]
        second = np.take_along_axis(columns, lower + 1, axis=0)[0]
        out[index] = first + fraction * (second - first)
    return out.reshape(len(targets), *field.shape[1:])


def first_harmonic(field: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> tuple[float, float]:
    """Longitude (degrees) and relative strength (0…1) of the first zonal harmonic of a non-negative [Y, X] field.

    A cosine-shaped dayside has strength π/4 = 0.79; a planet whose days average out has almost 0.
    """
    mean = np.average(np.clip(field, 0.0, None), axis=0, weights=np.cos(np.deg2rad(latitude)))  # [X]
    total = float(mean.sum())
    if total <= 0:
        return 0.0, 0.0
    wave = complex((mean * np.exp(1j * np.deg2rad(longitude))).sum()) / total
    return float(np.degrees(np.angle(wave))), abs(wave)


def wrap_longitude(longitude: np.ndarray) -> np.ndarray:
    """Any longitudes, degrees → −180 ≤ longitude < 180."""
    return (np.asarray(longitude, dtype=np.float64) + 180.0) % 360.0 - 180.0


def _same(axis: np.ndarray, target: np.ndarray) -> bool:
    return axis.shape == target.shape and bool(np.allclose(axis, target, rtol=0.0, atol=0.02))  # files round degrees


def _with_poles(latitude: np.ndarray, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add rows at ±90° holding the zonal mean of the outermost row, where the source stops short of the target."""
    south, north = latitude[0] > LATITUDE[0], latitude[-1] < LATITUDE[-1]
    parts, axis = [field], [latitude]
    if south:
        parts.insert(0, np.broadcast_to(field[..., :1, :].mean(-1, keepdims=True), field[..., :1, :].shape))
        axis.insert(0, np.array([-90.0]))
    if north:
        parts.append(np.broadcast_to(field[..., -1:, :].mean(-1, keepdims=True), field[..., -1:, :].shape))
        axis.append(np.array([90.0]))
    return np.concatenate(axis), np.concatenate(parts, axis=-2)


def _edges(centres: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.concatenate([[low], (centres[1:] + centres[:-1]) / 2, [high]])


def _overlap(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[J, Y] length of the overlap of each target cell with each source cell, both given by increasing edges."""
    low = np.maximum(target[:-1, None], source[None, :-1])
    high = np.minimum(target[1:, None], source[None, 1:])
    return np.clip(high - low, 0.0, None)


@lru_cache(maxsize=16)
def _latitude_weights(latitude: tuple[float, ...]) -> np.ndarray:
    """[32, Y] weights, rows summing to 1; overlaps are measured in the sine of latitude, that is in area."""
    source = np.array(latitude)
    if len(source) >= len(LATITUDE):
        weights = _overlap(*(np.sin(np.deg2rad(_edges(axis, -90.0, 90.0))) for axis in (source, LATITUDE)))
    else:
        weights = np.stack([np.interp(LATITUDE, source, row) for row in np.eye(len(source))], axis=1)
    return weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=16)
def _longitude_weights(longitude: tuple[float, ...]) -> np.ndarray:
    """[64, X] weights, rows summing to 1, of a cyclic axis."""
    centres = np.array(longitude)
    tripled = np.concatenate([centres - 360.0, centres, centres + 360.0])
    if len(centres) >= len(LONGITUDE):
        edges = _edges(tripled, tripled[0] - 1.0, tripled[-1] + 1.0)
        weights = _overlap(edges, _edges(LONGITUDE, -180.0, 180.0))
    else:
        weights = np.stack([np.interp(LONGITUDE, tripled, row) for row in np.eye(len(tripled))], axis=1)
    folded = weights.reshape(len(LONGITUDE), 3, len(centres)).sum(axis=1)  # the three copies are one axis
    return folded / folded.sum(axis=1, keepdims=True)
