"""Emission spectra: the depth of secondary eclipses, with TauREx 3's emission model.

The dayside is one column: means of temperature and water over the hemisphere that faces the star, each cell weighted by
its projection, as it is seen just before the eclipse. Clouds split it in two: a clear share, and a share whose lower
atmosphere an opaque cloud top hides. Absorption comes from `worlds.opacity`; scattering, haze and reflected light are
left out beyond 5 µm. The star is a black body: real ultracool dwarfs are fainter at 15 µm than their effective
temperature says, so depths around them come out too small (TRAPPIST-1 b without air: 0.7 of the 861 ± 99 ppm measured).
Dimension letters: L layers (surface first), W native wavelengths.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from astrobio import units
from astrobio.batch import ClimateCube, Spectrum
from astrobio.worlds import instrument
from astrobio.worlds.climate import dayside_profiles, one_thread
from astrobio.worlds.opacity import THERMAL_WAVELENGTHS, OpacityTables, opacity_tables
from astrobio.worlds.scenario import Scenario
from astrobio.worlds.spectrum import EmissionModel, Limb, TableAbsorption, column_of, quiet_taurex, taurex_parts

INSTRUMENTS = "lrs+filters"  # the bins of every emission spectrum


def dayside_column(scenario: Scenario, cube: ClimateCube) -> Limb:
    """The column that the dayside shines through; its `cover` is that of a view from above."""
    return column_of(scenario, dayside_profiles(cube, scenario), clouds_along_ray=1)


def eclipse_depth(scenario: Scenario, column: Limb, tables: OpacityTables) -> np.ndarray:
    """[W] eclipse depth in ppm on the tables' wavelengths, free of noise."""
    cover = float(column.cover.max())
    clear = _flux(scenario, column, tables) if cover < 1 else 0.0
    if cover <= 0:
        return np.asarray(clear)
    base = int(np.argmin(np.abs(np.log(column.pressure / column.cloud_top))))
    mixing = {gas: profile[base:] for gas, profile in column.mixing.items()}
    above = replace(
        column, levels=column.levels[base:], temperature=column.temperature[base:], mixing=mixing,
        cover=column.cover[base:],
    )  # fmt: skip
    return np.asarray((1 - cover) * clear + cover * _flux(scenario, above, tables))


def _flux(scenario: Scenario, column: Limb, tables: OpacityTables) -> np.ndarray:
    """[W] ppm of the star's flux that a column over a black surface sends."""
    with quiet_taurex():
        _, depth, _, _ = ColumnModel(tables, **taurex_parts(scenario, column, tables)).model()
    return depth[::-1] / units.PPM


class ColumnModel(EmissionModel):
    """TauREx's emission model on the wavelengths of the tables."""

    def __init__(self, tables: OpacityTables, **parts) -> None:
        super().__init__(contributions=[TableAbsorption(tables)], **parts)
        self._wavenumber = np.ascontiguousarray(1e4 / tables.wavelength[::-1])

    @property
    def nativeWavenumberGrid(self):
        return self._wavenumber


@lru_cache(maxsize=2)
def _binning(folder: str | None) -> np.ndarray:
    tables = opacity_tables(folder, THERMAL_WAVELENGTHS)
    return instrument.binning_matrix(tables.wavelength, instrument.grid_of(INSTRUMENTS))


def simulate_eclipse(
    scenario: Scenario,
    cube: ClimateCube,
    *,
    eclipses: int = instrument.DEFAULT_TRANSITS,
    floor: bool = True,
    opacity_folder: str | None = None,
) -> tuple[Spectrum, np.ndarray]:
    """The noisy emission spectrum of a world and its noise-free truth, as `worlds.spectrum.simulate_spectrum`.

    Spots do not matter here: an eclipse hides the planet, not a part of the star.
    """
    grid = instrument.grid_of(INSTRUMENTS)
    with one_thread():
        tables = opacity_tables(opacity_folder, THERMAL_WAVELENGTHS)
        truth = _binning(opacity_folder) @ eclipse_depth(scenario, dayside_column(scenario, cube), tables)
    sigma = instrument.noise(
        grid, j_mag=scenario.star.j_mag, transit_hours=scenario.planet.transit_hours, transits=eclipses, floor=floor
    )
    observed = truth + sigma * instrument.noise_draws(scenario.noise_seed, len(truth))
    return Spectrum(grid.center, observed, sigma, grid.width, kind="emission"), truth
