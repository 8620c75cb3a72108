"""Pure loss functions and the one total."""

from astrobio.losses.combined import LossWeights, MultiModalLoss, compute_multimodal_loss, count_targets, needed

__all__ = ["LossWeights", "MultiModalLoss", "compute_multimodal_loss", "count_targets", "needed"]
