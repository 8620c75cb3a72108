"""What a process of a run under torchrun must know about its launch; standard library only, so that it loads at once.

torchrun starts all processes again when one of them fails, whatever the reason. A user's mistake would be said again
by every process and at every start, so what was said is noted in the folder that torchrun made for this launch.
"""

from __future__ import annotations

import os
from pathlib import Path

MISTAKE, LOSS, INTERRUPTION = "astrobio-mistake", "astrobio-loss", "astrobio-interruption"  # what is said once


class RankLost(Exception):
    """Another process of the run ended, and this one cannot go on without it."""


class Stopped(KeyboardInterrupt):
    """A run ended at a step's end because it was asked to; its text says how to go on.

    Args:
        message: for the user. code: exit status, 128 + the signal's number as a shell would say.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def launch_folder() -> Path | None:
    """The folder of this launch on this host, the same after restarts; None without torchrun."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/attempt_0/RANK/error.json
    if not error_file:
        return None
    folder = Path(error_file).parents[2]
    return folder if folder.is_dir() else None


def claim(name: str) -> bool:
    """Whether this process is the first on its host to ask for `name` in this launch; without torchrun, rank 0 is."""
    folder = launch_folder()
    if folder is None:
        return os.environ.get("RANK", "0") == "0"
    try:
        os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except OSError:  # better said twice than not at all
        return True
    return True


def restarts() -> int:
    """How often torchrun has started this launch again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def ended_by_a_mistake() -> bool:
    """Whether an earlier start of this launch ended by a user's mistake, which no restart mends."""
    folder = launch_folder()
    return restarts() > 0 and folder is not None and (folder / MISTAKE).exists()
