"""`UnifiedMultiModalSystem`: one network for text, spectrum, climate and metabolism, trained end to end.

Dimension letters: B worlds, S text positions, K tokens of a modality, C their width, D decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from astrobio.batch import MODALITIES, MultiModalBatch
from astrobio.models.climate_cnn import ClimateCNN, ClimateOutputs
from astrobio.models.decoder import Decoder
from astrobio.models.fusion import Fusion, show_present, thermal_suitability
from astrobio.models.initialise import init_weights
from astrobio.models.metabolic_vae import MetabolicVAE, MetabolismOutputs
from astrobio.models.spectrum_encoder import SpectrumEncoder
from astrobio.system.config import SystemConfig
from astrobio.system.outputs import DIAGNOSTICS, SystemOutputs

OTHERS = MODALITIES[1:]  # the modalities that the decoder reads by cross-attention


class UnifiedMultiModalSystem(nn.Module):
    """Encoders, decoder and fusion; every part runs on every batch, whatever is absent from it, unless switched off.

    Built under `torch.device("meta")` it holds no weights: then call `to_empty`, and `init_weights` or load some.
    """

    def __init__(self, config: SystemConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrum_encoder = SpectrumEncoder(config.spectrum_encoder)
        self.climate_cnn = ClimateCNN(config.climate_cnn)
        self.metabolic_vae = MetabolicVAE(config.metabolic_vae)
        self.decoder = Decoder(config.decoder, bridged=config.cross_attention)
        self.fusion = Fusion(config.fusion)
        widths = {
            "text": config.decoder.width,
            "spectrum": config.spectrum_encoder.width,
            "climate": config.climate_cnn.widths[-1],
            "metabolism": config.metabolic_vae.width,
        }
        self.projectors = nn.ModuleDict({name: nn.Linear(widths[name], config.token_width) for name in MODALITIES})
        self.absent = nn.Parameter(torch.empty(len(MODALITIES), config.token_width))
        if not self.absent.is_meta:
            self.init_weights()

    def part_depths(self) -> dict[str, int]:
        """Residual depth of each part, by which `init_weights` scales what is added to its stream."""
        config = self.config
        return {
            "spectrum_encoder": config.spectrum_encoder.layers,
            "climate_cnn": sum(config.climate_cnn.blocks),
            "metabolic_vae": config.metabolic_vae.node_layers + config.metabolic_vae.layers,
            "decoder": config.decoder.layers,
            "fusion": config.fusion.layers,
            "projectors": 1,
        }

    def init_weights(self) -> None:
        """Give every parameter its first value by the table in `astrobio.models.initialise`."""
        for name, depth in self.part_depths().items():
            init_weights(self.get_submodule(name), max(depth, 1))
        with torch.no_grad():
            self.absent.normal_()

    def forward(self, batch: MultiModalBatch) -> SystemOutputs:
        """All answers for a batch of worlds."""
        # 1. Spectrum → spectrum tokens.
        spectrum = self._encode_spectrum(batch)
        # 2. Climate cube → climate tokens and diagnostics.
        climate = self._encode_climate(batch)
        # 3. Metabolic graph → latent, tokens, reconstruction, fluxes.
        metabolism = self._encode_metabolism(batch)
        present = self._present(batch)
        # 4. Text and the tokens of 1–3, through gated cross-attention → hidden states, token losses.
        tokens = self._project({"spectrum": spectrum, "climate": climate.tokens, "metabolism": metabolism.tokens})
        context, visible = self._decoder_context(tokens, present)
        text, language = self.decoder(
            batch.input_ids, batch.lm_labels, context, visible, None if batch.sizes is None else batch.sizes.targets
        )
        # 5. Fusion of all four, of the text's context positions only → state, physics, embeddings, weights.
        tokens = {"text": self.projectors["text"](text.hidden)} | tokens
        shown = {name: torch.ones(value.shape[:2], dtype=torch.bool, device=value.device)
                 for name, value in tokens.items()} | {"text": batch.context_mask}  # fmt: skip
        text_only = _masked_mean(text.text_only, batch.context_mask)
        fused = self.fusion(tokens, shown, self.absent, present, text_only, _suitability(batch, present))
        return SystemOutputs(
            state_logits=fused.state_logits, unimodal_logits=fused.unimodal_logits, language_nll=language.total,
            token_nll=language.each,
            hidden=text.hidden, embeddings=fused.embeddings, modality_weights=fused.weights, climate=climate,
            metabolism=metabolism, physics=fused.physics, physics_alone=fused.physics_alone,
        )  # fmt: skip

    @torch.no_grad()
    def generate(
        self, batch: MultiModalBatch, max_new_tokens: int, eos_id: int, openings: Sequence[Sequence[int]] | None = None
    ) -> list[list[int]]:
        """Greedy assessment of each world from its context and other modalities, up to and without `eos_id`.

        Args:
            openings: for each world the tokens that its assessment begins with (and that are returned with the rest);
                None leaves every word to the decoder.
        """
        spectrum, climate = self._encode_spectrum(batch), self._encode_climate(batch)
        metabolism = self._encode_metabolism(batch)
        tokens = self._project({"spectrum": spectrum, "climate": climate.tokens, "metabolism": metabolism.tokens})
        context, visible = self._decoder_context(tokens, self._present(batch))
        begun = [list(opening) for opening in openings] if openings is not None else [[] for _ in range(len(batch))]
        prompt, lengths = _prompts(batch, begun)
        written = self.decoder.generate(prompt, lengths, context, visible, max_new_tokens=max_new_tokens, eos_id=eos_id)
        return [opening + tokens for opening, tokens in zip(begun, written, strict=True)]

    def _present(self, batch: MultiModalBatch) -> Bool[Tensor, "B 4"]:
        """What is there and has an encoder that runs."""
        if set(self.config.encoders) == set(MODALITIES):
            return batch.present
        runs = [name in self.config.encoders for name in MODALITIES]
        return batch.present & torch.tensor(runs, device=batch.present.device)

    def _encode_spectrum(self, batch: MultiModalBatch) -> Float[Tensor, "B K C"]:
        if "spectrum" not in self.config.encoders:
            return batch.spectrum.new_zeros(len(batch), 1, self.config.spectrum_encoder.width)
        return self.spectrum_encoder(
            batch.spectrum, batch.spectrum_mask, batch.spectrum_width, batch.spectrum_mean, batch.spectrum_kind
        )

    def _encode_climate(self, batch: MultiModalBatch) -> ClimateOutputs:
        if "climate" not in self.config.encoders:
            zero = batch.climate.new_zeros(len(batch), 1, self.config.climate_cnn.widths[-1])
            return ClimateOutputs(zero, zero[:, 0, :1].expand(-1, len(DIAGNOSTICS)), zero[:, 0, 0])
        return self.climate_cnn(
            batch.climate, batch.climate_mask, batch.climate_levels, batch.latitude, batch.longitude, batch.time_kind
        )

    def _encode_metabolism(self, batch: MultiModalBatch) -> MetabolismOutputs:
        if "metabolism" not in self.config.encoders:
            return self.metabolic_vae.silent(batch.graph)
        largest = None if batch.sizes is None else batch.sizes.nodes
        return self.metabolic_vae(batch.graph, batch.growth, batch.growth_mask, largest)

    def _project(self, tokens: dict[str, Tensor]) -> dict[str, Float[Tensor, "B K C"]]:
        return {name: self.projectors[name](tokens[name]) for name in OTHERS}

    def _decoder_context(
        self, tokens: dict[str, Tensor], present: Bool[Tensor, "B 4"]
    ) -> tuple[Float[Tensor, "B K C"], Bool[Tensor, "B K"]]:
        everything = {
            name: torch.ones(value.shape[:2], dtype=torch.bool, device=value.device) for name, value in tokens.items()
        }
        return show_present(tokens, everything, self.absent[1:], present[:, 1:])

    def count_parameters(self) -> dict[str, int]:
        """Parameters by part; bridges (gated cross-attention, projectors, absent tokens) apart from the decoder."""
        inside = _count(self.decoder.bridges)
        counts = {
            "decoder": _count(self.decoder) - inside,
            "graph_vae": _count(self.metabolic_vae),
            "climate_cnn": _count(self.climate_cnn),
            "spectrum_encoder": _count(self.spectrum_encoder),
            "fusion": _count(self.fusion),
            "bridges": inside + _count(self.projectors) + self.absent.numel(),
        }
        return counts | {"total": sum(counts.values())}


def _prompts(batch: MultiModalBatch, openings: list[list[int]]) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B"]]:
    """Context and opening of each world, padded behind, and their lengths."""
    contexts = batch.context_mask.sum(1).tolist()
    rows = [
        torch.cat([ids[:length], ids.new_tensor(opening)])
        for ids, length, opening in zip(batch.input_ids, contexts, openings, strict=True)
    ]
    lengths = torch.tensor([len(row) for row in rows], device=batch.input_ids.device)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def _suitability(batch: MultiModalBatch, present: Bool[Tensor, "B 4"]) -> Float[Tensor, "B 3"]:
    both = present[:, MODALITIES.index("climate")] & present[:, MODALITIES.index("metabolism")]
    return thermal_suitability(batch.growth, batch.habitat, batch.growth_mask & batch.habitat_mask & both)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _masked_mean(x: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B D"]:
    weight = mask.to(x.dtype)[..., None]
    return (x * weight).sum(1) / weight.sum(1).clamp_min(1)
