"""Ctrl-C and SIGTERM end a run at the end of its step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from astrobio.training.ranks import launched_ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """The signal that asked the run to end, 0 while none has."""

    signal: int = 0

    @property
    def code(self) -> int:
        """Exit status, as a shell would give it."""
        return 128 + (self.signal or signal.SIGTERM)


@contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM instead of dying by them; a second SIGINT interrupts at once.

    Under a launcher there is no second one: a terminal sends each process the signal, and the launcher sends it again.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread handle signals
        yield request
        return

    def note(number: int, _: FrameType | None) -> None:
        if request.signal and number == signal.SIGINT and launched_ranks() == 1:
            raise KeyboardInterrupt
        request.signal = number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
