"""Records of real databases → parts of a `Sample`, the same contract that the simulator fills."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from astrobio import units
from astrobio.batch import ClimateCube, MetabolicGraph, Sample, Spectrum
from astrobio.errors import InputError
from astrobio.formats.climate import read_climate
from astrobio.formats.kegg import graph_from_reactions, library_from_entries
from astrobio.formats.metabolism import read_metabolism
from astrobio.formats.spectra import read_spectrum
from astrobio.sources.record import Record

FACTS = (  # column of the Exoplanet Archive, how it reads in a text (unit as in the archive's column descriptions)
    ("st_spectype", "host of type {}"), ("st_teff", "host effective temperature {:.0f} K"),
    ("st_rad", "host radius {:.3g} Rsun"), ("st_mass", "host mass {:.3g} Msun"), ("st_met", "host [Fe/H] {:+.2f}"),
    ("sy_dist", "distance {:.4g} pc"), ("pl_orbper", "period {:.5g} d"), ("pl_orbsmax", "semi-major axis {:.4g} au"),
    ("pl_orbeccen", "eccentricity {:.2g}"), ("pl_rade", "radius {:.3g} Earth"), ("pl_bmasse", "mass {:.3g} Earth"),
    ("pl_eqt", "equilibrium temperature {:.0f} K"), ("pl_insol", "receives {:.3g} of Earth's light"),
    ("discoverymethod", "found by {}"), ("disc_year", "in {:.0f}"),
)  # fmt: skip


def planet_text(row: Mapping[str, Any]) -> str:
    """What the catalogue knows of a planet, in one paragraph; a missing value is left out, never guessed.

    The light received is computed from the star where the archive does not give it:
    S = (R/Rsun)² (T/5772 K)⁴ (a/au)⁻².

    Raises:
        InputError: no name, or a number that is not one.
    """
    name = row.get("pl_name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"pl_name: expected the name of a planet, found {name!r:.40}")
    values = {**row, "pl_insol": row.get("pl_insol") or _instellation(row)}
    parts = [_fact(values.get(column), pattern, f"{name}, {column}") for column, pattern in FACTS]
    host = row.get("hostname")
    opening = f"Planet {name.strip()}" + (f" of {host}" if isinstance(host, str) and host else "")
    return "; ".join([opening, *(part for part in parts if part)]) + "."


def _fact(value: Any, pattern: str, where: str) -> str:
    if value in (None, "") or (isinstance(value, float) and math.isnan(value)):
        return ""
    if ":" not in pattern:
        return pattern.format(str(value).strip()[:40])
    return pattern.format(_number(value, where))


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: expected a number, found {value!r:.40}")
    return number


def _instellation(row: Mapping[str, Any]) -> float | None:
    """Light received in units of Earth's, None where radius, temperature or distance is missing."""
    known = [row.get(column) for column in ("st_rad", "st_teff", "pl_orbsmax")]
    if any(value in (None, "") for value in known):
        return None
    radius, temperature, axis = (_number(value, "instellation") for value in known)
    return radius**2 * (temperature / units.SOLAR_TEMPERATURE) ** 4 / axis**2 if axis > 0 else None


def sample_from_planet(
    planet: Record,
    *,
    spectrum: Record | Path | None = None,
    climate: Record | Path | Sequence[Record | Path] | None = None,
    metabolism: Record | Path | Sequence[Record] | None = None,
) -> Sample:
    """A real planet as a sample: text from its catalogue row, and whatever else is given for it.

    Whether it is inhabited is unknown, so the sample has no state and no assessment.

    Raises:
        InputError: a row without a name, or a file that its reader refuses.
    """
    row = _row(planet)
    text = planet_text(row)
    parts = {"spectrum": spectrum, "climate": climate, "metabolism": metabolism}
    provenance = {"text": origin(planet)} | {key: origin(value) for key, value in parts.items() if value is not None}
    return Sample(
        world_id=f"{planet.source}:{row['pl_name']}",
        context=text,
        spectrum=None if spectrum is None else spectrum_of(spectrum),
        climate=None if climate is None else climate_of(climate),
        metabolism=None if metabolism is None else metabolism_of(metabolism),
        provenance=provenance,
    )


Parts = Mapping[str, Any]  # name of a planet → what `sample_from_planet` takes for it


def samples_from_planets(
    planets: Iterable[Record],
    spectra: Parts | None = None,
    climates: Parts | None = None,
    metabolisms: Parts | None = None,
) -> list[Sample]:
    """Catalogue rows → samples with text, and whatever the mappings hold under a planet's name.

    Raises:
        InputError: as `sample_from_planet`, or a name that no row has.
    """
    rows = {str(_row(planet).get("pl_name")): planet for planet in planets}
    given = {"spectrum": spectra or {}, "climate": climates or {}, "metabolism": metabolisms or {}}
    for part, known in given.items():
        unknown = sorted(set(known) - set(rows))
        if unknown:
            raise InputError(f"{part}: expected names of planets among the records, found {', '.join(unknown)[:200]}")
    return [
        sample_from_planet(planet, **{part: known.get(name) for part, known in given.items()})
        for name, planet in rows.items()
    ]


def spectrum_of(source: Record | Path) -> Spectrum:
    """A spectrum's file (CSV, ECSV, FITS, IPAC, VOTable) as the contract's `Spectrum`."""
    return read_spectrum(_file(source))[0]


def climate_of(source: Record | Path | Sequence[Record | Path]) -> ClimateCube:
    """A climate file of any model as a `ClimateCube`: units, levels, longitudes and calendar normalised.

    Several files, as of archives that keep each variable apart, are taken together.
    """
    files = [source] if isinstance(source, Record | Path) else source
    return read_climate([_file(one) for one in files])


def metabolism_of(source: Record | Path | Sequence[Record]) -> MetabolicGraph:
    """A metabolic network: an SBML or BiGG file, or KEGG reaction and compound records taken together.

    Raises:
        InputError: records without a reaction among them, or of another database.
    """
    if isinstance(source, Record | Path):
        return read_metabolism(_file(source))
    entries = [
        record.payload["fields"] for record in source if isinstance(record.payload, dict) and "fields" in record.payload
    ]
    if len(entries) != len(source) or not entries:
        raise InputError(f"metabolism: expected KEGG records, found {sorted({record.source for record in source})}")
    library = library_from_entries(entries, "KEGG records")
    return graph_from_reactions(library.reactions, library)


def origin(source: Record | Path | Sequence[Record | Path]) -> Any:
    """Provenance and licence of what a part was made from, JSON-ready."""
    if isinstance(source, Record):
        return {**asdict(source.provenance), "source": source.source, "licence": asdict(source.licence)}
    if isinstance(source, Path):
        return {"file": source.name}
    return [origin(record) for record in source]


def _row(record: Record) -> dict[str, Any]:
    if not isinstance(record.payload, dict):
        raise InputError(f"{record.source} {record.identifier}: expected a catalogue row, found a file")
    return record.payload


def _file(source: Record | Path) -> Path:
    path = source.payload if isinstance(source, Record) else source
    if not isinstance(path, Path):
        raise InputError(f"{source.source} {source.identifier}: expected a file, found a row")  # type: ignore[union-attr]
    return path
