"""Croissant metadata (MLCommons, version 1.0) of a data set, so that tools find and load its records.

Croissant has no term for Zarr arrays: spectra and climates are named as files, the world records as records.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astrobio import __version__
from astrobio.dataset import store
from astrobio.dataset.reader import read_manifest

RECORDS = "world-records"
FIELDS = {  # column of worlds/*.jsonl → (type, what it is)
    "world_id": ("TEXT", "identifier; names seed and index"),
    "split": ("TEXT", "train, validation, test or one out of distribution; no host star is in two"),
    "state": ("TEXT", "true state of the world, the label: it comes from the scenario that generated the world"),
    "context": ("TEXT", "observing record: what is known before the spectrum is read"),
    "assessment": ("TEXT", "the language target: state, verdict, gases, temperature and reason"),
    "metabolism": ("TEXT", "name of the candidate metabolism in organisms.npz"),
}
FILES = {
    "worlds": (RECORDS, "application/jsonlines", "worlds/*.jsonl", "a world a line"),
    "spectra": ("spectra", "application/x-zarr", "spectra/*.zarr/**", "wavelength, bin width, value, sigma"),
    "climate": ("climate", "application/x-zarr", "climate/*.zarr/**", "5-D cubes as 12-bit integers, a chunk a world"),
}


def write_croissant(root: Path) -> Path:
    """Write `croissant.json` into a finished data set.

    Raises:
        InputError: no finished data set.
    """
    path = root / "croissant.json"
    store.write_text(path, json.dumps(metadata(root).to_json(), indent=1, default=str) + "\n")
    return path


def metadata(root: Path) -> Any:
    """The data set as `mlcroissant.Metadata`."""
    import mlcroissant as mlc

    manifest = read_manifest(root)
    identity, worlds = manifest["identity"], sum(manifest["splits"].values())
    apart = "".join(f" {split}: {what}." for split, what in manifest["split_rule"].get("hold_out", {}).items())
    fields = [
        mlc.Field(
            id=f"worlds/{name}", name=name, description=text, data_types=[getattr(mlc.DataType, kind)],
            source=mlc.Source(file_set=RECORDS, extract=mlc.Extract(column=name)),
        )
        for name, (kind, text) in FIELDS.items()
    ]  # fmt: skip
    files: list[Any] = [
        mlc.FileSet(id=name, name=name, description=text, encoding_formats=[kind], includes=[glob])
        for piece, (name, kind, glob, text) in FILES.items()
        if piece in manifest["modalities"]
    ]
    when = datetime.fromtimestamp((root / "manifest.json").stat().st_mtime, UTC)
    return mlc.Metadata(
        name=f"astrobio worlds, {worlds} of seed {identity['seed']}",
        description=(
            f"{worlds} simulated worlds in six states: observing records, spectra, climates and candidate "
            "metabolisms, each with the truth that generated it. Hashes of all pieces, priors and versions: "
            f"manifest.json. What it is good for and what not: DATASHEET.md.{apart}"
        ),
        version=__version__, date_published=when, license=licences(root),
        cite_as=f"astrobio {__version__}, simulated worlds, seed {identity['seed']}", distribution=files,
        record_sets=[mlc.RecordSet(id="worlds", name="worlds", description="a record a world", fields=fields)],
    )  # fmt: skip


def licences(root: Path) -> list[Any]:
    """Licence of each ingredient, as the manifest has them."""
    return [f"{name}: {text}" for name, text in sorted(read_manifest(root)["licences"].items())]
