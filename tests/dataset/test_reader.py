"""Reading: every world comes back as it was simulated, up to the stated rounding."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from astrobio.batch import MetabolicGraph, Sample
from astrobio.dataset import splits
from astrobio.dataset.build import SimulationSettings
from astrobio.dataset.reader import WorldDataset
from astrobio.dataset.splits import SPLITS
from astrobio.errors import InputError
from astrobio.formats.graphs import load_graphs
from astrobio.worlds.biosphere import Organism
from astrobio.worlds.scenario import Pools
from astrobio.worlds.simulate import simulate_world


@pytest.fixture(scope="module")
def parts(folder: Path) -> dict[str, WorldDataset]:
    return {split: WorldDataset(folder, split) for split in SPLITS}


@pytest.fixture(scope="module")
def original(folder: Path, parts: dict[str, WorldDataset]) -> tuple[Sample, Sample]:
    """The first test world, read and simulated again."""
    sample = parts["test"][0]
    manifest, index = parts["test"].manifest["identity"], parts["test"].record(0)["provenance"]["index"]
    library = [Organism(graph=g, guild=g.guild, **label) for g, label in load_graphs(folder / "organisms.npz")]
    chosen = splits.organism_pools(library, manifest["seed"])[0]["test"]
    hosts = splits.host_pools(manifest["worlds"], manifest["seed"])["test"]
    organisms = [library[i] for i in chosen]
    return sample, simulate_world(index, manifest["seed"], organisms, Pools(hosts), SimulationSettings())


def test_splits_share_nothing(parts: dict[str, WorldDataset]) -> None:
    assert sum(len(part) for part in parts.values()) == 36
    ids = [part[i].world_id for part in parts.values() for i in range(len(part))]
    assert len(set(ids)) == 36
    hosts = {name: {part.record(i)["provenance"]["star"] for i in range(len(part))} for name, part in parts.items()}
    assert not hosts["train"] & hosts["test"] and not hosts["train"] & hosts["validation"]
    assert not hosts["validation"] & hosts["test"]


def test_texts_state_and_physics_are_exact(original: tuple[Sample, Sample]) -> None:
    read, made = original
    for name in ("world_id", "context", "assessment", "state", "physics"):
        assert getattr(read, name) == getattr(made, name)
    assert read.metabolism is not None and made.metabolism is not None
    assert read.metabolism.reactions == made.metabolism.reactions


def test_spectra_lose_less_than_a_millionth(original: tuple[Sample, Sample]) -> None:
    read, made = (sample.spectrum for sample in original)
    assert read is not None and made is not None and read.kind == made.kind
    for name in ("wavelength", "value", "sigma", "bin_width"):
        np.testing.assert_allclose(getattr(read, name), getattr(made, name), rtol=1e-6)


def test_climates_lose_an_8190th_of_each_fields_range(original: tuple[Sample, Sample]) -> None:
    read, made = (sample.climate for sample in original)
    assert read is not None and made is not None and read.time_kind == made.time_kind
    np.testing.assert_allclose(read.levels, made.levels)
    for name, values in made.fields.items():
        found, expected = read.fields[name], values
        if name == "specific_humidity":
            found, expected = np.log10(np.maximum(found, 1e-8)), np.log10(np.maximum(values, 1e-8))
        span = np.ptp(expected, axis=(0, 2, 3), keepdims=True)
        assert (np.abs(found - expected) <= span / 8190 * 1.02 + 1e-4).all(), name


def _network(sample: Sample) -> MetabolicGraph:
    assert sample.metabolism is not None
    return sample.metabolism.network


def test_growth_temperatures_are_the_worlds_own(parts: dict[str, WorldDataset]) -> None:
    train = parts["train"]
    found = [graph.growth_temperature for i in range(len(train)) if (graph := train[i].metabolism) is not None]
    assert len(set(found)) > len(found) / 2
    assert found == [train.record(i)["growth_temperature"] for i in range(len(train))]


def test_worlds_of_one_organism_share_its_graph(parts: dict[str, WorldDataset]) -> None:
    train = parts["train"]
    by_name: dict[str, set[int]] = {}
    for i in range(len(train)):
        by_name.setdefault(train.record(i)["metabolism"], set()).add(id(_network(train[i])))
    assert all(len(found) == 1 for found in by_name.values())


def test_a_copy_in_another_process_reads_the_same(parts: dict[str, WorldDataset]) -> None:
    copy = pickle.loads(pickle.dumps(parts["validation"]))
    one, two = parts["validation"][0], copy[0]
    assert one.world_id == two.world_id and one.climate is not None and two.climate is not None
    np.testing.assert_array_equal(one.climate.fields["air_temperature"], two.climate.fields["air_temperature"])


def test_unknown_split_and_index(folder: Path, parts: dict[str, WorldDataset]) -> None:
    with pytest.raises(InputError, match="split"):
        WorldDataset(folder, "dev")
    with pytest.raises(IndexError):
        parts["test"][len(parts["test"])]


def test_missing_empty_foreign_and_unfinished_folders(tmp_path: Path, folder: Path) -> None:
    cases: dict[str, str] = {"none": "nothing", "empty": "no files", "foreign": "manifest", "unfinished": "interrupted"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("hello")
    (tmp_path / "unfinished").mkdir()
    manifest = json.loads((folder / "manifest.json").read_text()) | {"complete": False}
    (tmp_path / "unfinished" / "manifest.json").write_text(json.dumps(manifest))
    for name, word in cases.items():
        with pytest.raises(InputError, match=word) as caught:
            WorldDataset(tmp_path / name, "train")
        assert "astrobio simulate" in str(caught.value)


def test_a_lost_piece_is_named(tmp_path: Path, folder: Path) -> None:
    root = tmp_path / "worlds"
    shutil.copytree(folder, root)
    shutil.rmtree(root / "spectra" / "00000.zarr")
    with pytest.raises(InputError, match="00000"):
        list(WorldDataset(root, "train")[i] for i in range(3))


def test_a_damaged_chunk_is_named(tmp_path: Path, folder: Path) -> None:
    root = tmp_path / "worlds"
    shutil.copytree(folder, root)
    shard = root / "climate" / "00000.zarr" / "fields" / "c" / "0" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[:16] = bytes(16)  # the first chunk's header
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"climate/00000\.zarr"):
        for split in SPLITS:
            worlds = WorldDataset(root, split)
            list(worlds[i] for i in range(len(worlds)))


def test_memory_is_kept_where_there_is_glibc() -> None:
    """In a process of its own, whose peak does not grow by what it frees; elsewhere it says that it did nothing."""
    script = (
        "import numpy as np, resource, sys; from astrobio.dataset.reader import keep_freed_memory\n"
        "kept = keep_freed_memory()\n"
        "for _ in range(20): np.ones(250_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(100): np.ones(250_000)\n"
        "print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert found[0] == "False" or int(found[1]) < 4_000  # of 50,000 page faults
