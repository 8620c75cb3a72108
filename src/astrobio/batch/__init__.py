"""The contract: `Sample` (one world) and `MultiModalBatch` (what models see).

What stands on torch loads when it is first asked for: reading, fetching and validating files do without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from astrobio.batch.sample import (
    CLIMATE_VARIABLES,
    ELEMENTS,
    GASES,
    INHABITED_STATES,
    LEVEL_VARIABLES,
    MODALITIES,
    PHYSICS_TARGETS,
    SPECTRUM_KINDS,
    SURFACE_VARIABLES,
    TIME_KINDS,
    WORLD_STATES,
    ClimateCube,
    MetabolicGraph,
    Sample,
    Spectrum,
)
from astrobio.batch.statistics import Statistics

if TYPE_CHECKING:
    from astrobio.batch.batch import IGNORED, MultiModalBatch, note_sizes
    from astrobio.batch.collate import Collator, Tokenizer, multimodal_collate_fn

_LATER = {
    "IGNORED": "batch",
    "MultiModalBatch": "batch",
    "note_sizes": "batch",
    "Collator": "collate",
    "Tokenizer": "collate",
    "multimodal_collate_fn": "collate",
}

__all__ = [
    "CLIMATE_VARIABLES",
    "ELEMENTS",
    "GASES",
    "IGNORED",
    "INHABITED_STATES",
    "LEVEL_VARIABLES",
    "MODALITIES",
    "PHYSICS_TARGETS",
    "SPECTRUM_KINDS",
    "SURFACE_VARIABLES",
    "TIME_KINDS",
    "WORLD_STATES",
    "ClimateCube",
    "Collator",
    "MetabolicGraph",
    "MultiModalBatch",
    "Sample",
    "Spectrum",
    "Statistics",
    "Tokenizer",
    "multimodal_collate_fn",
    "note_sizes",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
