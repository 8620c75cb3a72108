"""Where shards are made: Dask workers of this machine, or any Dask cluster by its address.

A cluster's workers write into the data set's folder themselves, so they must see it under the same path, and must run
the same versions of everything that decides a world's bits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astrobio.errors import InputError
from astrobio.worlds.simulate import package_versions

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 30  # patience for a scheduler that does not answer
RETRIES = 3  # of a shard whose worker was lost


def map_shards(
    make: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], root: Path, workers: int, scheduler: str | None
) -> Iterator[tuple[int, Any]]:
    """(number of the task, `make(*task)`) in the order in which they finish.

    Args:
        workers: processes on this machine; 1 works in this one. scheduler: address of a cluster, which takes over.

    Raises:
        InputError: no scheduler answers, or its workers differ in version or do not see the folder.
    """
    if workers == 1 and scheduler is None:
        for number, task in enumerate(tasks):
            yield number, make(*task)
        return
    from distributed import wait

    with _connected(workers, scheduler) as client, client.as_current():  # not the default: xarray would use it
        if scheduler is not None:
            _check_workers(client, root, scheduler)
        pending = {client.submit(make, *task, pure=False, retries=RETRIES): n for n, task in enumerate(tasks)}
        while pending:
            finished: Any = wait(list(pending), return_when="FIRST_COMPLETED")
            for future in finished.done:
                yield pending.pop(future), future.result()


@contextmanager
def _connected(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A client of the cluster at `scheduler`, or of one that lives as long as this call."""
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(
                f"--scheduler {scheduler}: expected a Dask scheduler, found {type(error).__name__}; start one with "
                "`dask scheduler` and give the address that it prints, such as tcp://host:8786"
            ) from None
        with client:
            yield client
        return
    # One BLAS thread a worker: they fill the cores themselves.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    cluster = LocalCluster(
        n_workers=workers, threads_per_worker=1, memory_limit=None, dashboard_address=":0", silence_logs=logging.ERROR
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def _check_workers(client: Client, root: Path, scheduler: str) -> None:
    """Refuse a cluster whose worlds would be other worlds, or would lie elsewhere."""
    there: Any = client.run(_what_is_there, root)
    if not there:
        raise InputError(f"--scheduler {scheduler}: expected workers, found none; start some with `dask worker`")
    for worker, (versions, sees) in there.items():
        differing = [name for name, version in package_versions().items() if versions.get(name) != version]
        if differing:
            name = differing[0]
            raise InputError(
                f"--scheduler {scheduler}: worker {worker} has {name} {versions.get(name)}, expected "
                f"{package_versions()[name]} as here; install the same versions"
            )
        if not sees:
            raise InputError(
                f"--scheduler {scheduler}: worker {worker} does not see {root}; choose an --out on a shared file system"
            )


def _what_is_there(root: Path) -> tuple[dict[str, str], bool]:
    return package_versions(), (root / "manifest.json").is_file()
