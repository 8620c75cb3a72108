"""Files are examined in a process of their own, so that a reader that hangs, crashes or devours memory is a finding.

netCDF, HDF5 and libSBML are C libraries; a damaged file can make them loop or fault, which no `except` catches.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from astrobio.formats.limits import limit_memory, reader_context
from astrobio.quality.examine import Options, examine
from astrobio.quality.findings import FileReport
from astrobio.quality.intake import digest
from astrobio.quality.rules import finding

TIMEOUT = 600.0  # s for one file
MEMORY = 4 * 2**30  # bytes beyond what the idle process holds
GRACE = 2.0  # s that an idle process has to end by itself
START = 120.0  # s that a fresh process may take to import the readers
_CONTEXT = reader_context()  # a lost child is replaced in milliseconds


class Examiner:
    """`examine`, in a child process with limits; a child that is lost is replaced for the next file.

    Args:
        options: passed to `examine`. timeout: seconds a file may take. memory: bytes it may take.
    """

    def __init__(self, options: Options, timeout: float = TIMEOUT, memory: int = MEMORY) -> None:
        self.options, self.timeout, self.memory = options, timeout, memory
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Examiner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(GRACE)

    def examine(self, path: str | Path) -> FileReport:
        """What `examine` says, or FILE-007 where it could not finish."""
        pipe = self._ready()
        try:
            pipe.send_bytes(os.fsencode(str(path)))
            if pipe.poll(self.timeout):
                return FileReport.from_dict(json.loads(pipe.recv_bytes()))
            why = f"expected an answer within {self.timeout:g} s, found none"
        except (EOFError, OSError):
            why = f"expected the readers to survive, found them {self._fate()}"
        self._stop()
        return _lost(path, why)

    def _ready(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self._stop()
        here, there = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(there, self.options, self.memory), daemon=True)
        process.start()
        there.close()
        self._process, self._pipe = process, here
        if not here.poll(START):
            self._stop()
            raise TimeoutError(f"expected the examining process to start within {START:g} s, found it did not")
        here.recv_bytes()
        return here

    def _fate(self) -> str:
        assert self._process is not None
        self._process.join(5.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"stopped by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def _stop(self, grace: float = 0.0) -> None:
        """End the child; one that is idle gets a moment to put its things away."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join(grace)
            self._process.kill()
            self._process.join()
        self._pipe = self._process = None


def _lost(path: str | Path, why: str) -> FileReport:
    source = Path(path)
    report = FileReport(str(path), findings=[finding("FILE-007", source.name, why)])
    if source.exists():
        report.sha256, report.size = digest(source)
    return report


def _serve(pipe: Connection, options: Options, memory: int) -> None:
    """The child's life: limit itself, say it is ready, answer one path after another until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno() if sys.stdout else 1)
        os.dup2(nowhere.fileno(), sys.stderr.fileno() if sys.stderr else 2)
        limit_memory(memory)
        pipe.send_bytes(b"ready")
        while True:
            try:
                path = os.fsdecode(pipe.recv_bytes())
            except EOFError:
                return
            pipe.send_bytes(json.dumps(examine(path, options).to_dict(), default=str).encode())
