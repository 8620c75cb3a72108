"""Worlds whose climate was computed by a general circulation model (GCM) instead of emulated.

A run is two files: `NAME.nc`, a climate in anything that `formats.climate` reads, and `NAME.json` beside it:

    {"model": "ExoPlaSim 3.4.2", "parameters": {"star_temperature": 2600, "instellation": 1100, "period": 5.25,
     "radius": 0.92, "gravity": 8.03, "pressure": 1.0, "CO2": 0.05}, "provenance": {...}}

Star, orbit, size, pressure and CO2 of a world on a run are the run's, so that its spectrum and words fit its climate.
Everything else is drawn from the priors of the world's state, which must suit the run: its CO2 lies in the state's
prior, its surface temperature meets the state's limits, and it has an ocean.

Dimension letters: T time steps, Y latitudes, X longitudes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from astrobio import units
from astrobio.batch import CLIMATE_VARIABLES, WORLD_STATES, ClimateCube
from astrobio.errors import InputError
from astrobio.worlds import stars
from astrobio.worlds.contamination import draw_surface
from astrobio.worlds.haze import draw_haze
from astrobio.worlds.scenario import (
    IMPACT,
    MAX_SUM,
    Planet,
    Scenario,
    climate_allows,
    draw_air,
)
from astrobio.worlds.stars import Star

KEPT = Path(__file__).parent / "kept_runs"  # of ExoPlaSim, equilibrated, shipped with the package
STEPS = 4  # time steps a run is reduced to, as many as an emulated climate has posterior draws
MANTISSA = 12  # bits kept of a float32: 0.03 K at 250 K; what follows is noise that does not compress
CO2_MATCH = 0.1  # dex between the CO2 that a state's prior draws and the run's, which then takes its place
AIR_ATTEMPTS = 600  # draws of air; a prior that holds the run's CO2 hits the window above in 2% of them or more
STRETCH = (0.7, 1.4)  # radius of a host over the main sequence's that a run's star, flux and period may imply
_LIMITS = {  # of a run's parameters: what scenarios, stars and spectra can be made for
    "star_temperature": stars.TEFF_RANGE, "instellation": (100.0, 3100.0), "period": (0.3, 400.0),
    "radius": (0.3, 2.5), "gravity": (2.0, 30.0), "pressure": (0.1, 12.0), "CO2": (1e-7, 0.97),
}  # fmt: skip


@dataclass(frozen=True)
class RunParameters:
    """What a synchronous aquaplanet under N2 and CO2 is run for.

    Args:
        star_temperature: K, of a black body. instellation: W/m². period: days, of orbit and rotation.
        radius: Earth radii. gravity: m/s². pressure: bar, of dry air. CO2: volume fraction; the rest is N2.
    """

    star_temperature: float
    instellation: float
    period: float
    radius: float
    gravity: float
    pressure: float
    CO2: float

    @classmethod
    def from_dict(cls, found: Any, where: str) -> RunParameters:
        """From JSON.

        Raises:
            InputError: a parameter that is missing, unknown, not a number or out of range; a period at which this star
                does not give this flux.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(found, Mapping) or set(found) != names:
            raise InputError(f"{where}: parameters: expected {sorted(names)}, found {sorted(found or ())}")
        for name, value in found.items():
            low, high = _LIMITS[name]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise InputError(f"{where}: {name}: expected a number in {low:g}…{high:g}, found {value!r}")
        parameters = cls(**{name: float(value) for name, value in found.items()})
        parameters.check_period(where)
        return parameters

    @classmethod
    def of(cls, scenario: Scenario) -> RunParameters:
        """What a GCM would be run for to give a scenario its climate."""
        planet = scenario.planet
        return cls(
            scenario.star.teff, planet.instellation, planet.period, planet.radius, planet.gravity, scenario.pressure,
            scenario.gases["CO2"],
        )  # fmt: skip

    def check_period(self, where: str) -> None:
        """Raises `InputError` where Kepler's law asks for a star far from the main sequence."""
        _, _, luminosity, mass, _, _ = stars.main_sequence(self.star_temperature)
        low, high = (stars.orbital_period(luminosity * s**2, mass, self.instellation) for s in STRETCH)
        if not low <= self.period <= high:
            raise InputError(
                f"{where}: period: expected {low:.3g}…{high:.3g} days, where a dwarf of {self.star_temperature:g} K "
                f"gives {self.instellation:g} W/m², found {self.period:g}"
            )

    def host(self, rng: np.random.Generator, name: str) -> Star:
        """A star of this temperature that gives this flux at this period; distance, age and UV are drawn."""
        _, _, luminosity, mass, _, _ = stars.main_sequence(self.star_temperature)
        stretch = float(np.sqrt(self.instellation / stars.instellation_at_period(luminosity, mass, self.period)))
        return stars.make_star(rng, name, self.star_temperature, stretch)

    def planet(self, rng: np.random.Generator, star: Star) -> Planet:
        """The planet, its transit across the star drawn."""
        mass = self.gravity * self.radius**2 / units.EARTH_GRAVITY
        core = float(np.clip((1.07 - self.radius / mass ** (1 / 3.7)) / 0.21, 0.0, 1.0))
        impact = float(rng.uniform(*IMPACT))
        hours = stars.transit_duration(star, self.radius, self.period, impact)
        return Planet(mass, self.radius, self.gravity, core, self.period, self.instellation, impact, hours)


@dataclass(frozen=True, eq=False)
class GcmRun:
    """One run: its name, the model with its version, what it was run for, its climate, and where that comes from."""

    name: str
    model: str
    parameters: RunParameters
    cube: ClimateCube
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def surface(self) -> tuple[float, float]:
        """(warmest cell, global mean) of the surface temperature averaged over the run, K."""
        mean = self.cube.fields["surface_temperature"].mean(axis=0)[0]  # [Y, X]
        return float(mean.max()), self.cube.global_mean("surface_temperature")

    @cached_property
    def residual(self) -> float:
        """W/m² absorbed less emitted at the top of the atmosphere, over the sphere and the run."""
        absorbed, emitted = (
            self.cube.global_mean(f"toa_{name}_flux") for name in ("net_downward_shortwave", "outgoing_longwave")
        )
        return absorbed - emitted

    def draw(self, state: str, rng: np.random.Generator) -> Scenario | None:
        """A world of this state with this climate; None where they do not suit each other."""
        parameters = self.parameters
        star = parameters.host(rng, f"{self.name}-{int(rng.integers(2**31)):010d}")
        planet = parameters.planet(rng, star)
        for _ in range(AIR_ATTEMPTS):
            air = draw_air(state, rng, star, planet, parameters.pressure, hot=False)
            off = abs(np.log10(air.gases["CO2"] / parameters.CO2))
            gases = dict(air.gases) | {"CO2": parameters.CO2}
            others = sum(value for gas, value in gases.items() if gas != "N2")
            if off > CO2_MATCH or others > MAX_SUM or not _wet(air.path, air.water):
                continue
            gases["N2"] = 1.0 - others
            # Its water is the model's own: no bounds.
            scenario = Scenario(
                state, air.path, star, planet, parameters.pressure, gases, air.fluxes, gcm=self.name
            )  # fmt: skip
            return _finished(scenario, rng) if climate_allows(scenario, *self.surface) else None
        return None


def _wet(path: str, water: tuple[float, float]) -> bool:
    """Whether a world of this path has an ocean, as an aquaplanet does; one frozen over has it as well."""
    return path == "frozen" or water == (0.0, 1.0)


def _finished(scenario: Scenario, rng: np.random.Generator) -> Scenario:
    """The scenario with its seeds, haze and stellar surface."""
    seeds = rng.integers(0, 2**63, size=2)
    fuv = scenario.star.fuv * scenario.planet.instellation / units.SOLAR_CONSTANT
    haze = draw_haze(rng, scenario.gases, fuv=fuv, pressure=scenario.pressure * units.BAR, wet=False)
    return replace(
        scenario, climate_seed=int(seeds[0]), noise_seed=int(seeds[1]), haze=haze,
        surface=draw_surface(rng, scenario.star),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class GcmPool:
    """Runs that worlds are drawn on, in place of a pool of hosts."""

    runs: tuple[GcmRun, ...]

    @cached_property
    def suiting(self) -> dict[str, tuple[GcmRun, ...]]:
        """State → the runs that it can be drawn on; states without any are absent."""
        found = {
            state: tuple(run for run in self.runs if run.draw(state, np.random.default_rng(0)) is not None)
            for state in WORLD_STATES
        }
        return {state: runs for state, runs in found.items() if runs}

    def draw(self, index: int, seed: int, rng: np.random.Generator) -> Scenario:
        """The world of an index: as many consecutive ones as there are states hold each once, in a drawn order.

        Raises:
            InputError: no state suits any run.
        """
        states = tuple(self.suiting)
        if not states:
            names = ", ".join(run.name for run in self.runs)
            raise InputError(
                f"GCM runs {names}: expected a climate and CO2 that suit a state of the worlds, found none; add runs"
            )
        block, place = divmod(index, len(states))
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x6C3E, block))).permutation(len(states))
        state = states[int(order[place])]
        runs = self.suiting[state]
        while (scenario := runs[int(rng.integers(len(runs)))].draw(state, rng)) is None:
            pass
        return scenario

    def cube(self, name: str) -> ClimateCube:
        """The climate of a run by its name."""
        return next(run.cube for run in self.runs if run.name == name)


def reduced(cube: ClimateCube, where: str) -> ClimateCube:
    """A complete cube as `STEPS` time means, rounded so that it compresses: about 0.7 MB in a file.

    Months of a steady climate are realizations of its weather, as an emulator's posterior draws are.

    Raises:
        InputError: a variable is absent.
    """
    absent = [name for name in CLIMATE_VARIABLES if name not in cube.fields]
    if absent:
        raise InputError(f"{where}: expected all of {CLIMATE_VARIABLES}, found no {', '.join(absent)}")
    count = cube.shape[1]
    parts = np.array_split(np.arange(count), STEPS) if count > STEPS else [[i * count // STEPS] for i in range(STEPS)]
    means = {
        name: _rounded(np.stack([values[part].mean(axis=0) for part in parts])) for name, values in cube.fields.items()
    }
    return ClimateCube(means, cube.levels, cube.latitude, cube.longitude, "realizations")


def _rounded(values: np.ndarray) -> np.ndarray:
    """float32 with `MANTISSA` bits left, to nearest."""
    bits = 23 - MANTISSA
    integers = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    kept = np.uint32((0xFFFFFFFF << bits) & 0xFFFFFFFF)
    return ((integers + np.uint32(1 << (bits - 1))) & kept).view(np.float32)


def read_runs(folder: Path) -> GcmPool:
    """All runs of a folder, by name; see the top of this module for what a run is.

    Raises:
        InputError: no run, a climate without its JSON, or either not as described.
    """
    files = _climates(folder)
    if not files:
        found = "no .nc file" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: expected GCM runs, each NAME.nc with NAME.json beside it, found {found}")
    return GcmPool(tuple(_read_run(path) for path in files))


def _climates(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.nc") if not path.name.startswith("."))


def _read_run(path: Path) -> GcmRun:
    from astrobio.formats.climate import read_climate  # here: xarray takes half a second, and most builds have no runs

    about = path.with_suffix(".json")
    found = read_about(about)
    parameters = RunParameters.from_dict(found.get("parameters"), str(about))
    cube = reduced(read_climate(path), str(path))
    return GcmRun(path.stem, found["model"], parameters, cube, found.get("provenance") or {})


def read_about(path: Path) -> dict[str, Any]:
    """The JSON of a run.

    Raises:
        InputError: none that is readable and names its model.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected model and parameters of {path.stem}.nc, found {type(error).__name__}; write it as "
            "described in docs/worlds.md"
        ) from None
    if not isinstance(found, dict) or not isinstance(found.get("model"), str):
        raise InputError(f"{path}: model: expected the name of the climate model, found none")
    return found


def write_run(run: GcmRun, folder: Path) -> Path:
    """Write a run, the climate before its JSON, each whole or not at all; returns the path of the climate."""
    from astrobio.formats.climate import write_climate

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.name}.nc"
    write_climate(run.cube, path)
    about = {"model": run.model, "parameters": asdict(run.parameters), "provenance": dict(run.provenance)}
    partial = folder / f".{run.name}.json.{os.getpid()}"
    partial.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path.with_suffix(".json"))
    return path


def digests(folder: Path) -> tuple[tuple[str, str], ...]:
    """(name, SHA-256 of its two files) of each run in a folder.

    Raises:
        InputError: as `read_runs`.
    """
    read_runs(folder)
    return tuple(
        (path.stem, hashlib.sha256(path.read_bytes() + path.with_suffix(".json").read_bytes()).hexdigest())
        for path in _climates(folder)
    )
