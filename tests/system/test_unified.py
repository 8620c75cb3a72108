"""The system's own duties: initialisation, generation, counting (the proofs are in `test_models_comprehensive`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from astrobio.batch import INHABITED_STATES, MODALITIES, WORLD_STATES, Collator, MultiModalBatch, Sample
from astrobio.losses import LossWeights, compute_multimodal_loss, needed
from astrobio.models.initialise import rule_of
from astrobio.system import SystemConfig, UnifiedMultiModalSystem, preset


@pytest.fixture
def system() -> UnifiedMultiModalSystem:
    return UnifiedMultiModalSystem(preset("mini")).eval()


def test_every_parameter_has_a_rule_and_there_are_no_buffers(system: UnifiedMultiModalSystem) -> None:
    rules = {rule_of(name) for name, _ in system.named_parameters() if name != "absent"}
    assert rules == {"one", "zero", "token", "residual", "fan_in"}
    assert list(system.buffers()) == []  # so that `to_empty` then `init_weights` leaves nothing undefined


def test_built_on_meta_then_initialised_equals_built_directly() -> None:
    with torch.device("meta"):
        late = UnifiedMultiModalSystem(preset("mini"))
    late.to_empty(device="cpu")
    torch.manual_seed(1)
    late.init_weights()
    torch.manual_seed(1)
    direct = UnifiedMultiModalSystem(preset("mini"))
    torch.manual_seed(1)
    direct.init_weights()
    for (name, a), (_, b) in zip(late.named_parameters(), direct.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_inhabited_is_the_sum_of_the_inhabited_states(system: UnifiedMultiModalSystem, batch: MultiModalBatch) -> None:
    with torch.no_grad():
        outputs = system(batch)
    probability = outputs.state_logits.softmax(-1)
    expected = sum(probability[:, WORLD_STATES.index(name)] for name in INHABITED_STATES)
    torch.testing.assert_close(outputs.inhabited, expected)


def test_generation_reads_the_context_alone(
    system: UnifiedMultiModalSystem, sample_factory: Callable[..., Sample], collator: Collator
) -> None:
    """With or without the assessment in the batch, alone or beside others, the continuation is the same."""
    samples = [sample_factory(index) for index in range(3)]
    whole = system.generate(collator(samples), max_new_tokens=6, eos_id=1)
    bare = Collator(collator.tokenizer, collator.statistics, with_assessment=False)
    assert system.generate(bare(samples), max_new_tokens=6, eos_id=1) == whole
    assert system.generate(bare(samples[1:2]), max_new_tokens=6, eos_id=1) == whole[1:2]


def test_generation_continues_the_forward_pass(
    system: UnifiedMultiModalSystem, sample_factory: Callable[..., Sample], collator: Collator
) -> None:
    for name, parameter in system.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(0.5)
    bare = Collator(collator.tokenizer, collator.statistics, with_assessment=False)
    batch = bare([sample_factory(0)])
    with torch.no_grad():
        first = system.decoder.logits(system(batch).hidden[0, -1]).argmax()
    assert system.generate(batch, max_new_tokens=3, eos_id=-1)[0][0] == int(first)


def test_generation_goes_on_from_an_opening(
    system: UnifiedMultiModalSystem, sample_factory: Callable[..., Sample], collator: Collator
) -> None:
    """An opening that is what the decoder would have written changes nothing; another is kept and gone on from."""
    bare = Collator(collator.tokenizer, collator.statistics, with_assessment=False)
    batch = bare([sample_factory(0), sample_factory(1)])
    free = system.generate(batch, max_new_tokens=6, eos_id=-1)
    begun = [free[0][:2], []]
    found = system.generate(batch, max_new_tokens=4, eos_id=-1, openings=begun)
    assert found == [free[0], free[1][:4]]
    other = [[free[0][0] + 1, 7], [9]]
    assert [row[: len(o)] for row, o in zip(system.generate(batch, 3, -1, other), other, strict=True)] == other


@pytest.mark.parametrize("pure", [True, False])
def test_bfloat16_weights_and_autocast_train_and_generate(
    pure: bool, system: UnifiedMultiModalSystem, batch: MultiModalBatch
) -> None:
    if pure:
        system.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=not pure):
        outputs = system.train()(batch)
        assert len(system.eval().generate(batch, max_new_tokens=2, eos_id=-1)) == 8
    loss = compute_multimodal_loss(outputs, batch).total
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    for name, parameter in system.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_without_cross_attention_the_words_know_the_text_alone(
    tiny_system: SystemConfig, batch: MultiModalBatch
) -> None:
    """The ablated system has no such layer; its words ignore the spectrum, its state does not."""
    torch.manual_seed(0)
    system = UnifiedMultiModalSystem(replace(tiny_system, cross_attention=False)).eval()
    assert not any("bridges" in name for name, _ in system.named_parameters())
    other = replace(batch, spectrum=batch.spectrum.flip(1))
    with torch.no_grad():
        first, second = system(batch), system(other)
    assert torch.equal(first.token_nll, second.token_nll)
    assert not torch.equal(first.state_logits, second.state_logits)
    system.train()
    compute_multimodal_loss(system(batch), batch).total.backward()
    assert [name for name, parameter in system.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("modality", MODALITIES)
def test_idle_encoders_change_neither_answers_nor_loss(
    modality: str, sample_factory: Callable[..., Sample], collator: Collator, tiny_system: SystemConfig
) -> None:
    """A system shown one modality answers the same whether the encoders of the others run or not."""
    torch.manual_seed(0)
    whole = UnifiedMultiModalSystem(tiny_system).eval()
    alone = UnifiedMultiModalSystem(replace(tiny_system, encoders=(modality,))).eval()
    alone.load_state_dict(whole.state_dict())
    batch = collator([sample_factory(i, without=[m for m in MODALITIES if m != modality]) for i in range(3)])
    with torch.no_grad():
        first, second = whole(batch), alone(batch)
        for name in ("state_logits", "unimodal_logits", "token_nll", "physics", "modality_weights"):
            torch.testing.assert_close(getattr(first, name), getattr(second, name), msg=name)
        losses = [compute_multimodal_loss(outputs, batch) for outputs in (first, second)]
        torch.testing.assert_close(losses[0].parts, losses[1].parts)
        fewer = compute_multimodal_loss(first, batch, needed(LossWeights(), (modality,)))
        torch.testing.assert_close(fewer.total, losses[0].total)
        assert len(fewer.parts) < len(losses[0].parts)
        everything = collator([sample_factory(i) for i in range(3)])
        assert torch.equal(alone(everything).modality_weights > 0, alone(batch).modality_weights > 0)
    compute_multimodal_loss(alone.train()(batch), batch).total.backward()
    idle = {"spectrum": "spectrum_encoder", "climate": "climate_cnn", "metabolism": "metabolic_vae"}
    for name, part in idle.items():
        reached = any(p.grad is not None for p in alone.get_submodule(part).parameters())
        assert reached == (name == modality), name


def test_sharding_finds_every_output_that_carries_gradient(
    system: UnifiedMultiModalSystem, batch: MultiModalBatch
) -> None:
    """FSDP2 of PyTorch 2.11 gathers a part's weights for the backward where it sees the part's outputs: in tuples."""
    outputs = system.train()(batch)
    found = {id(leaf) for leaf in tree_leaves(outputs)}
    wanted = {name: getattr(outputs, name) for name in ("state_logits", "physics", "token_nll", "hidden")}
    wanted |= {"diagnostics": outputs.climate.diagnostics, "fluxes": outputs.metabolism.fluxes}
    wanted |= dict(outputs.embeddings)
    assert {name for name, value in wanted.items() if id(value) not in found} == set()
