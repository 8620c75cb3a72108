"""`astrobio train` on worlds made on the spot and a system of few numbers, for tests that start processes.

    python train_command.py SYSTEM.json [FAULT] -- train --data DIR --out RUN …

FAULT: `kill:RANK:STEP` (SIGKILL to itself, once in a launch), `term:RANK:STEP` (SIGTERM), `bad:RANK:WORLD` (a training
world that this rank cannot read), `unreadable:RANK:WORLD` (a validation world).
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from astrobio import cli
from astrobio.errors import InputError
from astrobio.system import SystemConfig
from astrobio.training import config, loop

made: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))
own_rank = int(os.environ.get("RANK", "0"))


def worlds_with_a_bad_one(split: str, index: int | None) -> Any:
    """A split of which one world cannot be read."""

    class Worlds(made["MemoryWorlds"]):
        def __getitem__(self, at: int, /) -> Any:
            if at == index:
                raise InputError(f"world {at}: expected a spectrum, found noise; build the data again")
            return super().__getitem__(at)

    return Worlds(split)


def signal_after(step: int, number: int) -> None:
    """Send this process a signal once it has taken so many steps."""
    note = loop.note_skipped

    def noting(result: Any, progress: Any, *rest: Any) -> None:
        note(result, progress, *rest)
        if progress.step == step and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), number)

    loop.note_skipped = noting


def main(system: Path, faults: list[str], arguments: list[str]) -> None:
    """Put the pieces in place and run the command line."""
    torch.set_num_threads(1)
    tiny = SystemConfig.from_dict(json.loads(system.read_text()))
    config.preset = lambda _: tiny
    bad: dict[str, int] = {}
    for kind, rank, number in (fault.split(":") for fault in faults):
        if int(rank) == own_rank:
            if kind in ("kill", "term"):
                signal_after(int(number), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            else:
                bad["train" if kind == "bad" else "validation"] = int(number)
    loop.WorldDataset = lambda _, split: worlds_with_a_bad_one(split, bad.get(split))  # pyright: ignore
    sys.argv = ["astrobio", *arguments]
    cli.main()


if __name__ == "__main__":
    cut = sys.argv.index("--")
    main(Path(sys.argv[1]), sys.argv[2:cut], sys.argv[cut + 1 :])
