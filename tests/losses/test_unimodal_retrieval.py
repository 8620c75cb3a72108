"""Each modality answering for the physics alone: its heads, one loss part, gradients to its own encoder only."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from astrobio.batch import MODALITIES, MultiModalBatch, note_sizes
from astrobio.errors import InputError
from astrobio.losses import LossWeights, compute_multimodal_loss, count_targets
from astrobio.system import SystemConfig, UnifiedMultiModalSystem

NONE = {item.name: 0.0 for item in fields(LossWeights)}
ONLY = LossWeights(**(NONE | {"unimodal_retrieval": 1.0}))


def system_of(config: SystemConfig, alone: bool = True) -> UnifiedMultiModalSystem:
    torch.manual_seed(0)
    system = UnifiedMultiModalSystem(replace(config, fusion=replace(config.fusion, physics_alone=alone)))
    system.init_weights()
    return system


def test_without_heads_the_loss_is_refused(tiny_system: SystemConfig, batch: MultiModalBatch) -> None:
    note_sizes([batch])
    outputs = system_of(tiny_system, alone=False)(batch)
    assert outputs.physics_alone is None
    without = LossWeights(unimodal_retrieval=0.0)
    assert "unimodal_retrieval" not in compute_multimodal_loss(outputs, batch, without).parts
    with pytest.raises(InputError, match=r"loss\.unimodal_retrieval: expected 0 without system\.fusion\.physics_alone"):
        compute_multimodal_loss(outputs, batch)


def test_loss_is_the_mean_over_known_truths_of_shown_modalities(
    tiny_system: SystemConfig, batch: MultiModalBatch
) -> None:
    note_sizes([batch])
    outputs = system_of(tiny_system)(batch)
    assert outputs.physics_alone is not None
    terms = [
        torch.nn.functional.smooth_l1_loss(outputs.physics_alone[b, m, k], batch.physics[b, k])
        for b in range(len(batch)) for m in range(len(MODALITIES)) for k in range(batch.physics.shape[1])
        if batch.present[b, m] and batch.physics_mask[b, k]
    ]  # fmt: skip
    assert count_targets(batch)["unimodal_retrieval"] == len(terms)
    loss = compute_multimodal_loss(outputs, batch, ONLY)
    assert list(loss.parts) == ["unimodal_retrieval"]
    assert torch.allclose(loss.total, torch.stack(terms).mean(), rtol=1e-5)


def test_a_modality_teaches_its_own_encoder(tiny_system: SystemConfig, batch: MultiModalBatch) -> None:
    note_sizes([batch])
    system = system_of(tiny_system)
    outputs = system(batch)
    assert outputs.physics_alone is not None
    outputs.physics_alone[:, MODALITIES.index("spectrum")].sum().backward()
    touched = {name: any(p.grad is not None and bool(p.grad.any()) for p in system.get_submodule(name).parameters())
               for name in ("spectrum_encoder", "climate_cnn", "metabolic_vae", "decoder")}  # fmt: skip
    assert touched == {"spectrum_encoder": True, "climate_cnn": False, "metabolic_vae": False, "decoder": False}
