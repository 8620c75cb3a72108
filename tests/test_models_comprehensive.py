"""Six end-to-end proofs that the system is one system: what goes in matters, what is there learns.

The worlds are small (2 × 5 × 16 × 32 cubes) and physically valid; the network is the `mini` preset itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from astrobio.batch import IGNORED, MODALITIES, Collator, MultiModalBatch, Sample
from astrobio.losses import LossWeights, compute_multimodal_loss, count_targets
from astrobio.models.decoder import Bridge
from astrobio.models.fusion import Fusion, FusionLayer
from astrobio.system import PRESETS, UnifiedMultiModalSystem, preset

SampleFactory = Callable[..., Sample]
OPEN_GATE = 0.1


def make_system(gate: float = 0.0) -> UnifiedMultiModalSystem:
    torch.manual_seed(0)
    system = UnifiedMultiModalSystem(preset("mini"))
    for name, parameter in system.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(gate)
    return system


def dead_parameters(system: UnifiedMultiModalSystem, batch: MultiModalBatch) -> list[str]:
    """Names of parameters that the one total loss does not reach, or reaches with a zero or non-finite gradient."""
    system.train().zero_grad(set_to_none=True)
    compute_multimodal_loss(system(batch), batch).total.backward()
    return [
        name
        for name, parameter in system.named_parameters()
        if parameter.grad is None or not torch.isfinite(parameter.grad).all() or not parameter.grad.any()
    ]


# 1. Data flow


@pytest.mark.parametrize("modality", MODALITIES)
def test_data_flow_replacing_one_modality_changes_every_answer(
    modality: str, sample_factory: SampleFactory, collator: Collator
) -> None:
    system = make_system(OPEN_GATE).eval()
    field = "context" if modality == "text" else modality
    base = sample_factory(0)
    other = replace(base, **{field: getattr(sample_factory(1), field)})
    with torch.no_grad():
        first, second = (system(collator([sample])) for sample in (base, other))
    assert float((first.state_logits - second.state_logits).abs().max()) > 1e-5
    assert float((first.physics - second.physics).abs().max()) > 1e-5
    assert abs(float(first.token_nll.sum() - second.token_nll.sum())) > 1e-5
    assert not torch.equal(first.embeddings[modality], second.embeddings[modality])
    for untouched in set(MODALITIES) - {modality}:
        torch.testing.assert_close(first.embeddings[untouched], second.embeddings[untouched])


def test_data_flow_the_assessment_never_leaks_into_the_answer(
    sample_factory: SampleFactory, collator: Collator
) -> None:
    system = make_system(OPEN_GATE).eval()
    base = sample_factory(0)
    with torch.no_grad():
        first, second = (
            system(collator([replace(base, assessment=text)])) for text in (base.assessment, "life is here for certain")
        )
    torch.testing.assert_close(first.state_logits, second.state_logits)
    torch.testing.assert_close(first.embeddings["text"], second.embeddings["text"])


# 2. Gradient flow


def test_gradient_flow_reaches_every_parameter(batch: MultiModalBatch) -> None:
    assert not batch.present.all(), "the batch must lack something"
    assert dead_parameters(make_system(OPEN_GATE), batch) == []


def _without_change(self: torch.nn.Module, x: Tensor, *_: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(("layer", "part"), [(Bridge, "decoder.bridges"), (FusionLayer, "fusion.layers")])
def test_gradient_flow_breaks_when_a_layer_is_cut(
    layer: type, part: str, batch: MultiModalBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "forward", _without_change)
    system = make_system(OPEN_GATE)
    inside = {name for name, _ in system.named_parameters() if name.startswith(part)}
    assert inside <= set(dead_parameters(system, batch))


def test_gradient_flow_breaks_when_the_fusion_is_cut_off(
    batch: MultiModalBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Fusion.forward

    def detached(self: Fusion, tokens: dict[str, Tensor], *rest: Tensor) -> object:
        return whole(self, {name: value.detach() for name, value in tokens.items()}, *rest)  # pyright: ignore

    monkeypatch.setattr(Fusion, "forward", detached)
    assert "projectors.text.weight" in dead_parameters(make_system(OPEN_GATE), batch)


@pytest.mark.parametrize("term", ["language", "classification"])
def test_gradient_flow_of_each_task_alone_reaches_every_encoder(term: str, batch: MultiModalBatch) -> None:
    """Language through the gated cross-attention, classification through the fusion."""
    system = make_system(OPEN_GATE)
    none = {item.name: 0.0 for item in fields(LossWeights)}
    compute_multimodal_loss(system(batch), batch, LossWeights(**none | {term: 1.0})).total.backward()
    for name in ("spectrum_encoder.embed", "climate_cnn.stem.levels", "metabolic_vae.embed", "decoder.model.norm"):
        grad = system.get_submodule(name).get_parameter("weight").grad
        assert grad is not None and float(grad.abs().max()) > 0, name


def test_gradient_flow_of_language_stops_at_closed_gates(batch: MultiModalBatch) -> None:
    system = make_system(0.0)
    none = {item.name: 0.0 for item in fields(LossWeights)}
    compute_multimodal_loss(system(batch), batch, LossWeights(**none | {"language": 1.0})).total.backward()
    grad = system.spectrum_encoder.embed.weight.grad
    assert grad is None or not grad.any()
    gate = system.decoder.bridges["1"].get_parameter("attention_gate").grad
    assert gate is not None and float(gate.abs()) > 0  # and so they can open


# 3. Loss composition


def test_loss_composition_is_the_weighted_sum_of_its_parts(batch: MultiModalBatch) -> None:
    outputs = make_system(OPEN_GATE).train()(batch)
    weights = LossWeights()
    assert (weights.classification, weights.language, weights.graph_vae) == (1.0, 0.3, 0.2)
    loss = compute_multimodal_loss(outputs, batch, weights)
    scale = weights.of_parts()
    assert set(loss.parts) == set(scale)
    parts = {name: value.item() for name, value in loss.parts.items()}
    assert all(math.isfinite(value) for value in parts.values()), parts
    assert all(value > 0 for name, value in parts.items() if name != "thermodynamics"), parts  # that may be obeyed
    assert loss.total.item() == pytest.approx(sum(scale[name] * value for name, value in parts.items()), rel=1e-5)


@pytest.mark.parametrize("term", [item.name for item in fields(LossWeights) if item.name != "graph_kl"])
def test_loss_composition_each_term_can_be_switched_off(term: str, batch: MultiModalBatch) -> None:
    outputs = make_system(OPEN_GATE).eval()(batch)
    full = compute_multimodal_loss(outputs, batch)
    less = compute_multimodal_loss(outputs, batch, replace(LossWeights(), **{term: 0.0}))
    gone = set(full.parts) - set(less.parts)
    assert gone
    scale = LossWeights().of_parts()
    difference = sum(scale[name] * full.parts[name].item() for name in gone)
    assert (full.total - less.total).item() == pytest.approx(difference, rel=1e-3, abs=1e-5)


def test_loss_composition_micro_batches_add_up_to_the_whole(sample_factory: SampleFactory, collator: Collator) -> None:
    """Targets spread unevenly: the last two worlds lack their label, text target and metabolism."""
    bare: dict[str, Any] = {"state": None, "assessment": None, "metabolism": None}
    samples = [replace(sample_factory(i), **(bare if i > 3 else {})) for i in range(6)]
    whole, pieces = collator(samples), [collator(samples[:4]), collator(samples[4:])]
    system = make_system(OPEN_GATE).eval()
    weights = LossWeights(alignment=0.0)  # its candidates are the micro-batch's own
    counts = count_targets(whole)
    for name, value in counts.items():
        assert float(sum(count_targets(piece)[name] for piece in pieces)) == float(value) or name == "alignment"
    with torch.no_grad():
        expected = compute_multimodal_loss(system(whole), whole, weights)
        found = [compute_multimodal_loss(system(piece), piece, weights, counts) for piece in pieces]
    for name, value in expected.parts.items():
        assert float(sum(one.parts[name] for one in found)) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name


def test_loss_composition_without_any_target_is_zero_with_zero_gradient(
    sample_factory: SampleFactory, collator: Collator
) -> None:
    bare: dict[str, Any] = {"state": None, "assessment": None, "physics": None}
    batch = collator([replace(sample_factory(i, without=MODALITIES), **bare) for i in range(2)])
    system = make_system(OPEN_GATE).train()
    loss = compute_multimodal_loss(system(batch), batch)
    assert {name: value.item() for name, value in loss.parts.items()} == dict.fromkeys(loss.parts, 0.0)
    loss.total.backward()
    for name, parameter in system.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name  # neither NaN nor anything else


# 4. Overfitting


def test_overfitting_eight_worlds_to_perfection(sample_factory: SampleFactory, collator: Collator) -> None:
    batch = collator([sample_factory(index) for index in range(8)])
    system = make_system().train()
    optimizer = torch.optim.AdamW(system.parameters(), lr=2e-3, weight_decay=0.0)
    first = last = math.nan
    for step in range(30):
        loss = compute_multimodal_loss(system(batch), batch)
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimizer.step()
        last = loss.total.item()
        first = last if step == 0 else first
    system.eval()
    with torch.no_grad():
        outputs = system(batch)
    assert torch.equal(outputs.state_logits.argmax(-1), batch.labels)
    assert last < 0.35 * first
    targets = int((batch.lm_labels != IGNORED).sum())
    assert float(outputs.token_nll.sum()) / targets < 0.5


# 5. Absence


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("whole_batch", [True, False])
def test_absence_of_a_modality_for_part_or_all_of_a_batch(
    modality: str, whole_batch: bool, sample_factory: SampleFactory, collator: Collator
) -> None:
    system = make_system(OPEN_GATE)
    batch = collator([sample_factory(i, without=[modality] if whole_batch or i == 1 else []) for i in range(3)])
    loss = compute_multimodal_loss(system.train()(batch), batch)
    loss.total.backward()
    for name, parameter in system.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient: a sharded run would hang"
        assert torch.isfinite(parameter.grad).all(), name
    index = MODALITIES.index(modality)
    with torch.no_grad():
        outputs = system.eval()(batch)
    assert torch.isfinite(outputs.state_logits).all() and torch.isfinite(outputs.token_nll).all()
    assert float(outputs.modality_weights[1, index]) == 0.0
    torch.testing.assert_close(outputs.modality_weights.sum(-1), torch.ones(3))


@pytest.mark.parametrize("modality", MODALITIES)
def test_absence_answers_do_not_depend_on_the_neighbours(
    modality: str, sample_factory: SampleFactory, collator: Collator
) -> None:
    """A world without a modality gets the same answer alone and beside worlds that have it."""
    system = make_system(OPEN_GATE).eval()
    bare = sample_factory(0, without=[modality])
    with torch.no_grad():
        alone, beside = system(collator([bare])), system(collator([bare, sample_factory(1)]))
    torch.testing.assert_close(alone.state_logits[0], beside.state_logits[0], rtol=1e-3, atol=1e-4)


# 6. Sizes

SIZES = {
    "mini": {"decoder": (1.3e6, 3.2e6), "graph_vae": (0.4e6, 0.6e6), "climate_cnn": (0.9e6, 1.3e6)},
    "small": {"decoder": (134e6, 135e6), "graph_vae": (14e6, 16e6), "climate_cnn": (29e6, 31e6)},
    "medium": {"decoder": (1.08e9, 1.12e9), "graph_vae": (95e6, 105e6), "climate_cnn": (190e6, 210e6)},
    "full_16_8b": {
        "decoder": (13.14e9 * 0.995, 13.14e9 * 1.005),
        "graph_vae": (1.2e9 * 0.98, 1.2e9 * 1.02),
        "climate_cnn": (2.5e9 * 0.98, 2.5e9 * 1.02),
    },
}


@pytest.mark.parametrize("name", list(PRESETS))
def test_sizes_of_all_presets(name: str) -> None:
    with torch.device("meta"):
        system = UnifiedMultiModalSystem(preset(name))
    counts = system.count_parameters()
    for part, (low, high) in SIZES[name].items():
        assert low <= counts[part] <= high, (part, counts[part])
    assert counts["total"] == sum(parameter.numel() for parameter in system.parameters())
    if name == "full_16_8b":
        assert counts["bridges"] + counts["fusion"] + counts["spectrum_encoder"] <= 0.3e9
