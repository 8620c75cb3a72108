"""Runs that start from a pretrained decoder, and parts that stay as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.errors import InputError
from astrobio.models.hf_weights import export_llama, llama_tensors
from astrobio.system import UnifiedMultiModalSystem
from astrobio.training.checkpoint import load_run
from astrobio.training.config import RunConfig, run_config
from astrobio.training.loop import train

pytestmark = pytest.mark.usefixtures("worlds")
NAMES = {"pad_token": None, "bos_token": "<|start|>", "eos_token": {"content": "<|end|>"}}  # as Hugging Face writes


@pytest.fixture
def pretrained(tiny_run: RunConfig, tmp_path: Path) -> Path:
    """A Llama of the tiny decoder's shape, with a tokenizer whose special tokens have other names."""
    folder = tmp_path / "llama"
    torch.manual_seed(7)
    export_llama(UnifiedMultiModalSystem(tiny_run.system).decoder, folder)
    WorldTokenizer.train(["a star of 2566 K", "a planet of 0.92 Earth"], 290).save(folder / "tokenizer.json")
    text = (folder / "tokenizer.json").read_text()
    for old, new in (("<bos>", "<|start|>"), ("<eos>", "<|end|>")):
        text = text.replace(old, new)
    (folder / "tokenizer.json").write_text(text)
    (folder / "tokenizer_config.json").write_text(json.dumps(NAMES))
    return folder


def start(config: RunConfig, pretrained: Path, **changes: object) -> RunConfig:
    return replace(config, training=replace(config.training, decoder=str(pretrained), **changes))  # pyright: ignore[reportArgumentType]


def test_frozen_pretrained_decoder_stays_and_its_bridges_learn(tiny_run: RunConfig, pretrained: Path, tmp_path: Path):
    config = start(tiny_run, pretrained, frozen=("decoder",), steps=3, checkpoint_every=3)
    train(config, "anywhere", tmp_path / "run", console=Console(quiet=True))
    run = load_run(tmp_path / "run")
    torch.manual_seed(7)
    first = UnifiedMultiModalSystem(tiny_run.system)
    for name, value in llama_tensors(first.decoder).items():
        assert torch.equal(value, llama_tensors(run.system.decoder)[name]), name
    gates = [value for name, value in run.system.decoder.named_parameters() if name.endswith("gate")]
    assert gates and all(bool(gate.abs().sum() > 0) for gate in gates)
    assert (run.tokenizer.bos_id, run.tokenizer.eos_id) == (1, 2) and run.tokenizer.pad_id == run.tokenizer.eos_id
    assert run.tokenizer.decode(run.tokenizer.encode("Teff 2566 K")) == "Teff 2566 K"


def test_pretrained_decoder_learns_unless_frozen(tiny_run: RunConfig, pretrained: Path, tmp_path: Path):
    train(start(tiny_run, pretrained, steps=1), "anywhere", tmp_path / "run", console=Console(quiet=True))
    torch.manual_seed(7)
    first = llama_tensors(UnifiedMultiModalSystem(tiny_run.system).decoder)
    now = llama_tensors(load_run(tmp_path / "run").system.decoder)
    moved = max(float((now[name] - value).abs().max()) for name, value in first.items())
    assert 0.0 < moved < 0.1, "one step away from the checkpoint, not from random weights"


def test_what_does_not_fit_is_a_sentence(tiny_run: RunConfig, pretrained: Path, tmp_path: Path):
    with pytest.raises(InputError, match="expected a tokenizer file"):
        train(start(tiny_run, tmp_path), "anywhere", tmp_path / "a", console=Console(quiet=True))
    small = replace(tiny_run.system, decoder=replace(tiny_run.system.decoder, vocabulary=257))
    with pytest.raises(InputError, match=r"expected at most 257 tokens, found \d+"):
        train(start(replace(tiny_run, system=small), pretrained), "x", tmp_path / "b", console=Console(quiet=True))
    (pretrained / "tokenizer_config.json").write_text('{"bos_token": "<|start|>"}')
    with pytest.raises(InputError, match="eos_token: expected a token"):
        WorldTokenizer.load(pretrained / "tokenizer.json")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.frozen=decoders"], "training.frozen: expected some of"),
        (["execution.optimizer=adamw8bit", "execution.gradients=host", "training.frozen=decoder"], "expected none"),
    ],
)
def test_bad_settings_are_refused(overrides: list[str], message: str):
    with pytest.raises(InputError, match=message):
        run_config("mini", overrides)


def test_a_pretrained_decoder_may_learn_more_slowly(tiny_run: RunConfig, pretrained: Path, tmp_path: Path):
    def moved(factor: float) -> tuple[float, float]:
        config = start(tiny_run, pretrained, steps=1, warmup_steps=1, decoder_lr_factor=factor, weight_decay=0.0)
        train(config, "anywhere", tmp_path / f"run-{factor}", console=Console(quiet=True))
        run = load_run(tmp_path / f"run-{factor}")
        torch.manual_seed(7)
        first = llama_tensors(UnifiedMultiModalSystem(tiny_run.system).decoder)
        now = llama_tensors(run.system.decoder)
        decoder = max(float((now[name] - value).abs().max()) for name, value in first.items())
        return decoder, float(run.system.decoder.bridges["1"].get_parameter("attention_gate").detach().abs())

    (whole, gate), (slow, same_gate) = moved(1.0), moved(0.1)
    assert slow == pytest.approx(0.1 * whole, rel=0.02) and same_gate == pytest.approx(gate, rel=0.02) and gate > 0
