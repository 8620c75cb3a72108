"""Climates computed by ExoPlaSim, a general circulation model in Fortran: tidally locked aquaplanets under N2 and CO2.

A run goes year by year in a work folder of the cache, named by a hash of all that decides it. After each year its state
is kept, so that an interrupted run continues, and so does one that is asked for more years. It ends once its climate is
settled or its years are used up, and says which. `run_all` then writes it as `gcm_runs` describes.

T21, ten levels, 45-minute steps, single precision, mixed layer of 10 m, sea ice, no ozone, no CH4.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from astrobio.errors import InputError
from astrobio.formats.climate import read_climate
from astrobio.formats.thermodynamics import cache_folder
from astrobio.worlds.gcm_runs import KEPT, GcmRun, RunParameters, read_runs, reduced, write_run
from astrobio.worlds.scenario import draw_scenario

EXECUTABLE = "most_plasim_t21_l10_p1.x"
VARIABLES = ["ts", "rst", "rlut", "ps", "sit", "ta", "hus", "cl", "ua", "va", "flpr"]
DAYS = 360  # of a model year
STEP = 45  # minutes
SWING = 10  # years in which a climate that never stands still must show no trend
ICE_HEAT = 917.0 * 3.337e5  # J/m³ that freezing water releases
GAS_CONSTANT = 8314.46261815324  # J/(kmol K), as ExoPlaSim takes it
MASSES = {"N2": 28.0134, "CO2": 44.01}  # g/mol, as ExoPlaSim takes them
# States whose scenarios a run each is drawn for, where no parameters are given.
DRAWN_STATES = ("lifeless-temperate", "anoxic-biosphere", "oxygenic-biosphere", "lifeless-inhospitable")


@dataclass(frozen=True)
class RunSettings:
    """When a run ends.

    Args:
        years: at most. balance: W/m²; a climate is settled once absorbed less emitted radiation, apart from the heat
            that growing sea ice releases, is smaller and the means of the last `steady` years lie within `drift` K: a
            single still year may be a halt on the way to a colder climate. One that swings from year to year is settled
            once ten years are in balance and show no trend.
        fewest: years before a climate counts as settled. minutes: that a model year may take.
    """

    years: int = 20
    balance: float = 1.0
    drift: float = 0.3
    steady: int = 3
    fewest: int = 4
    minutes: float = 60.0

    def __post_init__(self) -> None:
        if self.years < 1:
            raise InputError(f"--years: expected at least 1, found {self.years}")
        if not self.balance > 0:
            raise InputError(f"--balance: expected W/m² above 0, found {self.balance}")


@dataclass(frozen=True)
class RunSpec:
    """One run to make.

    Args:
        start: the run of the same list whose last state it continues from, None for a fresh start.
        days: of a model year; fewer only to try things out.
    """

    name: str
    parameters: RunParameters
    start: RunSpec | None = None
    days: int = DAYS

    @property
    def digest(self) -> str:
        """Name of the work folder: a hash of all that decides the run but its length."""
        start = self.start.digest if self.start else None
        text = json.dumps([_version(), asdict(self.parameters), start, self.days], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Year:
    """Means over the sphere and one model year: K, W/m², m of sea ice; `warmest` is the warmest cell's mean."""

    temperature: float
    warmest: float
    absorbed: float
    emitted: float
    ice: float

    @property
    def residual(self) -> float:
        """W/m² absorbed less emitted."""
        return self.absorbed - self.emitted


def ice_heat(years: Sequence[Year]) -> float:
    """W/m² that growing ice released in the last of several years; 0 of a single one."""
    if len(years) < 2:
        return 0.0
    return (years[-1].ice - years[-2].ice) * ICE_HEAT / (DAYS * 86400.0)


def settled(years: Sequence[Year], settings: RunSettings) -> bool:
    """Whether a climate has stopped changing, see `RunSettings`."""
    if len(years) < max(settings.fewest, settings.steady):
        return False
    last = [year.temperature for year in years[-settings.steady :]]
    still = max(last) - min(last) <= settings.drift
    return (still and abs(years[-1].residual + ice_heat(years)) <= settings.balance) or _swings(years, settings)


def _swings(years: Sequence[Year], settings: RunSettings) -> bool:
    """Whether the last `SWING` years are in balance as a whole and their trend is no more than twice its error."""
    if len(years) <= SWING:
        return False
    span = np.arange(SWING)
    found = np.array([year.temperature for year in years[-SWING:]])
    (slope, _), cover = np.polyfit(span, found, 1, cov=True)
    heat = (years[-1].ice - years[-1 - SWING].ice) * ICE_HEAT / (SWING * DAYS * 86400.0)
    balance = np.mean([year.residual for year in years[-SWING:]]) + heat
    return bool(abs(slope) <= 2.0 * np.sqrt(cover[0, 0]) and abs(balance) <= settings.balance)


def read_specs(path: Path) -> list[RunSpec]:
    """Runs to make, from a JSON list of {"name", "parameters", and perhaps "start"}, each start named before its use.

    Raises:
        InputError: not such a list, or a parameter that is wrong.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        entries = type(error).__name__
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a JSON list of runs, found {entries!r:.60}; see docs/worlds.md")
    specs: dict[str, RunSpec] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: run {number + 1}"
        if not isinstance(entry, dict) or not {"name", "parameters"} <= set(entry) <= {"name", "parameters", "start"}:
            raise InputError(f"{where}: expected name, parameters and perhaps start, found {entry!r:.80}")
        name, start = str(entry["name"]), entry.get("start")
        if name in specs or not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"{where}: name: expected one of its own of letters, digits, - and _, found {name!r}")
        if start is not None and start not in specs:
            raise InputError(f"{where}: start: expected null or one of {sorted(specs)}, found {start!r}")
        parameters = RunParameters.from_dict(entry["parameters"], f"{where} ({name})")
        specs[name] = RunSpec(name, parameters, specs[start] if start else None)
    return list(specs.values())


def draw_specs(seed: int) -> list[RunSpec]:
    """Runs for scenarios of `DRAWN_STATES` from the priors, the last frozen over if the emulator is right."""
    specs = []
    for number, state in enumerate(DRAWN_STATES):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0xE40, number)))
        while (scenario := draw_scenario(state, rng, gcm="exoplasim")).path in ("steam", "desiccated"):
            pass
        specs.append(RunSpec(f"drawn-{seed}-{number}", RunParameters.of(scenario)))
    return specs


def climate_folder(
    climate: str,
    seed: int,
    runs: Path | None = None,
    parameters: Path | None = None,
    years: int | None = None,
    balance: float | None = None,
    console: Console | None = None,
) -> Path | None:
    """The folder of GCM runs that a command line's `--climate` means, made first if need be; None for the emulator.

    Args:
        climate: "clero", "kept" (the package's runs), "exoplasim" (run it) or a folder of runs.
        seed: of runs drawn from the priors. runs: where "exoplasim" writes them; worlds are drawn on all in it. None: a
            folder of the cache. parameters: of the runs, see `read_specs`; None draws some. years, balance: see
            `RunSettings`; None takes its defaults.

    Raises:
        InputError: an option without effect, a missing compiler or package, or a run that failed.
    """
    if climate != "exoplasim" and any(given is not None for given in (runs, parameters, years, balance)):
        raise InputError(f"--climate {climate}: --gcm-runs, --gcm-parameters, --years and --balance need exoplasim")
    if climate == "clero":
        return None
    if climate != "exoplasim":
        folder = KEPT if climate == "kept" else Path(climate)
        read_runs(folder)
        return folder
    settings = RunSettings(
        RunSettings.years if years is None else years, RunSettings.balance if balance is None else balance
    )
    _check_installed()
    specs = draw_specs(seed) if parameters is None else read_specs(parameters)
    listed = hashlib.sha256("".join(spec.name + spec.digest for spec in specs).encode()).hexdigest()[:16]
    folder = runs or cache_folder() / "exoplasim" / "runs" / listed
    run_all(specs, folder, settings, console or Console(stderr=True))
    return folder


def run_all(specs: Sequence[RunSpec], folder: Path, settings: RunSettings, console: Console) -> None:
    """Run the model for each spec, one after the other, and write the runs to `folder`.

    Raises:
        InputError: the compiler, the package or a year of a run failed.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for spec in specs:
            bar = progress.add_task(f"{spec.name}: preparing", total=settings.years)

            def tell(years: Sequence[Year], bar: Any = bar, name: str = spec.name) -> None:
                last = years[-1]
                said = f"{name}: {last.temperature:.1f} K, {last.residual:+.1f} W/m²"
                progress.update(bar, completed=len(years), description=said)

            years = run(spec, settings, tell)
            progress.update(bar, total=len(years))
            path = write_run(_result(spec, years, settings), folder)
            state = "settled" if settled(years, settings) else f"NOT settled after {len(years)} years; raise --years"
            console.print(
                f"{path}: {years[-1].temperature:.1f} K, residual {years[-1].residual:+.2f} W/m² of which growing ice "
                f"{-ice_heat(years):+.2f}; {state}", highlight=False, soft_wrap=True,
            )  # fmt: skip


def run(
    spec: RunSpec, settings: RunSettings, tell: Callable[[Sequence[Year]], None] = lambda years: None
) -> list[Year]:
    """Run the model until its climate has settled or its years are used up; finished years are never run again.

    Args:
        tell: called with all years so far after each.

    Returns:
        All years of the run; the last one's fields lie in the work folder as `year.nc`.

    Raises:
        InputError: ExoPlaSim can't be compiled, crashed or took too long.
    """
    work = _work(spec)
    work.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{work}.lock"):
        years = _history(work)
        if not years:
            if spec.start is not None:
                run(spec.start, settings)
            _prepare(spec, work)
        while len(years) < settings.years and not settled(years, settings):
            _one_year(spec, work, len(years) + 1, settings)
            years.append(_means(work / "year.nc"))
            _write_text(work / "history.json", json.dumps([asdict(year) for year in years], indent=1))
            tell(years)
        return years


def _work(spec: RunSpec) -> Path:
    return cache_folder() / "exoplasim" / spec.digest


def _history(work: Path) -> list[Year]:
    path = work / "history.json"
    whole = path.exists() and (work / "plasim_restart").exists() and (work / "year.nc").exists()
    return [Year(**year) for year in json.loads(path.read_text(encoding="utf-8"))] if whole else []


def _version() -> str:
    return metadata.version("exoplasim")


def _check_installed() -> None:
    if importlib.util.find_spec("exoplasim") is None:
        raise InputError("--climate exoplasim: expected the package exoplasim, found none; pip install 'astrobio[gcm]'")
    if shutil.which("gfortran") is None:
        raise InputError(
            "--climate exoplasim: expected the compiler gfortran, found none; install it, such as by "
            "`apt-get install gfortran`, `conda install gfortran` or `brew install gcc`"
        )


def _built() -> Path:
    """A copy of the package in the cache, configured for this machine; made once a version of it and of Python."""
    _check_installed()
    build = cache_folder() / "exoplasim" / f"build-{_version()}-{sys.implementation.cache_tag}"
    with FileLock(f"{build}.lock"):
        if not build.exists():
            spec = importlib.util.find_spec("exoplasim")
            assert spec is not None and spec.origin is not None
            partial = build.with_name(f".{build.name}")
            shutil.rmtree(partial, ignore_errors=True)
            ignored = shutil.ignore_patterns("*.ipynb", "__pycache__", "firstrun", "pyfft*.so")
            shutil.copytree(Path(spec.origin).parent, partial / "exoplasim", ignore=ignored)
            _child(partial, partial, "compile", {"build": str(partial)})
            os.replace(partial, build)
    return build


def _prepare(spec: RunSpec, work: Path) -> None:
    """A fresh work folder with executable, namelists and perhaps another run's state."""
    build = _built()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    found = spec.parameters
    settings = {
        "flux": found.instellation, "startemp": found.star_temperature, "rotationperiod": found.period,
        "radius": found.radius, "gravity": found.gravity, "pCO2": found.CO2 * found.pressure,
        "pN2": (1 - found.CO2) * found.pressure, "synchronous": True, "substellarlon": 180.0, "aquaplanet": True,
        "ozone": False, "eccentricity": 0.0, "obliquity": 0.0, "fixedorbit": True, "mldepth": 10.0,
        "timestep": float(STEP), "runsteps": spec.days * 1440 // STEP, "snapshots": None,
        "restartfile": str(_work(spec.start) / "plasim_restart") if spec.start else None,
    }  # fmt: skip
    with FileLock(f"{build}.lock"):  # the first run compiles
        _child(build, work, "prepare", {"work": str(work), "settings": settings})
    if not (work / EXECUTABLE).exists():
        raise InputError(f"ExoPlaSim: expected gfortran to compile it, found no program; see {work / 'log.txt'}")


def _one_year(spec: RunSpec, work: Path, year: int, settings: RunSettings) -> None:
    """Run one model year from the state in the work folder; its fields become `year.nc`."""
    for stale in ("plasim_output", "plasim_status", "Abort_Message"):
        (work / stale).unlink(missing_ok=True)
    where = f"ExoPlaSim run {spec.name}, year {year}"
    with (work / "log.txt").open("ab") as log:
        try:
            done = subprocess.run(
                [f"./{EXECUTABLE}"], cwd=work, stdout=log, stderr=log, timeout=60 * settings.minutes, check=False
            )
        except subprocess.TimeoutExpired:
            raise InputError(
                f"{where}: expected at most {settings.minutes:g} minutes, found more; give the machine more room and "
                "run the same command, which continues"
            ) from None
    if done.returncode or (work / "Abort_Message").exists() or not (work / "plasim_status").exists():
        raise InputError(
            f"{where}: expected it to end well, found that the model crashed (exit status {done.returncode}); its "
            f"atmosphere may be beyond the model, see {work / 'log.txt'}"
        )
    found = spec.parameters
    mass = found.CO2 * MASSES["CO2"] + (1 - found.CO2) * MASSES["N2"]
    arguments = {
        "raw": "plasim_output", "out": ".year.nc", "variables": VARIABLES, "radius": found.radius,
        "gravity": found.gravity, "gas_constant": GAS_CONSTANT / mass,
    }  # fmt: skip
    _child(_built(), work, "reduce", arguments)
    if not (work / ".year.nc").exists():
        raise InputError(f"{where}: expected its output as netCDF, found none; see {work / 'log.txt'}")
    os.replace(work / ".year.nc", work / "year.nc")
    os.replace(work / "plasim_status", work / "plasim_restart")


def _child(build: Path, work: Path, command: str, arguments: dict[str, Any]) -> None:
    """Do something inside ExoPlaSim's package; what it prints goes to `log.txt` of the work folder.

    Raises:
        InputError: it failed.
    """
    script = Path(__file__).with_name("exoplasim_child.py")
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # Meson comes with the package
    environment = os.environ | {"PYTHONPATH": str(build), "PYTHONWARNINGS": "ignore", "PATH": tools}
    with (work / "log.txt").open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-P", str(script), command, json.dumps(arguments)],
            cwd=work, env=environment, stdout=log, stderr=log, check=False,
        )  # fmt: skip
    if done.returncode:
        raise InputError(
            f"ExoPlaSim: {command}: expected it to end well, found exit status {done.returncode}; see "
            f"{work / 'log.txt'}"
        )


def _means(path: Path) -> Year:
    """The year's means from its netCDF."""
    import netCDF4

    with netCDF4.Dataset(path) as data:
        weights = np.cos(np.deg2rad(np.asarray(data["lat"][:])))[:, None]  # [Y, 1]
        fields = {name: np.asarray(data[name][:]).mean(axis=0) for name in ("ts", "rst", "rlut", "sit")}  # [Y, X]
    zonal = {name: values.mean(axis=1, keepdims=True) for name, values in fields.items()}
    means = {name: float((values * weights).sum() / weights.sum()) for name, values in zonal.items()}
    return Year(means["ts"], float(fields["ts"].max()), means["rst"], abs(means["rlut"]), means["sit"])


def _result(spec: RunSpec, years: Sequence[Year], settings: RunSettings) -> GcmRun:
    path = _work(spec) / "year.nc"
    provenance = {
        "resolution": "T21, 10 levels", "years": len(years), "start": spec.start.name if spec.start else None,
        "surface_temperature_k": round(years[-1].temperature, 2), "warmest_cell_k": round(years[-1].warmest, 2),
        "toa_net_w_m2": round(years[-1].residual, 3), "growing_ice_w_m2": round(ice_heat(years), 3),
        "last_change_k": round(years[-1].temperature - years[-2].temperature, 2) if len(years) > 1 else None,
        "settled": settled(years, settings),
    }  # fmt: skip
    cube = reduced(read_climate(path), str(path))
    return GcmRun(spec.name, f"ExoPlaSim {_version()}", spec.parameters, cube, provenance)


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
