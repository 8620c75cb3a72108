"""The report's figures as inline SVG whose colours follow the page (light, dark, print).

Dimension letters: L spectral points, Y latitudes, X longitudes.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patheffects import withStroke

from astrobio.batch import ClimateCube, Spectrum

INK, MUTED, FAINT, LIFE, ROCK = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"  # stand-ins for page colours
_PAGE_COLOURS = {INK: "--ink", MUTED: "--muted", FAINT: "--line", LIFE: "--life", ROCK: "--rock"}
_STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5, "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED, "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED, "text.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.8, "xtick.major.width": 0.8, "ytick.major.width": 0.8, "axes.facecolor": "none",
    "figure.facecolor": "none", "axes.titlesize": 9.5, "axes.titlelocation": "left",
}  # fmt: skip
WIDTH = 5.6  # inches, 403 SVG units; about 1.5 pixels a unit on a desktop, 0.9 on a phone
_MAP = "cividis"  # even for colour-blind readers, and in grey print
_HALO: Any = [withStroke(linewidth=2.4, foreground="#00000040")]  # keeps white lines visible on the map's bright end
TICKS = (0.6, 0.8, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30)  # µm


@contextmanager
def _figure(height: float, rows: int = 1, ratios: tuple[float, ...] = (1.0,)) -> Iterator[tuple[Figure, Any]]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(rows, 1, gridspec_kw={"height_ratios": ratios}, squeeze=False)[:, 0]


def _svg(figure: Figure, name: str, description: str) -> str:
    """An accessible SVG element with the page's colours and identifiers of its own."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    body = buffer.getvalue()
    body = body[body.index("<svg") :]
    for stand_in, variable in _PAGE_COLOURS.items():
        body = re.sub(stand_in, f"var({variable})", body, flags=re.IGNORECASE)
    body = re.sub(r'\sid="(?![mphi][0-9a-f]{10}")[^"]*"', "", body)  # names of groups repeat from figure to figure
    body = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", body))
    body = re.sub(r"font: ([\d.]+)px '?sans-serif'?[^;\"]*", r"font: \1px var(--sans)", body)
    label = escape(description, quote=True)
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def spectrum_figure(spectrum: Spectrum, salience: np.ndarray | None) -> str:
    """The spectrum with its errors; below it, where the evidence for (up) and against life (down) comes from."""
    reflection = spectrum.kind == "reflection"
    with _figure(3.3, 2 if salience is not None else 1, (2.6, 1.0) if salience is not None else (1.0,)) as (
        figure,
        axes,
    ):
        _error_bars(axes[0], spectrum)
        axes[0].set_ylabel("albedo" if reflection else f"{_depth_name(spectrum)} (ppm)")
        if salience is not None:
            _salience_bars(axes[1], spectrum, salience)
            axes[0].tick_params(labelbottom=False)
        axes[-1].set_xlabel("wavelength (µm)")
        for ax in axes:
            _wavelength_axis(ax, spectrum)
        low, high = spectrum.wavelength[[0, -1]]
        return _svg(
            figure,
            "spectrum",
            f"{spectrum.kind.capitalize()} spectrum of {len(spectrum.value)} points from {low:.2f} to {high:.2f} µm"
            + (", with the weight of each wavelength in the answer below it." if salience is not None else "."),
        )


def _depth_name(spectrum: Spectrum) -> str:
    return "eclipse depth" if spectrum.kind == "emission" else "transit depth"


def _error_bars(ax: Axes, spectrum: Spectrum) -> None:
    x, y, s = spectrum.wavelength, spectrum.value, spectrum.sigma
    segments = [[(a, b - e), (a, b + e)] for a, b, e in zip(x, y, s, strict=True)]
    ax.add_collection(LineCollection(segments, colors=FAINT, linewidths=1.0))
    ax.plot(x, y, ".", color=INK, markersize=3.2)
    low, high = np.percentile(y - s, 1), np.percentile(y + s, 99)  # a wild point must not flatten the rest
    ax.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))


def _salience_bars(ax: Axes, spectrum: Spectrum, salience: np.ndarray) -> None:
    edges = np.array([spectrum.wavelength - spectrum.bin_width / 2, spectrum.wavelength + spectrum.bin_width / 2])
    colours = [LIFE if value > 0 else ROCK for value in salience]
    ax.bar(edges[0], salience, width=edges[1] - edges[0], align="edge", color=colours, linewidth=0)
    ax.axhline(0, color=FAINT, linewidth=0.8)
    limit = max(float(np.abs(salience).max()), 1e-6) * 1.15
    ax.set_ylim(-limit, limit)
    ax.set_yticks([-limit * 0.6, limit * 0.6], ["against", "for life"])
    ax.tick_params(axis="y", length=0)


def _wavelength_axis(ax: Axes, spectrum: Spectrum) -> None:
    low, high = spectrum.wavelength[0], spectrum.wavelength[-1]
    ax.set_xscale("log")
    ax.set_xlim(low / 1.03, high * 1.03)
    shown = [tick for tick in TICKS if low / 1.03 <= tick <= high * 1.03]
    ax.set_xticks(shown, [f"{tick:g}" for tick in shown])
    ax.set_xticks([], minor=True)


def climate_figure(cube: ClimateCube, salience: np.ndarray | None) -> str:
    """Map of surface temperature, its 273 K line and contours around what mattered most."""
    temperature = cube.fields["surface_temperature"].mean(axis=(0, 1))
    low, high = float(temperature.min()), float(temperature.max())
    with _figure(2.9) as (figure, axes):
        ax = axes[0]
        ax.set(xlim=(-180, 180), ylim=(-90, 90))
        if low < 273.15 < high:
            ice = _line(ax, cube, temperature, 273.15, "solid")
            ax.clabel(ice, fmt="273 K", fontsize=8)
        if salience is not None and np.any(salience):
            _line(ax, cube, np.abs(salience), float(np.quantile(np.abs(salience), 0.9)), "dotted")
        _degrees(ax)
        svg = _svg(
            figure,
            "climate",
            f"Map of surface temperature, {low:.0f} to {high:.0f} K; dotted lines surround the tenth of the grid that "
            "mattered most.",
        )
        return _with_picture(svg, figure, ax, _picture(_even_rows(temperature, cube.latitude), low, high))


def _line(ax: Axes, cube: ClimateCube, field: np.ndarray, level: float, style: str) -> Any:
    lines = ax.contour(cube.longitude, cube.latitude, field, [level], colors="white", linewidths=1.2, linestyles=style)
    lines.set_path_effects(_HALO)
    return lines


def _degrees(ax: Axes) -> None:
    east, north = range(-180, 181, 60), range(-60, 61, 30)
    ax.set_xticks(east, [f"{abs(x)}°{'WE'[x > 0] if x % 180 else ''}" for x in east])
    ax.set_yticks(north, [f"{abs(y)}°{'SN'[y > 0] if y else ''}" for y in north])
    for side in ax.spines.values():
        side.set_visible(False)


def _even_rows(field: np.ndarray, latitude: np.ndarray, rows: int = 90) -> np.ndarray:
    """[Y, X] on any latitudes → [rows, X] evenly spaced, north first."""
    even = np.linspace(90 - 90 / rows, -90 + 90 / rows, rows)
    return np.stack([np.interp(even, latitude, column) for column in field.T], axis=1)


def _picture(field: np.ndarray, low: float, high: float) -> str:
    buffer = io.BytesIO()
    imsave(buffer, field, vmin=low, vmax=max(high, low + 1e-6), cmap=_MAP, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _with_picture(svg: str, figure: Figure, ax: Axes, picture: str) -> str:
    """Put a picture beneath everything drawn in an axis (matplotlib would embed it several times larger)."""
    width, height = (72 * size for size in figure.get_size_inches())
    box = ax.get_position()
    x, y, w, h = box.x0 * width, (1 - box.y1) * height, box.width * width, box.height * height
    element = (
        f'<image x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{picture}"/>'
    )
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + element + svg[start:]


def colour_ramp(stops: int = 9) -> str:
    """The map's colours as CSS gradient stops."""
    colours = matplotlib.colormaps[_MAP](np.linspace(0, 1, stops))
    return ", ".join("#" + "".join(f"{round(255 * c):02x}" for c in colour[:3]) for colour in colours)
