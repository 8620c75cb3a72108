"""What a space telescope like JWST would record: wavelength bins, flux-conserving binning, noise, and named depths.

Wavelengths in µm, depths and noise in ppm, durations in hours. Dimension letters: L bins, W native wavelengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from astrobio.errors import InputError

DEFAULT_TRANSITS = 50
DEPTH_GRID = (5, 10, 25, 50, 100)  # transits, from a pilot programme to a large share of a mission's time on one planet
PRISM_RANGE, PRISM_RESOLUTION = (0.6, 5.3), 80  # NIRSpec PRISM: R 30–330 natively, binned to one resolution
LRS_RANGE, LRS_RESOLUTION = (5.3, 12.0), 50  # MIRI LRS: R about 100 natively at 7.5 µm; its 5.0–5.3 µm is PRISM's

LRS_ALONE = 5.0  # µm, where LRS begins when no PRISM records the same wavelengths

# PRISM: TRAPPIST-1e, one transit, R = 31 (measured on the data of Espinoza et al. 2025, arXiv:2509.05414);
# upper edge of each interval in µm, ppm. Below 0.8 µm the star fades: 230 ppm is a cautious extrapolation.
PRISM_NOISE = np.array([
    (0.8, 230.0), (1.0, 179.0), (1.4, 143.0), (1.8, 102.0), (2.5, 86.0), (3.2, 90.0), (4.0, 78.0), (4.6, 93.0),
    (5.3, 119.0),
])  # fmt: skip
PRISM_REFERENCE = (31.0, 11.35, 0.93)  # resolution, J magnitude, transit duration h
# LRS: K2-18b, one transit, 0.25 µm bins (published range 50–75 below 8 µm … 230–400 beyond 11 µm; middles).
LRS_NOISE = np.array([(8.0, 62.0), (9.4, 100.0), (11.0, 150.0), (12.0, 310.0)])
LRS_REFERENCE = (0.25, 9.8, 2.7)  # bin width µm, J magnitude, transit duration h
# MIRI photometry of TRAPPIST-1 b's eclipse, ppm of one visit: five at 12.8 µm gave 452 ± 86 (Ducrot et al. 2024,
# doi:10.1038/s41550-024-02428-z), five at 15 µm 861 ± 99 (Greene et al. 2023, doi:10.1038/s41586-023-05951-7).
FILTER_NOISE = np.array([(13.8, 192.0), (16.6, 221.0)])
FILTER_REFERENCE = (11.35, 0.60)  # J magnitude, eclipse duration h
FILTER_EDGES = (11.6, 13.8, 16.6)  # µm, F1280W-like and F1500W-like: the real bands overlap from 13.6 to 14.0
FLOOR_NEAR = 10.0  # ppm; NIRSpec below 14 ppm at 3σ, NIRCam 9 (Schlawin et al. 2021), a design choice between
FLOOR_MID = 25.0  # ppm; MIRI, design choice


@dataclass(frozen=True, eq=False)
class Grid:
    """Bins: `center` [L], `width` [L] and `edges` [L + 1], µm; `near` [L] True where the PRISM records."""

    center: np.ndarray
    width: np.ndarray
    edges: np.ndarray
    near: np.ndarray


INSTRUMENTS = ("prism+lrs", "prism", "lrs", "lrs+filters")


@dataclass(frozen=True)
class Depth:
    """How deep a survey looks: transits averaged in each spectrum, and whether the instruments' noise floor applies."""

    transits: int
    floor: bool


JWST_50 = Depth(50, True)
"""Fifty transits with the documented floor: what JWST could give to its best few planets."""
DEEP = Depth(5000, False)
"""The photon noise of 5,000 JWST transits, no floor: a next-generation observatory. Boosted trees on hand-made spectral
features alone learn from 1,680 worlds to name the state of 76% of 720 others (73% with stellar contamination; without
any noise 79% and 75%; after 50 transits with the floor 35%). Set before any network was trained on it."""
DEPTHS = {"jwst-50": JWST_50, "deep": DEEP}


def named_depth(name: str) -> Depth:
    """One of `DEPTHS`.

    Raises:
        InputError: unknown name.
    """
    if name not in DEPTHS:
        raise InputError(f"depth: expected one of {sorted(DEPTHS)}, found {name!r}")
    return DEPTHS[name]


@lru_cache(maxsize=len(INSTRUMENTS))
def grid_of(instrument: str) -> Grid:
    """The bins of one of `INSTRUMENTS`: PRISM 0.6–5.3 µm at R = 80, LRS 5.3–12 µm (alone from 5.0) at R = 50; with
    photometric filters LRS 5.0–11.6 µm and two bins to 16.6 µm.

    Raises:
        InputError: unknown instrument.
    """
    if instrument not in INSTRUMENTS:
        raise InputError(f"instrument: expected one of {INSTRUMENTS}, found {instrument!r}")
    near = _edges(PRISM_RANGE, PRISM_RESOLUTION)
    if instrument == "prism+lrs":
        edges = np.concatenate([near, _edges(LRS_RANGE, LRS_RESOLUTION)[1:]])
    elif instrument == "prism":
        edges = near
    elif instrument == "lrs":
        edges = _edges((LRS_ALONE, LRS_RANGE[1]), LRS_RESOLUTION)
    else:
        edges = np.concatenate([_edges((LRS_ALONE, FILTER_EDGES[0]), LRS_RESOLUTION), FILTER_EDGES[1:]])
    center = np.sqrt(edges[1:] * edges[:-1])
    return Grid(center, np.diff(edges), edges, (center < PRISM_RANGE[1]) & (instrument.startswith("prism")))


def default_grid() -> Grid:
    """0.6–5.3 µm at R = 80 and 5.3–12 µm at R = 50, 215 bins."""
    return grid_of("prism+lrs")


def _edges(limits: tuple[float, float], resolution: float) -> np.ndarray:
    count = round(np.log(limits[1] / limits[0]) * resolution)
    return np.geomspace(*limits, count + 1)


def binning_matrix(native: np.ndarray, grid: Grid) -> np.ndarray:
    """[L, W] row-stochastic: each bin's mean over wavelength of a spectrum constant within native cells.

    Args:
        native: [W] centres, increasing, reaching beyond the grid on both sides.
    """
    middle = (native[1:] + native[:-1]) / 2
    edges = np.concatenate([[1.5 * native[0] - 0.5 * native[1]], middle, [1.5 * native[-1] - 0.5 * native[-2]]])
    low = np.maximum(grid.edges[:-1, None], edges[None, :-1])
    high = np.minimum(grid.edges[1:, None], edges[None, 1:])
    overlap = np.maximum(high - low, 0.0)
    return overlap / overlap.sum(axis=1, keepdims=True)


def noise(grid: Grid, *, j_mag: float, transit_hours: float, transits: int, floor: bool = True) -> np.ndarray:
    """[L] ppm: photon noise scaled from measured visits, averaged over transits (or eclipses), plus a floor in
    quadrature. The scatter between visits that the star adds is not in it: `worlds.contamination` makes that.

    σ² = σ₁² (R/R₀) 10^(0.4 (J − J₀)) T₀ / (T₁₄ N) + floor². The scaling predicts the K2-18b visit of the PRISM's
    sister modes to 20%. Saturation on bright stars is not modelled.
    """
    resolution = grid.center / grid.width
    r0, j0, t0 = PRISM_REFERENCE
    near = _level(PRISM_NOISE, grid.center) ** 2 * resolution / r0 * 10 ** (0.4 * (j_mag - j0)) * t0
    width, j0, t0 = LRS_REFERENCE
    mid = _level(LRS_NOISE, grid.center) ** 2 * width / grid.width * 10 ** (0.4 * (j_mag - j0)) * t0
    j0, t0 = FILTER_REFERENCE
    wide = _level(FILTER_NOISE, grid.center) ** 2 * 10 ** (0.4 * (j_mag - j0)) * t0
    mid = np.where(grid.center > LRS_RANGE[1], wide, mid)
    photon = np.where(grid.near, near, mid) / (transit_hours * transits)
    systematic = np.where(grid.near, FLOOR_NEAR, FLOOR_MID) if floor else 0.0
    return np.sqrt(photon + np.square(systematic))


def noise_draws(seed: int, count: int) -> np.ndarray:
    """[L] normal draws, one a bin in units of σ, that a world's `noise_seed` stands for."""
    return np.random.default_rng(seed).standard_normal(count)


def other_noise(seed: int, count: int, rng: np.random.Generator | None) -> np.ndarray:
    """[L] in units of σ, to be added to a world's spectrum: takes the noise of its `noise_seed` off and puts new on, or
    none in its place without a generator."""
    return (0.0 if rng is None else rng.standard_normal(count)) - noise_draws(seed, count)


def _level(table: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """The step function of a noise table."""
    index = np.minimum(np.searchsorted(table[:, 0], wavelength), len(table) - 1)
    return table[index, 1]
