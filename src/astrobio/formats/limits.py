"""Limits of a process that reads files from outside."""

from __future__ import annotations

from pathlib import Path


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
