"""How fast worlds are read from disk, beside what one would take instead: files a world, or xarray on Zarr.

python benchmarks/reader.py [--data DIR] [--worlds 192] [--processes 1 2]

All variants hold the same spectra and climates of the same worlds, in single precision once read; ours also gives
texts, truths and the metabolic graph. Processes read side by side, each its own worlds in a random order, and keep
nothing. Cold means that the files were dropped from the page cache before. All run with one thread and with an
allocator that keeps what was freed, as the loader processes of `astrobio train` do.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xarray

import machine
from astrobio.batch import Sample
from astrobio.dataset.build import build_dataset
from astrobio.dataset.reader import WorldDataset, keep_freed_memory
from astrobio.dataset.store import piece_path, size_of

SPECTRAL = ("wavelength", "bin_width", "value", "sigma")
STEP_CONSUMES = 300  # worlds/s that the `small` system takes at most on one H100, an upper estimate
Read = Callable[[int], Any]


def arrays_of(sample: Sample) -> dict[str, np.ndarray]:
    """What a world is to a user who saves arrays: the spectrum's four and the climate's eight, in single precision."""
    assert sample.spectrum is not None and sample.climate is not None
    found = {name: getattr(sample.spectrum, name) for name in SPECTRAL} | sample.climate.fields
    return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in found.items()}


def as_xarray(arrays: dict[str, np.ndarray], *outer: str) -> xarray.Dataset:
    """The arrays with named dimensions, behind the `outer` ones."""

    def dims(name: str, values: np.ndarray) -> tuple[str, ...]:
        inner = ("point",) if name in SPECTRAL else ("time", f"level{values.shape[len(outer) + 1]}", "lat", "lon")
        return (*outer, *inner)

    return xarray.Dataset({name: (dims(name, values), values) for name, values in arrays.items()})


def write_files(folder: Path, worlds: WorldDataset, count: int) -> None:
    """The other variants, in folders of their own."""
    for name in ("npz", "npz-compressed", "netcdf"):
        (folder / name).mkdir()
    every: list[dict[str, np.ndarray]] = []
    for index in range(count):
        arrays = arrays_of(worlds[index])
        np.savez(folder / "npz" / f"{index}.npz", **arrays)  # pyright: ignore[reportArgumentType]
        np.savez_compressed(folder / "npz-compressed" / f"{index}.npz", **arrays)  # pyright: ignore[reportArgumentType]
        packed = {name: {"zlib": True, "complevel": 4, "shuffle": True} for name in arrays}
        as_xarray(arrays).to_netcdf(folder / "netcdf" / f"{index}.nc", engine="netcdf4", encoding=packed)
        every.append(arrays)
    stacked = as_xarray({name: np.stack([arrays[name] for arrays in every]) for name in every[0]}, "world")
    chunks = {name: {"chunks": (1, *values.shape[1:])} for name, values in stacked.items()}
    stacked.to_zarr(folder / "xarray-zarr", encoding=chunks, zarr_format=3, consolidated=False)


def reader_of(variant: str, data: Path, folder: Path) -> Read:
    """Index → world, of one variant."""
    if variant == "astrobio":
        return WorldDataset(data, "train").__getitem__
    if variant == "xarray-zarr":
        store = xarray.open_zarr(folder / variant, consolidated=False, chunks=None)
        return lambda index: store.isel(world=index).load()
    if variant == "netcdf":
        return lambda index: xarray.open_dataset(folder / variant / f"{index}.nc", engine="netcdf4").load().close()
    return lambda index: dict(np.load(folder / variant / f"{index}.npz").items())


def paths_of(variant: str, data: Path, folder: Path, shards: list[int]) -> list[Path]:
    """Files of a variant."""
    roots = [folder / variant]
    if variant == "astrobio":
        roots = [piece_path(data, piece, shard) for piece in ("spectra", "climate") for shard in shards]
    return [path for root in roots for path in root.rglob("*") if path.is_file()]


def forget(paths: list[Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_share(variant: str, data: Path, folder: Path, share: list[int], gates: Any, results: Any) -> None:
    """One process: open, wait at the gate, read a share of the worlds; once cold, twice warm."""
    keep_freed_memory()
    read = reader_of(variant, data, folder)
    for gate in gates:
        gate.wait()
        started, cpu = time.perf_counter(), time.process_time()
        for index in share:
            read(index)
        results.put((gates.index(gate), started, time.perf_counter(), time.process_time() - cpu))
        gate.wait()


def measure(variant: str, data: Path, folder: Path, count: int, processes: int, shards: list[int]) -> dict[str, float]:
    """Samples/s of `processes` that read `count` worlds side by side, cold and warm."""
    context = get_context("spawn")
    gates, results = [context.Barrier(processes + 1) for _ in range(3)], context.Queue()
    order = np.random.default_rng(0).permutation(count).tolist()
    started = [
        context.Process(target=read_share, args=(variant, data, folder, order[n::processes], gates, results))
        for n in range(processes)
    ]
    for process in started:
        process.start()
    rates, seconds = [], []
    for number, gate in enumerate(gates):
        if number == 0:
            forget(paths_of(variant, data, folder, shards))
        gate.wait()
        gate.wait()
        found = [results.get() for _ in started]
        rates.append(count / (max(end for _, _, end, _ in found) - min(start for _, start, _, _ in found)))
        seconds.append(sum(cpu for *_, cpu in found))
    for process in started:
        process.join()
    return {
        "cold_samples_per_s": rates[0], "warm_samples_per_s": max(rates[1:]),
        "warm_cpu_ms_per_sample": 1e3 * min(seconds[1:]) / count,
    }  # fmt: skip


def main() -> None:
    """Measure all variants, print a table and write `reader.json`."""
    parser = machine.parser(str(__doc__))
    parser.add_argument("--data", type=Path, help="a data set with all pieces [one is made]")
    parser.add_argument("--worlds", type=int, default=192, help="training worlds read")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, data = Path(temporary), options.data or Path(temporary) / "data"
        if options.data is None:
            build_dataset(data, -(-options.worlds * 10 // 42) * 6, 1, quiet=True)
        worlds = WorldDataset(data, "train")
        count = min(options.worlds, len(worlds))
        write_files(folder, worlds, count)
        shards = list(range(worlds.manifest["shards"]))
        found = {}
        for variant in ("astrobio", "npz", "npz-compressed", "netcdf", "xarray-zarr"):
            rows = {str(n): measure(variant, data, folder, count, n, shards) for n in options.processes}
            size = sum(worlds.manifest["bytes_per_world"].values())
            if variant != "astrobio":
                size = size_of(folder / variant) / count
            found[variant] = {"bytes_per_world": size, "processes": rows}
    ours = found["astrobio"]["processes"]
    per_core = 1e3 / min(row["warm_cpu_ms_per_sample"] for row in ours.values())
    machine.write(options.out, "reader", {
        "worlds": count, "cores": os.cpu_count(), "variants": found, "samples_per_core_second": per_core,
        "cores_for_5x_the_small_step": 5 * STEP_CONSUMES / per_core,
    })  # fmt: skip
    head = ("variant", "kB/world", "processes", "cold samples/s", "warm samples/s", "CPU ms/sample")
    machine.table([head] + [
        (name, entry["bytes_per_world"] / 1e3, n, *row.values())
        for name, entry in found.items()
        for n, row in entry["processes"].items()
    ])  # fmt: skip


if __name__ == "__main__":
    main()
