"""Configurations: round trip through JSON, unknown keys, consistency."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from astrobio.errors import InputError
from astrobio.system import PRESETS, SystemConfig, preset


@pytest.mark.parametrize("name", list(PRESETS))
def test_round_trip_through_json(name: str) -> None:
    config = preset(name)
    assert SystemConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_keys_are_named_with_their_neighbour() -> None:
    data = preset("mini").to_dict()
    data["decoder"]["widht"] = 3
    with pytest.raises(InputError, match=r"decoder.*'widht'.*'width'"):
        SystemConfig.from_dict(data)
    with pytest.raises(InputError, match="expected an object"):
        SystemConfig.from_dict(preset("mini").to_dict() | {"fusion": 3})


def test_missing_keys_are_named() -> None:
    data = preset("mini").to_dict()
    del data["decoder"]["layers"]
    with pytest.raises(InputError, match="layers"):
        SystemConfig.from_dict(data)


def test_widths_must_agree() -> None:
    config = preset("mini")
    with pytest.raises(InputError, match="context_width: expected 97"):
        replace(config, token_width=97)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(InputError, match="full_16_8b"):
        preset("huge")
