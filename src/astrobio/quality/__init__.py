"""Data quality: files, records and samples in; findings with rule, severity, place, remedy and standard out.

`validate_files` examines files of every kind the package reads and gives each a verdict: accept, quarantine, reject.
"""

from astrobio.quality.checks import check_climate, check_metabolism, check_sample, check_spectrum
from astrobio.quality.examine import Options, examine
from astrobio.quality.findings import FileReport, Finding, Rule, verdict_of
from astrobio.quality.records import check_record, screen
from astrobio.quality.report import QualityReport, set_aside, validate_files
from astrobio.quality.rules import RULES, finding

__all__ = [
    "RULES",
    "FileReport",
    "Finding",
    "Options",
    "QualityReport",
    "Rule",
    "check_climate",
    "check_metabolism",
    "check_record",
    "check_sample",
    "check_spectrum",
    "examine",
    "finding",
    "screen",
    "set_aside",
    "validate_files",
    "verdict_of",
]
