"""Cross-modal fusion: whatever is known of a world → its state, with weights that say what was listened to.

Dimension letters: B worlds, K tokens of all modalities, C their width, D fusion width, A alignment width, M modalities.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from astrobio.batch.batch import GROWTH_SCALE
from astrobio.batch.sample import MODALITIES, PHYSICS_TARGETS, WORLD_STATES
from astrobio.models.blocks import CrossAttention, EncoderBlock, Pooling, RMSNorm

PAIRS = tuple(combinations(range(len(MODALITIES)), 2))
NICHE = 8.0  # K, half the width of a typical thermal niche
AGREEMENT_SCALE = 0.2  # cosines of embeddings that agree differ from those that don't by about this much


@dataclass(frozen=True)
class FusionConfig:
    """Shape of the fusion; `context_width` is that of the tokens, `text_width` the decoder's.

    Args:
        physics_alone: whether each modality answers for the physics by itself, too, as it does for the state.
    """

    width: int
    layers: int
    heads: int
    inner_width: int
    alignment_width: int
    context_width: int
    text_width: int
    physics_alone: bool = True


class FusionOutputs(NamedTuple):
    """State logits [B, 6], those of each modality alone [B, 4, 6] (0 where absent), physics [B, K] (normalised),
    weights [B, 4], unit embeddings {modality: [B, A]}, physics of each modality alone [B, 4, K] or None."""

    state_logits: Float[Tensor, "B 6"]
    unimodal_logits: Float[Tensor, "B 4 6"]
    physics: Float[Tensor, "B K"]
    weights: Float[Tensor, "B 4"]
    embeddings: dict[str, Float[Tensor, "B A"]]
    physics_alone: Float[Tensor, "B 4 K"] | None


class FusionLayer(nn.Module):
    """The summary tokens read all tokens, then each other."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.width)
        self.read = CrossAttention(config.width, config.context_width, config.width, config.heads)
        self.block = EncoderBlock(config.width, config.heads, config.inner_width)

    def forward(
        self, x: Float[Tensor, "B M D"], tokens: Float[Tensor, "B K C"], visible: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "B M D"]:
        return self.block(x + self.read(self.norm(x), tokens, visible))


class Expert(nn.Module):
    """What one modality says of the state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.state_head = nn.Linear(width, len(WORLD_STATES))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B 6"]:
        return self.state_head(self.norm(x))


class Retriever(nn.Module):
    """What one modality says of the physics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.physics_head = nn.Linear(width, len(PHYSICS_TARGETS))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        return self.physics_head(self.norm(x))


class Fusion(nn.Module):
    """One pooled token a modality (a learned one where absent) and one of the state, mixed, weighted and read out.

    The state's logits are those of one expert a modality, which sees nothing else, plus what the mixed tokens add: a
    product of experts (Hinton 2002, doi:10.1162/089976602760128018) and its joint correction. Without the experts the
    modality that learns fastest starves the others' encoders (Wang et al. 2020, arXiv:1905.12681). The correction also
    reads how well the modalities' embeddings agree, pair by pair, and whether the candidate organism could live in the
    climate: what no modality tells alone.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.pools = nn.ModuleDict(
            {
                name: Pooling(config.width, config.context_width, 1, config.heads, config.inner_width)
                for name in MODALITIES
            }
        )
        self.pooled_absent = nn.Parameter(torch.empty(len(MODALITIES), config.width))
        self.modality_embedding = nn.Embedding(len(MODALITIES), config.width)
        self.state_query = nn.Parameter(torch.empty(1, config.width))
        self.layers = nn.ModuleList(FusionLayer(config) for _ in range(config.layers))
        self.agreement = nn.Linear(len(PAIRS), config.width, bias=False)
        self.suitability = nn.Linear(3, config.width, bias=False)
        self.norm = RMSNorm(config.width)
        self.score = nn.Linear(config.width, 1, bias=False)  # a bias would cancel in the softmax
        self.state_head = nn.Linear(config.width, len(WORLD_STATES))
        self.physics_head = nn.Linear(config.width, len(PHYSICS_TARGETS))
        widths = {name: config.text_width if name == "text" else config.width for name in MODALITIES}
        self.experts = nn.ModuleDict({name: Expert(width) for name, width in widths.items()})
        if config.physics_alone:
            self.retrievers = nn.ModuleDict({name: Retriever(width) for name, width in widths.items()})
        self.align = nn.ModuleDict({name: nn.Linear(width, config.alignment_width) for name, width in widths.items()})

    def forward(
        self,
        tokens: dict[str, Float[Tensor, "B K C"]],
        visible: dict[str, Bool[Tensor, "B K"]],
        absent: Float[Tensor, "4 C"],
        present: Bool[Tensor, "B 4"],
        text_only: Float[Tensor, "B T"],
        suitability: Float[Tensor, "B 3"],
    ) -> FusionOutputs:
        """Fuse tokens of all modalities.

        Args:
            tokens, visible: by modality; `visible` False on padding (presence is added here).
            absent: learned tokens shown in place of absent modalities.
            present: [B, 4]. text_only: [B, T] mean of the text's states before any other modality was mixed in.
            suitability: [B, 3] of `thermal_suitability`.
        """
        pooled = torch.cat([self.pools[name](tokens[name], _never_empty(visible[name])) for name in MODALITIES], dim=1)
        known = torch.where(present[..., None], pooled, self.pooled_absent)  # [B, 4, D]
        x = known + self.modality_embedding.weight
        x = torch.cat([self.state_query.expand(len(x), 1, -1), x], dim=1)  # [B, 1 + 4, D]
        context, shown = show_present(tokens, visible, absent, present)
        for layer in self.layers:
            x = layer(x, context, shown)
        x = self.norm(x)
        state, modalities = x[:, 0], x[:, 1:]
        weights = adaptive_weights(self.score(modalities)[..., 0], present)
        state = state + (weights[..., None] * modalities).sum(1)
        sources = {name: pooled[:, index] for index, name in enumerate(MODALITIES)} | {"text": text_only}
        embeddings = {name: functional.normalize(self.align[name](sources[name]), dim=-1) for name in MODALITIES}
        state = state + self.agreement(agreements(embeddings, present).to(state.dtype))
        state = state + self.suitability(suitability.to(state.dtype))
        alone = torch.stack([self.experts[name](sources[name]) for name in MODALITIES], dim=1)  # [B, 4, 6]
        alone = alone * present[..., None]
        physics_alone = None
        if self.config.physics_alone:
            physics_alone = torch.stack([self.retrievers[name](sources[name]) for name in MODALITIES], dim=1)
        return FusionOutputs(
            state_logits=self.state_head(state) + alone.sum(1),
            unimodal_logits=alone,
            physics=self.physics_head(state),
            weights=weights,
            embeddings=embeddings,
            physics_alone=physics_alone,
        )


def thermal_suitability(
    growth: Float[Tensor, "B"], habitat: Float[Tensor, "B"], known: Bool[Tensor, "B"]
) -> Float[Tensor, "B 3"]:
    """Whether an organism could live in a climate: 1, d and d², all 0 where unknown.

    d is the growth temperature less that of the habitat (both on `GROWTH_SCALE`), in units of `NICHE` and bounded: the
    logarithm of a Gaussian thermal niche is linear in these (quantitative habitability, arXiv:2505.22808).
    """
    d = ((growth - habitat) * (GROWTH_SCALE[1] / NICHE)).clamp(-3.0, 3.0)
    return torch.stack([torch.ones_like(d), d, d.square()], dim=-1) * known[:, None]


def agreements(embeddings: dict[str, Float[Tensor, "B A"]], present: Bool[Tensor, "B 4"]) -> Float[Tensor, "B 6"]:
    """Cosine of each pair of embeddings, over `AGREEMENT_SCALE`; 0 where one of the two is absent."""
    cosines = torch.stack([(embeddings[MODALITIES[i]] * embeddings[MODALITIES[j]]).sum(-1) for i, j in PAIRS], dim=-1)
    both = torch.stack([present[:, i] & present[:, j] for i, j in PAIRS], dim=-1)
    return cosines / AGREEMENT_SCALE * both


def adaptive_weights(scores: Float[Tensor, "B 4"], present: Bool[Tensor, "B 4"]) -> Float[Tensor, "B 4"]:
    """Softmax over the modalities that are there; exactly 0 for the others, all 0 where nothing is there."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~present, lowest).softmax(-1) * present


def show_present(
    tokens: dict[str, Float[Tensor, "B K C"]],
    visible: dict[str, Bool[Tensor, "B K"]],
    absent: Float[Tensor, "M C"],
    present: Bool[Tensor, "B M"],
) -> tuple[Float[Tensor, "B K2 C"], Bool[Tensor, "B K2"]]:
    """All tokens in one row: a modality's own where it is there, its learned absent token where not.

    Modalities are taken in the order of `tokens`, to which the columns of `present` and rows of `absent` belong.
    """
    size = len(present)
    shown = [visible[name] & present[:, index, None] for index, name in enumerate(tokens)]
    everything = torch.cat([*tokens.values(), absent.expand(size, -1, -1)], dim=1)
    return everything, torch.cat([*shown, ~present], dim=1)


def _never_empty(visible: Bool[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
    """Rows without any visible token read their first one (what comes of it is masked by presence)."""
    first = torch.zeros_like(visible)
    first[:, 0] = ~visible.any(1)
    return visible | first
