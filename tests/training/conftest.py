"""A tiny system and a data set in memory, for the loop's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from astrobio.batch import Sample
from astrobio.losses.combined import LossWeights
from astrobio.models.climate_cnn import ClimateCNNConfig
from astrobio.models.decoder import DecoderConfig
from astrobio.models.fusion import FusionConfig
from astrobio.models.metabolic_vae import MetabolicVAEConfig
from astrobio.models.spectrum_encoder import SpectrumEncoderConfig
from astrobio.system import SystemConfig
from astrobio.training import loop
from astrobio.training.config import RunConfig, TrainingConfig

SPLITS = {"train": range(12), "validation": range(12, 18), "test": range(18, 24)}


class MemoryWorlds:
    """A split of worlds made on the spot."""

    def __init__(self, make: Callable[..., Sample], split: str) -> None:
        without = [(), ("climate",), ("text", "spectrum"), ()]
        self.samples = [make(i, without=without[i % 4] if split == "train" else ()) for i in SPLITS[split]]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@pytest.fixture
def worlds(sample_factory: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], MemoryWorlds]:
    """The three splits; the training loop reads the same ones whatever folder it is given."""
    splits = {name: MemoryWorlds(sample_factory, name) for name in SPLITS}
    monkeypatch.setattr(loop, "WorldDataset", lambda folder, split: splits[split])
    return lambda name: splits[name]


@pytest.fixture
def tiny_system() -> SystemConfig:
    """The whole architecture with the fewest numbers."""
    return SystemConfig(
        decoder=DecoderConfig(
            width=32, layers=2, heads=2, kv_heads=1, inner_width=32, vocabulary=300,
            bridge_every=2, bridge_width=16, bridge_heads=1, context_width=16,
        ),
        metabolic_vae=MetabolicVAEConfig(
            node_width=8, node_layers=1, node_inner=8, width=16, layers=1, heads=2, inner_width=16, tokens=2,
            latent=4, edge_width=4,
        ),
        climate_cnn=ClimateCNNConfig(patch=(5, 4, 4), widths=(8, 8, 16), blocks=(1, 1, 1), tokens=2, heads=2),
        spectrum_encoder=SpectrumEncoderConfig(
            anchors=16, basis=4, width=16, layers=1, heads=2, inner_width=16, tokens=2
        ),
        fusion=FusionConfig(
            width=16, layers=1, heads=2, inner_width=16, alignment_width=8, context_width=16, text_width=32
        ),
        token_width=16,
    )  # fmt: skip


@pytest.fixture
def tiny_run(tiny_system: SystemConfig) -> RunConfig:
    """Six steps of two micro-batches of three worlds, two of them an epoch, on the CPU."""
    training = TrainingConfig(
        steps=6, batch_size=3, accumulation=2, warmup_steps=2, modality_dropout=0.3, device="cpu", log_every=1,
        checkpoint_every=3, gradient_norms_every=4, cache="memory",
    )  # fmt: skip
    return RunConfig(tiny_system, training, LossWeights())


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Where a run goes."""
    return tmp_path / "run"
