"""A datasheet (Gebru et al. 2021, doi:10.1145/3458723) of a data set, filled in from its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astrobio.dataset import store
from astrobio.dataset.croissant import licences
from astrobio.dataset.reader import read_manifest

TEXT = """# Datasheet: {worlds} simulated worlds (seed {seed})

Made by astrobio {version}; questions after Gebru et al. 2021 (doi:10.1145/3458723).

## Motivation
To train and compare models that say from text, spectrum, climate and metabolism together whether a world is inhabited,
where the truth is known because the world was simulated.

## Composition
A record is a world: observing record (text), spectrum, climate cube, candidate metabolism, state, physical truths.

| | |
|-|-|
| worlds | {worlds} |
| splits | {splits} |
| states | {states} |
| pieces | {pieces} |
| bytes a world | {sizes} |
| observation | {observation} |

No record describes a person. Nothing is missing on purpose; readers can hide modalities.
The label is the state that generated the world, never a rule on what is shown.

## Collection
Scenarios are drawn from sourced priors ({priors}); climates come from an emulator of general circulation models,
spectra from radiative transfer through that climate, exchanged gases from flux balance analysis of the organism.
Versions that decide the bits: {packages}. The same seed gives the same bytes on any number of workers.

## Splits
{rules}

Organisms split "by variant" have relatives in every split: no claim on unseen clades rests on them.

## Uses
Good for: comparing models on equal worlds, ablations, calibration, tests of instruments and depths.
Not good for: rates of inhabited worlds (states are equally frequent by construction), worlds outside the priors
(gas giants, hot planets, surfaces in reflection), or biology beyond the organisms named.

## Distribution and licences
{licences}

## Maintenance
Every piece has its SHA-256 in manifest.json. A damaged or missing piece is made again by the same `astrobio simulate`.
"""


def write_datasheet(root: Path) -> Path:
    """Write `DATASHEET.md` into a finished data set.

    Raises:
        InputError: no finished data set.
    """
    path = root / "DATASHEET.md"
    store.write_text(path, TEXT.format(**facts(root)))
    return path


def facts(root: Path) -> dict[str, Any]:
    """What the sheet says of this data set."""
    manifest = read_manifest(root)
    identity, rule = manifest["identity"], manifest["split_rule"]
    organisms = [f"- {guild}: {how}" for guild, how in sorted(rule["organisms"].items())]
    if "genomes" in rule:
        organisms += ["- genomes: " + ", ".join(f"{name} {count}" for name, count in rule["genomes"].items())]
    apart = [f"- {split}: {what}; otherwise like test" for split, what in rule.get("hold_out", {}).items()]
    return {
        "worlds": sum(manifest["splits"].values()), "seed": identity["seed"], "version": identity["version"],
        "splits": _counts(manifest["splits"]), "states": _counts(manifest["states"]),
        "pieces": ", ".join(manifest["modalities"]),
        "sizes": ", ".join(f"{name} {size:,.0f}" for name, size in manifest["bytes_per_world"].items()),
        "observation": ", ".join(f"{name} {value}" for name, value in identity["settings"].items() if name != "device"),
        "priors": manifest["priors"],
        "packages": ", ".join(f"{name} {version}" for name, version in identity["packages"].items()),
        "rules": "\n".join([f"- hosts: {rule['hosts']}", f"- climates: {rule['climate']}", *organisms, *apart]),
        "licences": "\n".join(f"- {line}" for line in licences(root)),
    }  # fmt: skip


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
