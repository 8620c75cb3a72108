"""How much of the state's accuracy photon noise takes: gases as an ideal observer would retrieve them, told to trees.

    python benchmarks/information_limit.py --data DIR --work WORK --workers 16

Every world is rebuilt as the data set made it. On its limb's depth comes the noise of its `noise_seed` at each of
`instrument.DEPTHS`, and from that the gases that have an opacity are retrieved by optimal estimation (Rodgers 2000,
Inverse Methods for Atmospheric Sounding, eq. 5.36): log10 volume fractions under a Gaussian prior, the training worlds'
mean and variance S, with a temperature offset of the limb and an offset of all bins (the planet's radius) marginalised.
The Fisher matrix F = Jᵀ Σ⁻¹ J of noise Σ and derivatives J gives the errors (F + S⁻¹)^−½: at the truth the forecast of
Cramér and Rao (Tegmark, Taylor & Heavens 1997, arXiv:astro-ph/9603021), at the estimate what the observer states.
Boosted trees learn the state from one of

    truth       all hidden truths: the oracle of `worlds_20k_trees.py`
    everything  these, and hand-made features of text, climate and metabolism
    measurable  the same features; truths of star, planet and limb; the exact gases
    DEPTH       the same but for the gases: their estimates and the stated errors
    blind       the same after a million times the noise of `deep`: a control, which must not beat the next
    no gases    the same without any

To `measurable` is lost what these gases do not show (fluxes, N2O, free energy), from there to DEPTH what noise takes.
Clouds, haze, spots and the shapes of all profiles are known to the observer, whose forward model is the truth's: the
estimates are better than real ones could be, optimistic. Trees, though, need not be the best judges of them.

Estimates drawn around the truth by the truth's own Fisher matrix would not do: it depends on the abundances, so the
sizes of errors, and of steps from the prior's mean, tell without noise of gases that nobody can see. Trained on 1,400
worlds, trees were then right in 84% of the control, in 59% of `no gases`. Hence also the rounding.

Dimension letters: N worlds, G gases, L layers, W native wavelengths, B bins, Q parameters (gases, then temperature).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress
from scipy import sparse

import machine
from astrobio import units
from astrobio.batch.statistics import MIXING_RATIO_FLOOR
from astrobio.dataset.build import Plan, pools_of
from astrobio.dataset.holdout import HoldOuts
from astrobio.dataset.reader import WorldDataset, read_manifest
from astrobio.dataset.splits import SPLITS
from astrobio.errors import InputError
from astrobio.evaluation.baselines import Table, boosted_trees
from astrobio.evaluation.metrics import macro_accuracy_interval, paired_difference
from astrobio.training.checkpoint import write_json
from astrobio.worlds import instrument, spectrum
from astrobio.worlds.atmosphere import MOLAR_MASS
from astrobio.worlds.climate import one_thread
from astrobio.worlds.opacity import OpacityTables, opacity_tables
from astrobio.worlds.scenario import Scenario
from astrobio.worlds.simulate import SimulationSettings, draw_world, world_climate
from astrobio.worlds.spectrum import FILL_GAS, Limb
from worlds_20k_trees import View, save_arrays

TRUTHS = {  # gas → its log10 volume fraction among the hidden truths; water's at the top of the limb, which scales it
    "H2O": "limb_water", "CO2": "log10_CO2", "CH4": "log10_CH4", "O2": "log10_O2", "O3": "log10_O3", "CO": "log10_CO",
}  # fmt: skip
KNOWN = (  # truths that need no spectrum: of the star, the planet, and the limb, which the climate holds
    "teff", "stellar_radius", "nuv", "fuv", "age", "j_mag", "mass", "radius", "gravity", "period", "instellation",
    "zone_position", "transit_hours", "pressure", "cloud_top_pa", "cloud_cover", "limb_temperature",
)  # fmt: skip
SEEN = ("text", "climate", "metabolism")  # modalities whose hand-made features the trees get
FORMAT = 1  # of the chunks; raised when what is in them changes
CHUNK = 32  # worlds a file: some ten seconds of work
FLOOR = float(np.log10(MIXING_RATIO_FLOOR))
LIMITS = (FLOOR - 2.0, 0.0)  # log10 volume fraction of an estimate: a gas is at most all of the air
SAME = 1e-3  # dex within which a rebuilt world has the gases of the data set
TEMPERATURE_SPREAD = 30.0  # K, prior of the limb's offset; design choice, wider than climate models differ
TEMPERATURE_STEP = 5.0  # K, over which the offset's effect is taken
MASS_STEP = 0.05  # of the molecular mass, over which its effect is taken
BLIND = 1e6  # factor on the noise of the control
STEPS = 40  # of a climb at most
DAMPING = (1.0, 10.0, 1e-4, 1e8)  # γ of eq. 5.36: at first, factor on failure, inverse on success, least and greatest
GAIN = 0.01  # of twice the log posterior: less ends a climb
UNSEEN = 0.5  # prior spreads of error, from which more of a gas may be a second mode
RAISED = 1.5  # prior spreads above the mean, where the search for that begins
ROUNDED = (0.02, 0.1)  # dex to which estimates, and the logarithms of their errors, are told to trees
LEVELS = {**{name: (depth, 1.0) for name, depth in instrument.DEPTHS.items()}, "blind": (instrument.DEEP, BLIND)}
SYSTEMS = ("truth", "everything", "measurable", *LEVELS, "no gases")
LOSSES = (
    ("truth", "measurable"), ("everything", "measurable"), *(("measurable", name) for name in instrument.DEPTHS),
    ("no gases", "blind"),
)  # fmt: skip

worlds_of = lru_cache(maxsize=1)(WorldDataset)  # a process gets splits one after the other, and each is large
Forward = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # [Q] → depth [B] and its derivatives [Q, B], ppm


class Prior(NamedTuple):
    """Gaussian, independent: mean and standard deviation of each parameter, [Q]."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of_worlds(cls, worlds: WorldDataset) -> Prior:
        """log10 volume fractions of all worlds, floored at 1e-12, and the temperature offset in K."""
        truths = [worlds.record(index)["provenance"]["truth"] for index in range(len(worlds))]
        found = np.array([[max(truth[name], FLOOR) for name in TRUTHS.values()] for truth in truths])
        return cls(np.append(found.mean(axis=0), 0.0), np.append(found.std(axis=0), TEMPERATURE_SPREAD))


@dataclass(frozen=True, eq=False)
class Column:
    """A limb whose gases can be scaled, with all else held: structure, clouds, haze, scattering.

    Args:
        gases: [G, L W] slant optical depth of each gas per unit of its volume fraction. rest: [L W] of all else.
        rings: [L] ppm of the star that each ring covers, times the share that no cloud blocks.
        opaque: ppm of planet and atmosphere, were both opaque. binning: [B, W].
    """

    gases: np.ndarray
    rest: np.ndarray
    rings: np.ndarray
    opaque: float
    binning: sparse.csr_array

    @classmethod
    def of(cls, scenario: Scenario, limb: Limb, tables: OpacityTables, binning: sparse.csr_array) -> Column:
        """The optical depths that `spectrum.transit_depth` sums, one by one."""
        with spectrum.quiet_taurex():
            parts = spectrum.taurex_parts(scenario, limb, tables)
            model = spectrum.LimbModel(limb, tables, scenario.haze, **parts)
            model.model()
        bounds = model.planet.get_planet_radius(unit="m") + model.altitude_boundaries  # [L + 1] m
        tangent = (bounds[1:] + bounds[:-1]) / 2
        paths = (spectrum.chord_lengths(bounds, tangent) * model.densityProfile).astype(np.float32)  # molecules/m²
        rings = 2.0 * tangent * np.diff(bounds) / model.star.radius**2 / units.PPM
        solid = bounds[0] ** 2 / model.star.radius**2 / units.PPM
        others = sum(np.asarray(part.sigma_xsec, dtype=np.float32)[:, ::-1] for part in model.contribution_list[1:])
        absorbed = _side_by_side(tables).cross_section(limb.temperature, limb.pressure, np.ones((1, len(rings))))
        shapes = np.array([limb.mixing[gas] / 10.0**x for gas, x in abundances(scenario, limb).items()])  # [G, L]
        sections = absorbed.reshape(len(rings), len(shapes), -1) * (1e-4 * shapes.T[:, :, None])  # cm² → m²
        gases = [paths @ section.astype(np.float32) for section in sections.swapaxes(0, 1)]  # each [L, W]
        stacked = np.reshape(gases, (len(shapes), -1))
        return cls(stacked, np.ravel(paths @ others), rings * (1.0 - limb.cover), float(solid + rings.sum()), binning)

    def passed(self, x: np.ndarray) -> np.ndarray:
        """[L, W] share of the light that passes gases of log10 volume fractions [G]."""
        tau = (10.0**x).astype(np.float32) @ self.gases + self.rest
        return np.exp(-tau).reshape(len(self.rings), -1)

    def depth(self, passed: np.ndarray) -> np.ndarray:
        """[B] ppm."""
        return self.binning @ (self.opaque - self.rings @ passed.astype(np.float64))

    def derivatives(self, x: np.ndarray, passed: np.ndarray) -> np.ndarray:
        """[G, B] of the depth with respect to the log10 volume fractions, ppm/dex."""
        weighted = (self.rings[:, None] * passed).astype(np.float32)
        change = np.einsum("lw,glw->gw", weighted, self.gases.reshape(len(x), *passed.shape))
        return np.log(10.0) * 10.0 ** x[:, None] * (self.binning @ change.T).T


@lru_cache(maxsize=2)
def _side_by_side(tables: OpacityTables) -> OpacityTables:
    """The gases' cross-sections one behind the other, as if of one gas on G W wavelengths."""
    values = np.stack([tables.values[tables.gases.index(gas)] for gas in TRUTHS], axis=2)  # [P, T, G, W]
    return OpacityTables(("all",), np.tile(tables.wavelength, len(TRUTHS)), values.reshape(1, *values.shape[:2], -1))


def abundances(scenario: Scenario, limb: Limb) -> dict[str, float]:
    """log10 volume fractions as `TRUTHS` has them, but for the floor."""
    found = {**scenario.gases, "H2O": limb.mixing["H2O"][-1]}
    return {gas: float(np.log10(found[gas])) for gas in TRUTHS}


@dataclass(frozen=True, eq=False)
class Observer:
    """Depths of a world in any state: log10 volume fractions [:G], and the limb's temperature offset in K.

    To first order in the temperature and in the molecular mass, which follows from the gases in `FILL_GAS`.

    Args:
        columns: of the world as it is, `TEMPERATURE_STEP` warmer, and with molecules `MASS_STEP` heavier.
        truth: [Q] the state of the world as it is.
    """

    columns: Sequence[Column]
    truth: np.ndarray

    @classmethod
    def of(cls, scenario: Scenario, limb: Limb, tables: OpacityTables, binning: sparse.csr_array) -> Observer:
        """Heavier molecules settle as under more gravity."""
        planet = scenario.planet
        heavy = replace(scenario, planet=replace(planet, mass=planet.mass * (1.0 + MASS_STEP)))
        warm = replace(limb, temperature=limb.temperature + TEMPERATURE_STEP)
        columns = [Column.of(*case, tables, binning) for case in ((scenario, limb), (scenario, warm), (heavy, limb))]
        return cls(columns, np.array([*abundances(scenario, limb).values(), 0.0]))

    def __call__(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth [B], ppm, and its derivatives [Q, B]."""
        passed = [column.passed(state[:-1]) for column in self.columns]
        depth, warm, heavy = (column.depth(each) for column, each in zip(self.columns, passed, strict=True))
        change = self.columns[0].derivatives(state[:-1], passed[0])
        by_kelvin, by_mass = (warm - depth) / TEMPERATURE_STEP, (heavy - depth) / np.log1p(MASS_STEP)
        mass, slope = _molecular_mass(state[:-1])
        rise = np.log(mass / _molecular_mass(self.truth[:-1])[0])
        return depth + state[-1] * by_kelvin + rise * by_mass, np.vstack([change + slope[:, None] * by_mass, by_kelvin])


def _molecular_mass(x: np.ndarray) -> tuple[float, np.ndarray]:
    """g/mol of `FILL_GAS` with gases of log10 volume fractions [G], and the derivatives [G] of its logarithm."""
    excess = np.array([MOLAR_MASS[gas] for gas in TRUTHS]) - MOLAR_MASS[FILL_GAS]
    share = 10.0**x / max(float(np.sum(10.0**x)), 1.0)  # where the gases alone are too much, nothing is left to fill
    mass = MOLAR_MASS[FILL_GAS] + float(excess @ share)
    return mass, np.log(10.0) * excess * share / mass


def whiten(values: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """[..., B] in units of the noise, without what an offset of all bins could be: that marginalises it."""
    offset = 1.0 / sigma / np.linalg.norm(1.0 / sigma)
    white = values / sigma
    return white - (white @ offset)[..., None] * offset


def fisher(derivatives: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """[Q, Q] information of bins with noise [B] on parameters with derivatives [Q, B], the offset marginalised."""
    white = whiten(derivatives, sigma)
    return white @ white.T


def climb(
    forward: Forward, observed: np.ndarray, sigma: np.ndarray, prior: Prior, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """A maximum of the posterior, by damped Gauss-Newton steps (Rodgers 2000, eq. 5.36).

    Args:
        observed: [B] ppm. sigma: [B] ppm, of independent normal noise. start: [Q].

    Returns:
        State [Q], covariance [Q, Q] there, and minus twice the log density but for a constant.
    """
    weight = prior.spread**-2.0

    def judge(state: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        depth, change = forward(state)
        residual, away = whiten(observed - depth, sigma), state - prior.mean
        gradient = whiten(change, sigma) @ residual - weight * away
        return float(residual @ residual + weight @ away**2), gradient, fisher(change, sigma) + np.diag(weight)

    state, (cost, gradient, hessian) = start, judge(start)
    damping, factor, least, most = DAMPING
    for _ in range(STEPS):
        trial = state + np.linalg.solve(hessian + np.diag(damping * weight), gradient)
        trial[:-1] = np.clip(trial[:-1], *LIMITS)
        found = judge(trial)
        gained = cost - found[0]
        if gained >= 0.0:
            state, (cost, gradient, hessian) = trial, found
        damping = float(np.clip(damping * (factor if gained < 0.0 else 1.0 / factor), least, most))
        if abs(gained) < GAIN:
            break
    return state, np.linalg.inv(hessian), cost


def retrieve(forward: Forward, observed: np.ndarray, sigma: np.ndarray, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [Q] of the posterior, from its modes and their widths (Laplace's approximation).

    Of a gas, the prior's mean may be too little to be seen: more of it is looked for from above.
    """
    modes = [climb(forward, observed, sigma, prior, prior.mean)]
    unseen = np.sqrt(np.diag(modes[0][1])) > UNSEEN * prior.spread
    if unseen.any():
        raised = np.minimum(prior.mean + RAISED * prior.spread, LIMITS[1])  # which is no offset of the temperature
        modes.append(climb(forward, observed, sigma, prior, np.where(unseen, raised, modes[0][0])))
    states, covariances, costs = (np.array(part) for part in zip(*modes, strict=True))
    shares = np.exp((np.linalg.slogdet(covariances)[1] - costs + costs.min()) / 2)
    shares /= shares.sum()
    mean = shares @ states
    return mean, np.sqrt(shares @ (np.diagonal(covariances, axis1=1, axis2=2) + (states - mean) ** 2))


@lru_cache(maxsize=2)
def plan_of(data: Path) -> Plan:
    """What a data set was built by, from its manifest.

    Raises:
        InputError: climates are not emulated, spectra are not of transits, or opacities are not the default ones.
    """
    identity = read_manifest(data)["identity"]
    settings = SimulationSettings(**{**identity["settings"], "device": "cpu"})
    if identity.get("runs") or settings.kind != "transmission" or settings.opacity_folder:
        raise InputError(f"{data}: expected transits, emulated climates and default opacities, found {settings}")
    held, genomes = HoldOuts(**identity.get("hold_out", {})), identity.get("genomes", "")
    return Plan(identity["worlds"], identity["seed"], settings, identity["metabolism"], held, genomes=genomes)


def rebuild(data: Path, known: Mapping[str, Any]) -> tuple[Scenario, Limb]:
    """A world of a data set by its provenance: what it was before it was observed.

    Raises:
        InputError: this machine makes another world of the same seeds.
    """
    plan = plan_of(data)
    organisms, pools, settings = pools_of(data, plan)[plan.split(known["index"])]
    scenario, _ = draw_world(known["index"], plan.seed, organisms, pools, settings)
    limb = spectrum.limb_column(scenario, world_climate(scenario, pools, settings))
    found = {gas: max(x, FLOOR) for gas, x in abundances(scenario, limb).items()}
    differing = [gas for gas, name in TRUTHS.items() if abs(found[gas] - known["truth"][name]) > SAME]
    if differing or scenario.noise_seed != known["noise_seed"]:
        raise InputError(
            f"{data}: world {known['index']}: expected {known['truth']}, rebuilt {found}; install {known['packages']}"
        )
    return scenario, limb


def observe(data: Path, known: Mapping[str, Any], prior: Prior) -> dict[str, np.ndarray]:
    """`gases` [G] of a world by its provenance, and of each level `LEVEL.estimate`, `LEVEL.error`, `LEVEL.forecast`."""
    scenario, limb = rebuild(data, known)
    settings = plan_of(data).settings
    tables, grid = opacity_tables(settings.opacity_folder), instrument.grid_of(settings.instruments)
    binning = sparse.csr_array(spectrum.binning_of(settings.opacity_folder, settings.instruments))
    observer = Observer.of(scenario, limb, tables, binning)
    depth, derivatives = observer(observer.truth)
    found = {"gases": np.maximum(observer.truth[:-1], FLOOR)}
    about = {"j_mag": scenario.star.j_mag, "transit_hours": scenario.planet.transit_hours}
    for name, (level, factor) in LEVELS.items():
        sigma = factor * instrument.noise(grid, **about, transits=level.transits, floor=level.floor)
        observed = depth + sigma * instrument.noise_draws(scenario.noise_seed, len(depth))
        estimate, error = retrieve(observer, observed, sigma, prior)
        bound = np.linalg.inv(fisher(derivatives, sigma) + np.diag(prior.spread**-2.0))
        parts = {"estimate": estimate, "error": error, "forecast": np.sqrt(np.diag(bound))}
        found |= {f"{name}.{part}": value[:-1] for part, value in parts.items()}
    return found


class Chunk(NamedTuple):
    """Some worlds of a split, and the file of what is found of them."""

    split: str
    worlds: range
    path: Path


def chunks_of(data: Path, limit: int | None, work: Path) -> list[Chunk]:
    """Chunks of all splits, of at most `limit` worlds each."""
    sizes = {split: min(read_manifest(data)["splits"][split], limit or sys.maxsize) for split in SPLITS}
    parts = [(name, range(n, min(n + CHUNK, size))) for name, size in sizes.items() for n in range(0, size, CHUNK)]
    return [Chunk(name, part, work / f"{name}-{part.start:06d}-{part.stop:06d}.npz") for name, part in parts]


def study(data: Path, chunk: Chunk, view: View, prior: Prior) -> float:
    """Make the file of a chunk; returns the seconds it took, 0 where it was there."""
    if chunk.path.is_file():
        return 0.0
    worlds = worlds_of(data, chunk.split)
    start = time.perf_counter()
    with one_thread():
        seen = [observe(data, worlds.record(index)["provenance"], prior) for index in chunk.worlds]
    found = view.of([worlds[index] for index in chunk.worlds])
    del found["redrawn"]
    save_arrays(chunk.path, found | {name: np.array([each[name] for each in seen]) for name in seen[0]})
    return time.perf_counter() - start


def in_processes(work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], count: int, threads: int) -> Iterator[Any]:
    """(number of the task, `work(*task)`) as they finish, in processes of so many threads, or, for one, in this."""
    if count == 1:
        yield from ((number, work(*task)) for number, task in enumerate(tasks))
        return
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        numbers = {pool.submit(work, *task): number for number, task in enumerate(tasks)}
        yield from ((numbers[done], done.result()) for done in as_completed(numbers))


def study_all(data: Path, work: Path, chunks: Sequence[Chunk], view: View, workers: int) -> list[float]:
    """Make all chunks that are missing; returns the seconds a world of these.

    Raises:
        InputError: the folder holds what was found of other worlds.
    """
    about, path = {"format": FORMAT, "identity": read_manifest(data)["identity"]}, work / "about.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != about:
        raise InputError(f"{work}: expected chunks of {data.name}, found those of other worlds; name another --work")
    work.mkdir(parents=True, exist_ok=True)
    write_json(path, about)
    prior, paces = Prior.of_worlds(worlds_of(data, "train")), []
    with Progress(*Progress.get_default_columns(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("observing worlds", total=sum(len(chunk.worlds) for chunk in chunks))
        for number, seconds in in_processes(study, [(data, chunk, view, prior) for chunk in chunks], workers, 1):
            progress.advance(bar, len(chunks[number].worlds))
            paces += [seconds / len(chunks[number].worlds)] if seconds else []
    return paces


def read_chunks(chunks: Sequence[Chunk]) -> dict[str, dict[str, np.ndarray]]:
    """Split → what was found of its worlds."""
    parts: dict[str, list[dict[str, np.ndarray]]] = {}
    for chunk in chunks:
        parts.setdefault(chunk.split, []).append(dict(np.load(chunk.path)))
    return {split: {n: np.concatenate([p[n] for p in each]) for n in each[0]} for split, each in parts.items()}


def told(found: Mapping[str, np.ndarray], system: str, view: View) -> Table:
    """What trees of one of `SYSTEMS` are told of a split."""
    if system == "truth":
        return Table(found["truth"], found["labels"])
    columns, known = view.extract.columns(), [view.truths.index(name) for name in KNOWN]
    truths = found["truth"] if system == "everything" else found["truth"][:, known]
    shown = [truths, *(found["features"][:, columns[name]] for name in SEEN)]
    if system == "measurable":
        shown.append(found["gases"])
    elif system in LEVELS:
        pair = found[f"{system}.estimate"], np.log10(found[f"{system}.error"])
        shown += [np.round(values / step) * step for values, step in zip(pair, ROUNDED, strict=True)]
    return Table(np.concatenate(shown, axis=1).astype(np.float32), found["labels"])


def judge(tables: Mapping[str, Table], trials: int) -> np.ndarray:
    """[N] states of the test worlds by boosted trees."""
    there = np.isfinite(tables["train"].features).any(axis=0)
    kept = {split: Table(table.features[:, there], table.labels) for split, table in tables.items()}
    return boosted_trees(kept, trials=trials)["test"].argmax(axis=1)


def score(found: Mapping[str, dict[str, np.ndarray]], view: View, trials: int, workers: int) -> dict[str, Any]:
    """Accuracy, and recall of each state, of every system, and what `LOSSES` lose on the same worlds."""
    tasks = [({split: told(part, name, view) for split, part in found.items()}, trials) for name in SYSTEMS]
    count = min(workers, len(tasks))
    answers = {SYSTEMS[n]: answer for n, answer in in_processes(judge, tasks, count, workers // count)}
    labels, groups = found["test"]["labels"], found["test"]["groups"]
    systems = {name: macro_accuracy_interval(labels, answers[name], groups).to_dict() for name in SYSTEMS}
    for name, system in systems.items():
        system["recall"] = [float(np.mean(answers[name][labels == state] == state)) for state in np.unique(labels)]
    lost = {
        f"{more} → {less}": paired_difference(labels, answers[more][None], answers[less][None], groups).to_dict()
        for more, less in LOSSES
    }
    return {"systems": systems, "lost": lost}


def medians(found: Mapping[str, np.ndarray]) -> dict[str, dict[str, dict[str, float]]]:
    """Depth → part → gas → dex: medians over worlds of the forecast and the stated error, and of the actual one."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name in instrument.DEPTHS:
        actual = np.abs(found[f"{name}.estimate"] - found["gases"])
        parts = {"forecast": found[f"{name}.forecast"], "error": found[f"{name}.error"], "actual": actual}
        out[name] = {k: dict(zip(TRUTHS, np.median(v, axis=0).tolist(), strict=True)) for k, v in parts.items()}
    return out


def say(result: Mapping[str, Any]) -> None:
    """The tables for the terminal."""
    rows: list[tuple[Any, ...]] = [("trees are told", "macro accuracy, %", "95% interval")]
    for name, entry in (*result["systems"].items(), *result["lost"].items()):
        low, high = (100 * value for value in entry["ci95"])
        rows.append((name, f"{100 * entry['mean']:.1f}", f"{low:.1f} to {high:.1f}"))
    machine.table(rows)
    rows = [("median error, dex", *TRUTHS)]
    for name, parts in result["median_dex"].items():
        rows += [(f"{name}, {part}", *(f"{x:.2f}" for x in gases.values())) for part, gases in parts.items()]
    machine.table(rows)


def main() -> None:
    """Observe all worlds, train the trees, write `information_limit.json` and print tables."""
    parser = machine.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of worlds")
    parser.add_argument("--work", type=Path, required=True, help="folder of finished chunks, from which a run goes on")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--limit", type=int, help="of the worlds of each split")
    parser.add_argument("--trials", type=int, default=3, choices=range(1, 6), help="settings of the trees to try")
    options, start = parser.parse_args(), time.perf_counter()
    data = options.data.absolute()
    view, chunks = View.fit(worlds_of(data, "train")), chunks_of(data, options.limit, options.work)
    paces = study_all(data, options.work, chunks, view, options.workers)
    observed, found = time.perf_counter() - start, read_chunks(chunks)
    result = {
        "worlds": {split: len(part["labels"]) for split, part in found.items()},
        "stars_in_test": len(np.unique(found["test"]["groups"])), "workers": options.workers,
        "seconds_a_world": float(np.median(paces)) if paces else None, "seconds_observing": round(observed),
        **score(found, view, options.trials, options.workers), "median_dex": medians(found["test"]),
        "seconds": round(time.perf_counter() - start),
    }  # fmt: skip
    machine.write(options.out, "information_limit", result)
    say(result)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
