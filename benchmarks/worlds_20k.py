"""Worlds-20k: does joint training pay, at two depths, and what does each part of the system add?

Stages, each resumable and callable alone; everything is kept in `--out/DEPTH`, and what is there is not made again:

    prepare     worlds → files that all trainings read (one pass, all cores), and hand-made features
    baselines   boosted trees on every modality, every pair, all, the last also on other noise and on none, on the
                hidden truth (the oracle), and on that with all features; needs no GPU
    mini        the unified system and each modality alone at `mini` size, every seed
    ablations   the unified `mini` system with each part switched off, every seed
    small       the unified system at `small` size from a pretrained decoder, and with that decoder frozen
    language    what the systems write of the test worlds, read back and compared with the truth
    report      the result file, a page of tables, and figures; needs `--out` alone

    python benchmarks/worlds_20k.py --out OUT --data deep=DIR jwst-50=DIR --stage prepare mini ablations

Worlds of real genomes (`astrobio simulate --genomes`), with reactions hidden in the training of a further `small`:

    python benchmarks/worlds_20k.py --out OUT --data deep-genomes=DIR jwst-50-genomes=DIR --name worlds_20k_genomes \
        --stage prepare baselines mini small language report --decoder DIR \
        --mini-systems unified --small-systems small small-reactions

Stop it by SIGTERM (`timeout 580 python …`): trainings keep a checkpoint, and the same command goes on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

import worlds_20k_report
from astrobio.batch import MODALITIES, WORLD_STATES, Collator
from astrobio.dataset.reader import WorldDataset, split_names
from astrobio.errors import InputError
from astrobio.evaluation.baselines import is_finished, restricted_to
from astrobio.evaluation.calibrate import Calibration
from astrobio.evaluation.evaluate import outlier_rates, predict_all
from astrobio.evaluation.language import language
from astrobio.training.checkpoint import load_run, read_json, read_run, write_json
from astrobio.training.config import RunConfig, choose_device, run_config
from astrobio.training.feed import Store, observe_anew
from astrobio.training.loop import COMPILED_MULTIPLE, Stores, prepare_run, train
from astrobio.training.packed import Part, load_store, open_worlds, parts_of, save_samples
from astrobio.training.step import is_mixed
from machine import describe
from worlds_20k_organisms import groups, organisms
from worlds_20k_trees import CLEAN, View, fit_views, keep_columns, save_arrays

TRAININGS = ("small", "mini", "ablations")  # the longest first
STAGES = ("prepare", "baselines", *TRAININGS, "language", "report")
PHYSICS = ("energy", "diagnostics", "mass_balance", "element_balance", "thermodynamics", "retrieval")
ABLATIONS = {
    "no-cross-attention": ["system.cross_attention=false"],
    "no-alignment": ["loss.alignment=0"],
    "no-physics": [f"loss.{name}=0" for name in PHYSICS],
    "no-graph-vae": ["loss.graph_vae=0"],
    "no-experts": ["loss.unimodal=0"],
}
SMALL = {
    "small": [],
    "small-frozen": ["training.frozen=decoder"],
    "small-reactions": ["training.reaction_dropout=0.3"],
}
NOISELESS = f"unified{CLEAN}"  # learns and answers from spectra without noise: what the noise costs
WRITTEN = (*SMALL, "unified", "no-cross-attention")  # runs whose words are judged, at the first seed
VALIDATIONS = 5  # of each training; the best weights are kept
READ = 1024  # test worlds whose assessments are written and read
OUTLIER_WORLDS = 512  # training worlds that shape the outlier models
SWEEP = 256  # worlds of an evaluation's batch
DEVICE_SHARE = 0.5  # of a GPU's free memory that the prepared worlds of all trainings side by side may take


@dataclass(frozen=True)
class Job:
    """One training with what is asked of it afterwards.

    Args:
        name, seed: where it is kept. folder: `--out/DEPTH`. data: the worlds.
        cache: where prepared worlds are kept. stage: "train" or "language".
    """

    name: str
    seed: int
    config: RunConfig
    folder: Path
    data: Path
    cache: str
    stage: str = "train"

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.folder / "runs" / self.name / f"seed-{self.seed}"

    @property
    def like(self) -> Path:
        """The run folder whose tokenizer and statistics it takes."""
        return self.folder / ("prepared" if self.config.training.decoder is None else "prepared-small")

    def result(self, kind: str, ending: str) -> Path:
        """Where what is found of it goes."""
        return self.folder / kind / f"{self.name}-seed-{self.seed}.{ending}"


def settings_of(stage: str, options: argparse.Namespace) -> list[str]:
    """KEY=VALUE of what all trainings of a stage share."""
    small = stage == "small"
    steps, batch = (options.small_steps, options.small_batch) if small else (options.steps, options.batch)
    settings = {
        "steps": steps, "batch_size": batch, "device": options.device, "gradient_norms_every": 0, "keep": 1,
        "validate_every": max(steps // VALIDATIONS, 1), "checkpoint_every": max(steps // 4, 1), "log_every": 20,
    }  # fmt: skip
    if small:
        settings |= {"decoder": options.decoder, "decoder_lr_factor": 0.5, "lr": 2e-4, "warmup_steps": 200}
    return [f"training.{name}={value}" for name, value in settings.items()] + options.overrides


def variants_of(stage: str, options: argparse.Namespace) -> dict[str, list[str]]:
    """The systems of a stage by name, each with its own KEY=VALUE."""
    if stage == "small":
        return {name: SMALL[name] + options.small_overrides for name in options.small_systems}
    if stage == "ablations":
        return {name: ABLATIONS[name] for name in options.ablations}
    alone = ["training.modality_dropout=0"]
    found = {"unified": [], **dict.fromkeys(MODALITIES, alone), options.pair: []}
    return {name: [] if name == NOISELESS else found[name] for name in options.mini_systems or found}


def jobs_of(stage: str, folder: Path, data: Path, options: argparse.Namespace) -> list[Job]:
    """The trainings of a stage, all of the first seed before those of the next."""
    shared, cache = settings_of(stage, options), choose_cache(folder, options)
    size, seeds = (options.small_preset, options.small_seeds) if stage == "small" else ("mini", options.seeds)
    jobs = []
    for seed in range(options.first_seed, options.first_seed + seeds):
        for name, more in variants_of(stage, options).items():
            config = run_config(size, [*shared, *more, f"training.seed={seed}"])
            if stage == "mini" and name not in ("unified", NOISELESS):
                config = restricted_to(config, tuple(name.split("+")))
            jobs.append(Job(name, seed, config, folder, data, cache))
    return jobs


def choose_cache(folder: Path, options: argparse.Namespace) -> str:
    """Prepared worlds lie on the GPU where those of all trainings side by side leave it room, else in host memory.

    Others may fill the GPU a moment later, and this command's own share is all that it knows: trainings that several
    commands put on one GPU had better be told `--set training.cache=memory`.
    """
    device = choose_device(options.device)
    if device.type != "cuda":
        return "memory"
    asked = run_config("mini", options.overrides).training.cache
    if asked != "auto":
        return asked
    read = [*folder.glob("packed/train-*.safetensors"), *folder.glob("packed/validation-*.safetensors")]
    size = sum(path.stat().st_size for path in read) * options.jobs
    free, _ = torch.cuda.mem_get_info(device)
    return "device" if size < DEVICE_SHARE * free else "memory"


_STORES: dict[tuple[Path, str, bool], Store] = {}  # prepared worlds in this process, shared by its jobs


def store_of(job: Job, split: str) -> Store:
    """A split as the job's tokenizer reads it, from the files of stage `prepare`."""
    clean = job.name.endswith(CLEAN)
    if (job.like, split, clean) not in _STORES:
        settings, worlds = job.config.training, WorldDataset(job.data, split)
        device = choose_device(settings.device)
        _, tokenizer, statistics = read_run(job.like)
        _, _, prepared_with = read_run(job.folder / "prepared")
        assert statistics == prepared_with, "both are fitted to the same worlds"
        cache = job.cache if split in Stores._fields else "memory"
        multiple = COMPILED_MULTIPLE if job.config.execution.fixed_shapes else 1
        half = is_mixed(device, settings.precision)
        store = Store(worlds, Collator(tokenizer, statistics, settings.max_length), device, cache, 0, half, multiple)
        records = [worlds.record(i) for i in range(len(worlds))] if job.like.name != "prepared" else None
        files = sorted((job.folder / "packed").glob(f"{split}-[0-9]*.safetensors"))
        _STORES[job.like, split, clean] = load_store(store, files, records=records)
        if clean:
            store.adopt([(index, observe_anew(store[index], None)) for index in range(len(store))])
    return _STORES[job.like, split, clean]


def do(job: Job) -> str:
    """Train, answer every split, keep the answers; returns what to say of it."""
    answers = job.result("predictions", "npz")
    if job.stage == "language":
        return write(job)
    if answers.is_file():
        return f"{answers}: kept"
    start = time.perf_counter()
    console = Console(stderr=True, quiet=multiprocessing.parent_process() is not None)
    if not is_finished(job.run, job.config):
        stores = Stores(*(store_of(job, name) for name in Stores._fields))
        train(job.config, job.data, job.run, stores=stores, like=job.like, console=console, label=job.name)
    trained = time.perf_counter() - start
    answer(job, trained)
    return f"{job.run}: trained in {trained:.0f} s, answered in {time.perf_counter() - start - trained:.0f} s"


def answer(job: Job, trained: float) -> None:
    """Predictions of all splits but the training one, and how many worlds of each look unlike the training's."""
    device = choose_device(job.config.training.device)
    run = load_run(job.run, device)
    splits = [name for name in split_names(job.data) if name != "train"]
    found = {name: predict_all(run, store_of(job, name), batch_size=SWEEP) for name in splits}
    training = predict_all(run, store_of(job, "train"), batch_size=SWEEP, limit=OUTLIER_WORLDS)
    calibration = Calibration.fit(training, found["validation"])
    calibration.save(job.run / "calibration.json")
    note = {
        "best": read_json(job.run / "best.json"), "config": job.config.to_dict(), "seconds": round(trained, 1),
        "outliers": {name: outlier_rates(calibration, each) for name, each in found.items()}, "machine": describe(),
        "parameters": run.system.count_parameters(),
    }  # fmt: skip
    write_json(job.result("predictions", "json"), note)
    arrays = {f"{name}.{part}": getattr(each, part) for name, each in found.items() for part in ("logits", "unimodal")}
    save_arrays(job.result("predictions", "npz"), {name: value.astype(np.float16) for name, value in arrays.items()})
    worlds = job.folder / "worlds.npz"
    if not worlds.is_file():
        about = {f"{name}.{part}": np.asarray(getattr(each, part)) for name, each in found.items()
                 for part in ("world_ids", "groups", "labels")}  # fmt: skip
        stores = {name: store_of(job, name) for name in splits}  # a run shown one modality knows of no other
        about |= {f"{name}.present": np.array([each[i].present for i in range(len(each))])
                  for name, each in stores.items()}  # fmt: skip
        about |= clades_of(job.data, splits)
        save_arrays(worlds, about)


def clades_of(data: Path, splits: Sequence[str]) -> dict[str, np.ndarray]:
    """`SPLIT.clades` [N] of each world's candidate metabolism; nothing where worlds have none."""
    if not (data / "organisms.npz").is_file():
        return {}
    clades = organisms(data, "clade")
    return {f"{name}.clades": np.array(list(groups(data, name, clades).values())) for name in splits}


def write(job: Job) -> str:
    """What a trained system writes of the test worlds, scored."""
    path = job.result("language", "json")
    if path.is_file() or not job.result("predictions", "npz").is_file():
        return f"{path}: {'kept' if path.is_file() else 'no trained run'}"
    device = choose_device(job.config.training.device)
    run, store = load_run(job.run, device), store_of(job, "test")
    answers = predict_all(run, store, batch_size=SWEEP)
    calibration = Calibration.load(job.run / "calibration.json")
    believed = [WORLD_STATES[index] for index in calibration.likeliest(answers)]
    start = time.perf_counter()
    found = language(run, store, believed, calibration.physics_ranges(answers), limit=READ)
    seconds = time.perf_counter() - start
    write_json(path, {**found, "seconds": round(seconds, 1), "machine": describe()})
    return f"{path}: {found['worlds']} worlds in {seconds:.0f} s, right state {found['right_state']:.3f}"


def run_jobs(jobs: Sequence[Job], processes: int, console: Console) -> None:
    """All jobs, side by side in so many processes, which are dealt to the GPUs."""
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            console.print(do(job), highlight=False)
        return
    context = multiprocessing.get_context("spawn")
    turns = context.Queue()
    for number in range(processes):
        turns.put(number)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=take_gpu, initargs=(turns,)) as pool:
        for done in as_completed([pool.submit(do, job) for job in jobs]):
            console.print(done.result(), highlight=False)


def take_gpu(turns: Queue[int]) -> None:
    """Make the next GPU in turn the one that this process means by `cuda`."""
    number = turns.get()
    if torch.cuda.device_count():
        torch.cuda.set_device(number % torch.cuda.device_count())


def prepare(folder: Path, data: Path, options: argparse.Namespace, console: Console) -> None:
    """Tokenizers and statistics, prepared worlds of every split, hand-made features."""
    half = is_mixed(choose_device(options.device), "auto")
    start = time.perf_counter()
    prepare_run(run_config("mini"), data, folder / "prepared", console)
    if options.decoder is not None:
        config = run_config(options.small_preset, [f"training.decoder={options.decoder}"])
        prepare_run(config, data, folder / "prepared-small", console)
    view = View.fit(WorldDataset(data, "train"))
    keep_columns(view, folder / "features")
    console.print(f"tokenizer, statistics and features fitted in {time.perf_counter() - start:.0f} s", highlight=False)
    splits, start = split_names(data), time.perf_counter()
    parts = [
        part for name in splits for part in parts_of(folder / "prepared", data, name, folder / "packed", half=half)
    ]
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = sum(pool.map(prepare_one, parts, [view] * len(parts)))
    seconds = time.perf_counter() - start
    console.print(f"{done} worlds prepared in {seconds:.0f} s, {done / seconds:.0f} a second", highlight=False)
    write_json(folder / "data.json", WorldDataset(data, "test").manifest["identity"])


def prepare_one(part: Part, view: View) -> int:
    """Both files of a part, from reading its worlds once; returns how many were read."""
    features = part.path.parents[1] / "features" / f"{part.path.stem}.npz"
    if part.path.is_file() and features.is_file():
        return 0
    worlds = open_worlds(part.data, part.split)
    samples = [worlds[index] for index in range(part.start, part.stop)]
    save_samples(part, samples)
    save_arrays(features, view.of(samples))
    return len(samples)


def do_stage(stage: str, depth: str, options: argparse.Namespace, console: Console) -> None:
    """One stage at one depth; those of `TRAININGS` that were asked for are one, so that no process waits."""
    folder, data = options.out / depth, options.data.get(depth, Path("absent"))
    start = time.perf_counter()
    if stage == "prepare":
        prepare(folder, data, options, console)
    elif stage == "baselines":
        fit_views(folder / "features", folder / "predictions", options.trials, console)
    elif stage == "language":
        made = [job for each in TRAININGS for job in jobs_of(each, folder, data, options)
                if each != "small" or options.decoder is not None]  # fmt: skip
        chosen = [replace(job, stage=stage) for job in made if job.name in WRITTEN and job.seed == 0]
        run_jobs(chosen, min(options.jobs, 2), console)
    else:
        wanted = [name for name in TRAININGS if name in options.stage]
        run_jobs([job for each in wanted for job in jobs_of(each, folder, data, options)], options.jobs, console)
    console.print(f"{depth}, {stage}: {time.perf_counter() - start:.0f} s", highlight=False)


def shared_arguments(description: str) -> argparse.ArgumentParser:
    """The command line of what is trained and compared at `mini` size."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="of these, where several machines share them")
    parser.add_argument("--steps", type=int, default=600, help="of a mini training")
    parser.add_argument("--batch", type=int, default=64, help="worlds in a step of it")
    parser.add_argument("--pair", default="spectrum+climate", help="the pair of modalities trained beside single ones")
    parser.add_argument("--trials", type=int, default=3, choices=range(1, 6), help="settings of the trees on all")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that prepare worlds")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--decoder", type=Path, help="folder of the pretrained decoder (docs/models.md)")
    parser.add_argument("--small-preset", default="small", help="size of the large system; mini for a rehearsal")
    parser.set_defaults(mini_systems=[])
    return parser


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = shared_arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--data", nargs="*", default=[], metavar="DEPTH=DIR", help="folders of worlds by depth")
    parser.add_argument("--stage", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--mini-systems", nargs="*", metavar="NAME", help="of those known [all but clean]")
    parser.add_argument("--ablations", nargs="*", default=list(ABLATIONS), choices=list(ABLATIONS))
    parser.add_argument("--small-steps", type=int, default=2000)
    parser.add_argument("--small-batch", type=int, default=32)
    parser.add_argument("--small-seeds", type=int, default=1)
    parser.add_argument("--small-systems", nargs="*", default=["small", "small-frozen"], choices=list(SMALL))
    parser.add_argument("--small-set", action="append", default=[], dest="small_overrides", metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the result")
    parser.add_argument("--name", default=worlds_20k_report.NAME, help="of the result file, its page and figures")
    parser.add_argument("--figures", type=Path, help="folder of the figures [docs/figures; with --name: none]")
    parser.add_argument("--headline", help="the system that the result speaks of [unified, else small]")
    options = parser.parse_args()
    options.data = {name: Path(folder) for name, _, folder in (entry.partition("=") for entry in options.data)}
    known = ("unified", NOISELESS, *MODALITIES, options.pair)
    if unknown := set(options.mini_systems) - set(known):
        parser.error(f"--mini-systems: expected some of {', '.join(known)}, found {sorted(unknown)}")
    if options.name == worlds_20k_report.NAME and options.figures is None:
        options.figures = Path(__file__).parents[1] / "docs/figures"
    return options


def main() -> None:
    """Do the stages asked for, at every depth."""
    options, console = arguments(), Console(stderr=True)
    if "small" in options.stage and options.decoder is None:
        raise InputError(
            "--decoder: the stage `small` starts from a pretrained decoder; expected its folder, found none"
        )
    first = next((name for name in TRAININGS if name in options.stage), None)
    for stage in (name for name in STAGES[:-1] if name in options.stage and (name not in TRAININGS or name == first)):
        for depth in options.data or worlds_20k_report.depths_in(options.out):
            do_stage(stage, depth, options, console)
    if "report" in options.stage:
        worlds_20k_report.report(options.out, options.results, options.figures, console, options.name, options.headline)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
