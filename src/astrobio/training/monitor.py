"""What a run says of itself: a progress bar, `log.jsonl` and TensorBoard."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from astrobio.training.ranks import rank


class Monitor:
    """Context manager around the loop. One line of `log.jsonl` is `{"step": …, "kind": …, name: number, …}`.

    Args:
        run_dir: where the logs go; on resuming, what was logged beyond `start` is dropped, for it is done again.
        start, total: steps done and to do. console: where the bar and messages go. label: name of the bar.
    """

    def __init__(self, run_dir: Path, start: int, total: int, console: Console, label: str = "train") -> None:
        self.path, self.console, self.label, self.start, self.total = (
            run_dir / "log.jsonl",
            console,
            label,
            start,
            total,
        )
        run_dir.mkdir(parents=True, exist_ok=True)
        _drop_later_lines(self.path, start)
        self._board = _open_board(run_dir / "tensorboard", start)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"),
            console=console, transient=True,
        )  # fmt: skip
        self._since = (time.perf_counter(), start)

    def __enter__(self) -> Monitor:
        self._log = self.path.open("a", encoding="utf-8")
        self._progress.start()
        self._task = self._progress.add_task(self.label, total=self.total, completed=self.start, losses="")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()
        self._log.close()
        self._board.close()

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        """Move the bar to `step` and show these numbers beside it."""
        shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._progress.update(self._task, completed=step, losses=shown)

    def steps_per_second(self, step: int) -> float:
        """Since the last call."""
        now, (then, before) = time.perf_counter(), self._since
        self._since = (now, step)
        return (step - before) / max(now - then, 1e-9)

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Log numbers (nested mappings become `a/b`) to both files."""
        flat = dict(_flatten(values))
        self._log.write(json.dumps({"step": step, "kind": kind, **flat}, ensure_ascii=False) + "\n")
        self._log.flush()
        for name, value in flat.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(message, highlight=False)


class SilentMonitor(Monitor):
    """What ranks other than the first have: it takes everything, shows nothing and writes no file."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        pass

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        """Nothing."""

    def steps_per_second(self, step: int) -> float:
        """Nothing is measured."""
        return float("nan")

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def say(self, message: str) -> None:
        """Nothing."""


def open_monitor(run_dir: Path, start: int, total: int, console: Console, label: str = "train") -> Monitor:
    """The run's monitor on rank 0, a silent one on the others."""
    return Monitor(run_dir, start, total, console, label) if rank() == 0 else SilentMonitor()


def _open_board(folder: Path, start: int) -> Any:
    """A TensorBoard writer that hides what an interrupted run wrote beyond `start`."""
    from torch.utils.tensorboard import SummaryWriter  # half a second, and only training needs it

    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for name, value in values.items():
        out += _flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else [(prefix + name, value)]
    return out


def _drop_later_lines(path: Path, start: int) -> None:
    """Keep the whole lines of steps up to `start`."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= start:
                kept.append(line)
        except ValueError:  # a line cut by an interruption
            continue
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)
