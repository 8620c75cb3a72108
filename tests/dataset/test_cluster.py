"""Shards made by Dask: the same bits anywhere, and no worker's death loses one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from astrobio.dataset import cluster
from astrobio.dataset.build import build_dataset
from astrobio.dataset.cluster import map_shards
from astrobio.errors import InputError
from astrobio.worlds.simulate import package_versions

WORLDS, SEED = 36, 5  # as in conftest


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    """A scheduler with one worker, reached over TCP like one elsewhere."""
    from distributed import LocalCluster

    options: dict[str, Any] = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as running:
        yield running


def test_a_cluster_by_address_gives_the_same_bits(folder: Path, scheduler: Any, tmp_path: Path) -> None:
    made = build_dataset(
        tmp_path / "remote", WORLDS, SEED, quiet=True, organisms=folder / "organisms.npz",
        scheduler=scheduler.scheduler_address,
    )  # fmt: skip
    assert made.made == WORLDS
    assert (tmp_path / "remote" / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def square_after_a_death() -> Callable[[int, Path], int]:
    """The square; whoever computes that of 2 first dies of it. Made inside, it travels by value."""

    def square(value: int, folder: Path) -> int:
        marker = folder / f"died-{value}"
        if value == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value * value

    return square


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    tasks = [(value, tmp_path) for value in range(6)]
    found = dict(map_shards(square_after_a_death(), tasks, tmp_path, 2, None))
    assert found == {value: value * value for value in range(6)} and (tmp_path / "died-2").exists()


def test_a_scheduler_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://"):
        with pytest.raises(InputError, match="expected a Dask scheduler"):
            list(map_shards(square_after_a_death(), [(1, tmp_path)], tmp_path, 2, address))


def test_workers_that_would_make_other_worlds_are_refused(
    folder: Path, scheduler: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = [(1, tmp_path)]
    with pytest.raises(InputError, match="does not see"):
        list(map_shards(square_after_a_death(), task, tmp_path / "elsewhere", 1, scheduler.scheduler_address))
    answers = iter([package_versions() | {"clero": "0.0"}])  # the worker's, then our own
    monkeypatch.setattr(cluster, "package_versions", lambda: next(answers, package_versions()))
    with pytest.raises(InputError, match=r"has clero 0\.0, expected"):
        list(map_shards(square_after_a_death(), task, folder, 1, scheduler.scheduler_address))


def test_a_cluster_without_workers_is_refused(folder: Path) -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=":0") as empty,
        pytest.raises(InputError, match="expected workers, found none"),
    ):
        list(map_shards(square_after_a_death(), [(1, folder)], folder, 1, empty.scheduler_address))
