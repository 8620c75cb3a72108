"""The decoder against transformers' Llama, its cache against no cache, its gates at the start."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from astrobio.batch import IGNORED
from astrobio.models.decoder import Decoder, DecoderConfig
from astrobio.models.hf_weights import llama_tensors
from astrobio.models.initialise import init_weights

SMALL = DecoderConfig(
    width=32, layers=4, heads=4, kv_heads=2, inner_width=48, vocabulary=50,
    bridge_every=2, bridge_width=16, bridge_heads=2, context_width=12,
)  # fmt: skip


def make_decoder(config: DecoderConfig = SMALL) -> Decoder:
    decoder = Decoder(config)
    init_weights(decoder, config.layers)
    return decoder.eval()


def open_gates(decoder: Decoder, value: float = 0.5) -> None:
    for name, parameter in decoder.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(value)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, tied=False, heads=4, kv_heads=1, rope_theta=500_000.0),
        replace(SMALL, width=48, heads=6, kv_heads=6, layers=3, inner_width=80, norm_eps=1e-6),
        replace(SMALL, width=64, heads=8, kv_heads=2, layers=2, vocabulary=97, tied=False, attention="math"),
    ],
)
def test_logits_equal_transformers_llama(config: DecoderConfig) -> None:
    transformers = pytest.importorskip("transformers")
    decoder = make_decoder(config)
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads, intermediate_size=config.inner_width, vocab_size=config.vocabulary,
            tie_word_embeddings=config.tied, rms_norm_eps=config.norm_eps, pad_token_id=None, bos_token_id=0,
            eos_token_id=1, rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        )
    ).eval()  # fmt: skip
    missing, unexpected = llama.load_state_dict(llama_tensors(decoder), strict=False)
    assert not unexpected
    assert missing in ([], ["lm_head.weight"]), missing  # the tied head is the embedding
    llama.tie_weights()
    ids = torch.randint(0, config.vocabulary, (3, 21))
    with torch.no_grad():
        expected = llama(ids).logits
        found = decoder.logits(decoder.encode(ids).hidden)
    assert float((found - expected).abs().max()) <= 1e-5


def test_closed_gates_leave_the_text_model_bit_identical() -> None:
    decoder = make_decoder()
    ids = torch.randint(0, 50, (2, 9))
    context, visible = torch.randn(2, 5, 12), torch.ones(2, 5, dtype=torch.bool)
    plain = decoder.encode(ids).hidden
    assert torch.equal(decoder.encode(ids, context, visible).hidden, plain)
    open_gates(decoder, 0.1)
    assert not torch.allclose(decoder.encode(ids, context, visible).hidden, plain)


def test_text_only_states_do_not_see_the_context() -> None:
    decoder = make_decoder()
    open_gates(decoder)
    ids, visible = torch.randint(0, 50, (2, 9)), torch.ones(2, 5, dtype=torch.bool)
    first, second = (decoder.encode(ids, torch.randn(2, 5, 12), visible) for _ in range(2))
    assert torch.equal(first.text_only, second.text_only)
    assert not torch.allclose(first.hidden, second.hidden)


def test_the_next_token_loss_equals_cross_entropy_with_its_gradients() -> None:
    decoder = make_decoder(replace(SMALL, tied=False))
    hidden = torch.randn(2, 7, 32, requires_grad=True)
    labels = torch.randint(0, 50, (2, 7))
    labels[0, :4], labels[1, -2:] = IGNORED, IGNORED
    expected = functional.cross_entropy(
        decoder.logits(hidden[:, :-1]).flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
    ).reshape(2, 6)
    found = decoder.next_token_loss(hidden, labels)
    torch.testing.assert_close(found.each, expected)
    inputs = (hidden, decoder.head_weight)
    for a, b in zip(
        torch.autograd.grad(found.total, inputs),
        torch.autograd.grad(expected.sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_cached_generation_equals_full_recomputation() -> None:
    decoder = make_decoder()
    open_gates(decoder)
    lengths = torch.tensor([3, 8, 5])
    ids = torch.randint(3, 50, (3, 8))
    context, visible = torch.randn(3, 5, 12), torch.ones(3, 5, dtype=torch.bool)
    found = decoder.generate(ids, lengths, context, visible, max_new_tokens=10, eos_id=-1)
    for row, length in enumerate(lengths.tolist()):
        tokens = ids[row, :length].tolist()
        for _ in range(10):
            one = decoder.encode(torch.tensor([tokens]), context[row : row + 1], visible[row : row + 1]).hidden
            tokens.append(int(decoder.logits(one[0, -1]).argmax()))
        assert found[row] == tokens[length:]


def test_generation_stops_before_the_end_token() -> None:
    decoder = make_decoder()
    ids, lengths = torch.randint(3, 50, (2, 6)), torch.tensor([6, 4])
    free = decoder.generate(ids, lengths, None, None, max_new_tokens=6, eos_id=-1)
    stop = free[0][2]
    found = decoder.generate(ids, lengths, None, None, max_new_tokens=6, eos_id=stop)
    assert found[0] == free[0][: free[0].index(stop)]
    assert stop not in found[1]
