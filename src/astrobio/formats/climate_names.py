"""How climate models call and measure things: standard names, aliases and unit spellings.

A variable is looked for by CF standard name first, then by these names, in this order. Names are those of the CF
table (https://cfconventions.org), CMIP, ExoPlaSim, CESM/ExoCAM, the ECMWF archives and CLERO.
"""

from __future__ import annotations

from dataclasses import dataclass

from astrobio.errors import InputError


@dataclass(frozen=True)
class Names:
    """What one quantity is called, and the kind of unit (`UNITS`) it is given in."""

    standard: tuple[str, ...]
    aliases: tuple[str, ...]
    unit: str


VARIABLES = {  # those of the contract, by CF standard name
    "surface_temperature": Names(("surface_temperature",), ("ts", "TS", "skt", "tsurf", "t_surf"), "K"),
    "toa_net_downward_shortwave_flux": Names(
        ("toa_net_downward_shortwave_flux", "toa_net_shortwave_flux"), ("rst", "asr", "FSNT", "FSNTOA"), "W m-2"
    ),
    "toa_outgoing_longwave_flux": Names(
        ("toa_outgoing_longwave_flux", "toa_net_upward_longwave_flux", "toa_net_longwave_flux"),
        ("rlut", "olr", "FLUT", "FLNT"),
        "W m-2",
    ),
    "air_temperature": Names(("air_temperature",), ("ta", "T", "temperature", "temp", "t"), "K"),
    "specific_humidity": Names(("specific_humidity",), ("hus", "Q", "q", "shum"), "kg kg-1"),
    "cloud_area_fraction_in_atmosphere_layer": Names(
        ("cloud_area_fraction_in_atmosphere_layer", "cloud_area_fraction_in_layer"),
        ("cl", "CLOUD", "cloud_fraction", "cc"),
        "1",
    ),
    "eastward_wind": Names(("eastward_wind", "x_wind"), ("ua", "U", "u"), "m s-1"),
    "northward_wind": Names(("northward_wind", "y_wind"), ("va", "V", "v"), "m s-1"),
}
HELPERS = {  # what else a file may hold that is needed to read those
    "surface_air_pressure": Names(("surface_air_pressure",), ("ps", "PS", "sp"), "Pa"),
    "air_pressure": Names(("air_pressure", "full_level_pressure"), ("flpr", "pfull", "pressure", "p"), "Pa"),
    "toa_incoming_shortwave_flux": Names(("toa_incoming_shortwave_flux",), ("rsdt", "SOLIN", "FDS_TOA"), "W m-2"),
    "toa_outgoing_shortwave_flux": Names(("toa_outgoing_shortwave_flux",), ("rsut", "FSUTOA"), "W m-2"),
}
LATITUDE = Names(("latitude",), ("lat", "latitude", "y"), "degrees")
LONGITUDE = Names(("longitude",), ("lon", "longitude", "x"), "degrees")
TIME = Names(("time",), ("time", "month", "months", "phase", "epoch"), "")
REALIZATION = Names(("realization",), ("realization", "ensemble", "member", "number", "draw", "sample"), "")

# kind → spelling without spaces, stars and carets, in lower case → (factor, offset) to the kind's own unit
UNITS = {
    "K": {
        **dict.fromkeys(("k", "kelvin", "degk", "kelvins"), (1.0, 0.0)),
        **dict.fromkeys(("c", "degc", "deg_c", "celsius", "degreescelsius", "degrees_celsius", "°c"), (1.0, 273.15)),
    },
    "W m-2": dict.fromkeys(("wm-2", "w/m2", "watts/m2", "wattsm-2", "watt/m2"), (1.0, 0.0)),
    "Pa": {
        **dict.fromkeys(("pa", "pascal", "pascals", "nm-2"), (1.0, 0.0)),
        **dict.fromkeys(("hpa", "mb", "mbar", "millibar", "millibars"), (100.0, 0.0)),
        "kpa": (1e3, 0.0),
        **dict.fromkeys(("bar", "bars"), (1e5, 0.0)),
        "atm": (101_325.0, 0.0),
    },
    "1": {
        **dict.fromkeys(("", "1", "fraction", "0-1", "(0-1)", "none", "nondimensional"), (1.0, 0.0)),
        **dict.fromkeys(("%", "percent"), (0.01, 0.0)),
    },
    "kg kg-1": {
        **dict.fromkeys(("", "1", "kgkg-1", "kg/kg", "none", "nondimensional"), (1.0, 0.0)),
        **dict.fromkeys(("gkg-1", "g/kg"), (1e-3, 0.0)),
    },
    "m s-1": {
        **dict.fromkeys(("ms-1", "m/s", "meter/second", "metrespersecond"), (1.0, 0.0)),
        **dict.fromkeys(("kmh-1", "km/h"), (1 / 3.6, 0.0)),
    },
}


def conversion(unit: str | None, kind: str, where: str) -> tuple[float, float]:
    """(factor, offset) from a unit as a file spells it to the kind's own unit; None (no unit given) is that unit.

    Raises:
        InputError: the unit does not measure this kind of thing.
    """
    if unit is None:
        return 1.0, 0.0
    spelling = unit.lower().replace(" ", "").replace("*", "").replace("^", "")
    if spelling not in UNITS[kind]:
        raise InputError(
            f"{where}: expected a unit that converts to {kind!r}, found {unit!r}; correct its units attribute"
        )
    return UNITS[kind][spelling]
