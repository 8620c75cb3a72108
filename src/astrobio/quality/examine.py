"""One file → `FileReport`: intake, then the checks of its kind."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astrobio.errors import InputError
from astrobio.quality.checks import check_metabolism, check_spectrum, check_spectrum_columns, named
from astrobio.quality.findings import FileReport, RowReport
from astrobio.quality.intake import Refused, Taken, digest, take
from astrobio.quality.rules import finding

CUBE_LIMIT = 64 * 2**20  # bytes of a climate file that is also read as a cube, whole
GRAPH_REACTIONS = 4000  # reactions of a model that is also read as a graph
DIALECTS = {"timestep_of_year": "ExoPlaSim"}  # standard_name of a dialect's time axis → model
FEW_NUMBERS = 100  # KO or EC numbers below which a genome is too incomplete
MISMATCH_SHOWN = 1000  # rows of a genome table whose reasons are kept


@dataclass(frozen=True)
class Options:
    """What the user may set.

    Args:
        strict: give no allowance to dialects that an adapter reads. units: for spectra without, as `read_spectrum`.
    """

    strict: bool = False
    units: str | None = None


def examine(path: str | Path, options: Options = Options()) -> FileReport:
    """Everything the checks say about one file; a bad file is a finding, never an exception."""
    source, started = Path(path), time.perf_counter()
    report = FileReport(str(path))
    try:
        with tempfile.TemporaryDirectory(prefix="astrobio-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whatever matters in a file becomes a finding
            if source.is_file() or source.is_dir():
                report.sha256, report.size = digest(source)
            taken = take(source, Path(folder))
            report.kind = taken.kind
            if taken.encoding == "latin-1":
                report.findings.append(finding("FILE-008", source.name, "expected UTF-8, found other bytes"))
            _CHECKS[taken.kind](taken, report, options)
    except Refused as refusal:
        report.findings.append(finding(refusal.rule, refusal.location, refusal.message))
    except OSError as error:
        report.findings.append(finding("FILE-001", source.name, f"expected a readable file, found {error}"))
    except MemoryError:
        report.findings.append(finding("FILE-007", source.name, "expected to fit into memory, found it does not"))
    except Exception as error:  # the field's readers raise anything on a broken file
        message = f"expected a file that its readers can take, found {type(error).__name__}: {error}"
        report.findings.append(finding("FILE-003", source.name, message))
    report.seconds = round(time.perf_counter() - started, 3)
    return report


def _climate(taken: Taken, report: FileReport, options: Options) -> None:
    from astrobio.quality.fields import check_fields, guard_declared, open_lazily

    try:
        data = open_lazily(taken.path)
    except Exception as error:  # netCDF, HDF5 and Zarr raise whatever a broken file provokes
        raise Refused("FILE-003", taken.path.name, f"expected a whole file, found {error}") from error
    with data:
        report.facts["declared_bytes"] = guard_declared(taken.path, data, report.size)
        dialect = next(
            (DIALECTS[s] for v in data.variables.values() if (s := v.attrs.get("standard_name")) in DIALECTS), ""
        )
        conventions = str(data.attrs.get("Conventions", ""))
        try:
            found, facts = check_fields(taken.path, data)
        except Exception as error:  # as above, when values are first read
            raise Refused("FILE-003", taken.path.name, f"expected readable values, found {error}") from error
    report.findings += found
    report.facts |= facts
    _conventions(taken, report, conventions, "" if options.strict else dialect)
    _as_cube(taken, report)


def _conventions(taken: Taken, report: FileReport, conventions: str, dialect: str) -> None:
    from astrobio.quality.validators import check_conventions

    if taken.path.is_dir():
        message = "expected netCDF, found a Zarr store: the CF checker reads netCDF only"
        report.findings.append(finding("FILE-010", "compliance-checker", message))
        return
    found, tools = check_conventions(taken.path, conventions)
    if dialect and any(f.rule == "CF-1" for f in found):
        count = sum(f.count for f in found if f.rule == "CF-1")
        message = f"{dialect} output: {count} breaches of CF are known and repaired by its reader; --strict counts them"
        report.findings.append(finding("CF-4", dialect, message))
        found = [
            finding("CF-1", f.location, f.message, count=f.count, severity="warning") if f.rule == "CF-1" else f
            for f in found
        ]
    report.findings += found
    report.checks += tools


def _as_cube(taken: Taken, report: FileReport) -> None:
    from astrobio.formats.climate import load_climate

    if report.facts.get("declared_bytes", 0) > CUBE_LIMIT:
        report.facts["cube"] = "not read: larger than 64 MiB"
        return
    try:
        cube, notes = load_climate(taken.path)
    except InputError as error:
        report.findings.append(finding("CLIM-011", "file", _own_words(error, taken.path)))
        return
    except Exception as error:  # the same libraries, on files that opened but are broken inside
        raise Refused("FILE-003", taken.path.name, f"expected readable values, found {error}") from error
    report.facts["cube"] = {"shape": list(cube.shape), "time_kind": cube.time_kind, "variables": notes.get("variables")}


def _own_words(error: InputError, path: Path) -> str:
    """An error without the (possibly temporary) path, which the report names already."""
    return str(error).removeprefix(f"{path}: ").removeprefix(f"{path}, ")


def _spectrum(taken: Taken, report: FileReport, options: Options) -> None:
    from astrobio.formats.spectra import read_spectrum
    from astrobio.formats.spectra_table import read_tables

    try:
        tables = read_tables(taken.path)
    except InputError as error:
        report.findings.append(finding("SPEC-010", "table", _own_words(error, taken.path)))
        return
    for table in tables[:1]:
        _raw_rows(taken.path, table, report)
    try:
        spectrum, notes = read_spectrum(taken.path, units=options.units)
    except InputError as error:
        rule = "SPEC-007" if "expected a unit" in str(error) else "SPEC-010"
        report.findings.append(finding(rule, "table", _own_words(error, taken.path)))
        return
    report.findings += check_spectrum(spectrum)
    report.facts |= {
        "points": len(spectrum.wavelength), "kind": spectrum.kind,
        "wavelength_um": [round(float(spectrum.wavelength[i]), 5) for i in (0, -1)],
        "median_value": round(float(np.median(spectrum.value)), 4),
        "median_sigma": round(float(np.median(spectrum.sigma)), 4),
        "dropped": notes.get("dropped"), "columns": notes.get("columns"),
    }  # fmt: skip


def _raw_rows(path: Path, table: Any, report: FileReport) -> None:
    """The rows of a table as they are, before the reader drops or sorts any."""
    from astrobio.formats.spectra import role_of

    roles: dict[str, Any] = {}
    for column in table.columns:
        roles.setdefault(role_of(column.name) or column.name.lower(), column)
    value = next((roles[r] for r in ("albedo", "depth", "ratio") if r in roles), None)
    if "axis" not in roles or value is None or "sigma" not in roles:
        return
    try:
        wavelength, depth, sigma = (c.numbers(path) for c in (roles["axis"], value, roles["sigma"]))
        order = roles["order"].numbers(path) if "order" in roles else None
    except InputError:
        return  # the reader says it better
    found, reasons = check_spectrum_columns(wavelength, depth, sigma, order)
    report.findings += found
    report.rows = RowReport(len(wavelength), reasons)


def _metabolism(taken: Taken, report: FileReport, options: Options) -> None:
    from astrobio.quality.validators import check_model, check_sbml, read_cobra_json, tool

    with open(taken.path, "rb") as stream:
        is_json = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    if is_json:
        found, model = read_cobra_json(taken.path)
        tools = [tool("cobra")]
    else:
        found, model, tools = check_sbml(taken.path)
    report.checks += tools
    report.findings += found
    if model is None:
        return
    found, facts, tools = check_model(model)
    report.findings += found
    report.facts |= facts
    report.checks += tools
    _as_graph(taken, report, {"MET-001", "MET-002", "MET-003"} | {f.rule for f in found})


def _as_graph(taken: Taken, report: FileReport, known: set[str]) -> None:
    from astrobio.formats.metabolism import read_metabolism

    if report.facts.get("reactions", 0) > GRAPH_REACTIONS:
        report.facts["graph"] = f"not read: more than {GRAPH_REACTIONS} reactions"
        return
    name = {True: ".json", False: ".xml"}[taken.path.read_bytes()[:64].lstrip().startswith(b"{")]
    path = taken.path
    if path.suffix.lower() != name:
        path = path.with_name("model" + name) if path.parent.name.startswith("astrobio-") else path
        if path != taken.path:
            taken.path.rename(path)
    try:
        graph = read_metabolism(path, compute_energies=False)
    except InputError as error:
        report.findings.append(finding("MET-010", "model", _own_words(error, path)))
        return
    except Exception as error:  # optlang and cobra raise bare exceptions on degenerate models
        report.findings.append(finding("MET-010", "model", f"expected a graph, found {type(error).__name__}: {error}"))
        return
    report.findings += [f for f in check_metabolism(graph) if f.rule not in known]
    report.facts["graph"] = {
        "compounds": len(graph.compounds), "reactions": len(graph.reactions), "edges": len(graph.stoichiometry),
        "exchange": graph.exchange,
    }  # fmt: skip


def _catalogue(taken: Taken, report: FileReport, options: Options) -> None:
    from astrobio.quality.catalogue import check_catalogue, read_catalogue

    table = read_catalogue(taken.path, taken.encoding)
    found, report.rows, facts, tools = check_catalogue(table)
    report.findings += found
    report.facts |= facts
    report.checks += tools


def _votable(taken: Taken, report: FileReport, options: Options) -> None:
    import pandas as pd

    from astrobio.quality.catalogue import CATALOGUE_COLUMNS, Table, check_catalogue
    from astrobio.quality.intake import is_spectral
    from astrobio.quality.validators import check_votable

    found, tables, tools = check_votable(taken.path)
    report.findings += found
    report.checks += tools
    report.facts |= {"tables": len(tables), "rows": sum(len(t.array) for t in tables)}
    for table in tables[:1]:
        names = [field.name or field.ID or "" for field in table.fields]
        report.facts["fields"] = names[:50]
        if CATALOGUE_COLUMNS & {n.lower() for n in names}:
            columns = {n: _as_text(table.array[field.ID]) for n, field in zip(names, table.fields, strict=True)}
            frame = pd.DataFrame(columns, dtype=str)
            more, report.rows, facts, tools = check_catalogue(Table(list(frame.columns), frame))
            report.findings += more
            report.facts |= facts
            report.checks += tools
        elif is_spectral(names):
            _spectrum(taken, report, options)


def _as_text(column: Any) -> list[str]:
    return ["" if value is np.ma.masked or value is None else str(value) for value in np.ma.asarray(column).tolist()]


def _kegg(taken: Taken, report: FileReport, options: Options) -> None:
    from astrobio.formats.kegg import parse_equation, read_kegg_entries

    try:
        entries = read_kegg_entries(taken.path)
    except InputError as error:
        report.findings.append(finding("KEGG-1", "entry", _own_words(error, taken.path), severity="fatal"))
        return
    names = [" ".join(e["ENTRY"]).removeprefix("EC ").split(maxsplit=1)[0] for e in entries]
    copies = [name for name, count in Counter(names).items() if count > 1]
    if copies:
        report.findings.append(finding("KEGG-1", named(copies), "expected each entry once", count=len(copies)))
    broken = [
        n
        for n, e in zip(names, entries, strict=True)
        if "EQUATION" in e and not parse_equation(" ".join(e["EQUATION"]))
    ]
    if broken:
        message = "expected equations in numbers of KEGG compounds, found polymers or other terms"
        report.findings.append(finding("KEGG-1", named(broken), message, count=len(broken), severity="warning"))
    report.facts |= {"entries": len(entries), "fields": sorted({k for e in entries for k in e})[:40]}


def _genomes(taken: Taken, report: FileReport, options: Options) -> None:
    from astrobio.formats.kegg import read_genome_table

    seen: Counter[str] = Counter()
    few, sizes, reasons = [], [], {}
    try:
        for row, (genome, numbers) in enumerate(read_genome_table(taken.path), 1):
            seen[genome] += 1
            sizes.append(len(numbers))
            if seen[genome] > 1 and len(reasons) < MISMATCH_SHOWN:
                reasons[row] = [f"KEGG-2 {genome}: named twice"]
            if len(numbers) < FEW_NUMBERS:
                few.append(genome)
    except InputError as error:
        report.findings.append(finding("KEGG-2", "table", _own_words(error, taken.path), severity="fatal"))
        return
    copies = [genome for genome, count in seen.items() if count > 1]
    if copies:
        report.findings.append(finding("KEGG-2", named(copies), "expected each genome once", count=len(copies)))
    if few:
        message = f"expected ≥ {FEW_NUMBERS} numbers, found fewer"
        report.findings.append(finding("KEGG-3", named(few), message, count=len(few)))
    report.rows = RowReport(len(sizes), reasons)
    report.facts |= {"genomes": len(sizes), "median_numbers": float(np.median(sizes)) if sizes else 0}


_CHECKS = {
    "climate": _climate,
    "spectrum": _spectrum,
    "metabolism": _metabolism,
    "catalogue": _catalogue,
    "votable": _votable,
    "kegg": _kegg,
    "genomes": _genomes,
}
