"""Named sizes of the one architecture."""

from __future__ import annotations

from collections.abc import Callable

from astrobio.errors import InputError
from astrobio.models.climate_cnn import ClimateCNNConfig
from astrobio.models.decoder import DecoderConfig
from astrobio.models.fusion import FusionConfig
from astrobio.models.metabolic_vae import MetabolicVAEConfig
from astrobio.models.spectrum_encoder import SpectrumEncoderConfig
from astrobio.system.config import SystemConfig


def _mini() -> SystemConfig:
    """A 2-core CPU, minutes: decoder 1.5M, VAE 0.5M, CNN 1M."""
    return SystemConfig(
        decoder=DecoderConfig(
            width=192, layers=4, heads=3, kv_heads=1, inner_width=384, vocabulary=1024,
            bridge_every=2, bridge_width=96, bridge_heads=3, context_width=96,
        ),
        metabolic_vae=MetabolicVAEConfig(
            node_width=48, node_layers=3, node_inner=64, width=128, layers=2, heads=4, inner_width=192, tokens=8,
            latent=32, edge_width=16,
        ),
        climate_cnn=ClimateCNNConfig(patch=(5, 4, 4), widths=(32, 80, 160), blocks=(1, 2, 3), tokens=8, heads=4),
        spectrum_encoder=SpectrumEncoderConfig(
            anchors=96, basis=8, width=96, layers=2, heads=4, inner_width=192, tokens=16
        ),
        fusion=FusionConfig(
            width=128, layers=1, heads=4, inner_width=192, alignment_width=64, context_width=96, text_width=192
        ),
        token_width=96,
    )  # fmt: skip


def _small() -> SystemConfig:
    """One GPU, minutes: the decoder has the shape of SmolLM2-135M."""
    return SystemConfig(
        decoder=DecoderConfig(
            width=576, layers=30, heads=9, kv_heads=3, inner_width=1536, vocabulary=49_152, rope_theta=100_000.0,
            bridge_every=5, bridge_width=384, bridge_heads=6, context_width=384,
        ),
        metabolic_vae=MetabolicVAEConfig(
            node_width=192, node_layers=5, node_inner=256, width=512, layers=4, heads=8, inner_width=1152, tokens=32,
            latent=128, edge_width=64,
        ),
        climate_cnn=ClimateCNNConfig(patch=(5, 4, 4), widths=(128, 320, 768), blocks=(2, 4, 4), tokens=32, heads=12),
        spectrum_encoder=SpectrumEncoderConfig(
            anchors=256, basis=8, width=384, layers=4, heads=6, inner_width=1024, tokens=32
        ),
        fusion=FusionConfig(
            width=384, layers=2, heads=6, inner_width=1024, alignment_width=256, context_width=384, text_width=576
        ),
        token_width=384,
    )  # fmt: skip


def _medium() -> SystemConfig:
    """One GPU, hours: decoder 1.1B, VAE 100M, CNN 200M."""
    return SystemConfig(
        decoder=DecoderConfig(
            width=2048, layers=22, heads=32, kv_heads=4, inner_width=5632, vocabulary=32_000, tied=False,
            bridge_every=5, bridge_width=512, bridge_heads=8, context_width=512,
        ),
        metabolic_vae=MetabolicVAEConfig(
            node_width=384, node_layers=6, node_inner=768, width=1024, layers=7, heads=16, inner_width=2432, tokens=48,
            latent=192, edge_width=128,
        ),
        climate_cnn=ClimateCNNConfig(patch=(5, 4, 4), widths=(256, 768, 1792), blocks=(2, 5, 5), tokens=48, heads=14),
        spectrum_encoder=SpectrumEncoderConfig(
            anchors=320, basis=8, width=512, layers=6, heads=8, inner_width=1408, tokens=48
        ),
        fusion=FusionConfig(
            width=512, layers=3, heads=8, inner_width=1408, alignment_width=512, context_width=512, text_width=2048
        ),
        token_width=512,
    )  # fmt: skip


def _full() -> SystemConfig:
    """16.8 billion parameters: decoder 13.14B, VAE 1.2B, CNN 2.5B."""
    return SystemConfig(
        decoder=DecoderConfig(
            width=5120, layers=40, heads=40, kv_heads=8, inner_width=15_104, vocabulary=131_072, tied=False,
            rope_theta=1_000_000.0, bridge_every=5, bridge_width=768, bridge_heads=6, context_width=1024,
        ),
        metabolic_vae=MetabolicVAEConfig(
            node_width=512, node_layers=8, node_inner=1024, width=2048, layers=17, heads=16, inner_width=8000,
            tokens=64, latent=256, edge_width=256,
        ),
        climate_cnn=ClimateCNNConfig(patch=(5, 4, 4), widths=(512, 1536, 4096), blocks=(3, 7, 16), tokens=64, heads=32),
        spectrum_encoder=SpectrumEncoderConfig(
            anchors=384, basis=8, width=768, layers=6, heads=12, inner_width=2048, tokens=64
        ),
        fusion=FusionConfig(
            width=768, layers=2, heads=12, inner_width=2048, alignment_width=768, context_width=1024, text_width=5120
        ),
        token_width=1024,
    )  # fmt: skip


PRESETS: dict[str, Callable[[], SystemConfig]] = {
    "mini": _mini,
    "small": _small,
    "medium": _medium,
    "full_16_8b": _full,
}


def preset(name: str) -> SystemConfig:
    """The configuration of a named size.

    Raises:
        InputError: no such name.
    """
    if name not in PRESETS:
        raise InputError(f"preset: expected one of {sorted(PRESETS)}, found {name!r}")
    return PRESETS[name]()
