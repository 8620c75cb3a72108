"""Spectra on any wavelength grid → a fixed number of tokens.

Points are first projected, with inverse-variance weights, on cosine bases in windows around anchors spaced evenly in
log wavelength. That is a bank of matched filters: it fits bands in noise, it does not care for the grid, the order or
the number of points, and everything after it has a fixed size.

Dimension letters: B worlds, L spectral points, A anchors, J basis functions, D width, Q tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from astrobio.batch.sample import SPECTRUM_KINDS
from astrobio.models.blocks import EncoderBlock, Pooling, RMSNorm

WAVELENGTHS = (0.2, 50.0)  # µm; from the O3 Hartley band to beyond CO2 at 15 µm and MIRI; points outside are unseen
FOURIER = 8  # frequencies of the anchors' position


@dataclass(frozen=True)
class SpectrumEncoderConfig:
    """Shape of the encoder: anchors in log wavelength, basis functions a window, transformer, pooled tokens."""

    anchors: int
    basis: int
    width: int
    layers: int
    heads: int
    inner_width: int
    tokens: int


class SpectrumEncoder(nn.Module):
    """Matched filters, a transformer over anchors, pooled tokens and one token of mean depth and kind."""

    def __init__(self, config: SpectrumEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(2 * config.basis + 2, config.width)
        self.position = nn.Linear(2 * FOURIER, config.width)
        self.kind_embedding = nn.Embedding(len(SPECTRUM_KINDS), config.width)
        self.depth = nn.Linear(2, config.width)
        self.blocks = nn.ModuleList(
            EncoderBlock(config.width, config.heads, config.inner_width) for _ in range(config.layers)
        )
        self.norm = RMSNorm(config.width)
        self.pool = Pooling(config.width, config.width, config.tokens, config.heads, config.inner_width)

    def forward(
        self,
        spectrum: Float[Tensor, "B L 3"],
        mask: Bool[Tensor, "B L"],
        width: Float[Tensor, "B L"],
        mean: Float[Tensor, "B"],
        kind: Int[Tensor, "B"],
    ) -> Float[Tensor, "B Q D"]:
        """Tokens [B, Q + 1, D]; arguments as the fields of `MultiModalBatch`."""
        anchors = anchor_positions(self.config.anchors, spectrum.device)
        filtered, seen = matched_filters(spectrum, mask, width, anchors, self.config.basis)
        dtype = self.embed.weight.dtype
        x = self.embed(filtered.to(dtype)) + self.position(_fourier(anchors).to(dtype))
        depth = torch.stack([mean - 3.5, (mean - 3.5).square()], dim=-1)  # log10 ppm about 3,000 ppm
        whole = self.depth(depth.to(dtype)) + self.kind_embedding(kind)
        x = torch.cat([x, whole[:, None]], dim=1)  # [B, A + 1, D]
        visible = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)  # the last is always there
        for block in self.blocks:
            x = block(x, visible)
        x = self.norm(x)
        return torch.cat([self.pool(x, visible), x[:, -1:]], dim=1)


def anchor_positions(anchors: int, device: torch.device) -> Float[Tensor, "A"]:
    """Log wavelengths of the anchors."""
    low, high = (math.log(limit) for limit in WAVELENGTHS)
    return torch.linspace(low, high, anchors, device=device)


def matched_filters(
    spectrum: Float[Tensor, "B L 3"],
    mask: Bool[Tensor, "B L"],
    width: Float[Tensor, "B L"],
    anchors: Float[Tensor, "A"],
    basis: int,
) -> tuple[Float[Tensor, "B A F"], Bool[Tensor, "B A"]]:
    """Inverse-variance projections of each window: amplitudes, significances, log information, log bin width.

    A window is a Hann taper of half width 1.5 anchor spacings. Padding has weight 0, so neither its place nor its
    number matters. Returns the features and which anchors have any point.
    """
    position, value, sigma = spectrum.unbind(-1)
    information = torch.where(mask, sigma.clamp_min(1e-3).square().reciprocal(), 0.0)  # [B, L]
    half_width = 1.5 * (anchors[1] - anchors[0])
    offset = ((position[:, None] - anchors[:, None]) / half_width).clamp(-1, 1)  # [B, A, L]
    taper = torch.cos(offset * (math.pi / 2)).square() * mask[:, None]
    taper = torch.where(offset.abs() < 1, taper, 0.0)
    total = torch.einsum("bal,bl->ba", taper, information)
    order = torch.arange(basis, device=offset.device)[:, None] * (math.pi / 2)
    waves = taper[:, :, None] * torch.cos((offset + 1)[:, :, None] * order)  # [B, A, J, L]
    signal = torch.einsum("bajl,bl->baj", waves, value * information)
    variance = torch.einsum("bajl,bl->baj", waves.square(), information)
    amplitudes, significances = signal / (total + 1e-3)[..., None], signal * (variance + 1e-6).rsqrt()
    weight = taper.sum(-1)
    mean_width = torch.einsum("bal,bl->ba", taper, torch.where(mask, width, 0.0)) / (weight + 1e-6)
    features = torch.cat([amplitudes, significances], dim=-1).asinh()
    extra = torch.stack([(total + 1e-3).log() / 4, mean_width / 4], dim=-1)  # /4: order-one numbers
    seen = weight > 0
    return torch.cat([features, extra], dim=-1) * seen[..., None], seen


def _fourier(anchors: Float[Tensor, "A"]) -> Float[Tensor, "A W"]:
    frequency = 2.0 ** torch.arange(FOURIER, device=anchors.device)
    angle = anchors[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
