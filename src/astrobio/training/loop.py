"""The training loop, from a folder of worlds to a run folder."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from rich.console import Console

from astrobio.batch import Collator, Sample, Statistics
from astrobio.dataset.reader import WorldDataset
from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.errors import InputError
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.activations import BatchShape
from astrobio.training.checkpoint import read_json, read_run, restore_checkpoint, save_checkpoint, write_json
from astrobio.training.config import RunConfig, TrainingConfig, choose_device
from astrobio.training.feed import Feed, Store
from astrobio.training.launcher import RankLost, Stopped
from astrobio.training.monitor import Monitor, open_monitor
from astrobio.training.optim import learning_rate, set_learning_rate
from astrobio.training.parallel import Prepared, check_execution, prepare
from astrobio.training.ranks import (
    attempt,
    by_first_rank,
    is_loss_of_a_rank,
    join_ranks,
    launched_ranks,
    meet,
    rank,
    together,
    world_size,
)
from astrobio.training.share import own_micro_batches, without_targets
from astrobio.training.start import pretrained_tokenizer, pretrained_weights
from astrobio.training.step import StepResult, gradient_norms, is_mixed, norms_by_part, train_step
from astrobio.training.stopping import StopRequest, watch_signals
from astrobio.training.validation import Progress, keep_if_best

FITTED_WORLDS = 1024  # training worlds, evenly spaced, that tokenizer and statistics are fitted to
MAIN_LOSSES = ("total", "classification", "language", "graph_links")  # shown beside the progress bar
COMPILED_MULTIPLE = 64  # tokens: texts of 140 to 190 then have one length, and 512 is a multiple
FREE_KEYS = (  # may differ when resuming
    "training.device", "training.cache", "training.workers", "training.log_every", "training.keep",
    "training.checkpoint_every", "execution.gather", "execution.reduce", "execution.shards", "execution.compile",
    "execution.graphs", "execution.activation_gib", "execution.offload",
)  # fmt: skip


class Stores(NamedTuple):
    """Prepared worlds of the two splits that training reads."""

    train: Store
    validation: Store


def train(
    config: RunConfig,
    data_dir: Path | str,
    run_dir: Path | str,
    *,
    console: Console | None = None,
    stores: Stores | None = None,
    like: Path | None = None,
    label: str = "train",
) -> Progress:
    """Train a system, or continue where an earlier call stopped; the best weights end in `RUN/model.safetensors`.

    Args:
        stores: prepared worlds of an earlier run on the same data, to save preparing them again.
        like: a run on the same data whose tokenizer and statistics are taken. label: name of the progress bar.

    Raises:
        InputError: no worlds, a run folder of another configuration, or a loss that stays non-finite.
    """
    run_dir, settings = Path(run_dir), config.training
    check_execution(config.execution, launched_ranks())
    device = join_ranks(choose_device(settings.device))
    console = (console or Console(stderr=True)) if rank() == 0 else Console(quiet=True)
    try:
        by_first_rank(lambda: prepare_run(config, data_dir, run_dir, console, like))
        ready = together(lambda: stores or open_stores(run_dir, data_dir, settings, device))
        return _train(config, run_dir, ready, device, console, label)
    except RuntimeError as error:
        if world_size() == 1 or not is_loss_of_a_rank(error):
            raise
        raise RankLost(
            "a rank of this run is gone; the launcher, or the same command, continues from the last checkpoint"
        ) from error


def _train(
    config: RunConfig, run_dir: Path, stores: Stores, device: torch.device, console: Console, label: str
) -> Progress:
    """`train` in a prepared run folder."""
    settings, feed = config.training, build_feed(stores.train, config.training)
    say_idle_ranks(settings, console)
    seed_everything(settings.seed)
    load = None if settings.decoder is None else pretrained_weights(Path(settings.decoder))
    prepared = prepare(config.system, config.execution, settings, device, batch_shape(stores.train, settings), load)
    system, optimizer = prepared.system, prepared.optimizer
    progress = resume(run_dir, system, optimizer, console)

    shares = own_micro_batches(feed, settings.accumulation, start=progress.step)
    with watch_signals() as request, open_monitor(run_dir, progress.step, settings.steps, console, label) as monitor:
        while progress.step < settings.steps:
            share, error = attempt(lambda: next(shares))
            if meet(error, flag=request.signal != 0):
                stop(request, prepared, config, run_dir, progress)
            assert share is not None
            batches, seeds = [part.batch for part in share], [part.seed for part in share]
            set_learning_rate(optimizer, learning_rate(progress.step, settings))
            result = train_step(system.train(), prepared.policy, batches, config.loss, config.precision, seeds)
            progress.step += 1
            note_skipped(result, progress, settings, monitor)
            if is_due(progress.step, settings.log_every, settings.steps):
                report(result, progress, norms_by_part(system, prepared.policy), settings, monitor)
            if is_norm_due(progress.step, settings) and prepared.measurable:
                first = batches[0] if rank() == 0 else without_targets(batches[0])
                norms = gradient_norms(system, prepared.policy, first, config.loss, config.precision, seeds[0])
                monitor.record(progress.step, "gradient_norms", norms)
            if is_validation_due(progress.step, steps_per_epoch(feed, settings), settings):
                prepared.save_barrier()
                keep_if_best(prepared, stores.validation, config, run_dir, progress, monitor)
            if settings.keep and is_due(progress.step, settings.checkpoint_every, settings.steps):
                checkpoint(prepared, config, run_dir, progress)
    return progress


def checkpoint(prepared: Prepared, config: RunConfig, run_dir: Path, progress: Progress) -> None:
    """Write where the run stands; every rank must call it."""
    prepared.save_barrier()
    save_checkpoint(run_dir, progress.step, prepared.system, prepared.optimizer, asdict(progress), config.training.keep)


def stop(request: StopRequest, prepared: Prepared, config: RunConfig, run_dir: Path, progress: Progress) -> NoReturn:
    """End the run between two steps.

    Raises:
        Stopped: always, with how to go on.
    """
    if config.training.keep == 0:
        raise Stopped(f"stopped after step {progress.step}; training.keep=0 kept nothing of it", request.code)
    checkpoint(prepared, config, run_dir, progress)
    raise Stopped(
        f"stopped after step {progress.step} of {config.training.steps}; the same command continues {run_dir}",
        request.code,
    )


def prepare_run(
    config: RunConfig, data_dir: Path | str, run_dir: Path, console: Console, like: Path | None = None
) -> None:
    """Fit tokenizer and statistics to training worlds and write what the run is; an existing run must be the same.

    Raises:
        InputError: no worlds, or the folder holds a run of another configuration.
    """
    if (run_dir / "config.json").is_file():
        _require_same(RunConfig.from_dict(read_json(run_dir / "config.json")), config, run_dir)
        return
    if like is not None:
        _, tokenizer, statistics = read_run(like)
    else:
        with console.status("fitting tokenizer and statistics to the training worlds"):
            tokenizer, statistics = _fit(WorldDataset(data_dir, "train"), config, data_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    tokenizer.save(run_dir / "tokenizer.json")
    write_json(run_dir / "statistics.json", statistics.to_dict())
    write_json(run_dir / "config.json", config.to_dict())  # last: its presence says that the others are whole


def open_stores(run_dir: Path, data_dir: Path | str, settings: TrainingConfig, device: torch.device) -> Stores:
    """Training and validation worlds as this run's tokenizer and statistics prepare them."""
    return Stores(*(open_store(run_dir, data_dir, split, settings, device) for split in ("train", "validation")))


def open_store(
    run_dir: Path, data_dir: Path | str, split: str, settings: TrainingConfig, device: torch.device
) -> Store:
    """One split as this run's tokenizer and statistics prepare it."""
    config, tokenizer, statistics = read_run(run_dir)
    collator = Collator(tokenizer, statistics, settings.max_length)
    half = is_mixed(device, settings.precision)
    multiple = COMPILED_MULTIPLE if config.execution.fixed_shapes else 1
    worlds = WorldDataset(data_dir, split)
    return Store(worlds, collator, device, settings.cache, settings.workers, half, multiple).fill()


def build_feed(store: Store, settings: TrainingConfig) -> Feed:
    """The training batches that the settings describe."""
    return Feed(
        store,
        settings.batch_size,
        settings.seed,
        settings.modality_dropout,
        settings.modalities,
        settings.reaction_dropout,
        settings.redraw_noise,
    )


def say_idle_ranks(settings: TrainingConfig, console: Console) -> None:
    """A step has so many micro-batches whatever the number of ranks: say it where some ranks get fewer or none."""
    ranks, micro_batches = world_size(), settings.accumulation
    if micro_batches % ranks:
        console.print(
            f"training.accumulation={micro_batches} micro-batches a step over {ranks} ranks: some wait in each step; "
            f"a multiple of {ranks} uses all (worlds a step = training.batch_size × training.accumulation)",
            highlight=False,
            soft_wrap=True,
        )


def batch_shape(store: Store, settings: TrainingConfig) -> BatchShape:
    """The size of a micro-batch, judged by the first world and the longest text allowed."""
    first, worlds = store[0], settings.batch_size
    _, _, times, levels, rows, columns = first.batch.climate.shape
    entries = first.graph.stoichiometry.numel()
    return BatchShape(
        worlds, settings.max_length, worlds * int(first.graph.num_nodes or 0), worlds * entries, times,
        (levels, rows, columns),
    )  # fmt: skip


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def resume(
    run_dir: Path, system: UnifiedMultiModalSystem, optimizer: torch.optim.Optimizer, console: Console
) -> Progress:
    """Load the newest checkpoint if there is one."""
    found = restore_checkpoint(run_dir, system, optimizer)
    if found is None:
        return Progress()
    progress = Progress(**found[1])
    console.print(f"resuming {run_dir} after step {progress.step}", highlight=False)
    return progress


def steps_per_epoch(feed: Feed, settings: TrainingConfig) -> int:
    """Optimizer steps in one pass over the training worlds, at least 1."""
    return max(1, feed.batches_per_epoch // settings.accumulation)


def is_norm_due(step: int, settings: TrainingConfig) -> bool:
    """Whether gradient norms are asked for after this step."""
    return settings.gradient_norms_every > 0 and step % settings.gradient_norms_every == 0


def is_validation_due(step: int, epoch: int, settings: TrainingConfig) -> bool:
    """Whether to validate after this step; an epoch has `epoch` steps."""
    every = settings.validate_every
    return every is not None and is_due(step, every or epoch, settings.steps)


def is_due(step: int, every: int, total: int) -> bool:
    """Every so many steps and after the last."""
    return step % every == 0 or step == total


def note_skipped(result: StepResult, progress: Progress, settings: TrainingConfig, monitor: Monitor) -> None:
    """Count and say skipped steps.

    Raises:
        InputError: `max_bad_steps` in a row.
    """
    if not result.skipped:
        progress.skipped_in_a_row = 0
        return
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    monitor.say(f"step {progress.step} skipped: {result.skipped}")
    monitor.record(progress.step, "skipped", {"reason": result.skipped, "count": progress.skipped})
    if progress.skipped_in_a_row >= settings.max_bad_steps:
        raise InputError(
            f"training stopped: {progress.skipped_in_a_row} steps in a row were not finite, the last because "
            f"{result.skipped}; lower training.lr (now {settings.lr:g}) or set training.precision=fp32"
        )


def report(
    result: StepResult, progress: Progress, norms: dict[str, float], settings: TrainingConfig, monitor: Monitor
) -> None:
    """Log a step's losses, the norm of its gradient in each part of the system, and move the bar."""
    speed = monitor.steps_per_second(progress.step)
    monitor.advance(progress.step, {name: result.losses[name] for name in MAIN_LOSSES if name in result.losses})
    values: dict[str, Any] = {
        **result.losses,
        "gradient_norm": result.gradient_norm,
        "gradient_norm_of": norms,
        "lr": learning_rate(progress.step - 1, settings),
        "worlds_per_second": speed * settings.batch_size * settings.accumulation,
    }
    if torch.cuda.is_available():
        values["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    monitor.record(progress.step, "train", values)


def _fit(worlds: WorldDataset, config: RunConfig, data_dir: Path | str) -> tuple[WorldTokenizer, Statistics]:
    """Tokenizer and statistics of up to `FITTED_WORLDS` training worlds."""
    if len(worlds) == 0:
        raise InputError(f"{data_dir}: expected worlds in the train split, found none; run `astrobio simulate` first")
    texts: list[str] = []

    def visit() -> Iterator[Sample]:
        for index in np.linspace(0, len(worlds) - 1, min(FITTED_WORLDS, len(worlds))).astype(int):
            sample = worlds[int(index)]
            texts.extend(text for text in (sample.context, sample.assessment) if text is not None)
            yield sample

    statistics = Statistics.fit(visit())
    if config.training.decoder is not None:
        return pretrained_tokenizer(Path(config.training.decoder), config.system), statistics
    return WorldTokenizer.train(texts, config.system.decoder.vocabulary), statistics


def _require_same(old: RunConfig, new: RunConfig, run_dir: Path) -> None:
    """Refuse to continue a run under other settings, except for those that change no result."""
    before, now = _leaves(old.to_dict()), _leaves(new.to_dict())
    for key in sorted(before.keys() | now.keys()):
        if key not in FREE_KEYS and before.get(key) != now.get(key):
            raise InputError(
                f"{run_dir}: holds a run with {key}={before.get(key)}, found {now.get(key)}; give another "
                "--out, or the same settings to resume"
            )


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: _plain(value)}
    return out


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
