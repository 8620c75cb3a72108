"""Checkpoints in and out in Hugging Face's form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from astrobio.errors import InputError
from astrobio.models.decoder import Decoder, DecoderConfig
from astrobio.models.hf_weights import INDEX, export_llama, import_llama, llama_tensors, read_llama_config
from astrobio.models.initialise import init_weights

CONFIG = DecoderConfig(
    width=32, layers=2, heads=4, kv_heads=2, inner_width=48, vocabulary=50,
    bridge_every=2, bridge_width=16, bridge_heads=2, context_width=12,
)  # fmt: skip


def make_decoder(config: DecoderConfig) -> Decoder:
    decoder = Decoder(config)
    init_weights(decoder, config.layers)
    return decoder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_bytes", [10**9, 8_000])
def test_export_then_import_keeps_every_tensor(tmp_path: Path, tied: bool, shard_bytes: int) -> None:
    config = replace(CONFIG, tied=tied)
    decoder = make_decoder(config)
    export_llama(decoder, tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / INDEX).exists() == (shard_bytes == 8_000)
    read = read_llama_config(tmp_path, bridge_every=2, bridge_width=16, bridge_heads=2, context_width=12)
    assert read == config
    other = make_decoder(read)
    bridge = other.bridges["1"].get_parameter("mlp.up_proj.weight").clone()
    import_llama(other, tmp_path)
    for name, value in llama_tensors(decoder).items():
        assert torch.equal(llama_tensors(other)[name], value), name
    assert torch.equal(other.bridges["1"].get_parameter("mlp.up_proj.weight"), bridge)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_export(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    decoder = make_decoder(replace(CONFIG, tied=tied, rope_theta=50_000.0)).eval()
    export_llama(decoder, tmp_path, shard_bytes=8_000)
    llama = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(0, 50, (2, 12))
    with torch.no_grad():
        found, expected = llama(ids).logits, decoder.logits(decoder.encode(ids).hidden)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        lengths = torch.tensor([12, 12])
        ours = decoder.generate(ids, lengths, None, None, max_new_tokens=5, eos_id=-1)
        theirs = llama.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert theirs[:, 12:].tolist() == ours


def test_a_tied_checkpoint_may_repeat_its_head(tmp_path: Path) -> None:
    decoder = make_decoder(CONFIG)
    export_llama(decoder, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    import_llama(make_decoder(CONFIG), tmp_path)


def test_missing_misshapen_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    export_llama(make_decoder(CONFIG), tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    changes = {
        "norm": {k: v for k, v in whole.items() if k != "model.norm.weight"},
        "expected shape": whole | {"model.norm.weight": torch.zeros(5)},
        "unknown tensor": whole | {"model.extra": torch.zeros(5)},
    }
    for message, tensors in changes.items():
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=message):
            import_llama(make_decoder(CONFIG), tmp_path)


def test_unsupported_configs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no file"):
        read_llama_config(tmp_path, bridge_every=2, bridge_width=16, bridge_heads=2, context_width=12)
    export_llama(make_decoder(CONFIG), tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(data | {"rope_parameters": {"rope_type": "llama3"}}))
    with pytest.raises(InputError, match="rope_type"):
        read_llama_config(tmp_path, bridge_every=2, bridge_width=16, bridge_heads=2, context_width=12)
