"""Transmission spectra of the simulated climates with TauREx 3.

The limb is one column: the terminator means of temperature, water and cloud from the climate cube, isothermal and
well mixed above the climate model's top; ozone in a layer, every other gas well mixed. The hydrostatic grid and
Rayleigh scattering are TauREx's; absorption comes from `worlds.opacity`. Neither refraction nor collision-induced
absorption is modelled. Dimension letters: L layers (surface first), W native wavelengths, G gases.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from astrobio import units
from astrobio.batch import ClimateCube, Spectrum
from astrobio.worlds import instrument
from astrobio.worlds.atmosphere import MOLAR_MASS, ozone_profile
from astrobio.worlds.climate import one_thread, terminator_profiles
from astrobio.worlds.contamination import contamination
from astrobio.worlds.haze import LEE_Q, REFERENCE, Haze
from astrobio.worlds.opacity import OpacityTables, opacity_tables
from astrobio.worlds.scenario import Scenario

with contextlib.redirect_stdout(io.StringIO()):  # TauREx prints, rather than logs, that numba is not installed
    from taurex.chemistry import Chemistry
    from taurex.contributions import Contribution, LeeMieContribution, RayleighContribution
    from taurex.data.profiles.pressure.pressureprofile import PressureProfile
    from taurex.data.profiles.temperature.temparray import TemperatureArray
    from taurex.model import EmissionModel as EmissionModel  # for worlds.emission
    from taurex.model import TransmissionModel
    from taurex.planet import Planet as TaurexPlanet
    from taurex.stellar import BlackbodyStar

LAYERS = 48
TOP_PRESSURE = 0.05  # Pa; strong CO2 bands become transparent near 0.1 Pa
# A limb ray crosses 2√(2RH) ≈ 640 km near its tangent point: about four cloud systems of 160 km, any of which blocks
# it. Terminator covers of 0.1–0.3 then veil 0.3–0.8 of the limb, the range that GCM studies of M-dwarf planets find
# (Komacek et al. 2020, doi:10.3847/2041-8213/ab6200). A design choice.
CLOUDS_ALONG_RAY = 4
CLOUD_NOISE = 0.03  # cover; the emulator's posterior scatter where no cloud is
FILL_GAS = "N2"
logging.getLogger("taurex").setLevel(logging.ERROR)  # its warnings concern numba and optional plug-ins


@dataclass(frozen=True, eq=False)
class Limb:
    """The column that starlight crosses.

    Args:
        levels: [L + 1] Pa, layer boundaries, surface first. temperature: [L] K.
        mixing: gas → [L] volume fraction of moist air, N2 included. cover: [L] fraction of rays through the layer's
            height that a cloud at or above it blocks.
    """

    levels: np.ndarray
    temperature: np.ndarray
    mixing: Mapping[str, np.ndarray]
    cover: np.ndarray

    @property
    def pressure(self) -> np.ndarray:
        """[L] Pa, geometric layer centres."""
        return np.sqrt(self.levels[1:] * self.levels[:-1])

    @property
    def cloud_top(self) -> float:
        """Pa: where the cover first passes half its maximum on the way down; the surface where there is no cloud."""
        if self.cover.max() <= 0:
            return float(self.levels[0])
        return float(self.pressure[np.flatnonzero(self.cover >= 0.5 * self.cover.max())[-1]])


def limb_column(scenario: Scenario, cube: ClimateCube) -> Limb:
    """Interpolate the climate's terminator to the transfer grid, in log pressure."""
    return column_of(scenario, terminator_profiles(cube, scenario), CLOUDS_ALONG_RAY)


def column_of(scenario: Scenario, profiles: Mapping[str, np.ndarray], clouds_along_ray: int) -> Limb:
    """Profiles (see `climate.terminator_profiles`) on the transfer grid, with all gases of the scenario."""
    levels = np.geomspace(scenario.pressure * units.BAR, TOP_PRESSURE, LAYERS + 1)
    pressure = np.sqrt(levels[1:] * levels[:-1])
    height, nodes = -np.log(pressure), -np.log(profiles["pressure"])
    temperature = np.interp(height, nodes, profiles["temperature"])
    water = np.exp(np.interp(height, nodes, np.log(profiles["water"])))
    dry = 1.0 - water
    mixing = {gas: value * dry for gas, value in scenario.gases.items() if gas not in ("O3", FILL_GAS)}
    mixing["O3"] = dry * ozone_profile(scenario.gases["O3"], pressure, levels[0], scenario.o2_pal)
    mixing["H2O"] = water
    mixing[FILL_GAS] = np.maximum(1.0 - np.sum(list(mixing.values()), axis=0), 0.0)
    return Limb(levels, temperature, mixing, _cover(height, nodes, profiles["cloud"], clouds_along_ray))


def _cover(height: np.ndarray, nodes: np.ndarray, cloud: np.ndarray, clouds_along_ray: int) -> np.ndarray:
    """[L] share of rays blocked at each tangent height: maximum overlap of the layers above, several clouds a ray."""
    clear = np.clip((cloud - CLOUD_NOISE) / (1 - CLOUD_NOISE), 0.0, 1.0)
    blocked = np.interp(height, nodes, 1.0 - (1.0 - clear) ** clouds_along_ray, right=0.0)
    return np.maximum.accumulate(blocked[::-1])[::-1]


class LimbChemistry(Chemistry):
    """TauREx chemistry of given profiles; gases with an opacity table are active."""

    def __init__(self, mixing: Mapping[str, np.ndarray], active: tuple[str, ...]) -> None:
        super().__init__("LimbChemistry")
        self._mixing = mixing
        self._active = [gas for gas in active if gas in mixing]
        self._inactive = [gas for gas in mixing if gas not in active]
        mass = sum(MOLAR_MASS[gas] * profile for gas, profile in mixing.items())
        self.mu_profile = np.asarray(mass) * 1e-3 / units.AVOGADRO  # kg per molecule

    @property
    def activeGases(self):
        return self._active

    @property
    def inactiveGases(self):
        return self._inactive

    @property
    def activeGasMixProfile(self):
        return np.stack([self._mixing[gas] for gas in self._active])

    @property
    def inactiveGasMixProfile(self):
        return np.stack([self._mixing[gas] for gas in self._inactive])


class LimbPressure(PressureProfile):
    """TauREx pressure grid of given layer boundaries."""

    def __init__(self, limb: Limb) -> None:
        super().__init__("LimbPressure", len(limb.pressure))
        self.pressure_profile_levels = limb.levels
        self.pressure_profile = limb.pressure

    def compute_pressure_profile(self) -> None:
        """Nothing to do: the grid was given."""

    @property
    def profile(self):
        return self.pressure_profile


class TableAbsorption(Contribution):
    """Molecular absorption from `OpacityTables`, all layers and gases at once."""

    def __init__(self, tables: OpacityTables) -> None:
        super().__init__("TableAbsorption")
        self._tables = tables

    def prepare_each(self, model: Any, wngrid: np.ndarray):
        layers = np.zeros(model.nLayers)
        active = set(model.chemistry.activeGases)
        profile = model.chemistry.get_gas_mix_profile
        mixing = np.stack([profile(gas) if gas in active else layers for gas in self._tables.gases])
        section = self._tables.cross_section(model.temperatureProfile, model.pressureProfile, mixing)
        yield "Absorption", section[:, ::-1] * np.float32(1e-4)  # cm² → m², wavenumber order


class OrganicHaze(LeeMieContribution):
    """TauREx's Lee et al. (2013) particles, well mixed with the air and scaled to a vertical optical depth."""

    contribute = Contribution.contribute  # the parent takes the number density as constant with height

    def __init__(self, haze: Haze) -> None:
        super().__init__(haze.radius, LEE_Q, 1.0, haze.bottom, haze.top)
        self._depth = haze.optical_depth

    def prepare_each(self, model: Any, wngrid: np.ndarray):
        ((name, section),) = super().prepare_each(model, np.append(wngrid, 1e4 / REFERENCE))  # [L, W + 1]
        column = (model.densityProfile * model.deltaz)[section[:, -1] > 0].sum()  # molecules/m² within the haze
        yield name, section[:, :-1] * (self._depth / column / max(section[:, -1].max(), 1e-300))


class LimbModel(TransmissionModel):
    """TauREx's transmission model with an exact vectorised path integral and a patchy cloud deck."""

    def __init__(self, limb: Limb, tables: OpacityTables, haze: Haze | None = None, **parts) -> None:
        hazes = [] if haze is None else [OrganicHaze(haze)]
        super().__init__(contributions=[TableAbsorption(tables), RayleighContribution(), *hazes], **parts)
        self._wavenumber = np.ascontiguousarray(1e4 / tables.wavelength[::-1])
        self._cover = limb.cover

    @property
    def nativeWavenumberGrid(self):
        return self._wavenumber

    def path_integral(self, wngrid, return_contrib=False):
        radius = self.planet.get_planet_radius(unit="m")
        bounds = radius + self.altitude_boundaries  # [L + 1] m
        tangent = (bounds[1:] + bounds[:-1]) / 2
        paths = chord_lengths(bounds, tangent) * self.densityProfile  # [L, L] molecules/m²
        section = sum(np.asarray(part.sigma_xsec, dtype=np.float32) for part in self.contribution_list)
        tau = paths.astype(np.float32) @ section  # [L, W]
        clear = (1.0 - self._cover.astype(np.float32))[:, None] * np.exp(-tau)
        rings = 2.0 * tangent * np.diff(bounds)  # [L] m²/π
        area = radius**2 + rings.sum() - rings @ clear.astype(np.float64)
        return area / self.star.radius**2, tau


def chord_lengths(bounds: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """[L, L] metres that the ray tangent at radius `tangent[i]` spends in shell j between `bounds` [L + 1] (metres)."""
    outer = np.maximum(bounds[None, :] ** 2 - tangent[:, None] ** 2, 0.0)
    return 2.0 * np.diff(np.sqrt(outer), axis=1)


@lru_cache(maxsize=4)
def binning_of(folder: str | None, name: str) -> np.ndarray:
    return instrument.binning_matrix(opacity_tables(folder).wavelength, instrument.grid_of(name))


def taurex_parts(scenario: Scenario, limb: Limb, tables: OpacityTables) -> dict[str, Any]:
    """Star, planet and profiles of a column, as TauREx's models take them."""
    planet = TaurexPlanet()
    planet.set_planet_mass(scenario.planet.mass * units.EARTH_MASS, "kg")
    planet.set_planet_radius(scenario.planet.radius * units.EARTH_RADIUS, "m")
    star = scenario.star
    return {
        "planet": planet, "star": BlackbodyStar(temperature=star.teff, radius=star.radius, mass=star.mass),
        "pressure_profile": LimbPressure(limb), "temperature_profile": TemperatureArray(limb.temperature),
        "chemistry": LimbChemistry(limb.mixing, tables.gases),
    }  # fmt: skip


@contextlib.contextmanager
def quiet_taurex() -> Iterator[None]:
    """Silences TauREx's warnings about its own base class and property, on every construction."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="SimpleForwardModel is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="fullRadius is deprecated", category=DeprecationWarning)
        yield


def transit_depth(scenario: Scenario, limb: Limb, tables: OpacityTables) -> np.ndarray:
    """[W] transit depth in ppm on the tables' wavelengths, free of noise and of the star's colour."""
    with quiet_taurex():
        model = LimbModel(limb, tables, scenario.haze, **taurex_parts(scenario, limb, tables))
        _, depth, _, _ = model.model()
    return depth[::-1] / units.PPM


def simulate_spectrum(
    scenario: Scenario,
    cube: ClimateCube,
    *,
    transits: int = instrument.DEFAULT_TRANSITS,
    floor: bool = True,
    contaminated: bool = True,
    instruments: str = "prism+lrs",
    opacity_folder: str | None = None,
) -> tuple[Spectrum, np.ndarray]:
    """The noisy transmission spectrum of a world and its noise-free truth.

    Args:
        transits: number of transits averaged. floor: add the instrument's noise floor.
        contaminated: whether the star's spots and faculae colour each transit (`scenario.surface`).
        instruments: one of `instrument.INSTRUMENTS`.
        opacity_folder: own opacities (see `worlds.opacity`); None uses H2O, CO2, CH4, O2, O3 and CO.

    Returns:
        The spectrum, and the planet's own depth [L] in ppm on its bins: no noise, no spots.
    """
    grid = instrument.grid_of(instruments)
    with one_thread():
        tables = opacity_tables(opacity_folder)
        truth = binning_of(opacity_folder, instruments) @ transit_depth(scenario, limb_column(scenario, cube), tables)
    sigma = instrument.noise(
        grid, j_mag=scenario.star.j_mag, transit_hours=scenario.planet.transit_hours, transits=transits, floor=floor
    )
    observed = truth
    if contaminated and scenario.surface is not None:
        rng = np.random.default_rng(np.random.SeedSequence(scenario.noise_seed, spawn_key=(0x5B07,)))
        observed = truth * contamination(grid.center, scenario.surface, scenario.star.teff, transits, rng)
    observed = observed + sigma * instrument.noise_draws(scenario.noise_seed, len(truth))
    return Spectrum(grid.center, observed, sigma, grid.width), truth
