"""Convolutional network on 5-D climate cubes, at home on the sphere.

Dimension letters: B worlds, V variables, T time steps, P levels, Y latitudes, X longitudes, C channels, Q tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from astrobio.batch.sample import CLIMATE_VARIABLES, LEVEL_VARIABLES, SURFACE_VARIABLES, TIME_KINDS
from astrobio.errors import InputError
from astrobio.models.blocks import Pooling, RMSNorm
from astrobio.models.depthwise import sphere_depthwise
from astrobio.models.sphere import area_mean, band_areas, pad_sphere

DIAGNOSTICS = ("surface_temperature", "asr", "olr")  # the first three of `PHYSICS_TARGETS`
COORDINATES = 6
HIDE_PROBABILITY = 0.5  # of a world's surface and top-of-atmosphere fields in training


@dataclass(frozen=True)
class ClimateCNNConfig:
    """Shape of the network.

    Args:
        patch: (P, Y, X) cells that become one position. widths: channels of the three stages. blocks: their numbers
            of blocks; the first runs on each time step, the others on their mean and spread. Between stages Y and X
            are halved. tokens, heads: of the pooled output, as wide as the last stage.
    """

    patch: tuple[int, int, int]
    widths: tuple[int, int, int]
    blocks: tuple[int, int, int]
    tokens: int
    heads: int


class ClimateOutputs(NamedTuple):
    """Climate tokens [B, Q + 1, C] (the last is the area mean) and diagnostics.

    `diagnostics` [B, 3] are normalised Ts, ASR and OLR, guessed while those fields were hidden;
    `diagnostics_weight` [B] is 1 / (the chance of having been hidden), 0 where they were seen.
    """

    tokens: Float[Tensor, "B Q C"]
    diagnostics: Float[Tensor, "B 3"]
    diagnostics_weight: Float[Tensor, "B"]


class ConvBlock(nn.Module):
    """ConvNeXt block (Liu et al. 2022, arXiv:2201.03545): depthwise 3×3×3 on the sphere, norm, expand, contract."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(width, width, 3, groups=width)
        self.norm = RMSNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B C P Y X"]) -> Float[Tensor, "B C P Y X"]:
        rows = x.permute(0, 2, 3, 4, 1)  # [B, P, Y, X, C]
        y = self.contract(functional.gelu(self.expand(self.norm(self._mix(x, rows)))))
        return (rows + y).permute(0, 4, 1, 2, 3)

    def _mix(self, x: Float[Tensor, "B C P Y X"], rows: Float[Tensor, "B P Y X C"]) -> Float[Tensor, "B P Y X C"]:
        """The depthwise convolution, on a GPU by a kernel of its own."""
        bias = self.depthwise.bias
        if x.is_cuda and bias is not None:
            return sphere_depthwise(rows, self.depthwise.weight, bias)
        padded = pad_sphere(functional.pad(x, (0, 0, 0, 0, 1, 1)), 1, 1)
        return self.depthwise(padded.contiguous(memory_format=torch.channels_last_3d)).permute(0, 2, 3, 4, 1)


class Halve(nn.Module):
    """Join 2×2 neighbours in latitude and longitude into one position."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(4 * width)
        self.project = nn.Linear(4 * width, out_width)

    def forward(self, x: Float[Tensor, "B C P Y X"]) -> Float[Tensor, "B C2 P Y2 X2"]:
        b, c, p, y, x_size = x.shape
        cells = x.reshape(b, c, p, y // 2, 2, x_size // 2, 2).permute(0, 2, 3, 5, 4, 6, 1)  # [B, P, Y/2, X/2, 2, 2, C]
        return self.project(self.norm(cells.flatten(4))).permute(0, 4, 1, 2, 3)


class Stem(nn.Module):
    """Overlapping patches of the fields, plus coordinates, phase in time, and a vector for each absent variable."""

    def __init__(self, config: ClimateCNNConfig) -> None:
        super().__init__()
        p, y, x = config.patch
        width = config.widths[0]
        self.patch = config.patch
        self.levels = nn.Conv3d(len(LEVEL_VARIABLES), width, (p, y + 2, x + 2), stride=(p, y, x))
        self.surface = nn.Conv3d(len(SURFACE_VARIABLES), width, (1, y + 2, x + 2), stride=(1, y, x), bias=False)
        self.coordinates = nn.Linear(COORDINATES, width, bias=False)
        self.phase = nn.Linear(3 * len(TIME_KINDS), width, bias=False)
        self.absent = nn.Parameter(torch.empty(len(CLIMATE_VARIABLES), width))

    def forward(
        self,
        climate: Float[Tensor, "B V T P Y X"],
        known: Bool[Tensor, "B V"],
        coordinates: Float[Tensor, "B P2 Y2 X2 6"],
        phase: Float[Tensor, "B T 12"],
    ) -> Float[Tensor, "BT C P2 Y2 X2"]:
        surface = len(SURFACE_VARIABLES)
        times = climate.shape[2]
        climate = climate.transpose(1, 2).flatten(0, 1)  # [B·T, V, P, Y, X]
        x = self.levels(pad_sphere(climate[:, surface:], 1, 1, _wind_sign(climate.device)))
        x = x + self.surface(pad_sphere(climate[:, :surface, :1], 1, 1))  # one level, seen by all
        place = self.coordinates(coordinates).permute(0, 4, 1, 2, 3).repeat_interleave(times, dim=0)
        missing = (~known).to(x.dtype) @ self.absent  # [B, C]
        moment = (self.phase(phase) + missing[:, None]).flatten(0, 1)  # [B·T, C]
        x = x + place + moment[:, :, None, None, None]
        return x.contiguous(memory_format=torch.channels_last_3d)  # in which the blocks work


class ClimateCNN(nn.Module):
    """Cubes → climate tokens and global diagnostics."""

    def __init__(self, config: ClimateCNNConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.widths
        self.stem = Stem(config)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width) for _ in range(count)))
            for width, count in zip(config.widths, config.blocks, strict=True)
        )
        self.join_time = nn.Linear(2 * first, first)
        self.halves = nn.ModuleList([Halve(first, second), Halve(second, third)])
        self.norm = RMSNorm(third)
        self.pool = Pooling(third, third, config.tokens, config.heads, 2 * third)
        self.diagnostics_expand = nn.Linear(third, third)
        self.diagnostics_head = nn.Linear(third, len(DIAGNOSTICS))

    def forward(
        self,
        climate: Float[Tensor, "B V T P Y X"],
        climate_mask: Bool[Tensor, "B V"],
        climate_levels: Float[Tensor, "B P"],
        latitude: Float[Tensor, "B Y"],
        longitude: Float[Tensor, "B X"],
        time_kind: Int[Tensor, "B"],
    ) -> ClimateOutputs:
        """Tokens and diagnostics of normalised cubes.

        In training the surface and top-of-atmosphere fields of a random half of the worlds are hidden, and these
        worlds' diagnostics count twice. In evaluation the tokens see everything, and a second pass, in which the
        fields of all worlds are hidden, gives the diagnostics.

        Raises:
            InputError: the grid is not a multiple of the patch and the two halvings.
        """
        self._check_grid(climate)
        geometry = (climate_levels, latitude, longitude, time_kind)
        size = len(climate)
        if self.training:
            hidden = torch.rand(size, device=climate.device) < HIDE_PROBABILITY
            tokens, diagnostics = self._tokens(climate, climate_mask, hidden, *geometry)
            return ClimateOutputs(tokens, diagnostics, hidden.float() / HIDE_PROBABILITY)
        everything = torch.ones(size, dtype=torch.bool, device=climate.device)
        tokens, _ = self._tokens(climate, climate_mask, ~everything, *geometry)
        _, diagnostics = self._tokens(climate, climate_mask, everything, *geometry)
        return ClimateOutputs(tokens, diagnostics, everything.float())

    def feature_map(
        self,
        climate: Float[Tensor, "B V T P Y X"],
        known: Bool[Tensor, "B V"],
        levels: Float[Tensor, "B P"],
        latitude: Float[Tensor, "B Y"],
        longitude: Float[Tensor, "B X"],
        time_kind: Int[Tensor, "B"],
    ) -> Float[Tensor, "B C P2 Y2 X2"]:
        """The last stage's map: turning the planet (fields and longitudes) turns the map."""
        times = climate.shape[2]
        dtype = self.join_time.weight.dtype
        coordinates = patch_coordinates(levels, latitude, longitude, self.config.patch).to(dtype)
        x = self.stem(climate.to(dtype), known, coordinates, time_phase(time_kind, times).to(dtype))
        first, *others = self.stages
        x = self._join_time(first(x), times)
        for halve, stage in zip(self.halves, others, strict=True):
            x = stage(halve(x))
        return x

    def _join_time(self, x: Float[Tensor, "BT C P Y X"], times: int) -> Float[Tensor, "B C P Y X"]:
        """Mean and spread along time, blind to the order of the steps (a phase vector told ordered kinds apart)."""
        steps = x.unflatten(0, (-1, times))
        mean = steps.mean(1)
        spread = (steps - mean[:, None]).square().mean(1).add(1e-6).sqrt()
        both = torch.cat([mean, spread], dim=1).permute(0, 2, 3, 4, 1)  # [B, P, Y, X, 2C]
        return self.join_time(both).permute(0, 4, 1, 2, 3)

    def _tokens(
        self, climate: Tensor, known: Tensor, hidden: Bool[Tensor, "B"], levels: Tensor, latitude: Tensor, *rest: Tensor
    ) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "B 3"]]:
        surface = len(SURFACE_VARIABLES)
        hide = torch.zeros_like(known)
        hide[:, :surface] = hidden[:, None]
        climate = torch.where(hide[:, :, None, None, None, None], 0.0, climate)
        x = self.feature_map(climate, known & ~hide, levels, latitude, *rest)
        areas = band_areas(latitude).unflatten(1, (x.shape[-2], -1)).sum(-1)  # [B, Y] → [B, Y2]
        x = self.norm(x.permute(0, 2, 3, 4, 1))  # [B, P2, Y2, X2, C]
        mean = area_mean(x.permute(0, 4, 1, 2, 3), areas).mean(-1)  # [B, C]
        tokens = torch.cat([self.pool(x.flatten(1, 3)), mean[:, None]], dim=1)
        return tokens, self.diagnostics_head(functional.gelu(self.diagnostics_expand(mean)))

    def _check_grid(self, climate: Tensor) -> None:
        p, y, x = self.config.patch
        unit = (p, 4 * y, 4 * x)
        found = tuple(climate.shape[-3:])
        if any(size % part for size, part in zip(found, unit, strict=True)):
            raise InputError(f"climate grid (level, lat, lon): expected multiples of {unit}, found {found}; regrid it")


@cache
def _wind_sign(device: torch.device) -> Float[Tensor, "5"]:
    """−1 for the components of the wind, 1 for scalars, in the order of `LEVEL_VARIABLES`."""
    with torch.inference_mode(mode=False):  # gradients may need it later
        return torch.tensor([-1.0 if name.endswith("_wind") else 1.0 for name in LEVEL_VARIABLES], device=device)


def time_phase(time_kind: Int[Tensor, "B"], times: int) -> Float[Tensor, "B T 12"]:
    """Place of each step in its period (cosine, sine, fraction), in the slots of its kind; 0 for realizations."""
    fraction = torch.arange(times, device=time_kind.device, dtype=torch.float32) / times
    angle = 2 * math.pi * fraction
    place = torch.stack([angle.cos(), angle.sin(), fraction], dim=-1)  # [T, 3]
    kind = functional.one_hot(time_kind, len(TIME_KINDS)).float()  # [B, 4]
    kind[:, TIME_KINDS.index("realizations")] = 0.0
    return (kind[:, None, :, None] * place[None, :, None]).flatten(2)  # [B, T, 4, 3] → [B, T, 12]


def patch_coordinates(
    levels: Float[Tensor, "B P"],
    latitude: Float[Tensor, "B Y"],
    longitude: Float[Tensor, "B X"],
    patch: tuple[int, int, int],
) -> Float[Tensor, "B P2 Y2 X2 6"]:
    """Log pressure and its square, sine and cosine of latitude, and the two parts of the substellar direction.

    cos(lat)·cos(lon) is the cosine of the stellar zenith angle where the star stands over (0°, 0°).
    """

    def by_patch(values: Tensor, size: int) -> Tensor:
        return values.unflatten(1, (-1, size)).mean(-1)

    height = by_patch(levels - 4.0, patch[0])[:, :, None, None]  # log10 of pressure over 0.1 bar
    lat, lon = torch.deg2rad(latitude), torch.deg2rad(longitude)
    sine, cosine = (by_patch(f(lat), patch[1])[:, None, :, None] for f in (torch.sin, torch.cos))
    east, front = (by_patch(f(lon), patch[2])[:, None, None, :] for f in (torch.sin, torch.cos))
    parts = (height, height.square(), sine, cosine, cosine * front, cosine * east)
    return torch.stack(torch.broadcast_tensors(*parts), dim=-1)
