"""Transformer parts that every model here shares, Llama's conventions.

Dimension letters: B batch, S queries, K keys, D model width, H query heads, G key-value heads, W head width,
C width of the tokens attended to, Q pooled tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from astrobio.models.attention_backends import AttentionKernel, causal_attention


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def rotary_table(
    positions: Int[Tensor, "B S"], width: int, theta: float
) -> tuple[Float[Tensor, "B 1 S W"], Float[Tensor, "B 1 S W"]]:
    """Cosines and sines of rotary positions (Su et al. 2021, arXiv:2104.09864) in float32; `width` is a head's."""
    exponent = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angles = positions[..., None].float() * theta**-exponent  # [B, S, W/2]
    angles = torch.cat([angles, angles], dim=-1)[:, None]  # [B, 1, S, W]
    return angles.cos(), angles.sin()


def rotate(
    x: Float[Tensor, "B H S W"], cosines: Float[Tensor, "B 1 S W"], sines: Float[Tensor, "B 1 S W"]
) -> Float[Tensor, "B H S W"]:
    """Turn each pair (i, i + W/2) by its position's angle, Llama's pairing."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x * cosines + turned * sines).to(x.dtype)


@dataclass
class KeyValueCache:
    """Keys and values of one layer's past; slot number = position, so padding is overwritten before it is seen.

    Args:
        keys, values: [B, G, K, W], K the longest sequence that will be generated.
    """

    keys: Float[Tensor, "B G K W"]
    values: Float[Tensor, "B G K W"]

    @classmethod
    def empty(
        cls, batch: int, heads: int, length: int, width: int, *, device: torch.device, dtype: torch.dtype
    ) -> KeyValueCache:
        shape = (batch, heads, length, width)
        return cls(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))

    def write(self, positions: Int[Tensor, "B S"], keys: Tensor, values: Tensor) -> None:
        """Store [B, G, S, W] keys and values at each row's own positions."""
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        self.keys[rows, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
        self.values[rows, :, positions] = values.transpose(1, 2).to(self.values.dtype)


class SelfAttention(nn.Module):
    """Causal grouped-query self-attention (Ainslie et al. 2023, arXiv:2305.13245) with rotary positions."""

    def __init__(self, width: int, heads: int, kv_heads: int, kernel: AttentionKernel = "auto") -> None:
        super().__init__()
        self.kernel: AttentionKernel = kernel
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        self.q_proj = nn.Linear(width, heads * self.head_width, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.o_proj = nn.Linear(heads * self.head_width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None = None,
        positions: Int[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B S D"]:
        q, k, v = (
            split_heads(projected, heads)
            for projected, heads in (
                (self.q_proj(x), self.heads),
                (self.k_proj(x), self.kv_heads),
                (self.v_proj(x), self.kv_heads),
            )
        )
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is None:
            out = causal_attention(q, k, v, self.kernel)
        else:
            assert positions is not None, "a cache needs the positions of its queries"
            cache.write(positions, k, v)
            slots = torch.arange(cache.keys.shape[2], device=x.device)
            visible = (slots <= positions[..., None])[:, None]  # [B, 1, S, K]
            past = (cache.keys.to(q.dtype), cache.values.to(q.dtype))  # they differ only under autocast
            grouped = self.heads != self.kv_heads
            out = functional.scaled_dot_product_attention(q, *past, attn_mask=visible, enable_gqa=grouped)
        return self.o_proj(join_heads(out))


class CrossAttention(nn.Module):
    """Attention of queries [B, S, D] on tokens [B, K, C] of which only the visible ones are read.

    Without a mask all are visible; each row of a mask needs at least one visible token.
    """

    def __init__(self, width: int, context_width: int, inner_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner_width, bias=False)
        self.k_proj = nn.Linear(context_width, inner_width, bias=False)
        self.v_proj = nn.Linear(context_width, inner_width, bias=False)
        self.o_proj = nn.Linear(inner_width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        tokens: Float[Tensor, "B K C"],
        visible: Bool[Tensor, "B K"] | None = None,
    ) -> Float[Tensor, "B S D"]:
        q = split_heads(self.q_proj(x), self.heads)
        k, v = split_heads(self.k_proj(tokens), self.heads), split_heads(self.v_proj(tokens), self.heads)
        mask = None if visible is None else visible[:, None, None]  # [B, 1, 1, K]
        return self.o_proj(join_heads(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner_width, bias=False)
        self.up_proj = nn.Linear(width, inner_width, bias=False)
        self.down_proj = nn.Linear(inner_width, width, bias=False)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class EncoderBlock(nn.Module):
    """Pre-norm block without order: attention among tokens, then SwiGLU."""

    def __init__(self, width: int, heads: int, inner_width: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = CrossAttention(width, width, width, heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width, inner_width)

    def forward(self, x: Float[Tensor, "B S D"], visible: Bool[Tensor, "B S"] | None = None) -> Float[Tensor, "B S D"]:
        y = self.attention_norm(x)
        x = x + self.attention(y, y, visible)
        return x + self.mlp(self.mlp_norm(x))


class Pooling(nn.Module):
    """A fixed number of tokens from any number: learned queries attend, then SwiGLU (Perceiver, arXiv:2103.03206)."""

    def __init__(self, width: int, context_width: int, tokens: int, heads: int, inner_width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(tokens, width))
        self.context_norm = RMSNorm(context_width)
        self.attention = CrossAttention(width, context_width, width, heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width, inner_width)

    def forward(
        self, tokens: Float[Tensor, "B K C"], visible: Bool[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B Q D"]:
        query = self.query.expand(len(tokens), -1, -1)
        x = query + self.attention(query, self.context_norm(tokens), visible)
        return x + self.mlp(self.mlp_norm(x))


def split_heads(x: Float[Tensor, "B S HW"], heads: int) -> Float[Tensor, "B H S W"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, S, H, W] → [B, H, S, W]


def join_heads(x: Float[Tensor, "B H S W"]) -> Float[Tensor, "B S HW"]:
    return x.transpose(1, 2).flatten(2)  # [B, S, H, W] → [B, S, H·W]
