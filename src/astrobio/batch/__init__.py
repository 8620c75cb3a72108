"""The contract: `Sample` (one world) and `MultiModalBatch` (what models see)."""

from astrobio.batch.batch import IGNORED, MultiModalBatch
from astrobio.batch.collate import Collator, Tokenizer, multimodal_collate_fn
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
]
