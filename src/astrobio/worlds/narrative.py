"""Texts of a world: the observing record an investigator starts from, and the assessment that is the language target.

The record holds catalogue facts with their errors and the set-up of the observation, never the state or a quantity
that only the simulator knows. The assessment names the state by its exact label, the verdict, the main gases by order
of magnitude, the surface temperature and the reason. Both are built from templates over a small vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from astrobio import units
from astrobio.worlds.scenario import Scenario

TEFF_ERROR = 60.0  # K, typical of M dwarfs
RADIUS_ERROR = 0.04  # fractional, dominated by the star's
MASS_ERROR = 0.15  # fractional, radial velocities or transit timing
FLUX_ERROR = 0.06  # fractional
DISTANCE_ERROR = 0.01  # fractional, parallax
AGE_ERROR = 0.35  # fractional, gyrochronology
MAGNITUDE_ERROR = 0.02
ACTIVITY_LEVELS = (0.15, 0.8)  # FUV/NUV: quiet below, flaring above
GAS_FLOOR = 1e-8  # volume fraction below which an assessment does not mention a gas
NAMED_GASES = 5  # gases an assessment lists, besides N2

REASONS = {
    "runaway": ("beyond the runaway limit, too hot for oceans", "the greenhouse ran away"),
    "steam": ("a steam atmosphere, too hot for oceans", "the oceans boiled into steam"),
    "desiccated": ("hot and dry, the oceans were lost", "water was lost to the runaway greenhouse"),
    "frozen": ("frozen everywhere, too cold for liquid water", "no cell reaches 273 K"),
    "outgassing": ("outgassing explains the trace gases", "no gas is out of balance"),
    "water-loss": ("O2 is left from lost water, CH4 is missing", "hydrogen escaped and left O2 without CH4"),
    "dry-CO2": ("CO2 photolysis made O2 and CO, no water", "dry CO2 split into CO and O2"),
    "wet-CO2": ("CO2 photolysis made CO and a little O2, CH4 is missing", "CO with O2 and no CH4 marks photolysis"),
    "reducing": ("CH4 comes with CO, volcanic or serpentinising", "CO beside CH4 marks a reducing interior"),
    "methanogenic": ("CH4 with CO2 and little CO needs methanogens", "the CH4 flux exceeds geology, CO is low"),
    "oxygenic": ("O2 with CH4 is out of equilibrium", "O2 and CH4 together need a steady living source"),
}


# How a record names the instruments: plainly, in full, and in brief.
SET_UPS = {
    "prism+lrs": ("PRISM and LRS", "NIRSpec PRISM and MIRI LRS", "PRISM + LRS"),
    "prism": ("PRISM", "NIRSpec PRISM", "PRISM"),
    "lrs": ("LRS", "MIRI LRS", "LRS"),
    "lrs+filters": ("LRS and filters", "MIRI LRS, F1280W and F1500W", "LRS + filters"),
}
EVENTS = {"transmission": "transits", "emission": "eclipses"}


def observing_record(
    scenario: Scenario,
    rng: np.random.Generator,
    *,
    transits: int,
    instruments: str = "prism+lrs",
    kind: str = "transmission",
) -> str:
    """What is known before the spectrum is read, at most about 90 words.

    Args:
        transits: transits or eclipses averaged. instruments: one of `SET_UPS`. kind: one of `EVENTS`.
    """
    facts = _catalogue(scenario, rng)
    openings = (
        "Planet of {type} star, Teff {teff} K, {distance} pc, J {j}.",
        "{type} host, {teff} K, J {j}, at {distance} pc.",
        "Target: transiting planet, host {type} ({teff} K), J {j}, {distance} pc.",
    )
    orbits = (
        "Period {period} d, radius {radius}, mass {mass} Earth.",
        "R {radius} ± {radius_error}, M {mass} ± {mass_error} Earth, P {period} d.",
        "Orbit {period} d; radius {radius} ± {radius_error}; mass {mass}.",
    )
    light = (
        "Receives {flux} ± {flux_error} of Earth's light.",
        "Instellation {flux} ± {flux_error} S.",
        "Flux {watts} W/m2.",
    )
    stars = ("Star {activity}, age {age} Gyr.", "Age about {age} Gyr, {activity}.", "Host is {activity}.")
    set_up = (
        "Observed {transits} {events} with {plain}, {hours} h each.",
        "{transits} {events}, {full}; duration {hours} h.",
        "Data: {short}, {transits} {events} of {hours} h.",
    )
    plain, full, short = SET_UPS[instruments]
    parts = [_choose(rng, openings), _choose(rng, orbits), _choose(rng, light)]
    if rng.random() < 0.7:
        parts.append(_choose(rng, stars))
    parts.append(_choose(rng, set_up))
    return " ".join(parts).format(transits=transits, events=EVENTS[kind], plain=plain, full=full, short=short, **facts)


def _catalogue(scenario: Scenario, rng: np.random.Generator) -> dict[str, str]:
    """Facts with measurement errors drawn once, formatted to the digits their errors allow."""
    star, planet = scenario.star, scenario.planet
    scatter: Callable[[float, float], float] = lambda value, error: value * (1 + error * rng.standard_normal())  # noqa: E731
    radius, mass = scatter(planet.radius, RADIUS_ERROR), max(scatter(planet.mass, MASS_ERROR), 0.1)
    flux = scatter(planet.instellation / units.SOLAR_CONSTANT, FLUX_ERROR)
    ratio = star.fuv / star.nuv * 10 ** (0.2 * rng.standard_normal())
    activity = ("quiet", "active", "flaring")[int(np.searchsorted(ACTIVITY_LEVELS, ratio))]
    return {
        "type": star.spectral_type,
        "teff": f"{round(star.teff + TEFF_ERROR * rng.standard_normal(), -1):.0f}",
        "distance": f"{scatter(star.distance, DISTANCE_ERROR):.1f}",
        "j": f"{star.j_mag + MAGNITUDE_ERROR * rng.standard_normal():.1f}",
        "period": f"{planet.period:.1f}",
        "radius": f"{radius:.2f}",
        "radius_error": f"{RADIUS_ERROR * radius:.2f}",
        "mass": f"{mass:.1f}",
        "mass_error": f"{MASS_ERROR * mass:.1f}",
        "flux": f"{flux:.2f}",
        "flux_error": f"{FLUX_ERROR * flux:.2f}",
        "watts": f"{round(flux * units.SOLAR_CONSTANT, -1):.0f}",
        "activity": activity,
        "age": f"{max(scatter(star.age, AGE_ERROR), 0.3):.0f}",
        "hours": f"{planet.transit_hours:.1f}",
    }


def assessment(scenario: Scenario, rng: np.random.Generator, *, surface_temperature: float, water: float) -> str:
    """The language target, at most about 50 words.

    Args:
        surface_temperature: K, global mean. water: column-mean H2O volume fraction.
    """
    verdict = "inhabited" if scenario.inhabited else "not inhabited"
    gases = dict(sorted({**scenario.gases, "H2O": water}.items(), key=lambda item: -item[1]))
    named = [f"{gas} {order_of_magnitude(x)}" for gas, x in gases.items() if x >= GAS_FLOOR and gas != "N2"]
    temperature = f"{round(surface_temperature, -1):.0f} K"
    reason = _choose(rng, REASONS[scenario.path])
    templates = (
        "State: {state}; {verdict}. Gases: {gases}. Surface {temperature}. Reason: {reason}.",
        "This world is {verdict}: {state}. {gases}. Surface {temperature}; {reason}.",
        "{state}, {verdict}, because {reason}. Gases {gases}; surface near {temperature}.",
    )
    return _choose(rng, templates).format(
        state=scenario.state, verdict=verdict, gases=", ".join(named[:NAMED_GASES]), temperature=temperature,
        reason=reason,
    )  # fmt: skip


def order_of_magnitude(value: float) -> str:
    """The nearest power of ten, such as "1e-4"; above a tenth the nearest half decade, "3e-1" or "1e0"."""
    decades = float(np.log10(value))
    half = round(2 * decades) if decades > -1 else 2 * round(decades)
    return f"1e{half // 2}" if half % 2 == 0 else f"3e{half // 2}"


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
