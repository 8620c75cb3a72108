"""The rule catalogue (`rules.csv`): what is checked, its severity, remedy and the standard that asks for it."""

from __future__ import annotations

import csv
from importlib.resources import files

from astrobio.quality.findings import Finding, Rule, Severity, shortened

STANDARDS = {  # key in the catalogue → name, where to read it
    "cf": ("CF Conventions", "https://cfconventions.org/conventions.html"),
    "acdd": ("ACDD 1.3", "https://wiki.esipfed.org/Attribute_Convention_for_Data_Discovery_1-3"),
    "sbml": ("SBML Level 3", "https://sbml.org/documents/specifications/"),
    "fbc": ("SBML Level 3 FBC 2", "https://doi.org/10.1515/jib-2017-0082"),
    "memote": ("MEMOTE", "https://doi.org/10.1038/s41587-020-0446-y"),
    "votable": ("IVOA VOTable", "https://www.ivoa.net/documents/VOTable/"),
    "archive": ("NASA Exoplanet Archive columns", "https://doi.org/10.26133/NEA13"),
    "kegg": ("KEGG flat-file format", "https://www.kegg.jp/kegg/rest/"),
    "dpdg": ("ESDS-RFC-041 (DPDG 2.0)", "https://doi.org/10.5067/DOC/ESCO/RFC-041VERSION2"),
    "dqwg": (
        "ESDS-RFC-033",
        "https://www.earthdata.nasa.gov/esdis/esco/standards-and-practices/"
        "recommendations-from-the-data-quality-working-group",
    ),
    "contract": ("astrobio data contract", "docs/quality.md"),
    "outliers": ("Median absolute deviation", "https://doi.org/10.1016/j.jesp.2013.03.013"),
    "conservation": ("Conservation of energy", "https://doi.org/10.1038/ngeo1580"),
    "thermodynamics": ("Second law of thermodynamics", "https://doi.org/10.1038/nchembio.186"),
    "kepler": ("Kepler's third law, radiative equilibrium", "https://doi.org/10.1088/0004-637X/729/1/54"),
}


def _standard(key: str) -> tuple[str, str]:
    if key.startswith("cwe "):
        number = key.split()[1]
        return f"CWE-{number}", f"https://cwe.mitre.org/data/definitions/{number}.html"
    return STANDARDS[key]


def _load() -> dict[str, Rule]:
    text = (files("astrobio.quality") / "rules.csv").read_text(encoding="utf-8")
    rules = {}
    for row in csv.DictReader(text.splitlines()):
        name, reference = _standard(row["standard"])
        severity: Severity = row["severity"]  # type: ignore[assignment]
        kinds = tuple(row["kinds"].split())
        rules[row["id"]] = Rule(row["id"], row["title"], severity, kinds, row["remedy"], name, reference)
    return rules


RULES = _load()


def finding(
    rule: str, location: object, message: object, *, count: int = 1, severity: Severity | None = None
) -> Finding:
    """A violation of a rule of the catalogue; `severity` overrides the rule's own."""
    known = RULES[rule]
    return Finding(
        rule=rule,
        severity=severity or known.severity,
        location=shortened(location),
        message=shortened(message),
        remedy=known.remedy,
        standard=known.standard,
        reference=known.reference,
        count=count,
    )
