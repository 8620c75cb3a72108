"""Overrides from a command line, and what is said of wrong ones."""

from __future__ import annotations

import json

import pytest

from astrobio.errors import InputError
from astrobio.training.config import RunConfig, choose_device, run_config


def test_overrides_reach_every_level_and_type():
    config = run_config(
        "mini",
        ["training.lr=1e-3", "training.steps=1e3", "training.modalities=text,climate", "training.betas=0.9,0.95",
         "system.decoder.layers=2", "system.decoder.tied=false", "loss.alignment=0", "training.precision=bf16"],
    )  # fmt: skip
    assert config.training.lr == 1e-3
    assert config.training.steps == 1000 and isinstance(config.training.steps, int)
    assert config.training.modalities == ("text", "climate")
    assert config.training.betas == (0.9, 0.95)
    assert config.system.decoder.layers == 2 and config.system.decoder.tied is False
    assert config.loss.alignment == 0.0
    assert config.training.precision == "bf16"


def test_configuration_survives_json():
    config = run_config("mini", ["training.seed=7", "training.modalities=text"])
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "training.learning_rat=1",
            "training.learning_rat: unknown configuration key; expected one of steps, batch_size,",
        ),
        ("training.step=1", "did you mean training.steps?"),
        ("execution.reduce=step", "set execution.gather=step, execution.optimizer=adamw8bit and execution.gradients"),
        ("trainning.lr=1", "did you mean training?"),
        ("system.decoder.layer=1", "did you mean system.decoder.layers?"),
        ("training.lr.x=1", "training.lr has no fields"),
        ("training=1", "training: expected one of its fields"),
        ("training.steps=many", "training.steps: expected a value of type int, found 'many'"),
        ("training.steps=1.5", "training.steps: expected a value of type int"),
        ("training.lr=nan", "training.lr: expected a value of type float"),
        ("training.steps=0", "training.steps: expected at least 1, found 0"),
        ("training.precision=fp8", "training.precision: expected one of auto, fp32, bf16"),
        ("training.modalities=text,sound", "training.modalities: expected"),
        ("training.betas=0.9", "training.betas: expected 2 values"),
        ("training.lr", "expected KEY=VALUE"),
    ],
)
def test_wrong_overrides_are_named(override: str, said: str):
    with pytest.raises(InputError) as error:
        run_config("mini", [override])
    assert said in str(error.value)


def test_unknown_key_in_a_file_is_named():
    data = run_config("mini").to_dict()
    data["training"]["lrr"] = 1.0
    with pytest.raises(InputError, match=r"training\.lrr: unknown configuration key; did you mean training\.lr\?"):
        RunConfig.from_dict(data)


def test_unknown_device_is_refused():
    with pytest.raises(InputError, match=r"training\.device"):
        choose_device("gpu")
