"""Builds: whole, resumed after damage, with any number of workers, and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from astrobio.batch import WORLD_STATES
from astrobio.dataset import store
from astrobio.dataset.build import SHARD, BuildSummary, build_dataset, describe, settings_of, simulate_to
from astrobio.dataset.store import PIECES, piece_path
from astrobio.errors import InputError
from astrobio.worlds.simulate import SimulationSettings

WORLDS, SEED = 36, 5  # as in conftest


def test_manifest_says_what_was_built(summary: BuildSummary, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"] and manifest["modalities"] == list(PIECES) and manifest["shards"] == 2
    assert manifest["states"] == dict.fromkeys(WORLD_STATES, WORLDS // 6) == summary.states
    assert sum(manifest["splits"].values()) == WORLDS and set(manifest["splits"]) == {"train", "validation", "test"}
    assert {"clero", "taurex", "numpy"} <= manifest["identity"]["packages"].keys()
    assert manifest["licences"] and manifest["split_rule"]["organisms"]["methanogen"] == "by variant"
    assert manifest["split_rule"]["organisms"]["aerobe"] == "by clade"
    for key, digest in manifest["pieces"].items():
        piece, shard = key.split("/")
        assert store.hash_of(piece_path(folder, piece, int(shard))) == digest
    assert manifest["bytes_per_world"]["climate"] < 400_000  # 12 bits a number before compression: 647 kB
    assert not [path for path in folder.rglob(".*") if path.name[1:2].isdigit()], "a temporary was left"


def test_summary_table_names_speed_states_and_bytes(summary: BuildSummary) -> None:
    table = describe(summary)
    cells = [cell for column in table.columns for cell in column.cells]
    assert any("worlds/s" in str(cell) for cell in cells) and any("climate" in str(cell) for cell in cells)


def test_any_number_of_workers_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    build_dataset(tmp_path / "two", WORLDS, SEED, workers=2, quiet=True, organisms=folder / "organisms.npz")
    assert (tmp_path / "two" / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert (tmp_path / "two" / "organisms.npz").read_bytes() == (folder / "organisms.npz").read_bytes()


def test_a_damaged_or_interrupted_build_is_mended(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "worlds"
    shutil.copytree(folder, root)
    shutil.rmtree(piece_path(root, "climate", 1))  # never written: simulated alone, from the worlds that are there
    victim = next(path for path in sorted(piece_path(root, "spectra", 1).rglob("*")) if path.is_file())
    victim.write_bytes(victim.read_bytes()[:-3])  # bytes lost
    half = root / "worlds" / ".00001.jsonl.4711"  # a half-written piece of a killed process
    half.write_text("{")
    with (root / "pieces.jsonl").open("a") as ledger:
        ledger.write('{"piece": "climate", "sha')  # and its half-written line
    store.write_json(root / "manifest.json", json.loads((root / "manifest.json").read_text()) | {"complete": False})
    mended = build_dataset(root, WORLDS, SEED, workers=1, quiet=True)
    assert mended.made == WORLDS - SHARD and not half.exists()
    assert (root / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def test_a_finished_build_is_left_alone(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "worlds"
    shutil.copytree(folder, root)
    before = {path: path.stat().st_mtime_ns for path in (root / "climate").rglob("*") if path.is_file()}
    again = build_dataset(root, WORLDS, SEED, workers=1, quiet=True)
    assert again.made == 0 and "all were there" in str([c for col in describe(again).columns for c in col.cells])
    assert before == {path: path.stat().st_mtime_ns for path in (root / "climate").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("worlds", "seed"), [(WORLDS, SEED + 1), (WORLDS + 6, SEED)])
def test_another_build_in_the_same_folder_is_refused(folder: Path, worlds: int, seed: int) -> None:
    with pytest.raises(InputError, match="another data set"):
        build_dataset(folder, worlds, seed, workers=1, quiet=True)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(InputError, match="other files"):
        build_dataset(tmp_path, WORLDS, SEED, workers=1, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "chosen", "named"),
    [
        ({"worlds": 5}, {}, "worlds"), ({"workers": 0}, {}, "--workers"), ({"pieces": ["x"]}, {}, "piece"),
        ({}, {"gcm": "none"}, "--gcm"), ({}, {"transits": 0}, "transits"), ({}, {"kind": "reflection"}, "kind"),
        ({}, {"depth": "shallow"}, "depth"), ({}, {"depth": "deep", "transits": 5}, "--depth deep: stands for"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict, chosen: dict, named: str
) -> None:
    values = {"worlds": 18, "seed": 0, "workers": 1}
    with pytest.raises(InputError, match=named):
        settings = settings_of(**({"depth": None, "transits": None, "floor": None} | chosen))
        simulate_to(tmp_path / "out", settings=settings, **(values | changes))
    assert not (tmp_path / "out").exists()


def test_depths_have_names() -> None:
    assert settings_of("deep", None, None, gcm="exocam") == SimulationSettings(transits=5000, floor=False, gcm="exocam")
    assert settings_of(None, 7, None) == SimulationSettings(transits=7)
