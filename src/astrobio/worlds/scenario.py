"""What a world is, before anything is simulated: state, star, planet, gases; and the priors they are drawn from.

Pressures in bar, fluxes in Tmol/yr, gases as volume fractions of dry air, instellations in W/m².
LU is log-uniform, U uniform, LN(median, dex) log-normal. Priors are design choices unless a source is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from astrobio import units
from astrobio.batch import INHABITED_STATES, WORLD_STATES
from astrobio.errors import InputError
from astrobio.worlds import atmosphere
from astrobio.worlds.contamination import StellarSurface, draw_surface
from astrobio.worlds.haze import Haze, draw_haze
from astrobio.worlds.stars import (
    Star,
    check_pool,
    draw_star,
    habitable_zone_position,
    instellation_at_period,
    orbital_period,
    transit_duration,
)

GCMS = ("um", "exocam", "exoplasim")  # that the climate emulator imitates
OXYGEN_PATHS = ("water-loss", "dry-CO2", "wet-CO2")  # how a lifeless world comes by O2, see `_oxygenated`
PRESSURE = (0.5, 5.0)  # bar, LU: the emulator's core domain
INSTELLATION = (500.0, 1500.0)  # W/m², U: the emulator's core domain
HOT_INSTELLATION = (2000.0, 3100.0)  # W/m², U: beyond the runaway limit of every host; extended domain
MAX_PERIOD = 200.0  # days, the emulator's core domain: hosts up to K2V then receive at least 1280 W/m²
MASS = (0.4, 3.5)  # Earth masses, LU: gravity within the emulator's core domain
GRAVITY = (6.0, 17.0)  # m/s², core domain
RADIUS = (0.7, 1.75)  # Earth radii, core domain
CORE_MASS_FRACTION = (0.26, 0.07)  # Zeng et al. (2016), doi:10.3847/0004-637X/819/2/127
IMPACT = (0.0, 0.7)  # stellar radii, U
MAX_SUM = 0.99  # gases other than N2; a draw above is rejected
WARMEST_CELL = 273.0  # K, at least, for states 2–6; at most for a frozen state 1
MEAN_LIMIT = 320.0  # K, at most, for states 2–6
MAX_ATTEMPTS = 400  # draws of (star, instellation, gases) before giving up
STEAM = (0.01, 0.5)  # H2O volume fraction of a steam atmosphere, LU
DRY_WATER = 1e-6  # H2O volume fraction, upper bound on desiccated and frozen worlds

# Marine, subaerial and crustal CH4 of lifeless worlds: median 0.2 Tmol/yr, bounds of Thompson et al. (2022),
# doi:10.1073/pnas.2117933119, and Krissansen-Totton et al. (2018), doi:10.1126/sciadv.aao5747.
ABIOTIC_METHANE = (0.2, 0.7, 10.0)  # LN median Tmol/yr, dex, maximum
# Biogenic fluxes: today 30 Tmol/yr (Catling & Kasting 2017), Archean a third to 2.5 times (Kharecha et al. 2005).
BIOGENIC_METHANE = {"anoxic-biosphere": (3.0, 120.0), "oxygenic-biosphere": (1.0, 60.0)}  # LU Tmol/yr
NITROUS_OXIDE = (0.01, 10.0)  # LU Tmol/yr; 0.41 today, Schwieterman et al. (2022), arXiv:2210.01669
OXYGEN_PER_METHANE = 2.0  # O2 that oxidises one CH4 in the steady state
OXYGEN_BURIAL = (5.0, 20.0)  # LU Tmol/yr, net release by organic burial; 10–18 today (Holland 2002), widened


@dataclass(frozen=True)
class Planet:
    """Mass and radius in Earth units, gravity m/s², period days, instellation W/m², transit duration hours."""

    mass: float
    radius: float
    gravity: float
    core_mass_fraction: float
    period: float
    instellation: float
    impact: float
    transit_hours: float


@dataclass(frozen=True)
class Scenario:
    """One world's latent truth; everything later follows from it and its seeds.

    Args:
        state: one of `WORLD_STATES`. path: which branch of the state's prior, such as "water-loss".
        pressure: bar of dry air at the surface.
        gases: volume fraction of dry air of CO2, CH4, O2, CO, O3 (column mean), N2O and N2 (the rest).
        fluxes: Tmol/yr at the surface of the gases held up by one (CH4, N2O, O2).
        water: lower and upper bound on the H2O volume fraction anywhere; between them the climate decides.
        gcm: which climate model the emulator imitates. climate_seed, noise_seed: 63-bit seeds.
        haze: of organic particles, None where the air is clear. surface: spots and faculae of the star; None is none.
    """

    state: str
    path: str
    star: Star
    planet: Planet
    pressure: float
    gases: Mapping[str, float]
    fluxes: Mapping[str, float]
    water: tuple[float, float] = (0.0, 1.0)
    gcm: str = "um"
    climate_seed: int = 0
    noise_seed: int = 0
    haze: Haze | None = None
    surface: StellarSurface | None = None

    @property
    def inhabited(self) -> bool:
        return self.state in INHABITED_STATES

    @property
    def o2_pal(self) -> float:
        """O2 partial pressure over Earth's 0.21 bar."""
        return self.gases["O2"] * self.pressure / units.PRESENT_O2

    @property
    def zone_position(self) -> float:
        """0 at the runaway greenhouse limit, 1 at the maximum greenhouse."""
        return habitable_zone_position(self.star.teff, self.planet.instellation)

    @property
    def emulator_inputs(self) -> dict[str, float | str]:
        """Inputs of the climate emulator in its own units."""
        return {
            "T_star": self.star.teff, "F_star": self.planet.instellation, "radius": self.planet.radius,
            "gravity": self.planet.gravity, "P_rot": self.planet.period, "P0": self.pressure,
            "CO2": self.gases["CO2"], "CH4": min(self.gases["CH4"], 0.05), "GCM": self.gcm,
        }  # fmt: skip


@dataclass(frozen=True)
class Pools:
    """What a data split may draw from; no two splits share a host.

    Args:
        excluded: paths (as `Scenario.path`) that no world of the split takes.
    """

    stars: tuple[Star, ...]
    excluded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_pool(self.stars)


SurfaceClimate = Callable[[Scenario], tuple[float, float]]  # → (warmest cell, global mean) in K


@dataclass
class _Air:
    """A proposal of one state's air: partial quantities before the sum is checked."""

    path: str
    gases: dict[str, float] = field(default_factory=dict)
    fluxes: dict[str, float] = field(default_factory=dict)
    water: tuple[float, float] = (0.0, 1.0)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def log_normal(rng: np.random.Generator, median: float, dex: float) -> float:
    return float(median * 10 ** (dex * rng.standard_normal()))


def planet_radius(mass: float, core_mass_fraction: float) -> float:
    """Earth radii of a rocky planet, R = (1.07 − 0.21 CMF) M^(1/3.7) (Zeng et al. 2016; 1–8 M⊕, used from 0.4)."""
    return (1.07 - 0.21 * core_mass_fraction) * mass ** (1 / 3.7)


def draw_planet(rng: np.random.Generator, star: Star, *, hot: bool = False) -> Planet:
    """A rocky planet within the emulator's domain, on a circular, synchronous orbit of `star`."""
    while True:
        mass = log_uniform(rng, *MASS)
        core = float(np.clip(CORE_MASS_FRACTION[0] + CORE_MASS_FRACTION[1] * rng.standard_normal(), 0.0, 0.5))
        radius = planet_radius(mass, core)
        gravity = units.EARTH_GRAVITY * mass / radius**2
        if GRAVITY[0] <= gravity <= GRAVITY[1] and RADIUS[0] <= radius <= RADIUS[1]:
            break
    low, high = HOT_INSTELLATION if hot else INSTELLATION
    low = max(low, instellation_at_period(star.luminosity, star.mass, MAX_PERIOD))
    instellation = float(rng.uniform(low, max(low, high)))
    period = orbital_period(star.luminosity, star.mass, instellation)
    impact = float(rng.uniform(*IMPACT))
    return Planet(mass, radius, gravity, core, period, instellation, impact,
                  transit_duration(star, radius, period, impact))  # fmt: skip


def _abiotic_methane(rng: np.random.Generator) -> float:
    median, dex, maximum = ABIOTIC_METHANE
    return min(log_normal(rng, median, dex), maximum)


def _anoxic(rng: np.random.Generator, star: Star, flux: float, column: float) -> float:
    spread = 10 ** (atmosphere.ANOXIC_SPREAD * rng.standard_normal())
    return min(atmosphere.anoxic_methane(flux, star, column=column) * spread, atmosphere.ANOXIC_CH4_CAP)


def _inhospitable(rng: np.random.Generator, star: Star, pressure: float, column: float, hot: bool) -> _Air:
    air = _Air("runaway" if hot else "frozen")
    if rng.random() < 0.3:
        air.fluxes["CH4"] = _abiotic_methane(rng)
        methane = _anoxic(rng, star, air.fluxes["CH4"], column)
    else:
        methane = log_uniform(rng, 1e-10, 1e-7)
    air.gases = {
        "CO2": log_uniform(rng, 1e-5, pressure) / pressure, "CH4": methane,
        "O2": log_uniform(rng, 1e-12, 1e-4), "CO": log_uniform(rng, 1e-6, 1e-2),
    }  # fmt: skip
    if not hot:
        air.water = (0.0, DRY_WATER)
    elif rng.random() < 0.5:
        steam = log_uniform(rng, *STEAM)
        air.path, air.water = "steam", (steam, STEAM[1])
    else:
        air.path, air.water = "desiccated", (0.0, log_uniform(rng, 1e-8, DRY_WATER))
    return air


def _temperate(rng: np.random.Generator, star: Star, pressure: float, column: float) -> _Air:
    air = _Air("outgassing", fluxes={"CH4": _abiotic_methane(rng)})
    air.gases = {
        "CO2": log_uniform(rng, 1e-4, 2.0) / pressure, "CH4": _anoxic(rng, star, air.fluxes["CH4"], column),
        "O2": log_uniform(rng, 1e-12, 1e-5), "CO": log_uniform(rng, 1e-5, 1e-2),
    }  # fmt: skip
    return air


def _oxygenated(rng: np.random.Generator, pressure: float) -> _Air:
    """O2 without life: lost water (Luger & Barnes 2015), dry CO2 (Gao et al. 2015) or wet CO2 (Hu et al. 2020; its O2
    stays a trace, Ranjan et al. 2023)."""
    branch = rng.random()
    if branch < 0.60:
        gases = {
            "CO2": log_uniform(rng, 1e-5, 0.5) / pressure, "O2": log_uniform(rng, 0.05, 0.95 * pressure) / pressure,
            "CO": log_uniform(rng, 1e-8, 1e-4),
        }  # fmt: skip
        air = _Air("water-loss", gases)
    elif branch < 0.85:
        oxygen = float(rng.uniform(0.03, 0.25))
        air = _Air("dry-CO2", {"CO2": float(rng.uniform(0.5, 0.97)), "O2": oxygen, "CO": 2 * oxygen})
        air.water = (0.0, log_uniform(rng, 1e-8, DRY_WATER))
    else:
        gases = {
            "CO2": log_uniform(rng, 0.1, 2.0) / pressure, "O2": log_uniform(rng, 1e-6, 1e-2),
            "CO": log_uniform(rng, 1e-4, 5e-2),
        }  # fmt: skip
        air = _Air("wet-CO2", gases)
    air.gases["CH4"] = log_uniform(rng, 1e-10, 1e-7)
    return air


def _reducing(rng: np.random.Generator, star: Star, pressure: float, column: float) -> _Air:
    """Volcanic or serpentinising; CH4 at biological rates comes with CO (Wogan et al. 2020, arXiv:2009.07761)."""
    flux = log_uniform(rng, 10.0, 30.0) if rng.random() < 0.1 else log_uniform(rng, 1.0, 10.0)
    methane = _anoxic(rng, star, flux, column)
    return _Air("reducing", {
        "CO2": log_uniform(rng, 1e-3, 0.5) / pressure, "CH4": methane, "O2": log_uniform(rng, 1e-12, 1e-8),
        "CO": min(methane * log_uniform(rng, 0.3, 30.0), 0.3),
    }, {"CH4": flux})  # fmt: skip


def _anoxic_biosphere(rng: np.random.Generator, star: Star, pressure: float, column: float) -> _Air:
    flux = log_uniform(rng, *BIOGENIC_METHANE["anoxic-biosphere"])
    return _Air("methanogenic", {
        "CO2": log_uniform(rng, 4e-3, 0.5) / pressure, "CH4": _anoxic(rng, star, flux, column),
        "O2": log_uniform(rng, 1e-12, 1e-7), "CO": log_normal(rng, 1e-4, 0.4), "N2O": log_uniform(rng, 1e-12, 1e-8),
    }, {"CH4": flux})  # fmt: skip


def _oxygenic_biosphere(rng: np.random.Generator, star: Star, pressure: float, column: float) -> _Air:
    oxygen = log_uniform(rng, 0.02, 0.35) if rng.random() < 0.7 else log_uniform(rng, 2e-4, 0.02)
    fluxes = {"CH4": log_uniform(rng, *BIOGENIC_METHANE["oxygenic-biosphere"])}
    fluxes["N2O"] = log_uniform(rng, *NITROUS_OXIDE)
    fluxes["O2"] = OXYGEN_PER_METHANE * fluxes["CH4"] + log_uniform(rng, *OXYGEN_BURIAL)
    spread = atmosphere.OXIC_SPREAD[0] if star.teff < 3850 else atmosphere.OXIC_SPREAD[1]
    pal = oxygen * pressure / units.PRESENT_O2
    methane = atmosphere.oxic_methane(fluxes["CH4"], star, o2_pal=pal, column=column) * 10 ** (
        spread * rng.standard_normal()
    )
    return _Air("oxygenic", {
        "CO2": log_uniform(rng, 1e-4, 0.2) / pressure, "CH4": min(methane, atmosphere.OXIC_CH4_CAP), "O2": oxygen,
        "CO": log_uniform(rng, 1e-7, 3e-2),
        "N2O": min(atmosphere.nitrous_oxide(fluxes["N2O"], star, column=column), 1e-3),
    }, fluxes)  # fmt: skip


def draw_air(state: str, rng: np.random.Generator, star: Star, planet: Planet, pressure: float, *, hot: bool) -> _Air:
    """Gases, fluxes and water bounds of one state, redrawn until the gases other than N2 sum to at most `MAX_SUM`."""
    column = atmosphere.column_factor(pressure, planet.gravity)
    while True:
        if state == "lifeless-inhospitable":
            air = _inhospitable(rng, star, pressure, column, hot)
        elif state == "lifeless-oxygenated":
            air = _oxygenated(rng, pressure)
        else:
            prior = {
                "lifeless-temperate": _temperate, "lifeless-reducing": _reducing,
                "anoxic-biosphere": _anoxic_biosphere, "oxygenic-biosphere": _oxygenic_biosphere,
            }[state]  # fmt: skip
            air = prior(rng, star, pressure, column)
        if sum(air.gases.values()) + air.water[0] <= MAX_SUM:
            return _with_trace_gases(air, rng, star, planet, pressure)


def _with_trace_gases(air: _Air, rng: np.random.Generator, star: Star, planet: Planet, pressure: float) -> _Air:
    """Adds O3 from O2, N2O where no flux set it, and N2 as the rest."""
    pal = air.gases["O2"] * pressure / units.PRESENT_O2
    column = atmosphere.ozone_column(pal, star) * 10 ** (atmosphere.OZONE_SPREAD * rng.standard_normal())
    air.gases["O3"] = min(atmosphere.ozone_mixing_ratio(column, pressure, planet.gravity), 1e-4)
    air.gases.setdefault("N2O", log_uniform(rng, 1e-12, 1e-10))
    air.gases["N2"] = 1.0 - sum(air.gases.values())
    return air


def propose(state: str, rng: np.random.Generator, star: Star, *, hot: bool = False, gcm: str = "um") -> Scenario:
    """One draw of planet and air around `star`, before the climate has been asked."""
    planet = draw_planet(rng, star, hot=hot)
    pressure = log_uniform(rng, *PRESSURE)
    air = draw_air(state, rng, star, planet, pressure, hot=hot)
    return Scenario(state, air.path, star, planet, pressure, air.gases, air.fluxes, air.water, gcm)


def climate_allows(scenario: Scenario, warmest: float, mean: float) -> bool:
    """Whether a world with this surface climate (K) can be in its scenario's state."""
    if scenario.path in ("steam", "desiccated"):
        return True
    if scenario.state == "lifeless-inhospitable":
        return warmest < WARMEST_CELL
    return warmest >= WARMEST_CELL and mean < MEAN_LIMIT


def draw_scenario(
    state: str,
    rng: np.random.Generator,
    pools: Pools | None = None,
    *,
    star: Star | None = None,
    surface_climate: SurfaceClimate | None = None,
    gcm: str = "um",
) -> Scenario:
    """Draw a world of one state whose climate allows it.

    Args:
        rng: the world's own stream; the same stream gives the same world.
        pools: hosts to draw from; None draws a new host. star: a fixed host, in place of a pool.
        surface_climate: scenario → (warmest cell, global mean) in K; None takes the climate emulator.

    Raises:
        InputError: unknown state, or no admissible world in `MAX_ATTEMPTS` draws.
    """
    if state not in WORLD_STATES:
        raise InputError(f"draw_scenario state: expected one of {WORLD_STATES}, found {state!r}")
    if surface_climate is None:
        from astrobio.worlds.climate import surface_climate as emulated

        surface_climate = emulated
    hot = state == "lifeless-inhospitable" and rng.random() < 0.5
    for _ in range(MAX_ATTEMPTS):
        host = _host(rng, pools, star)
        scenario = propose(state, rng, host, hot=hot, gcm=gcm)
        if pools is not None and scenario.path in pools.excluded:
            continue
        if hot or climate_allows(scenario, *surface_climate(scenario)):
            seeds = rng.integers(0, 2**63, size=2)
            return replace(
                scenario, climate_seed=int(seeds[0]), noise_seed=int(seeds[1]), haze=_haze(rng, scenario),
                surface=draw_surface(rng, host),
            )  # fmt: skip
    raise InputError(
        f"draw_scenario: expected a climate that allows {state!r} within {MAX_ATTEMPTS} draws, found none; "
        "give a pool with more hosts"
    )


def _haze(rng: np.random.Generator, scenario: Scenario) -> Haze | None:
    fuv = scenario.star.fuv * scenario.planet.instellation / units.SOLAR_CONSTANT
    pressure = scenario.pressure * units.BAR
    return draw_haze(rng, scenario.gases, fuv=fuv, pressure=pressure, wet=scenario.path == "steam")


def _host(rng: np.random.Generator, pools: Pools | None, star: Star | None) -> Star:
    if star is not None:
        return star
    if pools is None:
        return draw_star(rng, f"H{int(rng.integers(2**31)):010d}")
    return pools.stars[int(rng.integers(len(pools.stars)))]


def with_resident(scenario: Scenario, exchange: Mapping[str, float] | None) -> Scenario:
    """The scenario with the minor biogenic gases in the ratios of the resident's gas exchange.

    The prior has set the magnitude of the anchor's flux (CH4 of an anoxic, O2 of an oxygenic biosphere). N2O
    released per anchor sets the N2O flux of an oxygenic one; CO released adds to CO, CO taken up draws it down, within
    a factor of ten. A resident that releases no anchor counts by its carbon turnover. Lifeless worlds stay as they are.

    Args:
        exchange: gas → mmol/gDW/h of the resident organism, positive when released.
    """
    if not scenario.inhabited:
        return scenario
    anchor = "O2" if scenario.state == "oxygenic-biosphere" else "CH4"
    ratios = atmosphere.exchange_ratios(exchange, anchor)
    gases, fluxes = dict(scenario.gases), dict(scenario.fluxes)
    oxic = anchor == "O2"
    if ratios.get("N2O", 0.0) > 0 and oxic:
        fluxes["N2O"] = float(np.clip(fluxes[anchor] * ratios["N2O"], *NITROUS_OXIDE))
        column = atmosphere.column_factor(scenario.pressure, scenario.planet.gravity)
        gases["N2O"] = min(atmosphere.nitrous_oxide(fluxes["N2O"], scenario.star, column=column), 1e-3)
    carbon_monoxide = float(np.clip(1.0 + ratios.get("CO", 0.0), 0.1, 10.0))
    gases["CO"] = float(np.clip(gases["CO"] * carbon_monoxide, 1e-7, 3e-2))
    gases["N2"] = 1.0 - sum(value for gas, value in gases.items() if gas != "N2")
    return replace(scenario, gases=gases, fluxes=fluxes)
