"""Command line: each command parses its options, calls one function of the package and prints its result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from astrobio.cli_data import app as data_app
from astrobio.cli_sources import app as sources_app
from astrobio.errors import InputError
from astrobio.training import launcher


class Commands(TyperGroup):
    """The commands; Ctrl-C in any of them says how to go on."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            if launcher.claim(f"{launcher.INTERRUPTION}-{launcher.restarts()}"):
                console.print(str(stopped) or INTERRUPTED, highlight=False, soft_wrap=True)
            raise typer.Exit(stopped.code if isinstance(stopped, launcher.Stopped) else 130) from None


INTERRUPTED = "interrupted; finished parts are kept, the same command resumes"
app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)
console = Console(stderr=True)
app.add_typer(sources_app, name="sources")
app.add_typer(data_app, name="data")


@app.callback()
def _root() -> None:
    """Is this world inhabited? Joint learning on text, spectra, climates and metabolisms."""


@app.command()
def validate(
    files: Annotated[
        list[Path] | None, typer.Argument(help="netCDF, Zarr, spectra, SBML, JSON, VOTable, CSV …")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="write the report as JSON")] = None,
    html: Annotated[Path | None, typer.Option(help="write the report as a page")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="folder for what was not accepted, with reasons")] = None,
    strict: Annotated[bool, typer.Option(help="no allowance for model dialects")] = False,
    units: Annotated[str | None, typer.Option(help="for spectra without: wavelength=um,depth=ppm")] = None,
    by: Annotated[str | None, typer.Option(help="who asks, for the provenance [login name]")] = None,
    timeout: Annotated[float, typer.Option(help="seconds a file may take")] = 600.0,
    memory: Annotated[float, typer.Option(help="GB a file may take")] = 4.0,
    rules: Annotated[bool, typer.Option("--rules", help="list the rules and stop")] = False,
) -> None:
    """Check files against community standards and physics. Exit: 0 accept, 1 quarantine, 2 reject."""
    from astrobio.quality.command import run_validate

    raise typer.Exit(run_validate(files or [], json, html, quarantine, strict, units, by, timeout, memory, rules))


@app.command()
def simulate(
    worlds: Annotated[int, typer.Option(help="how many; a sixth of each state")],
    out: Annotated[Path, typer.Option(help="folder; an interrupted build in it continues")],
    seed: Annotated[int, typer.Option(help="the same seed gives the same worlds, whatever the workers")] = 0,
    workers: Annotated[int | None, typer.Option(help="processes [one a core]")] = None,
    depth: Annotated[str | None, typer.Option(help="of the survey by name: jwst-50 [the default] or deep")] = None,
    transits: Annotated[int | None, typer.Option(help="or by transits (eclipses) averaged in a spectrum [50]")] = None,
    floor: Annotated[bool | None, typer.Option(help="and whether the instruments' noise floor applies [yes]")] = None,
    depth_grid: Annotated[bool, typer.Option(help="5, 10, 25, 50 or 100 transits, drawn for each world")] = False,
    contamination: Annotated[bool, typer.Option(help="whether the star's spots and faculae colour transits")] = True,
    instruments: Annotated[str, typer.Option(help="prism+lrs, prism or lrs")] = "prism+lrs",
    kind: Annotated[str, typer.Option(help="of spectrum: transmission or emission")] = "transmission",
    gcm: Annotated[str, typer.Option(help="climate model imitated: um, exocam, exoplasim; um+exocam: by world")] = "um",
    piece: Annotated[list[str] | None, typer.Option(help="worlds, spectra, climate [all]; a later call adds")] = None,
    organisms: Annotated[Path | None, typer.Option(help="organisms.npz of another data set [the default 24]")] = None,
    genomes: Annotated[Path | None, typer.Option(help="folder of genome tables to take organisms from")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Dask cluster to work on, such as tcp://host:8786")] = None,
    hold_out: Annotated[
        list[str] | None, typer.Option(help="gcm, star, noise, path[=VALUE] or all: own splits")
    ] = None,
    climate: Annotated[str, typer.Option(help="clero, kept (GCM runs), exoplasim, a folder of runs")] = "clero",
    gcm_runs: Annotated[Path | None, typer.Option(help="where exoplasim's runs go [the cache]")] = None,
    gcm_parameters: Annotated[Path | None, typer.Option(help="JSON of the runs to make [4 drawn]")] = None,
    years: Annotated[int | None, typer.Option(help="of exoplasim at most [20]")] = None,
    balance: Annotated[float | None, typer.Option(help="W/m² at which its climate is settled [1]")] = None,
) -> None:
    """Simulate worlds from star to photons: climate, spectrum, candidate metabolism, texts."""
    from astrobio.dataset.build import describe, settings_of, simulate_to
    from astrobio.worlds.exoplasim import climate_folder

    chosen = {"depth_grid": depth_grid, "contamination": contamination, "instruments": instruments, "kind": kind}
    settings = settings_of(depth, transits, floor, gcm=gcm, **chosen)
    runs = climate_folder(climate, seed, gcm_runs, gcm_parameters, years, balance, console)
    summary = simulate_to(out, worlds, seed, workers, settings, piece, organisms, scheduler, hold_out, runs, genomes)
    Console().print(describe(summary))


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="folder that `astrobio simulate` made")],
    out: Annotated[Path, typer.Option(help="run folder; an interrupted run in it continues")],
    preset: Annotated[str, typer.Option(help="size of the system: mini, small, medium, full_16_8b")] = "mini",
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as training.lr=1e-3")] = None,
) -> None:
    """Train the unified system on a folder of worlds, then calibrate it; under torchrun, on several GPUs together."""
    from astrobio.evaluation.evaluate import train_and_calibrate

    train_and_calibrate(preset, set_ or [], data, out, console)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="run folder")],
    data: Annotated[Path, typer.Option(help="folder of worlds")],
    split: Annotated[str, typer.Option(help="split to score; one out of distribution where the data has it")] = "test",
    scored: Annotated[Path | None, typer.Option(help="other folder of worlds, whose split is scored [DATA]")] = None,
    json: Annotated[Path | None, typer.Option(help="write the report as JSON")] = None,
    baselines: Annotated[bool, typer.Option(help="train and score what the run has to beat")] = True,
    trials: Annotated[int, typer.Option(help="tuning trials of each baseline", min=1, max=5)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N")] = "auto",
) -> None:
    """Score a run on held-out worlds beside single modalities, their late fusion and boosted trees."""
    from astrobio.evaluation.evaluate import evaluate_and_print

    options = {"split": split, "scored": scored, "baselines": baselines, "trials": trials, "device": device}
    evaluate_and_print(run, data, json, **options, console=console)


@app.command()
def assess(
    run: Annotated[Path | None, typer.Argument(help="run folder [the model that ships with astrobio]")] = None,
    spectrum: Annotated[Path | None, typer.Option(help="CSV, ECSV, FITS, VOTable …")] = None,
    climate: Annotated[Path | None, typer.Option(help="CF netCDF or Zarr of any model, ExoPlaSim as it is")] = None,
    metabolism: Annotated[Path | None, typer.Option(help="SBML or BiGG JSON")] = None,
    text: Annotated[str | None, typer.Option(help="what is known of the planet and its star, in words")] = None,
    units: Annotated[str | None, typer.Option(help="that the spectrum lacks: wavelength=um,depth=ppm")] = None,
    substellar_longitude: Annotated[float | None, typer.Option(help="in the climate file, degrees [found]")] = None,
    out: Annotated[Path | None, typer.Option(help="write the report as a page")] = None,
    json: Annotated[Path | None, typer.Option(help="write the answer as JSON")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N")] = "cpu",
) -> None:
    """Is this world inhabited? Answer from any subset of spectrum, climate, metabolism and words."""
    from astrobio.assess.command import run_assess

    inputs = {"spectrum": spectrum, "climate": climate, "metabolism": metabolism, "text": text, "units": units}
    run_assess(run, out, json, Console(), **inputs, substellar_longitude=substellar_longitude, device=device)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="finished and calibrated run folder")],
    out: Annotated[Path, typer.Option(help="folder to write; an earlier export in it is replaced")],
    result: Annotated[Path | None, typer.Option(help="JSON that the card quotes [RUN/evaluation.json]")] = None,
    most_mb: Annotated[float, typer.Option(help="refuse more than so many MB")] = 10.0,
) -> None:
    """Write a run's weights in bfloat16 with a model card: a small folder that `astrobio assess` takes as it is."""
    from astrobio.assess.package import export_run

    export_run(run, out, result=result, most_bytes=int(most_mb * 1e6), console=console)


@app.command()
def plan(
    preset: Annotated[str, typer.Option(help="mini, small, medium, full_16_8b")] = "full_16_8b",
    gpu: Annotated[str, typer.Option(help="h100-80, h200, a100-80, a100-40, a5000-24, rtx4090-24")] = "h100-80",
    gpus: Annotated[int, typer.Option(help="how many of them")] = 1,
    accumulation: Annotated[int, typer.Option(help="micro-batches of 16 worlds in a step")] = 1,
    float8: Annotated[bool, typer.Option(help="multiply in 8-bit floating point")] = False,
    tokens: Annotated[float, typer.Option(help="text tokens of the whole training")] = 1e9,
    host_gb: Annotated[float, typer.Option(help="host memory for offloading, GB a card")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable")] = False,
) -> None:
    """Will it fit, how, and how long will it take: a forecast that loads nothing. Exit: 0 fits, 2 does not."""
    from astrobio.training.plan import run_plan

    raise typer.Exit(run_plan(preset, gpu, gpus, accumulation, float8, tokens, host_gb * 1e9, as_json))


def main() -> None:
    """Run the command line; a user's mistake prints one sentence and exits with 2, Ctrl-C with 130.

    Of several processes under torchrun one speaks for all, and those started again after a mistake end at once.
    """
    if launcher.ended_by_a_mistake():
        sys.exit(2)
    try:
        app()
    except InputError as error:
        if launcher.claim(launcher.MISTAKE):
            console.print(Text.assemble(("error: ", "red"), str(error)), soft_wrap=True)
        sys.exit(2)
    except launcher.RankLost as lost:
        if launcher.claim(f"{launcher.LOSS}-{launcher.restarts()}"):
            console.print(str(lost), highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
