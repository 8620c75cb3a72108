"""Organic haze of anoxic air: when it forms, how much, and its opacity in TauREx.

Methane photolysis makes haze once CH4/CO2 passes about 0.1 (Trainer et al. 2006, doi:10.1073/pnas.0608561103); it
thickens up to a ratio of 0.175 and is self-limiting beyond (Mak et al. 2023, doi:10.1029/2023JD039343), near an optical
depth of 5 at 0.2 µm (Arney et al. 2016, doi:10.1089/ast.2015.1422). Around stars that are brightest in the ultraviolet,
oxygen radicals from CO2 stop it (Arney et al. 2017, doi:10.3847/1538-4357/836/1/49). The haze mutes features below
2.5 µm and leaves longer waves free (the same). It does not feed back on the climate here: the emulator knows no haze,
and around M dwarfs it cools the surface little. Pressures in Pa, radii and wavelengths in µm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RATIO_ONSET, RATIO_SATURATED = 0.1, 0.175  # CH4/CO2
ONSET_SPREAD = 0.05  # dex of the onset; experiments and models place it between 0.1 and 0.2
DEPTH_SATURATED = 5.0  # vertical optical depth at `REFERENCE`
DEPTH_SPREAD = 0.3  # dex, design choice: microphysics and production rates are known to about a factor of two
REFERENCE = 0.2  # µm
OXYGEN_LIMIT = 1e-5  # O2 volume fraction from which haze precursors are oxidised; design choice
METHANE_LEAST = 1e-4  # volume fraction; less cannot feed a haze that is seen; design choice
FUV_LIMIT = 1.0  # W/m² at the planet, 118–176 nm: twice what flaring AD Leo sends at 1 solar constant; design choice
RADII = (0.05, 0.2)  # µm, LU: from one monomer of Wolf & Toon (2010, doi:10.1126/science.1183260) to small aggregates
TOPS = (0.3, 30.0)  # Pa, LU: where photolysis makes the haze
BOTTOM = 1e4  # Pa: clouds wash it out below the tropopause (0.1 bar, Robinson & Catling 2014, doi:10.1038/ngeo2020)
LEE_Q = 40.0  # of Lee et al. (2013), doi:10.1088/0004-637X/778/2/97: where a particle's efficiency turns from λ⁻⁴


@dataclass(frozen=True)
class Haze:
    """A haze of one particle size, well mixed between two pressures.

    Args:
        optical_depth: vertical, at 0.2 µm. radius: µm. top, bottom: Pa.
    """

    optical_depth: float
    radius: float
    top: float
    bottom: float


def draw_haze(
    rng: np.random.Generator, gases: Mapping[str, float], *, fuv: float, pressure: float, wet: bool
) -> Haze | None:
    """The haze of a world's air, or None where none forms; always the same number of draws.

    Args:
        gases: volume fractions of dry air. fuv: W/m² at the planet. pressure: Pa at the surface.
        wet: a steam atmosphere, whose OH oxidises the precursors.
    """
    onset_scatter, depth_scatter = rng.standard_normal(2)
    radius, top = (float(np.exp(rng.uniform(*np.log(bounds)))) for bounds in (RADII, TOPS))
    ratio = gases["CH4"] / gases["CO2"]
    oxidised = wet or gases["O2"] >= OXYGEN_LIMIT or fuv >= FUV_LIMIT
    onset = RATIO_ONSET * 10 ** (ONSET_SPREAD * onset_scatter)
    if oxidised or gases["CH4"] < METHANE_LEAST or ratio <= onset:
        return None
    growth = min(np.log(ratio / onset) / np.log(RATIO_SATURATED / RATIO_ONSET), 1.0)
    depth = DEPTH_SATURATED * growth * 10 ** (DEPTH_SPREAD * depth_scatter)
    return Haze(float(depth), radius, top, min(BOTTOM, 0.5 * pressure))
