"""A picture of a data set, and its papers: Croissant metadata and datasheet.

Dimension letters: N worlds, L spectral points.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.progress import track
from rich.table import Table

from astrobio.batch import WORLD_STATES, Sample
from astrobio.dataset.croissant import write_croissant
from astrobio.dataset.datasheet import facts, write_datasheet
from astrobio.dataset.reader import WorldDataset, read_manifest, split_names
from astrobio.dataset.splits import SPLITS, claims
from astrobio.dataset.store import write_text
from astrobio.formats.graphs import load_graphs
from astrobio.worlds.biosphere import Organism

DRAWN = 600  # worlds that the picture is made of, evenly spaced
COLOURS = ("#9d0208", "#4a5568", "#f48c06", "#7b2cbf", "#2a9d8f", "#2d6a4f")  # of the states, in their order
GASES = ("CO2", "CH4", "O2", "CO")  # that separate the states


def describe_dataset(root: Path) -> Table:
    """Write `describe.png`, `organisms.csv`, `croissant.json` and `DATASHEET.md` into a data set and sum it up.

    Raises:
        InputError: no finished data set.
    """
    written = [draw(root, root / "describe.png"), write_croissant(root), write_datasheet(root)]
    found = facts(root)
    table = Table(title=f"{found['worlds']} worlds in {root}", title_justify="left", show_header=False)
    for name in ("splits", "states", "pieces", "sizes", "observation"):
        table.add_row(name, found[name])
    for guild, text in organism_rows(root).items():
        table.add_row(guild, text)
    table.add_row("written", ", ".join(path.name for path in written))
    return table


def organism_rows(root: Path) -> dict[str, str]:
    """Guild → organisms and clades in each split; writes one row a guild and clade to `organisms.csv`."""
    path = root / "organisms.npz"
    if not path.is_file():
        return {}
    organisms = [Organism(graph=graph, guild=graph.guild, **label) for graph, label in load_graphs(path)]
    rows = claims(organisms, read_manifest(root)["identity"]["seed"])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(root / "organisms.csv", text.getvalue())
    found = {}
    for guild in sorted({row["guild"] for row in rows}):
        own = [row for row in rows if row["guild"] == guild]
        parts = [f"{name} {sum(r[name] for r in own)} of {sum(r[name] > 0 for r in own)} clades" for name in SPLITS]
        found[guild] = f"{', '.join(parts)} ({own[0]['how']})"
    return found


def draw(root: Path, path: Path) -> Path:
    """Six panels: states by split, gases, spectra, climates, energy, metabolisms."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    splits = {name: WorldDataset(root, name) for name in split_names(root)}
    samples = _some(splits)
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    _states(axes[0, 0], splits)
    _gases(axes[0, 1], samples)
    _spectra(axes[0, 2], samples)
    _temperatures(axes[1, 0], samples)
    _energy(axes[1, 1], samples)
    _metabolisms(axes[1, 2], samples)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10)
    handles = [Line2D([], [], color=c, marker="o", ls="") for c in COLOURS]
    figure.legend(handles, WORLD_STATES, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _some(splits: dict[str, WorldDataset]) -> list[Sample]:
    """Up to `DRAWN` worlds, evenly from all splits."""
    places = [(worlds, index) for worlds in splits.values() for index in range(len(worlds))]
    chosen = np.linspace(0, len(places) - 1, min(DRAWN, len(places))).astype(int)
    return [places[i][0][places[i][1]] for i in track(chosen, "reading worlds", transient=True)]


def _by_state(samples: list[Sample]) -> dict[str, list[Sample]]:
    return {state: [s for s in samples if s.state == state] for state in WORLD_STATES}


def _physics(sample: Sample, name: str) -> float:
    """A physical truth, NaN where the world does not have it."""
    return (sample.physics or {}).get(name, np.nan)


def _states(axis: Any, splits: dict[str, WorldDataset]) -> None:
    left = np.zeros(len(splits))
    for state, colour in zip(WORLD_STATES, COLOURS, strict=True):
        counts = np.array([sum(w.record(i)["state"] == state for i in range(len(w))) for w in splits.values()])
        axis.barh(list(splits), counts, left=left, color=colour)
        left += counts
    axis.set(title="states by split", xlabel="worlds")


def _gases(axis: Any, samples: list[Sample]) -> None:
    for row, gas in enumerate(GASES):
        for place, (state, colour) in enumerate(zip(WORLD_STATES, COLOURS, strict=True)):
            values = [_physics(s, f"log10_{gas}") for s in samples if s.state == state]
            offset = row + 0.12 * (place - 2.5)
            axis.plot(values, np.full(len(values), offset), "|", color=colour, ms=5, alpha=0.4)
    axis.set_yticks(range(len(GASES)), GASES)
    axis.set(title="volume fractions", xlabel="log10, floored at −12")


def _spectra(axis: Any, samples: list[Sample]) -> None:
    for (state, group), colour in zip(_by_state(samples).items(), COLOURS, strict=True):
        shown = [s.spectrum for s in group if s.spectrum is not None and s.spectrum.kind == "transmission"]
        lengths = Counter(len(s.wavelength) for s in shown)
        if not lengths:
            continue
        alike = [s for s in shown if len(s.wavelength) == lengths.most_common(1)[0][0]]
        relative = np.array([s.value - np.average(s.value, weights=s.sigma**-2.0) for s in alike])
        axis.plot(alike[0].wavelength, _smooth(np.median(relative, axis=0)), color=colour, lw=1, label=state)
    axis.set_xscale("log")
    axis.set(title="median transmission spectra", xlabel="wavelength / µm", ylabel="depth − mean / ppm")


def _smooth(values: Float[np.ndarray, "L"], width: int = 5) -> Float[np.ndarray, "L"]:
    """Running mean, so that features show above the median's noise."""
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def _temperatures(axis: Any, samples: list[Sample]) -> None:
    for (_, group), colour in zip(_by_state(samples).items(), COLOURS, strict=True):
        points = [(s.provenance["truth"]["instellation"], _physics(s, "surface_temperature")) for s in group]
        axis.plot(*np.array(points).reshape(-1, 2).T, "o", color=colour, ms=2.5, alpha=0.6)
    axis.axhline(273.15, color="#a0aec0", lw=1, ls=":")
    axis.set(title="climate", xlabel="instellation / W m⁻²", ylabel="mean surface temperature / K")


def _energy(axis: Any, samples: list[Sample]) -> None:
    net = [_physics(s, "asr") - _physics(s, "olr") for s in samples]
    axis.hist(net, bins=40, color="#4a5568")
    axis.set(title=f"energy residual, median {np.median(net):.1f} W m⁻²", xlabel="ASR − OLR / W m⁻²", ylabel="worlds")


def _metabolisms(axis: Any, samples: list[Sample]) -> None:
    guilds = sorted({s.metabolism.guild for s in samples if s.metabolism is not None})
    left = np.zeros(len(guilds))
    for (_, group), colour in zip(_by_state(samples).items(), COLOURS, strict=True):
        found = Counter(s.metabolism.guild for s in group if s.metabolism is not None)
        counts = np.array([found[guild] for guild in guilds], dtype=float)
        axis.barh(guilds, counts, left=left, color=colour)
        left += counts
    axis.set(title="candidate metabolisms", xlabel="worlds")
