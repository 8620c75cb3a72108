"""Weights, counts and switches of the one loss (its end-to-end proofs are in `test_models_comprehensive`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch

from astrobio.batch import IGNORED, Collator, MultiModalBatch, Sample
from astrobio.losses import LossWeights, compute_multimodal_loss, count_targets
from astrobio.losses.combined import PARTS
from astrobio.system import UnifiedMultiModalSystem, preset


def test_default_weights() -> None:
    weights = LossWeights()
    assert (weights.classification, weights.language, weights.graph_vae) == (1.0, 0.3, 0.2)
    assert (weights.unimodal, weights.graph_kl) == (2.0, 0.05)
    assert (weights.retrieval, weights.unimodal_retrieval) == (2.0, 8.0)
    others = {f.name for f in fields(LossWeights)} - {
        "classification", "unimodal", "language", "graph_vae", "graph_kl", "retrieval", "unimodal_retrieval",
    }  # fmt: skip
    assert {getattr(weights, name) for name in others} == {0.1}
    assert set(weights.of_parts()) == set(PARTS)


def test_counts_are_of_what_is_there(batch: MultiModalBatch) -> None:
    counts = {name: int(value) for name, value in count_targets(batch).items()}
    assert counts["classification"] == 8
    assert counts["unimodal"] == int(batch.present.sum())
    assert counts["language"] == int((batch.lm_labels != IGNORED).sum())
    assert counts["graph_kl"] == 7  # one world of eight has no metabolism
    assert counts["diagnostics"] == 3 * 7  # and one no climate
    assert counts["energy"] == 7
    entries = batch.graph.edge_index.shape[1] - 2  # the stand-in graph has two
    assert counts["graph_links"] == 2 * entries


def test_given_counts_divide(batch: MultiModalBatch) -> None:
    torch.manual_seed(0)
    system = UnifiedMultiModalSystem(preset("mini")).eval()
    with torch.no_grad():
        outputs = system(batch)
    own = count_targets(batch)
    doubled = compute_multimodal_loss(outputs, batch, counts={name: 2 * value for name, value in own.items()})
    plain = compute_multimodal_loss(outputs, batch)
    torch.testing.assert_close(2 * doubled.total, plain.total)


def test_no_part_is_computed_at_weight_zero(batch: MultiModalBatch) -> None:
    nothing = LossWeights(**dict.fromkeys((item.name for item in fields(LossWeights)), 0.0))
    system = UnifiedMultiModalSystem(preset("mini")).eval()
    with torch.no_grad():
        loss = compute_multimodal_loss(system(batch), batch, nothing)
    assert loss.parts == {} and float(loss.total) == 0.0


def test_energy_uses_watts(sample_factory: Callable[..., Sample], collator: Collator) -> None:
    """Perfect diagnostics leave only the gap between the cube's own net and itself: nothing."""
    batch = collator([sample_factory(1), sample_factory(2)])
    outputs = UnifiedMultiModalSystem(preset("mini")).eval()(batch)
    outputs = outputs._replace(climate=outputs.climate._replace(diagnostics=batch.physics[:, :3]))
    loss = compute_multimodal_loss(outputs, batch)
    assert loss.parts["energy"].item() < 1e-6
    assert loss.parts["diagnostics"].item() == 0.0
