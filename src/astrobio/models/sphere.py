"""Geometry of latitude–longitude grids for convolutions and means.

Dimension letters: B batch, C channels, P levels, Y latitudes (south to north), X longitudes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def pad_sphere(
    fields: Float[Tensor, "B C P Y X"], rows: int, columns: int, sign: Float[Tensor, "C"] | None = None
) -> Float[Tensor, "B C P Y2 X2"]:
    """Continue fields beyond their edges as a sphere does.

    In longitude the grid closes on itself. Across a pole the next cell lies on the opposite meridian: rows are mirrored
    (cell centres lie off the pole) and shifted by half a circle. Both components of a vector point the other way there:
    `sign` is −1 for such channels. X must be even.
    """
    if rows:
        half = fields.shape[-1] // 2
        south = fields[..., :rows, :].flip(-2).roll(half, -1)
        north = fields[..., -rows:, :].flip(-2).roll(half, -1)
        if sign is not None:
            factor = sign.to(fields.dtype)[:, None, None, None]
            south, north = south * factor, north * factor
        fields = torch.cat([south, fields, north], dim=-2)
    return torch.cat([fields[..., -columns:], fields, fields[..., :columns]], dim=-1) if columns else fields


def band_areas(latitude: Float[Tensor, "B Y"]) -> Float[Tensor, "B Y"]:
    """Share of the sphere in each latitude band, edges midway between centres (degrees, increasing)."""
    inner = (latitude[:, 1:] + latitude[:, :-1]) / 2
    pole = torch.full_like(latitude[:, :1], 90.0)
    edges = torch.deg2rad(torch.cat([-pole, inner, pole], dim=1)).sin()  # [B, Y + 1]
    return edges.diff(dim=1) / 2


def area_mean(fields: Float[Tensor, "B C P Y X"], areas: Float[Tensor, "B Y"]) -> Float[Tensor, "B C P"]:
    """Mean over the sphere, each band weighted by its area."""
    return (fields.mean(-1) * areas[:, None, None].to(fields.dtype)).sum(-1)
