"""Splits out of distribution: what a data set keeps from training, each thing in a further split of its own.

Such a split differs from the test split in the one thing it is named after. It has worlds, hosts and climates of its
own and draws its organisms from the test split's, which training does not see either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from astrobio.errors import InputError
from astrobio.worlds.instrument import DEPTH_GRID
from astrobio.worlds.scenario import GCMS, OXYGEN_PATHS
from astrobio.worlds.stars import Star, spectral_class

if TYPE_CHECKING:
    from astrobio.worlds.simulate import SimulationSettings

PREFIX = "ood-"
ALL = "all"  # on the command line: each kind with its default
NOISE_RATIO = 10  # the default split `ood-noise` averages a tenth of the fewest transits trained on
DEFAULTS = {
    "gcm": "exoplasim",  # the furthest from the others in design; ExoPlaSim itself can be run beside its emulation
    "star": "M7+M8",  # ultracool dwarfs such as TRAPPIST-1: a sixth of the hosts, with the deepest features
    "path": "dry-CO2",  # a quarter of the worlds with abiotic O2, the only ones without water and with CO beside it
}
CLASSES = tuple(f"K{n}" for n in range(2, 10)) + tuple(f"M{n}" for n in range(9))  # of `draw_star`'s hosts


@dataclass(frozen=True)
class HoldOuts:
    """What no world of train, validation and test has, and all of a split of its own have; None holds nothing out.

    Args:
        gcm: a climate model of `GCMS`. star: spectral classes such as "M7+M8", or a letter. noise: transits, fewer than
            trained on. path: one of `OXYGEN_PATHS`, how a lifeless world came by its O2.
    """

    gcm: str | None = None
    star: str | None = None
    noise: int | None = None
    path: str | None = None

    @classmethod
    def parse(cls, words: Sequence[str], settings: SimulationSettings) -> HoldOuts:
        """From words such as "gcm=exocam", "path" (its default) or "all" (every default).

        Raises:
            InputError: an unknown word or value, or one that leaves nothing to train on.
        """
        values: dict[str, Any] = {}
        for word in [part for given in words for part in (_KINDS if given == ALL else [given])]:
            kind, _, value = word.partition("=")
            if kind not in _KINDS:
                raise InputError(f"--hold-out {word}: expected all or one of {_KINDS}, perhaps with =VALUE")
            values[kind] = _CHECKS[kind](value or DEFAULTS.get(kind, ""), settings)
        return cls(**values)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the further splits."""
        return tuple(f"{PREFIX}{name}" for name in self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """What is held out, for a manifest; {} for nothing."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def settings(self, split: str, common: SimulationSettings) -> SimulationSettings:
        """How the worlds of a split are simulated."""
        if split == "ood-gcm":
            return replace(common, gcm=str(self.gcm))
        common = replace(common, gcm="+".join(name for name in common.gcm.split("+") if name != self.gcm))
        if split == "ood-noise":
            assert self.noise is not None
            return replace(common, transits=self.noise, depth_grid=False)
        return common

    def admits(self, split: str) -> Callable[[Star], bool]:
        """Which hosts a split may have."""
        if self.star is None:
            return lambda star: True
        return lambda star: self._of_class(star.teff) == (split == "ood-star")

    def excluded(self, split: str) -> tuple[str, ...]:
        """Paths that no world of a split takes."""
        if self.path is None:
            return ()
        return tuple(path for path in OXYGEN_PATHS if (path == self.path) != (split == "ood-path"))

    def rules(self) -> dict[str, str]:
        """Split → what is in it and nowhere else, in words."""
        words = {
            "gcm": "climate model {}", "star": "hosts of class {}", "noise": "{} transits, fewer than anywhere else",
            "path": "O2 without life by {}",
        }  # fmt: skip
        return {f"{PREFIX}{kind}": words[kind].format(value) for kind, value in self.to_dict().items()}

    def held(self, provenance: Mapping[str, Any]) -> frozenset[str]:
        """What of the held-out things a world has, by its provenance: some of the four kinds."""
        truth = provenance["truth"]
        has = {
            "gcm": provenance["gcm"] == self.gcm, "star": self.star is not None and self._of_class(truth["teff"]),
            "noise": self.noise is not None and provenance["transits"] <= self.noise,
            "path": truth["path"] == self.path,
        }  # fmt: skip
        return frozenset(kind for kind, found in has.items() if found)

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return tuple((self.star or "").split("+"))

    def _of_class(self, teff: float) -> bool:
        name = spectral_class(teff)
        return name in self._classes or name[0] in self._classes


_KINDS = tuple(field.name for field in fields(HoldOuts))


def _gcm(value: str, settings: SimulationSettings) -> str:
    if value not in GCMS:
        raise InputError(f"--hold-out gcm: expected one of {GCMS}, found {value!r}")
    if settings.gcm == value:
        raise InputError(f"--hold-out gcm={value}: nothing is left to train on; name others, such as --gcm um+exocam")
    return value


def _star(value: str, settings: SimulationSettings) -> str:
    named = set(value.split("+"))
    if not named <= {*CLASSES, "K", "M"}:
        raise InputError(f"--hold-out star: expected classes such as M7+M8, K5 or K, found {value!r}")
    if all(name in named or name[0] in named for name in CLASSES):
        raise InputError(f"--hold-out star={value}: no host is left to train on; hold out fewer classes")
    return value


def _noise(value: str, settings: SimulationSettings) -> int:
    fewest = min(DEPTH_GRID) if settings.depth_grid else settings.transits
    transits = value or str(max(1, fewest // NOISE_RATIO))
    if not transits.isdigit() or not 1 <= int(transits) < fewest:
        raise InputError(f"--hold-out noise: expected from 1 to {fewest - 1} transits, found {transits!r}")
    return int(transits)


def _path(value: str, settings: SimulationSettings) -> str:
    if value not in OXYGEN_PATHS:
        raise InputError(f"--hold-out path: expected one of {OXYGEN_PATHS}, found {value!r}")
    return value


_CHECKS: dict[str, Callable[[str, SimulationSettings], Any]] = {
    "gcm": _gcm, "star": _star, "noise": _noise, "path": _path,
}  # fmt: skip
