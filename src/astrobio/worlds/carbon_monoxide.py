"""Cross-sections of CO, which the default opacities lack, computed from its spectroscopic constants.

The fundamental (4.67 µm) and first overtone (2.35 µm) of ¹²C¹⁶O and ¹³C¹⁶O as a vibrating rotor with centrifugal
distortion, without hot bands or Herman–Wallis factors. Against HITEMP's overtone at 296 K: positions within 0.005 cm⁻¹,
strengths of strong lines within 14%, the band's sum within 2%. Wavenumbers in cm⁻¹, pressures in Pa, cross-sections in
cm² per CO molecule. Dimension letters: N lines, W wavelengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import wofz

from astrobio import units

# 12C16O in cm⁻¹, Huber & Herzberg (1979), NIST WebBook: ωe, ωexe, ωeye, Be, αe, De
OMEGA, OMEGA_X, OMEGA_Y = 2169.81358, 13.28831, 0.010511
ROTATION, COUPLING, DISTORTION = 1.93128087, 0.01750441, 6.12147e-6
# Transition moments in debye, upper level → moment from v = 0 (Goorvitch 1994, doi:10.1086/192110, after Chackerian)
MOMENTS = {1: 0.1055, 2: 6.53e-3}
ISOTOPOLOGUES = ((0.9865, 1.0, 27.9949), (0.01108, 0.977778, 28.9983))  # HITRAN abundance; √(μ/μ₁₂); mass in u
STRENGTH = 4.16238e-19  # 8π³/(3hc) in cm² debye⁻²
SECOND_RADIATION = 1.438777  # hc/k, cm K (CODATA 2018)
AIR_WIDTH = 0.06  # cm⁻¹/atm half width at 296 K, mean over the populated lines (HITRAN: 0.045–0.08)
WIDTH_EXPONENT = 0.7  # of (296 K / T), HITRAN
ATMOSPHERE = 101_325.0  # Pa
HIGHEST_J = 60
WING = 25.0  # cm⁻¹, where line wings are cut, as HITRAN-based tables do


@dataclass(frozen=True)
class Lines:
    """Positions, lower-level energies (cm⁻¹), strengths before Boltzmann, masses (u) and isotopic ratios, each [N]."""

    position: np.ndarray
    energy: np.ndarray
    strength: np.ndarray
    mass: np.ndarray
    ratio: np.ndarray


def _term(v: int, j: np.ndarray, rho: float) -> np.ndarray:
    """Energy of level (v, J), cm⁻¹, with isotopic scaling by `rho`."""
    h = v + 0.5
    vibration = OMEGA * rho * h - OMEGA_X * rho**2 * h**2 + OMEGA_Y * rho**3 * h**3
    rotation = (ROTATION * rho**2 - COUPLING * rho**3 * h) * j * (j + 1) - DISTORTION * rho**4 * (j * (j + 1)) ** 2
    return vibration + rotation


def line_list() -> Lines:
    """P and R branches of both bands and isotopologues; the strengths carry the abundances."""
    j = np.arange(HIGHEST_J + 1)
    parts = []
    for abundance, rho, mass in ISOTOPOLOGUES:
        for upper, moment in MOMENTS.items():
            for lower_j, upper_j in ((j, j + 1), (j[1:], j[1:] - 1)):
                energy = _term(0, lower_j, rho)
                position = _term(upper, upper_j, rho) - energy
                weight = np.maximum(lower_j, upper_j)  # |m|: J+1 in the R, J in the P branch
                strength = abundance * STRENGTH * position * moment**2 * weight
                ground = energy - _term(0, np.array([0]), rho)
                same = np.ones(len(lower_j))
                parts.append((position, ground, strength, same * mass, same * rho))
    return Lines(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def strengths(lines: Lines, temperature: float) -> np.ndarray:
    """[N] cm per molecule at `temperature` K (rigid-rotor partition function; vibration is frozen below 700 K)."""
    rotational = (ROTATION - COUPLING / 2) * lines.ratio**2
    partition = temperature / (SECOND_RADIATION * rotational) + 1 / 3
    boltzmann = np.exp(-SECOND_RADIATION * lines.energy / temperature) / partition
    return lines.strength * boltzmann * -np.expm1(-SECOND_RADIATION * lines.position / temperature)


def cross_section(wavelength: np.ndarray, temperature: float, pressure: float) -> np.ndarray:
    """[W] cm² at wavelengths in µm: Voigt profiles sampled at the points, as the other gases' tables are."""
    wavenumber = 1e4 / wavelength
    lines = line_list()
    strength = strengths(lines, temperature)
    speed = np.sqrt(2 * units.BOLTZMANN * temperature / (lines.mass * units.ATOMIC_MASS))
    doppler = lines.position * speed / units.SPEED_OF_LIGHT
    lorentz = AIR_WIDTH * pressure / ATMOSPHERE * (296.0 / temperature) ** WIDTH_EXPONENT
    out = np.zeros(len(wavenumber))
    order = np.argsort(wavenumber)
    ordered = wavenumber[order]
    starts = np.searchsorted(ordered, lines.position - WING)
    stops = np.searchsorted(ordered, lines.position + WING)
    for line, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        offset = (ordered[start:stop] - lines.position[line] + 1j * lorentz) / doppler[line]
        profile = wofz(offset).real / (doppler[line] * np.sqrt(np.pi))
        out[order[start:stop]] += strength[line] * profile
    return out
