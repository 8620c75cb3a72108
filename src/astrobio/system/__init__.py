"""The unified system and its sizes."""

from astrobio.system.config import SystemConfig
from astrobio.system.outputs import SystemOutputs
from astrobio.system.presets import PRESETS, preset
from astrobio.system.unified import UnifiedMultiModalSystem

__all__ = ["PRESETS", "SystemConfig", "SystemOutputs", "UnifiedMultiModalSystem", "preset"]
