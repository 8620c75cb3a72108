"""The transit light source effect: unocculted spots and faculae of the star colour a transit's depth.

A transit measures the planet against the part of the star it crosses, taken here as the quiet photosphere p, while the
disc shines with spots s and faculae f beside it (Rackham, Apai & Giampapa 2018, doi:10.3847/1538-4357/aaa08c):

    depth → depth / (1 − f_s (1 − F_s/F_p) − f_f (1 − F_f/F_p)).

Fractions are drawn for a world's star from its type and activity, then again for every visit, so that many visits
average the scatter away and keep the mean. Spectra are black bodies: no grid of stellar models is at hand. That keeps
the slope and misses the molecular bands of cool spots (H2O at 1.4, 1.9 and 2.7 µm, TiO below 1 µm), which real spots
add with the shape of a planet's water. Wavelengths in µm, temperatures in K. Dimension letters: V visits, L bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astrobio import units
from astrobio.worlds.stars import Star, uv_flux

# Median covering fractions by Teff. TRAPPIST-1: spots 8 (+18, −7)%, faculae 54 (+16, −46)% (Rackham et al. 2018, for
# its 1% variability); LHS 1140: faculae 20%; K dwarfs fewer (Rackham et al. 2019, doi:10.3847/1538-3881/aaf892).
# Between the anchors, and the faculae of TRAPPIST-1 near the lower end of their interval, a design choice.
COVER = np.array([(2566.0, 0.08, 0.20), (3100.0, 0.05, 0.20), (3850.0, 0.03, 0.10), (5100.0, 0.015, 0.05)])
COVER_SPREAD = 0.3  # dex from star to star of one type and activity; the intervals above span as much
ACTIVITY_POWER = 0.5  # covers grow with the root of FUV/NUV over its median for the type; design choice
# dex of the spots and, a third of it, of the faculae from visit to visit. Then a star like TRAPPIST-1 scatters by what
# was seen beyond the errors of single visits: 180 ppm at 1–3.2 µm, 85–96 at 3.2–4.6 (Espinoza et al. 2025).
VISIT_SPREAD = 0.3
LARGEST = 0.45  # of each fraction; beyond it the "quiet" photosphere would not be the star's
SPOT_RATIO = 0.86  # spot over photosphere temperature of M dwarfs (Afram & Berdyugina 2015, as Rackham et al. 2018)
FACULA_EXCESS = 100.0  # K above the photosphere (Rackham et al. 2018)
EPOCHS = 1000  # different surfaces drawn at most; further visits repeat them (their mean is known to 0.1% of the depth)


@dataclass(frozen=True)
class StellarSurface:
    """Median over visits of the fraction of the disc that spots and faculae cover."""

    spots: float
    faculae: float


def draw_surface(rng: np.random.Generator, star: Star) -> StellarSurface:
    """The surface of a star of this type and activity."""
    nuv, fuv = uv_flux(star.teff)
    activity = (star.fuv / star.nuv) / (fuv / nuv)
    scatter = 10 ** (COVER_SPREAD * rng.standard_normal(2)) * activity**ACTIVITY_POWER
    medians = [float(np.interp(star.teff, COVER[:, 0], COVER[:, column])) for column in (1, 2)]
    spots, faculae = (float(min(median * factor, LARGEST)) for median, factor in zip(medians, scatter, strict=True))
    return StellarSurface(spots, faculae)


def contrast(wavelength: np.ndarray, temperature: float, photosphere: float) -> np.ndarray:
    """[L] ratio of two black bodies' spectral radiances."""
    scale = units.PLANCK * units.SPEED_OF_LIGHT / units.BOLTZMANN * 1e6 / wavelength  # K
    return np.expm1(scale / photosphere) / np.expm1(scale / temperature)


def contamination(
    wavelength: np.ndarray, surface: StellarSurface, teff: float, visits: int, rng: np.random.Generator
) -> np.ndarray:
    """[L] factor on the transit depth, averaged over `visits` surfaces.

    Args:
        wavelength: [L] µm. teff: K, of the photosphere. visits: transits, each with its own draw (see `EPOCHS`).
    """
    epochs = min(visits, EPOCHS)
    scatter = VISIT_SPREAD * rng.standard_normal((2, epochs))
    spots = np.minimum(surface.spots * 10 ** scatter[0], LARGEST)[:, None]  # [V, 1]
    faculae = np.minimum(surface.faculae * 10 ** (scatter[1] / 3), LARGEST)[:, None]
    dark = 1.0 - contrast(wavelength, SPOT_RATIO * teff, teff)
    bright = 1.0 - contrast(wavelength, teff + FACULA_EXCESS, teff)
    return (1.0 / (1.0 - spots * dark - faculae * bright)).mean(axis=0)
