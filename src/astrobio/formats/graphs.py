"""Many `MetabolicGraph`s in one compact file: an npz of arrays laid end to end, with names and labels as JSON."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astrobio.batch import MetabolicGraph
from astrobio.errors import InputError

_PER_COMPOUND = ("elements", "charge", "external")
_PER_REACTION = ("dg_prime", "dg_sd", "reversible", "lower_bound", "upper_bound")
_PER_EDGE = ("edge_compound", "edge_reaction", "stoichiometry")
_STORED = {  # element type on disk; encodings are probabilities, 5e-4 of their value is lost
    "elements": np.float64, "charge": np.float32, "external": np.bool_, "dg_prime": np.float32, "dg_sd": np.float32,
    "reversible": np.bool_, "lower_bound": np.float32, "upper_bound": np.float32, "edge_compound": np.int32,
    "edge_reaction": np.int32, "stoichiometry": np.float64, "encodings": np.float16, "flux": np.float64,
}  # fmt: skip
_LOADED = {np.float16: np.float32, np.float32: np.float64, np.int32: np.int64}
FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # of the archive's entries, so that equal graphs give equal bytes


def save_graphs(path: Path, graphs: Sequence[MetabolicGraph], labels: Sequence[dict[str, Any]]) -> None:
    """Write graphs, each with a JSON-able label, whole or not at all; equal graphs give equal bytes."""
    vocabulary = sorted({name for graph in graphs for name in (*graph.compounds, *graph.reactions, *graph.ec)})
    code = {name: index for index, name in enumerate(vocabulary)}
    arrays: dict[str, np.ndarray] = {
        "names": np.concatenate([[code[n] for n in (*g.compounds, *g.reactions, *g.ec)] for g in graphs]).astype("i4")
    }
    for name, kind in _STORED.items():
        parts = [np.zeros(len(g.reactions)) if getattr(g, name) is None else getattr(g, name) for g in graphs]
        arrays[name] = np.concatenate(parts).astype(kind)
    entries = [
        {
            "sizes": [len(g.compounds), len(g.reactions), len(g.stoichiometry)], "exchange": g.exchange,
            "solved": g.flux is not None, "organism": g.organism, "guild": g.guild,
            "growth_temperature": g.growth_temperature, "label": label,
        }
        for g, label in zip(graphs, labels, strict=True)
    ]  # fmt: skip
    header = json.dumps({"vocabulary": vocabulary, "graphs": entries}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        archive.writestr(zipfile.ZipInfo("header.json", FIXED_TIME), header, zipfile.ZIP_DEFLATED)
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy", FIXED_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, arrays[name], allow_pickle=False)
    os.replace(temporary, path)


def load_graphs(path: Path) -> list[tuple[MetabolicGraph, dict[str, Any]]]:
    """Read what `save_graphs` wrote: graphs with their labels, in order."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in (*_STORED, "names")}
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read("header.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected a file of metabolic graphs, found {type(error).__name__}") from None
    arrays = {name: values.astype(_LOADED.get(values.dtype.type, values.dtype)) for name, values in arrays.items()}
    names = np.array(header["vocabulary"], dtype=object)[arrays["names"]]
    at = np.zeros(4, dtype=np.int64)  # where the next graph's names, compounds, reactions and edges begin
    graphs = []
    for entry in header["graphs"]:
        c, r, m = entry["sizes"]
        graphs.append((_graph(entry, arrays, names, at), entry["label"]))
        at += (c + 2 * r, c, r, m)
    return graphs


def _graph(entry: dict[str, Any], arrays: dict[str, np.ndarray], names: np.ndarray, at: np.ndarray) -> MetabolicGraph:
    c, r, m = entry["sizes"]
    name, compound, reaction, edge = (int(value) for value in at)
    fields: dict[str, Any] = {key: arrays[key][compound : compound + c] for key in _PER_COMPOUND}
    fields |= {key: arrays[key][reaction : reaction + r] for key in _PER_REACTION}
    fields |= {key: arrays[key][edge : edge + m] for key in _PER_EDGE}
    node = compound + reaction
    return MetabolicGraph(
        compounds=tuple(names[name : name + c]),
        reactions=tuple(names[name + c : name + c + r]),
        ec=tuple(names[name + c + r : name + c + 2 * r]),
        encodings=arrays["encodings"][node : node + c + r],
        exchange=entry["exchange"],
        flux=arrays["flux"][reaction : reaction + r] if entry["solved"] else None,
        organism=entry["organism"],
        guild=entry["guild"],
        growth_temperature=entry.get("growth_temperature"),
        **fields,
    )
