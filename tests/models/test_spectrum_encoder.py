"""Any grid, any padding, weak bands."""

from __future__ import annotations

import math

import torch

from astrobio.models.initialise import init_weights
from astrobio.models.spectrum_encoder import (
    SpectrumEncoder,
    SpectrumEncoderConfig,
    anchor_positions,
    matched_filters,
)

CONFIG = SpectrumEncoderConfig(anchors=48, basis=4, width=16, layers=1, heads=2, inner_width=32, tokens=5)


def observation(points: int, worlds: int = 2, band: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Spectra over 0.6–5.3 µm with σ = 0.6 (60 ppm) and a Gaussian band at 3.3 µm; mask, widths, means, kinds."""
    position = torch.linspace(math.log(0.6), math.log(5.3), points).expand(worlds, points)
    sigma = torch.full((worlds, points), 0.6)
    value = sigma * torch.randn(worlds, points) + band * torch.exp(-(((position.exp() - 3.3) / 0.15) ** 2))
    spectrum = torch.stack([position, value, sigma], dim=-1)
    mask, width = torch.ones(worlds, points, dtype=torch.bool), torch.full((worlds, points), -4.5)
    return spectrum, mask, width, torch.full((worlds,), 3.7), torch.zeros(worlds, dtype=torch.long)


def make_encoder() -> SpectrumEncoder:
    encoder = SpectrumEncoder(CONFIG)
    init_weights(encoder, 1)
    return encoder.eval()


def test_order_and_place_of_padding_do_not_matter() -> None:
    encoder = make_encoder()
    spectrum, mask, width, mean, kind = observation(40)
    expected = encoder(spectrum, mask, width, mean, kind)
    assert expected.shape == (2, 6, 16)
    junk = torch.randn(2, 7, 3).abs() * 100
    longer = torch.cat([junk[:, :3], spectrum, junk[:, 3:]], dim=1)
    longer_mask = torch.cat([torch.zeros(2, 3), torch.ones(2, 40), torch.zeros(2, 4)], dim=1).bool()
    order = torch.randperm(47)
    widths = torch.cat([torch.zeros(2, 3), width, torch.zeros(2, 4)], dim=1)
    found = encoder(longer[:, order], longer_mask[:, order], widths[:, order], mean, kind)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_spectrum_without_any_point_is_finite() -> None:
    encoder = make_encoder()
    spectrum, mask, width, mean, kind = observation(10)
    out = encoder(spectrum, torch.zeros_like(mask), width, mean, kind)
    assert torch.isfinite(out).all()


def test_filters_add_up_the_significance_of_many_weak_points() -> None:
    """A band of half a σ a point stands out at 4σ or more once its points are weighed together."""
    anchors = anchor_positions(48, torch.device("cpu"))
    nearest = int((anchors - math.log(3.3)).abs().argmin())
    features = [
        matched_filters(*observation(3000, worlds=16, band=band)[:3], anchors, 4)[0][:, nearest, 4].sinh()
        for band in (0.0, 0.3)
    ]
    assert float(features[0].std()) < 2.0
    assert float(features[1].mean() - features[0].mean()) > 4.0


def test_doubling_the_resolution_keeps_the_amplitudes() -> None:
    anchors = anchor_positions(48, torch.device("cpu"))
    amplitudes = []
    for points in (400, 800):
        spectrum, mask, width, _, _ = observation(points, worlds=1)
        spectrum[..., 1] = torch.sin(8 * spectrum[..., 0])
        amplitudes.append(matched_filters(spectrum, mask, width, anchors, 4)[0][0, 10:20, :4])
    torch.testing.assert_close(amplitudes[0], amplitudes[1], rtol=0.1, atol=0.05)


def test_empty_anchors_are_marked() -> None:
    anchors = anchor_positions(48, torch.device("cpu"))
    features, seen = matched_filters(*observation(40)[:3], anchors, 4)
    inside = (anchors > math.log(0.65)) & (anchors < math.log(5.0))
    assert seen[:, inside].all()
    assert not seen[:, anchors < math.log(0.4)].any()
    assert not features[:, anchors > math.log(9.0)].any()
