"""Data sets on a climate model's runs: all for testing, self-contained, resumed, refused when a run has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from astrobio.dataset.build import build_dataset, simulate_to
from astrobio.dataset.reader import WorldDataset
from astrobio.dataset.store import PIECES, piece_path
from astrobio.errors import InputError
from astrobio.worlds.gcm_runs import KEPT, digests, read_runs
from astrobio.worlds.simulate import SimulationSettings

WORLDS, SEED = 10, 2


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gcm") / "worlds"
    simulate_to(out, WORLDS, SEED, 1, SimulationSettings(), organisms=folder / "organisms.npz", runs=KEPT)
    return out


def test_all_worlds_are_for_testing_and_the_manifest_names_the_runs(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["splits"] == {"test": WORLDS} and manifest["complete"]
    assert set(manifest["states"]) == set(read_runs(KEPT).suiting)
    assert manifest["identity"]["runs"] == dict(digests(KEPT)) == dict(digests(built / "runs"))
    assert manifest["licences"]["climate"] == "output of ExoPlaSim 3.4.2"
    assert manifest["split_rule"]["climate"] == "runs of a climate model, shared by worlds"


def test_worlds_read_back_have_the_climates_of_their_runs(built: Path) -> None:
    worlds, runs = WorldDataset(built, "test"), read_runs(KEPT)
    assert len(worlds) == WORLDS
    for world in (worlds[0], worlds[9]):
        assert world.climate is not None and world.provenance is not None and world.metabolism is not None
        found = world.climate.fields["surface_temperature"]
        expected = runs.cube(world.provenance["gcm"]).fields["surface_temperature"]
        np.testing.assert_allclose(found, expected, atol=(expected.max() - expected.min()) / 8000)


def test_a_lost_climate_is_made_again_from_the_data_sets_own_runs(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "worlds"
    shutil.copytree(built, root)
    shutil.rmtree(piece_path(root, "climate", 0), ignore_errors=True)
    piece_path(root, "climate", 0).unlink(missing_ok=True)
    assert build_dataset(root, WORLDS, SEED, workers=1, runs=root / "runs", quiet=True).made == WORLDS
    for name in ("pieces", "identity", "modalities"):
        manifests = [json.loads((folder / "manifest.json").read_text())[name] for folder in (built, root)]
        assert manifests[0] == manifests[1]


def test_another_run_or_none_is_another_data_set(built: Path, tmp_path: Path) -> None:
    changed = tmp_path / "runs"
    shutil.copytree(KEPT, changed)
    about = next(path for path in changed.glob("*.json") if path.with_suffix(".nc").exists())
    about.write_text(about.read_text() + "\n")
    with pytest.raises(InputError, match="holds another data set \\(runs: expected"):
        build_dataset(built, WORLDS, SEED, workers=1, runs=changed, quiet=True)
    with pytest.raises(InputError, match="--hold-out: worlds on a climate model's runs"):
        simulate_to(tmp_path / "x", WORLDS, SEED, 1, SimulationSettings(), PIECES, hold_out=["gcm"], runs=KEPT)
