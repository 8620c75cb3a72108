"""Weights of Llama-family checkpoints as Hugging Face stores them (safetensors, whole or sharded), in and out.

One tensor is in memory at a time. Bridges, which such checkpoints lack, keep what they have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from astrobio.errors import InputError
from astrobio.models.decoder import Decoder, DecoderConfig

BRIDGES = "bridges."
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
SHARD_BYTES = 5_000_000_000  # Hugging Face's usual size of a shard


def llama_tensors(decoder: Decoder) -> dict[str, Tensor]:
    """The decoder's own tensors by their names in `transformers`; the head only where it is not tied."""
    return {name: value for name, value in decoder.state_dict().items() if not name.startswith(BRIDGES)}


def read_llama_config(
    folder: Path, *, bridge_every: int, bridge_width: int, bridge_heads: int, context_width: int
) -> DecoderConfig:
    """Shape of a checkpoint from its `config.json`, with the bridges that it shall get.

    Raises:
        InputError: the file is missing, or asks for something that this decoder does not have.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: expected a Hugging Face config, found no file; give the checkpoint's folder")
    data = json.loads(path.read_text())
    rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
    _refuse_unsupported(path, data, rope)
    theta = rope.get("rope_theta", data.get("rope_theta", 10_000.0))
    return DecoderConfig(
        width=data["hidden_size"],
        layers=data["num_hidden_layers"],
        heads=data["num_attention_heads"],
        kv_heads=data.get("num_key_value_heads") or data["num_attention_heads"],
        inner_width=data["intermediate_size"],
        vocabulary=data["vocab_size"],
        bridge_every=bridge_every,
        bridge_width=bridge_width,
        bridge_heads=bridge_heads,
        context_width=context_width,
        tied=bool(data.get("tie_word_embeddings", False)),
        rope_theta=float(theta),
        norm_eps=float(data.get("rms_norm_eps", 1e-6)),
    )


def _refuse_unsupported(path: Path, data: dict[str, Any], rope: dict[str, Any]) -> None:
    heads = data.get("num_attention_heads", 1)
    found = {
        "model_type": (data.get("model_type", "llama"), "llama"),
        "hidden_act": (data.get("hidden_act", "silu"), "silu"),
        "attention_bias": (bool(data.get("attention_bias", False)), False),
        "mlp_bias": (bool(data.get("mlp_bias", False)), False),
        "head_dim": (data.get("head_dim") or data["hidden_size"] // heads, data["hidden_size"] // heads),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
    }
    for key, (value, expected) in found.items():
        if value != expected:
            raise InputError(f"{path}: expected {key} {expected!r}, found {value!r}; this decoder cannot run it")


@torch.no_grad()
def import_llama(decoder: Decoder, folder: Path) -> None:
    """Copy a checkpoint's tensors into the decoder, one after another, in the decoder's dtype and on its device.

    Raises:
        InputError: a tensor is missing, unknown, or of another shape; nothing about it is guessed.
    """
    targets = llama_tensors(decoder)
    missing = set(targets)
    for name, value in _stream(Path(folder)):
        if name == "lm_head.weight" and name not in targets:
            continue  # a tied checkpoint may store the embedding twice
        if name.endswith("rotary_emb.inv_freq"):
            continue  # a constant that old checkpoints carry
        if name not in targets:
            raise InputError(f"{folder}: unknown tensor {name}; expected a Llama checkpoint of this decoder's shape")
        if value.shape != targets[name].shape:
            raise InputError(
                f"{folder}: {name}: expected shape {tuple(targets[name].shape)}, found {tuple(value.shape)}"
            )
        targets[name].copy_(value)
        missing.discard(name)
    if missing:
        raise InputError(f"{folder}: expected {len(targets)} tensors, found no {', '.join(sorted(missing)[:3])}")


def _stream(folder: Path) -> Iterator[tuple[str, Tensor]]:
    index = folder / INDEX
    if index.is_file():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif (folder / WHOLE).is_file():
        files = [WHOLE]
    else:
        raise InputError(f"{folder}: expected {WHOLE} or {INDEX}, found neither")
    for file in files:
        with safe_open(folder / file, framework="pt") as reader:
            for name in reader.keys():  # noqa: SIM118 (a reader is not a dict)
                yield name, reader.get_tensor(name)


def export_llama(decoder: Decoder, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the decoder without its bridges as a checkpoint that `transformers` loads as a Llama.

    Files appear under their names only when whole; the index, which makes them a checkpoint, last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = _shards(llama_tensors(decoder), shard_bytes)
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    names = [WHOLE] if len(shards) == 1 else names
    for file, shard in zip(names, shards, strict=True):
        part = folder / f".{file}.part"
        save_file({k: v.detach().cpu().contiguous() for k, v in shard.items()}, part, metadata={"format": "pt"})
        os.replace(part, folder / file)
    _write_json(folder / "config.json", _llama_config(decoder))
    if len(shards) > 1:
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        size = sum(v.numel() * v.element_size() for shard in shards for v in shard.values())
        _write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": where})


def _shards(tensors: dict[str, Tensor], shard_bytes: int) -> list[dict[str, Tensor]]:
    shards, used = [{}], 0
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        if used and used + size > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = value
        used += size
    return shards


def _llama_config(decoder: Decoder) -> dict[str, Any]:
    config = decoder.config
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "intermediate_size": config.inner_width,
        "vocab_size": config.vocabulary,
        "tie_word_embeddings": config.tied,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _write_json(path: Path, data: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(data, indent=2) + "\n")
    os.replace(part, path)
