"""Llama-compatible decoder with gated cross-attention to the tokens of the other modalities.

Dimension letters: B worlds, S text positions, K modality tokens, D model width, C width of modality tokens,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from astrobio.models.attention_backends import AttentionKernel
from astrobio.models.blocks import CrossAttention, KeyValueCache, RMSNorm, SelfAttention, SwiGLU, rotary_table
from astrobio.models.cross_entropy import linear_cross_entropy


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the decoder.

    Args:
        width, layers, heads, kv_heads, inner_width, vocabulary, tied, rope_theta, norm_eps: as in a Llama config.
        bridge_every: a gated cross-attention layer stands before the last of every so many layers.
        bridge_width: inner width of those layers. bridge_heads: their heads. context_width: of modality tokens.
        attention: kernel of the causal attention; "auto" takes the fastest measured on the device.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    inner_width: int
    vocabulary: int
    bridge_every: int
    bridge_width: int
    bridge_heads: int
    context_width: int
    tied: bool = True
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    attention: AttentionKernel = "auto"

    @property
    def bridged_layers(self) -> tuple[int, ...]:
        """Indices of the layers that a bridge stands before."""
        return tuple(range(self.bridge_every - 1, self.layers, self.bridge_every))


class DecoderOutputs(NamedTuple):
    """Hidden states after the last norm, and of the text alone (before the first bridge), both [B, S, D]."""

    hidden: Float[Tensor, "B S D"]
    text_only: Float[Tensor, "B S D"]


class NextTokenLoss(NamedTuple):
    """Negative log-likelihood in nats, float32: of all tokens with a label [], and of each [B, S − 1].

    Each token's is 0 where it has no label, and has no gradient.
    """

    total: Float[Tensor, ""]
    each: Float[Tensor, "B N"]


class DecoderLayer(nn.Module):
    """One Llama layer; names of its parameters are those of `transformers`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = SelfAttention(config.width, config.heads, config.kv_heads, config.attention)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.inner_width)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None = None,
        positions: Int[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B S D"]:
        x = x + self.self_attn(self.input_layernorm(x), rotary, cache, positions)
        return x + self.mlp(self.post_attention_layernorm(x))


class Bridge(nn.Module):
    """Gated cross-attention and feed-forward: x + tanh(gate) · f(x), identity at start (Flamingo, arXiv:2204.14198)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = CrossAttention(config.width, config.context_width, config.bridge_width, config.bridge_heads)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.bridge_width)
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    def forward(
        self, x: Float[Tensor, "B S D"], context: Float[Tensor, "B K C"], visible: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "B S D"]:
        x = x + self.attention_gate.tanh() * self.attention(self.attention_norm(x), context, visible)
        return x + self.mlp_gate.tanh() * self.mlp(self.mlp_norm(x))


class _Body(nn.Module):
    """Embedding, layers and norm, named as in `transformers`' LlamaModel."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)


class Decoder(nn.Module):
    """Decoder-only language model; sequences are padded on the right, so that causality alone hides padding.

    Without `bridged` it has no cross-attention and reads nothing but text.
    """

    def __init__(self, config: DecoderConfig, *, bridged: bool = True) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.bridges = nn.ModuleDict({str(i): Bridge(config) for i in config.bridged_layers if bridged})
        self.lm_head = None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)

    @property
    def head_weight(self) -> Float[Tensor, "V D"]:
        """The output matrix, the embedding itself where tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def encode(
        self,
        input_ids: Int[Tensor, "B S"],
        context: Float[Tensor, "B K C"] | None = None,
        visible: Bool[Tensor, "B K"] | None = None,
        *,
        caches: list[KeyValueCache] | None = None,
        positions: Int[Tensor, "B S"] | None = None,
    ) -> DecoderOutputs:
        """Hidden states; without `context` the bridges are left out (a plain Llama)."""
        if positions is None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        x = self.model.embed_tokens(input_ids)
        cosines, sines = rotary_table(positions, self.config.width // self.config.heads, self.config.rope_theta)
        rotary = (cosines.to(x.dtype), sines.to(x.dtype))
        text_only = x
        for index, layer in enumerate(self.model.layers):
            if index == self.config.bridge_every - 1:
                text_only = x
            if str(index) in self.bridges and context is not None:
                x = self.bridges[str(index)](x, context, visible)
            x = layer(x, rotary, None if caches is None else caches[index], positions)
        return DecoderOutputs(hidden=self.model.norm(x), text_only=text_only)

    def forward(
        self,
        input_ids: Int[Tensor, "B S"],
        lm_labels: Int[Tensor, "B S"],
        context: Float[Tensor, "B K C"] | None = None,
        visible: Bool[Tensor, "B K"] | None = None,
        count: int | None = None,
    ) -> tuple[DecoderOutputs, NextTokenLoss]:
        """Hidden states and the loss of next tokens that have a label; `count` such tokens, if known."""
        outputs = self.encode(input_ids, context, visible)
        return outputs, self.next_token_loss(outputs.hidden, lm_labels, count)

    def next_token_loss(
        self, hidden: Float[Tensor, "B S D"], lm_labels: Int[Tensor, "B S"], count: int | None = None
    ) -> NextTokenLoss:
        """The loss of the token after each position, from the last states."""
        targets = lm_labels[:, 1:]
        total, each = linear_cross_entropy(
            hidden[:, :-1].flatten(0, 1), self.head_weight, targets.flatten(), count=count
        )
        return NextTokenLoss(total, each.unflatten(0, targets.shape))  # [B·(S − 1)] → [B, S − 1]

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """Next-token logits; for a few positions only."""
        return nn.functional.linear(hidden, self.head_weight)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "B S"],
        lengths: Int[Tensor, "B"],
        context: Float[Tensor, "B K C"] | None,
        visible: Bool[Tensor, "B K"] | None,
        *,
        max_new_tokens: int,
        eos_id: int,
    ) -> list[list[int]]:
        """Greedy continuation of each row's first `lengths` tokens, up to and without `eos_id`.

        Each row grows from its own end: slot = position, so padding between is overwritten before anyone sees it.
        """
        caches = self._empty_caches(input_ids, max_new_tokens)
        hidden = self.encode(input_ids, context, visible, caches=caches).hidden
        rows = torch.arange(len(input_ids), device=input_ids.device)
        token = self.logits(hidden[rows, lengths - 1]).argmax(-1)  # [B]
        generated, done = [token], token == eos_id
        for step in range(max_new_tokens - 1):
            if bool(done.all()):
                break
            positions = (lengths + step)[:, None]
            hidden = self.encode(token[:, None], context, visible, caches=caches, positions=positions).hidden
            token = self.logits(hidden[:, 0]).argmax(-1)
            generated.append(token)
            done = done | (token == eos_id)
        return [_until(row, eos_id) for row in torch.stack(generated, dim=1).tolist()]

    def _empty_caches(self, input_ids: Int[Tensor, "B S"], new_tokens: int) -> list[KeyValueCache]:
        config = self.config
        batch, length = input_ids.shape
        weight = self.model.layers[0].get_submodule("self_attn.k_proj").get_parameter("weight")
        return [
            KeyValueCache.empty(
                batch, config.kv_heads, length + new_tokens, config.width // config.heads,
                device=weight.device, dtype=weight.dtype,
            )
            for _ in range(config.layers)
        ]  # fmt: skip


def _until(tokens: list[int], eos_id: int) -> list[int]:
    return tokens[: tokens.index(eos_id)] if eos_id in tokens else tokens
