"""What the system says of a batch of worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from astrobio.batch import INHABITED_STATES, WORLD_STATES
from astrobio.models.climate_cnn import DIAGNOSTICS, ClimateOutputs
from astrobio.models.metabolic_vae import MetabolismOutputs

__all__ = ["DIAGNOSTICS", "SystemOutputs"]


class SystemOutputs(NamedTuple):
    """Outputs of one forward pass: a tuple, in which FSDP2 finds the tensors that its hooks belong on.

    Args:
        state_logits: [B, 6] over `WORLD_STATES`.
        unimodal_logits: [B, 4, 6] of each modality alone, contained in `state_logits`; 0 where absent.
        language_nll: [] nats of all next tokens that have a label.
        token_nll: [B, S − 1] each token's share of it, without a gradient; 0 where it has no label.
        hidden: [B, S, D] the decoder's last states.
        embeddings: {modality: [B, A]} unit vectors for alignment.
        modality_weights: [B, 4] adaptive fusion weights, 0 where absent.
        climate: tokens and diagnostics of the climate network.
        metabolism: latent, links, fluxes and exchange of the metabolic autoencoder.
        physics: [B, K] predicted `PHYSICS_TARGETS`, normalised.
        physics_alone: [B, 4, K] those of each modality alone; None where the fusion has no heads for it.
    """

    state_logits: Float[Tensor, "B 6"]
    unimodal_logits: Float[Tensor, "B 4 6"]
    language_nll: Float[Tensor, ""]
    token_nll: Float[Tensor, "B N"]
    hidden: Float[Tensor, "B S D"]
    embeddings: dict[str, Float[Tensor, "B A"]]
    modality_weights: Float[Tensor, "B 4"]
    climate: ClimateOutputs
    metabolism: MetabolismOutputs
    physics: Float[Tensor, "B K"]
    physics_alone: Float[Tensor, "B 4 K"] | None = None

    def scaled_logits(self, scales: Sequence[float]) -> Float[Tensor, "B 6"]:
        """`state_logits` with its five summands, the joint one and each modality's, scaled by a calibration."""
        factors = self.state_logits.new_tensor(scales)
        joint = self.state_logits - self.unimodal_logits.sum(1)
        return factors[0] * joint + (factors[1:, None] * self.unimodal_logits).sum(1)

    @property
    def diagnostics(self) -> Float[Tensor, "B 3"]:
        """Normalised Ts, ASR and OLR, guessed from a climate in which they were hidden."""
        return self.climate.diagnostics

    @property
    def inhabited(self) -> Float[Tensor, "B"]:
        """Probability of life: that of all inhabited states together."""
        columns = [WORLD_STATES.index(name) for name in INHABITED_STATES]
        return self.state_logits.softmax(-1)[:, columns].sum(-1)
