"""Host stars: a table of real dwarfs, ultraviolet anchors, habitable zones, orbits and transits.

Units: temperatures in K, luminosities and masses and radii in solar units, instellations in W/m², periods in days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astrobio import units
from astrobio.errors import InputError

# Pecaut & Mamajek (2013), doi:10.1088/0067-0049/208/1/9, and the authors' running table of dwarf colours:
# subtype (M0 = 0, K5 = −5), Teff K, radius, log10 luminosity, mass, absolute J, absolute K magnitude.
DWARFS = np.array([
    (8, 2570.0, 0.114, -3.29, 0.086, 11.05, 9.92),
    (6, 2810.0, 0.137, -2.98, 0.105, 10.18, 9.22),
    (5, 3060.0, 0.196, -2.52, 0.155, 9.09, 8.20),
    (4, 3210.0, 0.274, -2.14, 0.240, 8.20, 7.36),
    (2, 3560.0, 0.446, -1.54, 0.450, 6.81, 5.98),
    (0, 3850.0, 0.588, -1.16, 0.585, 5.97, 5.15),
    (-5, 4440.0, 0.701, -0.78, 0.700, 5.10, 4.40),
    (-8, 5100.0, 0.783, -0.43, 0.820, 4.46, 3.94),
])  # fmt: skip
TEFF_RANGE = (2570.0, 5100.0)  # K, first and last row above
RADIUS_SCATTER = 0.05  # fractional, of real dwarfs about the sequence (Mann et al. 2015 find 2–5%)

# Ultraviolet flux at 1 solar constant, W/m²: Teff K, NUV (200–310 nm), FUV (118–176 nm), integrated from the stellar
# spectra distributed with the Atmos photochemical model (MUSCLES and Mega-MUSCLES stars). The row at 3350 K is the
# geometric mean of quiet GJ 876 (0.030, 0.037) and flaring AD Leo (0.59, 0.50).
UV_ANCHORS = np.array([
    (2566.0, 0.069, 0.099),  # TRAPPIST-1
    (2900.0, 0.076, 0.31),  # Proxima Centauri
    (3350.0, 0.133, 0.136),
    (3850.0, 0.68, 0.042),  # M0V
    (4230.0, 0.78, 0.048),  # K6V
    (5100.0, 5.3, 0.18),  # K2V
    (5780.0, 20.8, 0.022),  # Sun
])  # fmt: skip
UV_SCATTER = (0.6, 0.3)  # dex below and from 3850 K; GJ 876 and AD Leo lie ±0.65 dex from their mean

# Kopparapu et al. (2014), doi:10.1088/2041-8205/787/2/L29, Table 1, one Earth mass: S = Σ cᵢ tⁱ, t = Teff − 5780 K.
HABITABLE_ZONE = {
    "recent_venus": (1.776, 2.136e-4, 2.533e-8, -1.332e-11, -3.097e-15),
    "runaway_greenhouse": (1.107, 1.332e-4, 1.580e-8, -8.308e-12, -1.931e-15),
    "maximum_greenhouse": (0.356, 6.171e-5, 1.698e-9, -3.198e-12, -5.575e-16),
    "early_mars": (0.320, 5.547e-5, 1.526e-9, -2.874e-12, -5.011e-16),
}
HABITABLE_ZONE_TEFF = (2600.0, 7200.0)  # K, validity of the fit; temperatures outside are clamped
LATE_SHARE, LATE_LIMIT = 0.8, 3300.0  # K; design choice: features scale with 1/R*², 100 ppm at M8 and 5 ppm at M0
DISTANCE_RANGE = (4.0, 30.0)  # pc, design choice: neighbours whose planets an observatory would follow up


@dataclass(frozen=True)
class Star:
    """A main-sequence host. Units as in the module docstring; `nuv`, `fuv` in W/m² at 1 solar constant.

    Args:
        name: identifier, unique in a pool; carries no information on its planets.
        subtype: spectral subtype, M0 = 0, K5 = −5. distance: pc. age: Gyr. j_mag, k_mag: apparent magnitudes.
    """

    name: str
    teff: float
    radius: float
    mass: float
    luminosity: float
    subtype: float
    distance: float
    j_mag: float
    k_mag: float
    age: float
    nuv: float
    fuv: float

    @property
    def spectral_type(self) -> str:
        """MK class, such as "M4.5V"."""
        return spectral_type(self.subtype)


def spectral_type(subtype: float) -> str:
    """MK class of a dwarf from its subtype (M0 = 0, K5 = −5), to half a digit."""
    half = round(2 * subtype) / 2
    return f"M{half:g}V" if half >= 0 else f"K{half + 10:g}V"


def spectral_class(teff: float) -> str:
    """Class with its whole digit, such as "M4" of an M4.5V star, from Teff in K."""
    return spectral_type(float(np.interp(teff, DWARFS[:, 1], DWARFS[:, 0]))).removesuffix("V").split(".")[0]


def uv_flux(teff: float) -> tuple[float, float]:
    """Median (NUV, FUV) in W/m² at 1 solar constant, log-linear in Teff between the anchors."""
    logs = [np.interp(teff, UV_ANCHORS[:, 0], np.log10(UV_ANCHORS[:, column])) for column in (1, 2)]
    return float(10 ** logs[0]), float(10 ** logs[1])


def draw_star(rng: np.random.Generator, name: str) -> Star:
    """One host: 80% of 2570–3300 K, where spectra of small temperate planets can be had; the rest to 5100 K."""
    late = rng.random() < LATE_SHARE
    teff = float(rng.uniform(TEFF_RANGE[0], LATE_LIMIT) if late else rng.uniform(LATE_LIMIT, TEFF_RANGE[1]))
    stretch = float(np.clip(1 + RADIUS_SCATTER * rng.standard_normal(), 0.85, 1.15))
    return make_star(rng, name, teff, stretch)


def main_sequence(teff: float) -> tuple[float, float, float, float, float, float]:
    """(subtype, radius, luminosity, mass, absolute J, absolute K) of a dwarf of this temperature, from `DWARFS`."""
    subtype, radius, log_luminosity, mass, j_abs, k_abs = (
        float(np.interp(teff, DWARFS[:, 1], DWARFS[:, column])) for column in (0, 2, 3, 4, 5, 6)
    )
    return subtype, radius, 10**log_luminosity, mass, j_abs, k_abs


def make_star(rng: np.random.Generator, name: str, teff: float, stretch: float) -> Star:
    """A host whose radius is `stretch` times the main sequence's; distance, age and ultraviolet are drawn."""
    subtype, radius, luminosity, mass, j_abs, k_abs = main_sequence(teff)
    distance = float(10 ** rng.uniform(*np.log10(DISTANCE_RANGE)))
    modulus = 5 * np.log10(distance / 10) - 5 * np.log10(stretch)
    scatter = UV_SCATTER[0] if teff < 3850 else UV_SCATTER[1]
    common, own = rng.standard_normal(), rng.standard_normal(2)  # activity lifts both bands together
    nuv, fuv = np.array(uv_flux(teff)) * 10 ** (scatter * (0.9 * common + 0.44 * own))
    return Star(
        name=name, teff=teff, radius=radius * stretch, mass=mass, luminosity=luminosity * stretch**2,
        subtype=subtype, distance=distance, j_mag=j_abs + modulus, k_mag=k_abs + modulus,
        age=float(rng.uniform(1.0, 10.0)), nuv=float(nuv), fuv=float(fuv),
    )  # fmt: skip


def draw_stars(count: int, seed: int) -> tuple[Star, ...]:
    """A pool of hosts, each from its own random stream, so that a larger pool begins with the smaller one."""
    return tuple(
        draw_star(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x57A2, index))), f"H{index:05d}")
        for index in range(count)
    )


def habitable_zone_flux(teff: float, limit: str) -> float:
    """Instellation of a limit of the habitable zone, in solar constants (Kopparapu et al. 2014).

    Raises:
        InputError: unknown limit.
    """
    if limit not in HABITABLE_ZONE:
        raise InputError(f"habitable_zone limit: expected one of {sorted(HABITABLE_ZONE)}, found {limit!r}")
    t = float(np.clip(teff, *HABITABLE_ZONE_TEFF)) - 5780.0
    return float(np.polynomial.polynomial.polyval(t, HABITABLE_ZONE[limit]))


def habitable_zone(teff: float, luminosity: float) -> dict[str, float]:
    """Distances of the four limits in AU, d = √(L / S)."""
    return {limit: float(np.sqrt(luminosity / habitable_zone_flux(teff, limit))) for limit in HABITABLE_ZONE}


def habitable_zone_position(teff: float, instellation: float) -> float:
    """Where a planet lies: 0 at the runaway limit, 1 at the maximum greenhouse, linear in log instellation (W/m²)."""
    inner, outer = (habitable_zone_flux(teff, name) for name in ("runaway_greenhouse", "maximum_greenhouse"))
    return float(np.log(inner / (instellation / units.SOLAR_CONSTANT)) / np.log(inner / outer))


def orbital_period(luminosity: float, mass: float, instellation: float) -> float:
    """Days: Kepler's third law at the distance where the planet receives `instellation` W/m²."""
    return float(365.25 * (units.SOLAR_CONSTANT * luminosity / instellation) ** 0.75 / np.sqrt(mass))


def instellation_at_period(luminosity: float, mass: float, period: float) -> float:
    """W/m²: the inverse of `orbital_period`."""
    return float(units.SOLAR_CONSTANT * luminosity * (365.25 / (period * np.sqrt(mass))) ** (4 / 3))


def transit_duration(star: Star, planet_radius: float, period: float, impact: float) -> float:
    """Hours from first to fourth contact on a circular orbit (Winn 2010, arXiv:1001.2010, eq. 14).

    Args:
        planet_radius: Earth radii. period: days. impact: in stellar radii, below 1.
    """
    seconds = period * units.DAY
    axis = (units.SOLAR_GM * star.mass * (seconds / (2 * np.pi)) ** 2) ** (1 / 3)  # m
    stellar = star.radius * units.SOLAR_RADIUS
    ratio = planet_radius * units.EARTH_RADIUS / stellar
    inclination = np.arccos(impact * stellar / axis)
    chord = np.sqrt((1 + ratio) ** 2 - impact**2) * stellar / axis / np.sin(inclination)
    return float(seconds / np.pi * np.arcsin(chord) / 3600.0)


def check_pool(stars: Sequence[Star]) -> None:
    """Raises `InputError` where a pool is empty or two hosts share a name."""
    names = [star.name for star in stars]
    if not names or len(set(names)) != len(names):
        raise InputError(f"stars: expected at least one host with unique names, found {len(names)} hosts")
