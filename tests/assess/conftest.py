"""A run folder with an untrained tiny system, and input files of every modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astrobio.assess import attribute, predict
from astrobio.batch import ClimateCube, Sample, Statistics
from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.formats.climate import LATITUDE, LONGITUDE, canonical_levels, write_climate
from astrobio.formats.metabolism import write_metabolism
from astrobio.formats.spectra import write_spectrum
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.checkpoint import save_weights, write_json
from astrobio.training.config import RunConfig


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps of the path integral and fewer words: the same code in less time."""
    monkeypatch.setattr(attribute, "STEPS", 2)
    monkeypatch.setattr(predict, "MAX_NEW_TOKENS", 8)


@pytest.fixture
def run_folder(tmp_path: Path, tiny_run: RunConfig, statistics: Statistics) -> Path:
    """What `astrobio train` leaves behind, with random weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    texts = [f"star M{i} radius {i} transits {i} this world reads as anoxic-biosphere" for i in range(20)]
    WorldTokenizer.train(texts, tiny_run.system.decoder.vocabulary).save(folder / "tokenizer.json")
    write_json(folder / "config.json", tiny_run.to_dict())
    write_json(folder / "statistics.json", statistics.to_dict())
    save_weights(UnifiedMultiModalSystem(tiny_run.system), folder / "model.safetensors")
    return folder


@pytest.fixture
def files(tmp_path: Path, sample_factory) -> dict[str, Path]:
    """One file a modality."""
    world: Sample = sample_factory(4)
    assert world.spectrum is not None and world.metabolism is not None
    paths = {"spectrum": tmp_path / "s.csv", "climate": tmp_path / "c.nc", "metabolism": tmp_path / "m.json"}
    write_spectrum(world.spectrum, paths["spectrum"])
    write_climate(_cube(), paths["climate"])
    write_metabolism(world.metabolism, paths["metabolism"])
    return paths


def _cube() -> ClimateCube:
    light = np.cos(np.deg2rad(LATITUDE))[:, None] * np.cos(np.deg2rad(LONGITUDE))[None]
    levels = canonical_levels(1e5)
    surface = np.broadcast_to(260 + 40 * light, (2, 1, 32, 64)).astype(np.float32)
    air = surface * (levels / 1e5)[:, None, None].astype(np.float32) ** 0.2
    fields = {"surface_temperature": surface, "air_temperature": air}
    return ClimateCube(fields, levels, LATITUDE, LONGITUDE, "months")
