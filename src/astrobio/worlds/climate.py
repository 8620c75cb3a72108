"""Climates from the CLERO emulator, in the contract's cube convention.

CLERO (MIT licence) emulates three general circulation models of synchronous aquaplanets. Its native convention is the
contract's: substellar point at longitude 0, levels surface first, OLR positive. Dimension letters: T posterior draws,
P levels, Y latitudes, X longitudes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import ThreadpoolController

from astrobio import units
from astrobio.batch import LEVEL_VARIABLES, ClimateCube
from astrobio.batch.sample import ice_free_mean
from astrobio.worlds.atmosphere import MOLAR_MASS, mean_molecular_mass
from astrobio.worlds.scenario import Scenario

DRAWS = 4  # posterior draws along the time axis
LEVELS = 10
LEVEL_NAMES = ("temperature", "specific_humidity", "cloud_fraction", "u", "v")  # of `LEVEL_VARIABLES` in CLERO
SURFACE_NAMES = {
    "surface_temperature": "surface_temperature",
    "toa_net_downward_shortwave_flux": "asr",
    "toa_outgoing_longwave_flux": "olr",
}
TERMINATOR = 90.0  # degrees from the substellar meridian
OLR_FLOOR = 1.0  # W/m², keeps a posterior draw physical where the emulator's Gaussian tail crosses zero


@lru_cache(maxsize=4)
def emulator(device: str = "cpu") -> Any:
    """The CLERO emulator, loaded once per process and device ("cpu" is NumPy; "cuda" runs in torch)."""
    from clero import Emulator

    return Emulator(device=device)


@lru_cache(maxsize=1)
def _threadpools() -> ThreadpoolController:
    return ThreadpoolController()  # looking the libraries up takes 4 ms, once is enough


def one_thread():
    """Context in which BLAS uses one thread: sums then have one order, whatever the number of cores."""
    return _threadpools().limit(limits=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences CLERO's notices on its core domain: scenarios beyond it are marked by their path and provenance."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*CLERO's extended domain", category=UserWarning)
        yield


def emulator_version() -> str:
    return f"clero {metadata.version('clero')}"


@lru_cache(maxsize=1)
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(32)


def latitudes() -> np.ndarray:
    """[32] Gaussian latitudes, degrees, south to north."""
    return np.degrees(np.arcsin(_gauss()[0]))


def longitudes() -> np.ndarray:
    """[64] degrees, substellar point at 0."""
    return np.linspace(-180.0 + 180.0 / 64, 180.0 - 180.0 / 64, 64)


def pressure_levels(pressure: float) -> np.ndarray:
    """[P] Pa, surface first, of a surface pressure in bar (CLERO's relative isobars)."""
    from clero.climate_analysis import pressure_levels as native

    return np.asarray(native(pressure), dtype=np.float64)


def surface_climate(scenario: Scenario, device: str = "cpu") -> tuple[float, float]:
    """(warmest cell, area-weighted global mean) of the emulator's best estimate of surface temperature, K."""
    field = _surface_temperature(scenario, device)
    return float(field.max()), float((field * _cell_weights()).sum())


def habitat_temperature(scenario: Scenario, device: str = "cpu") -> float:
    """Mean temperature of the ice-free surface by the emulator's best estimate, K."""
    return ice_free_mean(_surface_temperature(scenario, device), _cell_weights())


def _surface_temperature(scenario: Scenario, device: str) -> Float[np.ndarray, "Y X"]:
    name = "surface_temperature"
    with _quiet(), one_thread():
        return emulator(device).predict(scenario.emulator_inputs, fields=[name])[name]


def _cell_weights() -> Float[np.ndarray, "Y X"]:
    """Area of each cell of the emulator's grid; they sum to 1."""
    return np.repeat(_gauss()[1][:, None] / 2 / 64, 64, axis=1)


def simulate_climate(scenarios: Sequence[Scenario], *, draws: int = DRAWS, device: str = "cpu") -> list[ClimateCube]:
    """The climate of each scenario, as `draws` posterior draws along the time axis.

    Each world is one emulator call with its own `climate_seed` and one BLAS thread, so a cube is bit-identical
    whatever else is in the list, in whatever order and in however many workers (on one machine and device).
    """
    model = emulator(device)
    cubes = []
    with _quiet(), one_thread():
        for scenario in scenarios:
            seed = scenario.climate_seed
            outputs = model.sample(scenario.emulator_inputs, n_samples=draws, seed=seed)
            cubes.append(cube_from_clero(outputs, scenario))
    return cubes


def cube_from_clero(outputs: dict[str, np.ndarray], scenario: Scenario) -> ClimateCube:
    """The emulator's 53 fields of shape [T, Y, X] → one cube, its water held within the scenario's bounds."""
    fields = {name: outputs[key][:, None].astype(np.float32) for name, key in SURFACE_NAMES.items()}
    for name, key in zip(LEVEL_VARIABLES, LEVEL_NAMES, strict=True):
        fields[name] = np.stack([outputs[f"{key}_{level}"] for level in range(LEVELS)], axis=1).astype(np.float32)
    outgoing, absorbed = "toa_outgoing_longwave_flux", "toa_net_downward_shortwave_flux"
    fields[outgoing] = np.maximum(fields[outgoing], OLR_FLOOR)
    fields[absorbed] = np.maximum(fields[absorbed], 0.0)  # three of 32,000 worlds had cells that shone
    cloud = "cloud_area_fraction_in_atmosphere_layer"
    levels = pressure_levels(scenario.pressure)
    saturation = saturation_humidity(fields["air_temperature"], levels[:, None, None], scenario)
    humidity = fields["specific_humidity"]
    fields["specific_humidity"], fields[cloud] = _bound_water(humidity, fields[cloud], saturation, scenario)
    return ClimateCube(
        fields=fields, levels=levels, latitude=latitudes(), longitude=longitudes(),
        time_kind="realizations",
    )  # fmt: skip


def saturation_humidity(temperature: np.ndarray, pressure: np.ndarray, scenario: Scenario) -> np.ndarray:
    """kg/kg at saturation over water, from temperature (K) and pressure (Pa), after Bolton (1980), eq. 10,
    doi:10.1175/1520-0493(1980)108<1046:TCOEPT>2.0.CO;2; within 10% of steam tables up to 420 K."""
    vapour = 611.2 * np.exp(17.67 * (temperature - 273.15) / np.maximum(temperature - 29.65, 1.0))  # Pa
    fraction = np.minimum(vapour / pressure, 1.0)
    water = fraction * MOLAR_MASS["H2O"]
    return water / (water + (1 - fraction) * mean_molecular_mass(scenario.gases))


def _bound_water(
    humidity: np.ndarray, cloud: np.ndarray, saturation: np.ndarray, scenario: Scenario
) -> tuple[np.ndarray, np.ndarray]:
    """Specific humidity at most saturated (the emulator's wet tail is not) and within the scenario's bounds.

    Where it is capped, clouds thin out with the water that is left.
    The emulator knows aquaplanets only: on desiccated and steam worlds its temperatures and fluxes stand, its water
    is replaced. A documented approximation.
    """
    low, high = (specific_humidity(fraction, scenario) for fraction in scenario.water)
    bounded = np.clip(np.minimum(humidity, saturation), low, high).astype(np.float32)
    left = np.minimum(bounded / np.maximum(humidity, 1e-12), 1.0)
    return bounded, (np.clip(cloud, 0.0, 1.0) * left).astype(np.float32)


def specific_humidity(fraction: float, scenario: Scenario) -> float:
    """kg/kg of an H2O volume fraction of moist air."""
    dry = mean_molecular_mass(scenario.gases)
    water = fraction * MOLAR_MASS["H2O"]
    return water / (water + (1 - fraction) * dry)


def water_fraction(humidity: np.ndarray, scenario: Scenario) -> np.ndarray:
    """H2O volume fraction of moist air from specific humidity in kg/kg: the inverse of `specific_humidity`."""
    moles = humidity / MOLAR_MASS["H2O"]
    return moles / (moles + (1 - humidity) / mean_molecular_mass(scenario.gases))


def column_mean_water(cube: ClimateCube, scenario: Scenario) -> float:
    """H2O volume fraction averaged over area, draws and (by mass) the air column."""
    fraction = water_fraction(cube.fields["specific_humidity"], scenario).mean(axis=0)  # [P, Y, X]
    profile = (fraction * cube.area_weights()).sum(axis=(1, 2))
    edges = np.concatenate([[scenario.pressure * units.BAR], np.sqrt(cube.levels[1:] * cube.levels[:-1]), [0.0]])
    return float((profile * -np.diff(edges)).sum() / (scenario.pressure * units.BAR))


def terminator_profiles(cube: ClimateCube, scenario: Scenario) -> dict[str, np.ndarray]:
    """Limb means over both terminator meridians, all latitudes and draws, each [P], surface first.

    Every latitude weighs the same, because it is the position angle along the limb.

    Returns:
        "pressure" Pa, "temperature" K, "water" volume fraction (geometric mean), "cloud" fraction.
    """
    meridians = np.argsort(np.abs(np.abs(cube.longitude) - TERMINATOR), kind="stable")[:4]

    def limb(name: str) -> np.ndarray:
        return cube.fields[name][:, :, :, meridians].astype(np.float64)  # [T, P, Y, 4]

    water = water_fraction(np.maximum(limb("specific_humidity"), 1e-10), scenario)
    return {
        "pressure": cube.levels,
        "temperature": limb("air_temperature").mean(axis=(0, 2, 3)),
        "water": np.exp(np.log(water).mean(axis=(0, 2, 3))),
        "cloud": limb("cloud_area_fraction_in_atmosphere_layer").mean(axis=(0, 2, 3)),
    }


def dayside_profiles(cube: ClimateCube, scenario: Scenario) -> dict[str, np.ndarray]:
    """Means over the hemisphere that faces the star and all draws, each [P], surface first; keys as above.

    A cell weighs by its area and the cosine of its distance from the substellar point: its share of the disc.
    """
    latitude, longitude = np.deg2rad(cube.latitude)[:, None], np.deg2rad(cube.longitude)[None, :]
    facing = np.maximum(np.cos(latitude) * np.cos(longitude), 0.0) * cube.area_weights()
    facing /= facing.sum()  # [Y, X]

    def day(values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float64).mean(axis=0) * facing).sum(axis=(1, 2))

    water = water_fraction(np.maximum(cube.fields["specific_humidity"].astype(np.float64), 1e-10), scenario)
    return {
        "pressure": cube.levels,
        "temperature": day(cube.fields["air_temperature"]),
        "water": np.exp(day(np.log(water))),
        "cloud": day(cube.fields["cloud_area_fraction_in_atmosphere_layer"]),
    }
