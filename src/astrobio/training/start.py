"""What a run starts from: a pretrained decoder with its tokenizer, and parts that keep their first weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.errors import InputError
from astrobio.models.hf_weights import import_llama, llama_tensors
from astrobio.system.config import SystemConfig
from astrobio.system.unified import UnifiedMultiModalSystem


def pretrained_tokenizer(folder: Path, config: SystemConfig) -> WorldTokenizer:
    """The tokenizer that a decoder was pretrained with, from `tokenizer.json` of a Hugging Face folder.

    Raises:
        InputError: no tokenizer there, or one with more tokens than the decoder.
    """
    tokenizer = WorldTokenizer.load(folder / "tokenizer.json")
    if tokenizer.vocab_size > config.decoder.vocabulary:
        raise InputError(
            f"{folder}/tokenizer.json: expected at most {config.decoder.vocabulary} tokens, found "
            f"{tokenizer.vocab_size}; set system.decoder.vocabulary"
        )
    return tokenizer


def pretrained_weights(folder: Path) -> Callable[[UnifiedMultiModalSystem], None]:
    """What fills a system: random first weights, then the checkpoint's in the decoder (its bridges start closed)."""

    def load(system: UnifiedMultiModalSystem) -> None:
        system.init_weights()
        import_llama(system.decoder, folder)

    return load


def freeze(system: UnifiedMultiModalSystem, parts: tuple[str, ...]) -> None:
    """Keep parts as they are; a frozen decoder still learns its bridges, which are how it hears of the others."""
    for name in parts:
        part = system.get_submodule(name)
        kept = set(llama_tensors(system.decoder)) if name == "decoder" else None
        _freeze(part, kept)


def _freeze(part: nn.Module, names: set[str] | None) -> None:
    for name, parameter in part.named_parameters():
        if names is None or name in names:
            parameter.requires_grad_(False)
