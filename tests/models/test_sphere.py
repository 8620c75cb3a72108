"""Padding across poles and the date line; area-weighted means."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.models.sphere import area_mean, band_areas, pad_sphere


def grid(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    latitude = (torch.arange(rows) + 0.5) * 180 / rows - 90
    longitude = torch.arange(columns) * 360 / columns - 180
    return latitude, longitude


def on_sphere(latitude: torch.Tensor, longitude: torch.Tensor) -> torch.Tensor:
    """A smooth scalar [1, 1, 1, Y, X], valid for latitudes beyond ±90° too (they are points on the far side)."""
    lat, lon = torch.deg2rad(latitude)[:, None], torch.deg2rad(longitude)[None]
    return (lat.cos() * (lon - 0.7).cos() + 0.3 * lat.sin() + lat.cos() ** 2 * (2 * lon).sin())[None, None, None]


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(3, 12), half=st.integers(2, 10), pad=st.integers(1, 2))
def test_padding_continues_a_smooth_field(rows: int, half: int, pad: int) -> None:
    columns = 2 * half
    latitude, longitude = grid(rows, columns)
    found = pad_sphere(on_sphere(latitude, longitude), pad, pad)
    beyond = (torch.arange(-pad, rows + pad) + 0.5) * 180 / rows - 90
    around = torch.arange(-pad, columns + pad) * 360 / columns - 180
    torch.testing.assert_close(found, on_sphere(beyond, around), rtol=1e-4, atol=1e-5)


def test_winds_turn_round_across_the_pole() -> None:
    """A uniform flow over the north pole: northward on one side is southward on the other."""
    _, longitude = grid(6, 8)
    lon = torch.deg2rad(longitude).expand(6, 8)
    # A flow along +x near the pole: eastward −sin(lon), northward −sin(lat)·cos(lon), here close to sin(lat) = 1.
    wind = torch.stack([-lon.sin(), -lon.cos()])[None, :, None]  # [1, 2, 1, Y, X]
    padded = pad_sphere(wind, 1, 0, torch.tensor([-1.0, -1.0]))
    torch.testing.assert_close(padded[..., -1, :], wind[..., -1, :], rtol=0, atol=1e-6)
    assert not torch.allclose(pad_sphere(wind, 1, 0)[..., -1, :], wind[..., -1, :])


@settings(max_examples=20, deadline=None)
@given(value=st.floats(-100, 100), rows=st.integers(2, 40))
def test_constants_are_their_own_mean(value: float, rows: int) -> None:
    latitude = torch.from_numpy(np.sort(np.random.default_rng(rows).uniform(-89, 89, rows))).float()[None]
    areas = band_areas(latitude)
    torch.testing.assert_close(areas.sum(), torch.tensor(1.0))
    mean = area_mean(torch.full((1, 1, 1, rows, 6), value), areas)
    torch.testing.assert_close(mean, torch.full((1, 1, 1), value), rtol=1e-5, atol=1e-4)


def test_mean_of_squared_sine_of_latitude_is_a_third() -> None:
    latitude, _ = grid(64, 8)
    field = torch.deg2rad(latitude).sin().square()[:, None].expand(64, 8)[None, None, None]
    assert abs(float(area_mean(field, band_areas(latitude[None]))) - 1 / 3) < 1e-3
    assert float(field.mean()) > 0.45  # without weights the poles count too much
