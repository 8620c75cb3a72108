"""The configuration of the whole system: one frozen dataclass of its parts' configurations."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from astrobio.batch.sample import MODALITIES
from astrobio.errors import InputError
from astrobio.models.climate_cnn import ClimateCNNConfig
from astrobio.models.decoder import DecoderConfig
from astrobio.models.fusion import FusionConfig
from astrobio.models.metabolic_vae import MetabolicVAEConfig
from astrobio.models.spectrum_encoder import SpectrumEncoderConfig

T = TypeVar("T")


@dataclass(frozen=True)
class SystemConfig:
    """Shapes of all parts. `token_width` is the common width of the tokens that modalities exchange.

    Without `cross_attention` the decoder has no gated cross-attention: its words know the text alone (an ablation).
    `encoders` are the modalities whose encoders run; the others count as absent from every world, which costs nothing
    where a system is trained on some modalities only. The decoder always runs.
    The decoder's and the fusion's `context_width` must equal it, and the fusion's `text_width` the decoder's width.
    """

    decoder: DecoderConfig
    metabolic_vae: MetabolicVAEConfig
    climate_cnn: ClimateCNNConfig
    spectrum_encoder: SpectrumEncoderConfig
    fusion: FusionConfig
    token_width: int
    cross_attention: bool = True
    encoders: tuple[str, ...] = MODALITIES

    def __post_init__(self) -> None:
        strange = [name for name in self.encoders if name not in MODALITIES]
        if strange:
            raise InputError(f"SystemConfig.encoders: expected some of {', '.join(MODALITIES)}, found {strange}")
        pairs = {
            "decoder.context_width": (self.decoder.context_width, self.token_width),
            "fusion.context_width": (self.fusion.context_width, self.token_width),
            "fusion.text_width": (self.fusion.text_width, self.decoder.width),
        }
        for name, (found, expected) in pairs.items():
            if found != expected:
                raise InputError(f"SystemConfig.{name}: expected {expected}, found {found}")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SystemConfig:
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing key, named with its nearest known neighbour.
        """
        return _build(cls, data, "system")


def _build(kind: type[T], data: dict[str, Any], where: str) -> T:
    names = [item.name for item in fields(kind)]  # pyright: ignore[reportArgumentType]
    for key in data:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys are {names}"
            raise InputError(f"{where}: unknown key {key!r}; {hint}")
    hints, values = get_type_hints(kind), {}
    for key, value in data.items():
        if is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise InputError(f"{where}.{key}: expected an object with keys, found {value!r}")
            values[key] = _build(hints[key], value, f"{where}.{key}")  # pyright: ignore[reportArgumentType]
        else:
            values[key] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{where}: {str(error).split('__init__() ')[-1]}") from None
