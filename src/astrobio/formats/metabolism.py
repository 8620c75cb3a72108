"""Metabolic models in files ↔ `MetabolicGraph`: SBML (any level cobra reads) and BiGG/cobra JSON, plain or gzipped."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from astrobio.batch import ELEMENTS, MetabolicGraph
from astrobio.batch.sample import GROWTH_RANGE
from astrobio.errors import InputError
from astrobio.formats.network import (
    PRODUCT,
    TWIN,
    UNLIMITED,
    Compound,
    Network,
    Reaction,
    close_boundaries,
    drop_unbalanced,
    graph_from_network,
    network_energies,
    parse_formula,
    random_walk_encodings,
    solve_fluxes,
)
from astrobio.formats.thermodynamics import Energy

__all__ = [
    "graph_from_cobra",
    "network_from_cobra",
    "quiet_cobra",
    "random_walk_encodings",
    "read_metabolism",
    "read_metabolism_counted",
    "write_metabolism",
]

LARGEST_FILE = 256 * 1024**2  # bytes after decompression; the largest published model (Recon3D) is 40 MB of SBML
GROWTH_NOTE = "growth_temperature_K"  # in a model's notes: where its organism grows fastest
UPTAKE_SLACK = 1e-5  # mmol/gDW/h beyond a known uptake, so that rounded traces of a metal don't limit growth
_EXTERNAL = re.compile(r"^(c_)?(e\d?|extra.*|external.*|medium.*)$", re.IGNORECASE)


def read_metabolism(path: str | Path, *, compute_energies: bool = True) -> MetabolicGraph:
    """Read a metabolic model; with an objective in the file, fluxes and gas exchange are found by pFBA.

    The model's notes may hold `guild` and `growth_temperature_K`.

    Args:
        path: SBML (.xml, .sbml) or BiGG/cobra JSON (.json), each also gzipped (.gz).
        compute_energies: let equilibrator, where installed, compute ΔG′ that the shipped table lacks (about 10 s).

    Raises:
        InputError: missing, empty, oversized or malformed file, XML with a document type, or no balanced reaction.
    """
    return read_metabolism_counted(path, compute_energies=compute_energies)[0]


def read_metabolism_counted(
    path: str | Path, *, compute_energies: bool = True
) -> tuple[MetabolicGraph, dict[str, int]]:
    """`read_metabolism`, and how many reactions were dropped as unbalanced or kept with an unknown formula."""
    path = Path(path)
    text = _read_text(path)
    model = _parse_json(path, text) if text.lstrip()[:1] == "{" else _parse_sbml(path, text)
    network, counts = drop_unbalanced(close_boundaries(_checked(path, model)))
    if not network.reactions:
        raise InputError(f"{path}: expected ≥1 balanced reaction, found {counts['unbalanced']} unbalanced ones only")
    energies = network_energies(network, compute=compute_energies)
    notes = model.notes if isinstance(model.notes, dict) else {}
    graph = graph_from_network(
        network, energies, solve_fluxes(network), organism=model.id or "", guild=str(notes.get("guild", "")),
        growth_temperature=_growth_temperature(path, notes.get(GROWTH_NOTE)),
    )  # fmt: skip
    return graph, counts


def _growth_temperature(path: Path, note: Any) -> float | None:
    """Kelvin from the model's notes."""
    if note is None:
        return None
    try:
        value = float(note)
    except (TypeError, ValueError):
        value = float("nan")
    low, high = GROWTH_RANGE
    if not low <= value <= high:
        raise InputError(f"{path}: notes: {GROWTH_NOTE}: expected kelvin within {low:g}–{high:g}, found {note!r}")
    return value


def graph_from_cobra(model: Any, *, dg: Mapping[str, Energy] | None = None) -> MetabolicGraph:
    """A `cobra.Model` → graph without its unbalanced reactions.

    Args:
        dg: reaction → (ΔG′°, sd) in kJ/mol; None looks them up.
    """
    network, _ = drop_unbalanced(close_boundaries(network_from_cobra(model)))
    energies = network_energies(network) if dg is None else dg
    return graph_from_network(network, energies, solve_fluxes(network), organism=model.id or "")


def network_from_cobra(model: Any) -> Network:
    """Plain data of a `cobra.Model`: boundary reactions of external compounds become exchange bounds."""
    from cobra.util.solver import linear_reaction_coefficients

    compounds = {}
    for metabolite in model.metabolites:
        place = metabolite.compartment or ""
        name = f"{place} {model.compartments.get(place, '')}"
        external = bool(_EXTERNAL.match(place) or "extracellular" in name.lower())
        charge = float(metabolite.charge) if metabolite.charge is not None else 0.0
        compounds[metabolite.id] = Compound(
            parse_formula(metabolite.formula), charge, external, _base_name(metabolite.id, place)
        )
    reactions, exchanges = {}, {}
    for reaction in model.reactions:
        stoichiometry = {m.id: float(c) for m, c in reaction.metabolites.items() if c}
        low, high = (float(np.clip(b, -UNLIMITED, UNLIMITED)) for b in reaction.bounds)
        if len(stoichiometry) == 1 and compounds[next(iter(stoichiometry))].external:
            ((name, coefficient),) = stoichiometry.items()
            exchanges[name] = (low, high) if coefficient < 0 else (-high, -low)
        elif stoichiometry:
            reactions[reaction.id] = Reaction(stoichiometry, low, high, _ec_number(reaction.annotation))
    objective = {r.id: float(c) for r, c in linear_reaction_coefficients(model).items() if r.id in reactions}
    return Network(compounds, reactions, exchanges, objective)


def _base_name(name: str, compartment: str) -> str:
    """`glc__D_c` in compartment c (or C_c) → `glc__D`; names without a compartment stay."""
    short = compartment.removeprefix("C_")
    return re.sub(r"\[\w+\]$", "", name.removesuffix(f"_{short}")) or name


def _ec_number(annotation: Mapping[str, Any]) -> str:
    found = annotation.get("ec-code", "")
    if isinstance(found, list):
        found = found[0] if found else ""
    return str(found)


def _read_text(path: Path) -> str:
    """Decompressed text of a model file, refused when missing, too large, not UTF-8, or with a document type."""
    if not path.is_file():
        raise InputError(f"{path}: expected a metabolic model (SBML or BiGG JSON), found no such file")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a readable file, found {_sentence(error)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text (SBML or BiGG JSON), found other bytes") from None
    if len(data) > LARGEST_FILE:
        raise InputError(f"{path}: expected at most {LARGEST_FILE >> 20} MiB once decompressed, found more")
    if not text.strip():
        raise InputError(f"{path}: expected a metabolic model (SBML or BiGG JSON), found an empty file")
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE) or "\x00" in text:
        raise InputError(f"{path}: expected SBML without document type or entities, found one; remove the declaration")
    return text


def _parse_sbml(path: Path, text: str) -> Any:
    if "<sbml" not in text:
        raise InputError(f"{path}: expected SBML or BiGG JSON, found neither an <sbml> element nor a JSON object")
    try:
        expat.ParserCreate().Parse(text, True)
    except expat.ExpatError as error:
        raise InputError(f"{path}: expected well-formed SBML, found {_sentence(error)}") from None
    from cobra.io import read_sbml_model

    with quiet_cobra():
        try:
            return read_sbml_model(text)
        except Exception as error:  # cobra raises many kinds on a broken model, none documented
            raise InputError(f"{path}: expected an SBML model that cobra can read, found {_sentence(error)}") from None


def _parse_json(path: Path, text: str) -> Any:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: expected BiGG JSON, found {_sentence(error)}") from None
    missing = [key for key in ("metabolites", "reactions") if not isinstance(data.get(key), list)]
    if missing:
        raise InputError(f"{path}: expected BiGG JSON with lists 'metabolites' and 'reactions', found no {missing}")
    from cobra.io import model_from_dict

    data.setdefault("genes", [])
    with quiet_cobra():
        try:
            return model_from_dict(data)
        except Exception as error:  # as above
            raise InputError(f"{path}: expected BiGG JSON that cobra can read, found {_sentence(error)}") from None


def _checked(path: Path, model: Any) -> Network:
    with quiet_cobra():
        network = network_from_cobra(model)
    if not network.compounds or not network.reactions:
        raise InputError(f"{path}: expected a model with compounds and reactions, found none")
    for name, reaction in network.reactions.items():
        numbers = [reaction.lower, reaction.upper, *reaction.stoichiometry.values()]
        if not np.isfinite(numbers).all():
            raise InputError(f"{path}: reaction {name}: expected finite bounds and coefficients, found {numbers}")
    return network


def _sentence(error: Exception) -> str:
    """First line of an error's text, short enough for one sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__} ({lines[0][:160]})" if lines else type(error).__name__


@contextmanager
def quiet_cobra() -> Iterator[None]:
    """cobra logs and warns about every oddity of a model; whatever matters here becomes an `InputError`."""
    logger = logging.getLogger("cobra")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def write_metabolism(graph: MetabolicGraph, path: str | Path) -> None:
    """Write a graph as BiGG/cobra JSON (.json, or .json.gz), whole or not at all.

    The medium is what the known fluxes take up, so that reading the file back finds the same exchange. Structural
    encodings and ΔG′ are not stored: reading computes them.
    """
    path = Path(path)
    if not path.name.endswith((".json", ".json.gz")):
        raise InputError(f"{path}: expected a name ending in .json or .json.gz, found {path.suffix or 'no ending'!r}")
    data = (json.dumps(_to_bigg(graph), indent=None, separators=(",", ":"), sort_keys=True) + "\n").encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    os.replace(temporary, path)


def _to_bigg(graph: MetabolicGraph) -> dict[str, Any]:
    flux = np.zeros(len(graph.reactions)) if graph.flux is None else graph.flux
    net = np.zeros(len(graph.compounds))
    np.add.at(net, graph.edge_compound, graph.stoichiometry * flux[graph.edge_reaction])
    metabolites, exchanges = [], []
    for index, name in enumerate(graph.compounds):
        external = bool(graph.external[index])
        place = "e" if external else name.rsplit("_", 1)[-1] if "_" in name else "c"
        metabolites.append(
            {
                "id": name, "name": name, "compartment": place, "charge": float(graph.charge[index]),
                "formula": _formula_text(graph.elements[index]),
            }
        )  # fmt: skip
        if external:
            free = name.endswith((PRODUCT, TWIN)) or graph.flux is None
            taken = -UNLIMITED if free else float(net[index] - UPTAKE_SLACK) if net[index] < 0 else 0.0
            exchanges.append(_bigg_reaction(f"EX_{name}", {name: -1.0}, taken, UNLIMITED))
    members: list[dict[str, float]] = [{} for _ in graph.reactions]
    for compound, reaction, value in zip(graph.edge_compound, graph.edge_reaction, graph.stoichiometry, strict=True):
        members[reaction][graph.compounds[compound]] = float(value)
    objective = _objective(graph, members, flux)
    reactions = [
        _bigg_reaction(
            name, members[i], float(graph.lower_bound[i]), float(graph.upper_bound[i]), graph.ec[i], i == objective
        )
        for i, name in enumerate(graph.reactions)
    ]
    return {
        "id": graph.organism, "version": "1", "notes": _notes(graph), "compartments": {"e": "extracellular"},
        "genes": [], "metabolites": metabolites, "reactions": reactions + exchanges,
    }  # fmt: skip


def _notes(graph: MetabolicGraph) -> dict[str, Any]:
    growth = graph.growth_temperature
    return {"guild": graph.guild} | ({} if growth is None else {GROWTH_NOTE: growth})


def _objective(graph: MetabolicGraph, members: list[dict[str, float]], flux: np.ndarray) -> int | None:
    """Index of the biomass reaction that runs fastest, or None where the graph has none."""
    growing = [i for i, entry in enumerate(members) if any(name.endswith(PRODUCT) for name in entry)]
    return max(growing, key=lambda i: (flux[i], -i), default=None)


def _bigg_reaction(
    name: str, stoichiometry: dict[str, float], lower: float, upper: float, ec: str = "", objective: bool = False
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": name, "name": name, "metabolites": stoichiometry, "lower_bound": lower, "upper_bound": upper,
        "gene_reaction_rule": "",
    }  # fmt: skip
    if ec:
        entry["annotation"] = {"ec-code": [ec]}
    if objective:
        entry["objective_coefficient"] = 1.0
    return entry


def _formula_text(elements: np.ndarray) -> str:
    """[E] atoms → a formula; fractions (biomass) as decimals, nothing where unknown."""
    if np.isnan(elements).any():
        return ""
    parts = []
    for element, count in zip(ELEMENTS, elements, strict=True):
        if count:
            parts.append(element + ("" if count == 1 else np.format_float_positional(count, trim="-")))
    return "".join(parts)
