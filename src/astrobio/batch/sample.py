"""One world, as known to an investigator: the contract between data and models.

Dimension letters: L spectral points, V variables, T time steps, P levels, Y latitudes, X longitudes,
C compounds, R reactions, M stoichiometric entries, E chemical elements, K structural encodings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from astrobio.errors import InputError
from astrobio.units import MELTING_POINT

WORLD_STATES = (
    "lifeless-inhospitable",
    "lifeless-temperate",
    "lifeless-oxygenated",
    "lifeless-reducing",
    "anoxic-biosphere",
    "oxygenic-biosphere",
)
INHABITED_STATES = ("anoxic-biosphere", "oxygenic-biosphere")
MODALITIES = ("text", "spectrum", "climate", "metabolism")

SpectrumKind = Literal["transmission", "emission", "reflection"]
TimeKind = Literal["realizations", "months", "phases", "epochs"]
SPECTRUM_KINDS: tuple[str, ...] = get_args(SpectrumKind)
TIME_KINDS: tuple[str, ...] = get_args(TimeKind)

# CF standard names. The first three are surface or top-of-atmosphere fields, which have one level.
SURFACE_VARIABLES = (
    "surface_temperature",  # K
    "toa_net_downward_shortwave_flux",  # W/m2, absorbed stellar radiation (ASR)
    "toa_outgoing_longwave_flux",  # W/m2, positive upwards (OLR)
)
LEVEL_VARIABLES = (
    "air_temperature",  # K
    "specific_humidity",  # kg/kg
    "cloud_area_fraction_in_atmosphere_layer",  # 0..1
    "eastward_wind",  # m/s
    "northward_wind",  # m/s
)
CLIMATE_VARIABLES = SURFACE_VARIABLES + LEVEL_VARIABLES
CLIMATE_RANGES = {  # generous physical bounds in the units above; outside them a cube is refused
    "surface_temperature": (30.0, 3000.0),
    "toa_net_downward_shortwave_flux": (-50.0, 20_000.0),
    "toa_outgoing_longwave_flux": (0.0, 5_000.0),
    "air_temperature": (10.0, 3000.0),
    "specific_humidity": (-1e-3, 1.0),
    "cloud_area_fraction_in_atmosphere_layer": (-1e-3, 1.001),
    "eastward_wind": (-2000.0, 2000.0),
    "northward_wind": (-2000.0, 2000.0),
}

ELEMENTS = (
    "C",
    "H",
    "N",
    "O",
    "P",
    "S",
    "Fe",
    "Mg",
    "Na",
    "K",
    "Ca",
    "Cl",
    "Co",
    "Cu",
    "Mn",
    "Mo",
    "Ni",
    "Se",
    "Zn",
    "W",
)
GASES = ("H2", "CO2", "CH4", "O2", "CO", "N2", "N2O", "H2S", "H2O", "NH3")
PHYSICS_TARGETS = (
    "surface_temperature",  # K, area-weighted global mean
    "asr",  # W/m2, global mean absorbed stellar radiation
    "olr",  # W/m2, global mean outgoing longwave radiation
    "log10_CO2",  # log10 volume mixing ratio, floored at 1e-12
    "log10_CH4",
    "log10_O2",
    "log10_CO",
    "log10_O3",
    "log10_H2O",
    "log10_N2O",
)


def _require(condition: bool, where: str, expected: str, found: object) -> None:
    if not condition:
        raise InputError(f"{where}: expected {expected}, found {found}")


def _finite(array: np.ndarray, where: str) -> None:
    bad = int(np.size(array) - np.isfinite(array).sum())
    _require(bad == 0, where, "finite numbers only", f"{bad} NaN or infinite of {np.size(array)}")


@dataclass(frozen=True, eq=False)  # compared by identity: arrays have no single truth value
class Spectrum:
    """A spectrum on any wavelength grid.

    Args:
        wavelength: [L] bin centres, µm, strictly increasing.
        value: [L] transit or eclipse depth in ppm of the stellar flux, or albedo for reflection.
        sigma: [L] one standard deviation in the unit of `value`, positive.
        bin_width: [L] full width of each bin, µm, positive.
        kind: what was measured.
    """

    wavelength: np.ndarray
    value: np.ndarray
    sigma: np.ndarray
    bin_width: np.ndarray
    kind: SpectrumKind = "transmission"

    def __post_init__(self) -> None:
        shape = self.wavelength.shape
        _require(len(shape) == 1 and shape[0] >= 2, "Spectrum.wavelength", "shape [L], L ≥ 2", shape)
        for name in ("wavelength", "value", "sigma", "bin_width"):
            array = getattr(self, name)
            _require(array.shape == shape, f"Spectrum.{name}", f"shape {shape}", array.shape)
            _finite(array, f"Spectrum.{name}")
        _require(bool(self.wavelength[0] > 0), "Spectrum.wavelength", "positive µm", self.wavelength[0])
        _require(
            bool((np.diff(self.wavelength) > 0).all()),
            "Spectrum.wavelength",
            "strictly increasing",
            "repeats or reversals",
        )
        _require(bool((self.sigma > 0).all()), "Spectrum.sigma", "positive uncertainties", float(self.sigma.min()))
        _require(bool((self.bin_width > 0).all()), "Spectrum.bin_width", "positive widths", float(self.bin_width.min()))
        _require(self.kind in SPECTRUM_KINDS, "Spectrum.kind", f"one of {SPECTRUM_KINDS}", repr(self.kind))


@dataclass(frozen=True, eq=False)  # compared by identity: arrays have no single truth value
class ClimateCube:
    """A climate, as fields on one grid: together a 5-D cube [V, T, P, Y, X].

    Convention: substellar point at longitude 0, longitudes −180…180 and latitudes −90…90 increasing,
    levels surface first, outgoing longwave positive.

    Args:
        fields: CF standard name → [T, P, Y, X], or [T, 1, Y, X] for the three surface fields. Any subset of
            `CLIMATE_VARIABLES`, at least one.
        levels: [P] pressures, Pa, strictly decreasing.
        latitude: [Y] degrees north. longitude: [X] degrees east.
        time_kind: what the time axis is made of; along `realizations` the order means nothing.
    """

    fields: dict[str, np.ndarray]
    levels: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    time_kind: TimeKind = "realizations"

    def __post_init__(self) -> None:
        _require(len(self.fields) > 0, "ClimateCube.fields", f"at least one of {CLIMATE_VARIABLES}", "none")
        _require(self.time_kind in TIME_KINDS, "ClimateCube.time_kind", f"one of {TIME_KINDS}", repr(self.time_kind))
        for name in ("levels", "latitude", "longitude"):
            _finite(getattr(self, name), f"ClimateCube.{name}")
        _require(
            bool((np.diff(self.levels) < 0).all() and (self.levels > 0).all()),
            "ClimateCube.levels",
            "positive Pa, surface first",
            self.levels,
        )
        for name, low, high in (("latitude", -90.0, 90.0), ("longitude", -180.0, 180.0)):
            axis = getattr(self, name)
            _require(bool((np.diff(axis) > 0).all()), f"ClimateCube.{name}", "increasing degrees", axis)
            _require(
                bool(axis[0] >= low and axis[-1] <= high),
                f"ClimateCube.{name}",
                f"{low}…{high} degrees",
                (axis[0], axis[-1]),
            )
        times = next(iter(self.fields.values())).shape[0]
        for name, array in self.fields.items():
            _require(name in CLIMATE_VARIABLES, "ClimateCube.fields", f"names among {CLIMATE_VARIABLES}", repr(name))
            levels = 1 if name in SURFACE_VARIABLES else len(self.levels)
            shape = (times, levels, len(self.latitude), len(self.longitude))
            _require(array.shape == shape, f"ClimateCube.fields[{name!r}]", f"shape {shape}", array.shape)
            _finite(array, f"ClimateCube.fields[{name!r}]")
            low, high = CLIMATE_RANGES[name]
            span = (float(array.min()), float(array.max()))
            _require(
                low <= span[0] and span[1] <= high, f"ClimateCube.fields[{name!r}]", f"values in {low:g}…{high:g}", span
            )

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(V, T, P, Y, X) with V counting all of `CLIMATE_VARIABLES`, present or not."""
        times = next(iter(self.fields.values())).shape[0]
        return len(CLIMATE_VARIABLES), times, len(self.levels), len(self.latitude), len(self.longitude)

    def area_weights(self) -> np.ndarray:
        """[Y, X] cell areas as fractions of the sphere, exact between mid-latitudes (poles at ±90°)."""
        edges = np.concatenate([[-90.0], (self.latitude[1:] + self.latitude[:-1]) / 2, [90.0]])
        band = np.diff(np.sin(np.deg2rad(edges)))
        weights = np.repeat(band[:, None], len(self.longitude), axis=1)
        return weights / weights.sum()

    def habitat_temperature(self) -> float:
        """Mean temperature of the ice-free surface over all times, K; that of the warmest cell where all is ice."""
        return ice_free_mean(self.fields["surface_temperature"][:, 0].mean(axis=0), self.area_weights())

    def global_mean(self, variable: str) -> float:
        """Area-weighted mean over the sphere, averaged over time; for level fields at the lowest level."""
        return float((self.fields[variable][:, 0].mean(axis=0) * self.area_weights()).sum())


def ice_free_mean(field: np.ndarray, weights: np.ndarray) -> float:
    """Area-weighted mean (K) of the cells [Y, X] above the melting point, or that of the warmest where all is ice."""
    thawed = field > MELTING_POINT
    return float(np.average(field[thawed], weights=weights[thawed])) if thawed.any() else float(field.max())


GROWTH_RANGE = (250.0, 400.0)  # K; life as known grows from 258 K (Planococcus halocryophilus) to 395 K (strain 116)


@dataclass(frozen=True, eq=False)  # compared by identity: arrays have no single truth value
class MetabolicGraph:
    """A metabolism as a bipartite graph of compounds and reactions with signed stoichiometry.

    Args:
        compounds, reactions: identifiers (BiGG or KEGG), lengths C and R.
        elements: [C, E] atoms of `ELEMENTS` per molecule; NaN rows where the formula is unknown.
        charge: [C] elementary charges.
        external: [C] True for extracellular compounds, which may be exchanged and need not balance.
        edge_compound, edge_reaction: [M] indices; stoichiometry: [M], negative for substrates.
        dg_prime, dg_sd: [R] transformed reaction Gibbs energy ΔG′° at pH 7, I 0.25 M, 298.15 K and its standard
            deviation, kJ/mol; NaN where unknown.
        reversible: [R]. lower_bound, upper_bound: [R] mmol/gDW/h.
        ec: R EC numbers, "" where unknown.
        encodings: [C + R, K] random-walk structural encodings, compounds first.
        exchange: gas → net exchange, mmol/gDW/h, positive when released; None when unknown.
        flux: [R] known internal fluxes (FBA), mmol/gDW/h, or None.
        organism: identifier of the parent organism; variants share it, and splits go by it.
        guild: metabolic guild, such as "methanogen", "phototroph", "fermenter", "aerobe".
        growth_temperature: K at which the organism grows fastest in culture; None where nobody measured it.
        relative: the graph that this one is a strain of (see `strain`).
    """

    compounds: tuple[str, ...]
    reactions: tuple[str, ...]
    elements: np.ndarray
    charge: np.ndarray
    external: np.ndarray
    edge_compound: np.ndarray
    edge_reaction: np.ndarray
    stoichiometry: np.ndarray
    dg_prime: np.ndarray
    dg_sd: np.ndarray
    reversible: np.ndarray
    lower_bound: np.ndarray
    upper_bound: np.ndarray
    ec: tuple[str, ...]
    encodings: np.ndarray
    exchange: dict[str, float] | None = None
    flux: np.ndarray | None = None
    organism: str = ""
    guild: str = ""
    growth_temperature: float | None = None
    relative: MetabolicGraph | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        c, r, m = len(self.compounds), len(self.reactions), len(self.stoichiometry)
        _require(
            c > 0 and r > 0 and m > 0, "MetabolicGraph", "≥1 compound, reaction and stoichiometric entry", (c, r, m)
        )
        expected = {
            "elements": (c, len(ELEMENTS)), "charge": (c,), "external": (c,),
            "edge_compound": (m,), "edge_reaction": (m,), "stoichiometry": (m,),
            "dg_prime": (r,), "dg_sd": (r,), "reversible": (r,), "lower_bound": (r,), "upper_bound": (r,),
        }  # fmt: skip
        for name, shape in expected.items():
            found = getattr(self, name).shape
            _require(found == shape, f"MetabolicGraph.{name}", f"shape {shape}", found)
        _require(
            self.encodings.ndim == 2 and self.encodings.shape[0] == c + r,
            "MetabolicGraph.encodings",
            f"shape ({c + r}, K)",
            self.encodings.shape,
        )
        _require(len(self.ec) == r, "MetabolicGraph.ec", f"{r} entries", len(self.ec))
        _finite(self.stoichiometry, "MetabolicGraph.stoichiometry")
        _require(bool((self.stoichiometry != 0).all()), "MetabolicGraph.stoichiometry", "non-zero entries", "zeros")
        for name, size in (("edge_compound", c), ("edge_reaction", r)):
            index = getattr(self, name)
            _require(
                bool((index >= 0).all() and (index < size).all()),
                f"MetabolicGraph.{name}",
                f"indices in 0…{size - 1}",
                (index.min(), index.max()),
            )
        if self.exchange is not None:
            unknown = sorted(set(self.exchange) - set(GASES))
            _require(not unknown, "MetabolicGraph.exchange", f"gases among {GASES}", unknown)
        if self.flux is not None:
            _require(self.flux.shape == (r,), "MetabolicGraph.flux", f"shape {(r,)}", self.flux.shape)
            _finite(self.flux, "MetabolicGraph.flux")
        if self.growth_temperature is not None:
            low, high = GROWTH_RANGE
            _require(
                low <= self.growth_temperature <= high,
                "MetabolicGraph.growth_temperature",
                f"K within {low:g}–{high:g}",
                self.growth_temperature,
            )

    @property
    def network(self) -> MetabolicGraph:
        """The one object that all strains of a network share: what is made of it once serves them all."""
        return self if self.relative is None else self.relative

    def strain(self, growth_temperature: float) -> MetabolicGraph:
        """The same network, adapted to another temperature (K)."""
        return replace(self, growth_temperature=growth_temperature, relative=self.network)


@dataclass(frozen=True, eq=False)
class Sample:
    """One world. Any modality may be absent (None); an absent modality is never faked by zeros.

    Args:
        world_id: unique within a data set; carries no information on the state.
        context: observing record, or None. assessment: target text, or None where unknown.
        state: one of `WORLD_STATES`, or None where unknown.
        physics: known scalar truths, keys among `PHYSICS_TARGETS`; None where nothing is known.
        provenance: where each part came from (source, version, licence, hashes).
    """

    world_id: str
    context: str | None = None
    assessment: str | None = None
    spectrum: Spectrum | None = None
    climate: ClimateCube | None = None
    metabolism: MetabolicGraph | None = None
    state: str | None = None
    physics: dict[str, float] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(bool(self.world_id), "Sample.world_id", "a non-empty identifier", repr(self.world_id))
        _require(
            self.state is None or self.state in WORLD_STATES,
            "Sample.state",
            f"one of {WORLD_STATES} or None",
            repr(self.state),
        )
        for key, value in (self.physics or {}).items():
            _require(key in PHYSICS_TARGETS, "Sample.physics", f"keys among {PHYSICS_TARGETS}", repr(key))
            _require(bool(np.isfinite(value)), f"Sample.physics[{key!r}]", "a finite number", value)

    @property
    def present(self) -> tuple[bool, bool, bool, bool]:
        """Which of text, spectrum, climate and metabolism this world has."""
        return (
            self.context is not None,
            self.spectrum is not None,
            self.climate is not None,
            self.metabolism is not None,
        )
