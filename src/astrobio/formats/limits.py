"""Processes that read files from outside, and their limits."""

from __future__ import annotations

from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

# A process has one fork server, which imports these once for all readers; xarray imports the last four when it reads.
PRELOADED = [
    "astrobio.quality.isolation", "astrobio.sources.kinds.apart", "netCDF4", "dask.array", "pint", "scipy.sparse",
]  # fmt: skip


def reader_context() -> Any:
    """How reading processes start: forked from a clean server that holds their libraries, where the system can."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def limit_memory(memory: int) -> None:
    """Let this process take at most this many bytes more than it holds now.

    Works where the system tells the present size of the data segment (Linux); elsewhere a time limit must do.
    """
    try:
        import resource

        status = Path("/proc/self/status").read_text()
        present = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData"))
    except (ImportError, OSError, StopIteration):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = present + memory
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
