"""What a run is made of: system, training, loss weights and execution, with dotted overrides."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import torch

from astrobio.batch import MODALITIES
from astrobio.errors import InputError
from astrobio.losses.combined import LossWeights
from astrobio.system import SystemConfig, preset
from astrobio.training.execution import ExecutionConfig

PARTS = ("spectrum_encoder", "climate_cnn", "metabolic_vae", "decoder", "fusion")  # that can be frozen
Precision = Literal["auto", "fp32", "bf16"]
Cache = Literal["auto", "device", "memory", "none"]
Selection = Literal["classification", "total"]


@dataclass(frozen=True)
class TrainingConfig:
    """How a system is trained.

    Args:
        steps: optimizer steps. batch_size: worlds in a micro-batch. accumulation: micro-batches in a step.
        lr: peak learning rate, reached after `warmup_steps` and then lowered by a cosine to `lr × min_lr_ratio`.
        betas, eps, weight_decay: AdamW's; decay acts on matrices only. clip: bound on the global gradient norm.
        precision: "auto" is bf16 autocast on a GPU and fp32 on a CPU; weights kept in bf16 (`execution.weights`) are
            computed with as they are. device: "auto", "cpu", "cuda", "cuda:1" …
        modality_dropout: probability of hiding each present modality of a world; at least one always stays.
        reaction_dropout: largest share of its reactions that a metabolism hides from its encoder in training; each
            world draws its own between 0 and this, anew every epoch.
        redraw_noise: observe simulated worlds anew in every epoch: the noise in a training spectrum, known by its seed,
            is replaced by other draws of the same standard error. Measured spectra stay as they are.
        modalities: those the run may see; a subset trains a system in isolation.
        max_length: text tokens of a world.
        decoder: folder of a Hugging Face Llama checkpoint with its tokenizer.json, from which decoder and tokenizer
            start; none starts both from nothing. decoder_lr_factor: on the learning rate of the decoder's own
            weights, so that pretrained ones change less than the bridges and the rest.
        frozen: parts that keep their first weights.
        seed: of weights, order and dropout.
        log_every, checkpoint_every, gradient_norms_every: in steps (0 switches off the last).
        validate_every: in steps; 0 is once an epoch, none is never. select: the validation loss that chooses the best
            weights.
        keep: number of checkpoints kept; 0 writes no weights at all, neither those nor the best: a trial of whether a
            run works, without tens of gigabytes on disk.
        max_bad_steps: non-finite steps in a row after which training stops.
        cache: where prepared worlds are kept: "auto" is the fastest place with room. workers: loader processes,
            which prepare all worlds at the start, or where nothing is kept, each batch; 0 does it as worlds are met.
    """

    steps: int = 600
    batch_size: int = 16
    accumulation: int = 1
    lr: float = 1e-3
    min_lr_ratio: float = 0.05
    warmup_steps: int = 50
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.05
    clip: float = 1.0
    precision: Precision = "auto"
    device: str = "auto"
    modality_dropout: float = 0.15
    reaction_dropout: float = 0.0
    redraw_noise: bool = True
    modalities: tuple[str, ...] = MODALITIES
    max_length: int = 512
    decoder: str | None = None
    decoder_lr_factor: float = 1.0
    frozen: tuple[str, ...] = ()
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 200
    gradient_norms_every: int = 500
    validate_every: int | None = 0
    select: Selection = "classification"
    keep: int = 2
    max_bad_steps: int = 10
    cache: Cache = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "checkpoint_every", "log_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"training.{name}: expected at least 1, found {getattr(self, name)}")
        if self.keep < 0 or (self.validate_every or 0) < 0:
            raise InputError(
                f"training.keep, training.validate_every: expected 0 or more, found {self.keep}, {self.validate_every}"
            )
        for name in ("modality_dropout", "reaction_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"training.{name}: expected 0 ≤ p < 1, found {getattr(self, name)}")
        unknown = [name for name in self.modalities if name not in MODALITIES]
        if unknown or not self.modalities:
            raise InputError(
                f"training.modalities: expected some of {', '.join(MODALITIES)}, found {unknown or 'none'}"
            )
        strange = [name for name in self.frozen if name not in PARTS]
        if strange:
            raise InputError(f"training.frozen: expected some of {', '.join(PARTS)}, found {', '.join(strange)}")
        for name in ("lr", "decoder_lr_factor"):
            if getattr(self, name) <= 0.0:
                raise InputError(f"training.{name}: expected a positive number, found {getattr(self, name)}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run besides its data."""

    system: SystemConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        idle = [name for name in self.training.modalities if name not in self.system.encoders]
        if idle:
            raise InputError(
                f"system.encoders: expected all of training.modalities, found no {', '.join(idle)}; add them, or show "
                "the run less"
            )
        if self.execution.gradients != "keep" and self.training.frozen:
            raise InputError(
                "training.frozen: expected none unless execution.gradients=keep, found "
                f"{', '.join(self.training.frozen)} with {self.execution.gradients}"
            )
        if self.execution.gradients == "backward" and self.training.accumulation > 1:
            raise InputError(
                "training.accumulation: expected 1 with execution.gradients=backward, which keeps nothing to add to, "
                f"found {self.training.accumulation}"
            )

    @property
    def precision(self) -> Precision:
        """Precision of a training step: weights kept in bf16 need no autocast, which would only copy."""
        plain = self.execution.weights == "bf16" and self.training.precision == "auto"
        return "fp32" if plain else self.training.precision

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "system": self.system.to_dict(),
            "training": asdict(self.training),
            "loss": asdict(self.loss),
            "execution": asdict(self.execution),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunConfig:
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown key, with the nearest known one.
        """
        _known_keys(data, [item.name for item in fields(cls)], "")
        return cls(
            system=SystemConfig.from_dict(data["system"]),
            training=_build(TrainingConfig, data.get("training", {}), "training."),
            loss=_build(LossWeights, data.get("loss", {}), "loss."),
            execution=_build(ExecutionConfig, data.get("execution", {}), "execution."),
        )


def run_config(preset_name: str, overrides: Iterable[str] = ()) -> RunConfig:
    """The full configuration of a preset with `key=value` overrides, such as `training.lr=1e-3`.

    Raises:
        InputError: an unknown preset or key, or a value of the wrong type.
    """
    config = RunConfig(system=preset(preset_name))
    for override in overrides:
        key, found, value = override.partition("=")
        if not found:
            raise InputError(f"--set {override!r}: expected KEY=VALUE, such as training.lr=1e-3")
        config = _override(config, key.strip().split("."), value.strip(), prefix="")
    return config


def choose_device(name: str) -> torch.device:
    """ "auto" is the first GPU if there is one.

    Raises:
        InputError: a GPU was asked for where there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"training.device: expected auto, cpu, cuda or cuda:N, found {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"training.device: {name!r} was asked for but no GPU is available; use --set training.device=cpu"
        )
    return device


def _override(node: Any, path: list[str], value: str, prefix: str) -> Any:
    """`node` with the field at `path` replaced; only the classes on the way are rebuilt (and so validated)."""
    head, *rest = path
    _known_keys({head: value}, [item.name for item in fields(node)], prefix)
    here = prefix + head
    if rest:
        child = getattr(node, head)
        if not is_dataclass(child):
            raise InputError(f"{'.'.join([here, *rest])}: {here} has no fields of its own; set {here}=VALUE")
        return replace(node, **{head: _override(child, rest, value, here + ".")})
    if is_dataclass(getattr(node, head)):
        raise InputError(f"{here}: expected one of its fields, such as {here}.{fields(getattr(node, head))[0].name}")
    return replace(node, **{head: _parse(value, typing.get_type_hints(type(node))[head], here)})


def _build(kind: type, data: Mapping[str, Any], prefix: str) -> Any:
    """A flat dataclass from JSON values (lists become tuples)."""
    _known_keys(data, [item.name for item in fields(kind)], prefix)
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


def _known_keys(found: Iterable[str], known: list[str], prefix: str) -> None:
    for key in found:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"expected one of {', '.join(known)}"
            raise InputError(f"{prefix}{key}: unknown configuration key; {hint}")


def _parse(text: str, hint: Any, where: str) -> Any:
    """Text from a command line → the annotated type of a field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        hint = next(a for a in arguments if a is not type(None))
        return _parse(text, hint, where)
    if origin is Literal:
        if text not in arguments:
            raise InputError(f"{where}: expected one of {', '.join(map(str, arguments))}, found {text!r}")
        return text
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
        hints = [arguments[0]] * len(parts) if arguments[-1] is Ellipsis else list(arguments)
        if len(parts) != len(hints):
            raise InputError(f"{where}: expected {len(hints)} values separated by commas, found {text!r}")
        return tuple(_parse(part, each, where) for part, each in zip(parts, hints, strict=True))
    return _parse_scalar(text, hint, where)


def _parse_scalar(text: str, hint: Any, where: str) -> Any:
    if hint is str:
        return text
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        value = float(text)
        if not math.isfinite(value) or (hint is int and not value.is_integer()):
            raise ValueError
        return hint(value)
    except (ValueError, KeyError):
        raise InputError(f"{where}: expected a value of type {hint.__name__}, found {text!r}") from None
