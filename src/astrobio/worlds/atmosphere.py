"""Surface fluxes → mixing ratios, by steady-state relations fitted to 1-D photochemical models.

Fluxes in Tmol/yr over an Earth-sized planet's surface (per area: a flux density), mixing ratios as volume fractions
of dry air, pressures in bar, ozone columns in molecules/cm². The relations hold for 1 bar and Earth's gravity; other
atmospheres enter through the air column: at a given flux per area, a thinner column is replenished faster.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from astrobio import units
from astrobio.worlds.stars import Star

AIR_COLUMN = 2.1e25  # molecules/cm² above 1 bar of N2 at 9.81 m/s²: p N_A / (M g)
SOLAR_NUV = 20.8  # W/m² at 1 solar constant, 200–310 nm (as in worlds.stars)

# Oxic CH4, steady states of the Atmos model at 1 bar, 1 PAL: 1.1 ppm around the Sun at 1e11 molecules/cm²/s;
# f = 1.1 ppm (NUV/20.8)^−0.6 (1 + 10 FUV/NUV)^1.2 (F/1e11)^1.25. Segura et al. (2005), doi:10.1089/ast.2005.5.706,
# find three times more for AD Leo, Arney (2019), doi:10.3847/2041-8213/ab0651, ten times the Sun's for a K6V star.
OXIC_CH4 = 1.1e-6
OXIC_CH4_CAP = 5e-3  # the model does not converge above
OXIC_SPREAD = (0.7, 0.3)  # dex, below and from 3850 K: runs around late M dwarfs are extrapolated

# Anoxic CH4: Teff K, flux (molecules/cm²/s) that holds 1e-3. Geometric means of Atmos (Sun 3.3e11, K6V 1.3e11,
# TRAPPIST-1 4.2e11) and Photochem (Sun 1.04e11, TRAPPIST-1 1.8e11; Wogan et al. 2026, arXiv:2604.21848, anchor:
# 1e11 → 930 ppm around the young Sun); the K6V star, which only Atmos has, is shifted by their mean ratio.
# Quadratic in flux above 1e-4, linear (constant lifetime) below; half the models' distance is within the 0.5 dex.
ANOXIC_FLUX = np.array([(2566.0, 2.75e11), (4230.0, 0.79e11), (5780.0, 1.85e11)])
ANOXIC_SPREAD = 0.5  # dex
ANOXIC_CH4_CAP = 5e-2  # the climate emulator's bound, and beyond it a thick haze would form

# O3 column at 1 PAL, 1e18 molecules/cm², Teff K: Atmos; 3.4 at 3350 K is between quiet GJ 876 and AD Leo.
OZONE_COLUMN = np.array([(2566.0, 1.9), (3350.0, 3.2), (3850.0, 1.7), (4230.0, 1.7), (5100.0, 3.0), (5780.0, 5.6)])
OZONE_SPREAD = 0.45  # dex; widened from 0.3 because 3-D models give columns up to 4.7 times lower (Cooke et al. 2022)
OZONE_PEAK = 1500.0  # Pa at 1 PAL, near Earth's maximum mixing ratio (US Standard Atmosphere 1976)
OZONE_WIDTH = 1.1  # standard deviation of the layer in ln pressure

# N2O, ppm per Tmol/yr at 1 PAL: Schwieterman et al. (2022), arXiv:2210.01669.
N2O_YIELD = np.array([(2566.0, 3e-6), (4230.0, 12e-6), (5780.0, 0.5e-6)])


def column_factor(pressure: float, gravity: float) -> float:
    """Air column in units of Earth's (1 bar, 9.81 m/s²)."""
    return pressure * units.EARTH_GRAVITY / gravity


def _interpolate(teff: float, table: np.ndarray) -> float:
    """Log-linear in Teff, constant beyond the ends."""
    return float(10 ** np.interp(teff, table[:, 0], np.log10(table[:, 1])))


def low_oxygen_lifetime(o2_pal: float, teff: float) -> float:
    """Factor on the oxic CH4 lifetime below 1 PAL: 0.5 at 0.1 and 0.2 at 0.01 PAL around the Sun, 1 around M dwarfs."""
    solar = 10 ** np.interp(np.log10(max(o2_pal, 1e-12)), [-2.0, -1.0, 0.0], np.log10([0.2, 0.5, 1.0]))
    weight = np.interp(teff, [3850.0, 5780.0], [0.0, 1.0])
    return float(solar**weight)


def oxic_methane(flux: float, star: Star, *, o2_pal: float = 1.0, column: float = 1.0) -> float:
    """CH4 volume fraction in an oxygenated atmosphere.

    Args:
        flux: Tmol/yr per Earth area. o2_pal: O2 partial pressure over 0.21 bar. column: see `column_factor`.
    """
    per_column = flux * units.TMOL_PER_YEAR / column / 1e11
    shielding = (star.nuv / SOLAR_NUV) ** -0.6 * (1 + 10 * star.fuv / star.nuv) ** 1.2
    return float(min(OXIC_CH4 * shielding * per_column**1.25 * low_oxygen_lifetime(o2_pal, star.teff), OXIC_CH4_CAP))


def anoxic_methane(flux: float, star: Star, *, column: float = 1.0) -> float:
    """CH4 volume fraction where O2 is a trace; arguments as in `oxic_methane`."""
    ratio = flux * units.TMOL_PER_YEAR / column / _interpolate(star.teff, ANOXIC_FLUX)
    knee = 10**-0.5  # the flux of 1e-4 in units of that of 1e-3
    return float(min(1e-3 * ratio**2 if ratio > knee else 1e-4 * ratio / knee, ANOXIC_CH4_CAP))


def ozone_column(o2_pal: float, star: Star) -> float:
    """O3 column, molecules/cm², by O2 and star.

    Hot stars (NUV-rich, from 5000 K) hold it nearly constant above a third of PAL, cool ones lose it steadily
    (Kozakis et al. 2022, arXiv:2208.09415); below 0.01 PAL it falls with the 0.8th power of O2 for both.
    """
    x = np.log10(max(o2_pal, 1e-12))
    warm = np.interp(star.teff, [4500.0, 5100.0], [0.0, 1.0])
    knots = np.array([-12.0, -2.0, -0.5, 0.0, 1.5])
    hot = np.array([-0.4 - 8.0, -0.4, 0.02, 0.0, 0.0])
    cool = np.array([-0.8 - 8.0, -0.8, -0.2, 0.0, 0.6])
    shape = float(np.interp(x, knots, warm * hot + (1 - warm) * cool))
    return _interpolate(star.teff, OZONE_COLUMN) * 1e18 * 10**shape


def ozone_mixing_ratio(column_o3: float, pressure: float, gravity: float) -> float:
    """Column-mean O3 volume fraction of an O3 column in molecules/cm²."""
    return column_o3 / (AIR_COLUMN * column_factor(pressure, gravity))


def ozone_profile(mean: float, levels: np.ndarray, surface: float, o2_pal: float) -> np.ndarray:
    """O3 volume fraction at `levels` (Pa), a layer whose air-mass-weighted mean is `mean`.

    The layer sits where Earth's does at 1 PAL and deeper at less O2, p ∝ O2^−0.3, never below a fifth of the
    surface pressure `surface` (Pa).
    """
    peak = min(OZONE_PEAK * max(o2_pal, 1e-12) ** -0.3, 0.2 * surface)
    grid = np.geomspace(1e-1, surface, 256)
    shape = np.exp(-0.5 * (np.log(grid / peak) / OZONE_WIDTH) ** 2)
    weight = float(np.trapezoid(shape, grid)) / (surface - grid[0])
    profile = mean / weight * np.exp(-0.5 * (np.log(levels / peak) / OZONE_WIDTH) ** 2)
    return np.minimum(profile, 1e-3)


def nitrous_oxide(flux: float, star: Star, *, column: float = 1.0) -> float:
    """N2O volume fraction at 1 PAL from a flux in Tmol/yr."""
    return float(flux * _interpolate(star.teff, N2O_YIELD) / column)


def exchange_ratios(exchange: Mapping[str, float] | None, anchor: str) -> dict[str, float]:
    """Net exchange of each gas per molecule of `anchor` released.

    A resident that releases no `anchor` (a neighbour of the primary producer) is scaled by its largest turnover of a
    carbon gas instead; one that exchanges none of these has no ratios.

    Args:
        exchange: gas → mmol/gDW/h, positive when released (from flux balance analysis).
    """
    rates = exchange or {}
    turnover = max(abs(rates.get(gas, 0.0)) for gas in ("CO2", "CO", "CH4"))
    reference = max(rates.get(anchor, 0.0), 0.0) or turnover
    return {gas: rate / reference for gas, rate in rates.items() if gas != anchor} if reference > 0 else {}


def mean_molecular_mass(gases: Mapping[str, float]) -> float:
    """g/mol of dry air; whatever is not listed is N2."""
    rest = 1.0 - sum(value for gas, value in gases.items() if gas != "N2")
    return float(sum(MOLAR_MASS[gas] * value for gas, value in gases.items() if gas != "N2") + MOLAR_MASS["N2"] * rest)


# g/mol, IUPAC 2021 standard atomic weights
MOLAR_MASS = {
    "N2": 28.014, "CO2": 44.009, "CH4": 16.043, "O2": 31.998, "CO": 28.010, "O3": 47.997, "N2O": 44.013, "H2O": 18.015,
}  # fmt: skip
