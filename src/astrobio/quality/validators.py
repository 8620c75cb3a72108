"""The community's validators, called and translated into findings: compliance-checker, libSBML, cobra, memote, astropy.

Each says which tool and version looked; one that isn't installed says so (FILE-010) instead of passing silently.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from astrobio.quality.checks import BALANCE_TOLERANCE, balance_findings, named
from astrobio.quality.findings import Finding, Severity
from astrobio.quality.rules import finding

CF_VERSIONS = ("1.6", "1.7", "1.8", "1.9", "1.10", "1.11")
CF_DEFAULT = "1.8"
CF_RULES = {3: "CF-1", 2: "CF-2", 1: "CF-3"}  # compliance-checker's priorities: high, medium, low
MESSAGES = 4  # quoted of one section
CONSISTENCY_REACTIONS = 6000  # above, the consistency LP takes minutes
SBML_RULES = {"SBML_FATAL": "SBML-1", "SBML_ERROR": "SBML-1", "SBML_SCHEMA_ERROR": "SBML-1", "SBML_WARNING": "SBML-2"}
COBRA_RULES = {"COBRA_FATAL": "COBRA-1", "COBRA_ERROR": "COBRA-1", "COBRA_WARNING": "COBRA-2", "COBRA_CHECK": "COBRA-2"}
_BIOMASS = re.compile(r"biomass|growth", re.IGNORECASE)


def tool(name: str) -> str:
    """`name version`, or `name (not installed)`."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (not installed)"


def missing_tool(name: str) -> Finding:
    """The finding that a validator could not be asked."""
    return finding("FILE-010", name, f"expected {name}, found it not installed: its checks were left out")


def load(module: str) -> ModuleType | None:
    """A validator's module, or None where it isn't installed; its import-time warnings are its authors' concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            return None


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Validation never touches the network, though the CF checker would fetch other name tables and species lists."""
    requests = importlib.import_module("requests")
    refusal = requests.exceptions.ConnectionError("validation works offline")
    with patch.object(requests, "get", side_effect=refusal), patch.object(requests, "head", side_effect=refusal):
        yield


def check_conventions(path: Path, conventions: str) -> tuple[list[Finding], list[str]]:
    """CF (the version the file declares, where the checker knows it) and ACDD, by compliance-checker.

    Gated on failed mandatory requirements, never on its score: one wrong unit still scores 99%.
    """
    suite_module = load("compliance_checker.suite")
    if suite_module is None:
        return [missing_tool("compliance-checker")], []
    declared = re.search(r"CF-(1\.\d+)", conventions)
    chosen = declared[1] if declared and declared[1] in CF_VERSIONS else CF_DEFAULT
    names = (f"cf:{chosen}", "acdd:1.3")
    suite_module.CheckSuite.load_all_available_checkers()
    with warnings.catch_warnings(), _offline():
        warnings.simplefilter("ignore")
        suite = suite_module.CheckSuite()
        try:
            dataset = suite.load_dataset(str(path))
            with contextlib.closing(dataset):
                results = suite.run_all(dataset, names)
        except Exception as error:  # any error of the checker is its own and must not stop the report
            return [finding("CF-5", "compliance-checker", f"expected a result, found {_sentence(error)}")], []
    found = []
    for name, (groups, errors) in results.items():
        found += _convention_findings(name, groups)
        for check, (error, _) in errors.items():
            found.append(finding("CF-5", f"{name} {check}", f"expected a result, found {_sentence(error)}"))
    return found, [f"{tool('compliance-checker')} ({', '.join(names)})"]


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _convention_findings(name: str, groups: list[Any]) -> list[Finding]:
    found, variables, discovery = [], defaultdict(set), []
    for group in groups:
        score, out_of = group.value if isinstance(group.value, tuple) else (int(bool(group.value)), 1)
        if score >= out_of:
            continue
        variable = re.match(r'variable "(.+)" missing', str(group.name))
        if variable:
            variables[group.weight].update((variable[1], message) for message in group.msgs)
            continue
        messages = list(dict.fromkeys(str(m) for m in group.msgs)) or ["expected to pass, found it failed"]
        if name.startswith("cf"):
            found.append(_listed(CF_RULES[group.weight], str(group.name), messages, max(1, int(out_of - score))))
        elif group.weight == 3:
            found.append(_listed("ACDD-1", str(group.name), messages, len(messages)))
        else:
            discovery += messages
    if discovery:
        found.append(_listed("ACDD-2", "Global Attributes", discovery, len(discovery)))
    for weight, pairs in variables.items():
        names, attributes = sorted({v for v, _ in pairs}), sorted({a for _, a in pairs})
        rule = "ACDD-1" if weight == 3 else "ACDD-2"
        found.append(finding(rule, named(names), f"expected attributes {named(attributes)}", count=len(pairs)))
    return found


def _listed(rule: str, location: str, messages: list[str], count: int) -> Finding:
    more = f"; {len(messages) - MESSAGES} more" if len(messages) > MESSAGES else ""
    text = "; ".join(message.strip().rstrip(".") for message in messages[:MESSAGES])
    return finding(rule, location, text + more, count=count)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """cobra and memote log and warn about what is reported here anyway."""
    loggers = [logging.getLogger(name) for name in ("cobra", "memote", "optlang")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def check_sbml(path: Path) -> tuple[list[Finding], Any, list[str]]:
    """libSBML's consistency checks and cobra's own, in one pass; returns the `cobra.Model` too (None: unreadable).

    The file must have passed `intake.guard_xml` before.
    """
    import cobra.io

    with quiet():
        try:
            model, errors = cobra.io.validate_sbml_model(str(path))
        except Exception as error:  # libSBML and cobra raise bare exceptions on broken input
            return (
                [finding("SBML-1", path.name, f"expected a model, found {_sentence(error)}", severity="fatal")],
                None,
                [],
            )
    found = []
    for key, entries in errors.items():
        rule = SBML_RULES.get(key) or COBRA_RULES.get(key)
        if rule and entries:
            found += _sbml_findings(rule, key, [str(entry) for entry in entries])
    if model is None and not any(f.severity == "fatal" for f in found):
        found.append(finding("SBML-1", path.name, "expected a model, found none that can be read", severity="fatal"))
    return found, model, [tool("python-libsbml"), tool("cobra")]


def _sbml_findings(rule: str, key: str, entries: list[str]) -> list[Finding]:
    """One finding per kind of complaint: libSBML repeats itself for every element."""
    groups: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        text = " ".join(entry.split())
        groups[re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", text)[:120]].append(text)
    severity: Severity | None = "fatal" if key.endswith("_FATAL") else None
    found = []
    for texts in groups.values():
        line = re.search(r"[Ll]ine (\d+)|L(\d+)", texts[0])
        where = f"line {line[1] or line[2]}" if line else key.replace("_", " ").lower()
        found.append(finding(rule, where, texts[0], count=len(texts), severity=severity))
    return found


def read_cobra_json(path: Path) -> tuple[list[Finding], Any]:
    """A BiGG/cobra JSON model, or a fatal finding."""
    import cobra.io

    with quiet():
        try:
            return [], cobra.io.load_json_model(str(path))
        except Exception as error:  # cobra raises bare exceptions on broken input
            message = f"expected a BiGG/cobra model, found {_sentence(error)}"
            return [finding("COBRA-1", path.name, message, severity="fatal")], None


def check_model(model: Any) -> tuple[list[Finding], dict[str, Any], list[str]]:
    """Selected memote tests on a `cobra.Model`: balance, consistency, dead ends, orphans, disconnected compounds.

    memote compares balances exactly, so that 3 × 0.1 ≠ 0.3 fails, and counts reactions with unknown formulae as
    unbalanced; what it names is confirmed here against a tolerance, on internal reactions with known formulae.
    """
    facts = {"reactions": len(model.reactions), "metabolites": len(model.metabolites), "genes": len(model.genes)}
    consistency = load("memote.support.consistency")
    if consistency is None:
        return [missing_tool("memote")], facts, []
    internal = [r for r in model.reactions if not r.boundary and not _BIOMASS.search(f"{r.id} {r.name}")]
    judged = [r for r in internal if all(m.elements for m in r.metabolites)]
    with quiet():
        unbalanced = [
            r
            for r in consistency.find_mass_unbalanced_reactions(judged)
            if any(abs(v) > BALANCE_TOLERANCE for k, v in r.check_mass_balance().items() if k != "charge")
        ]
        left = set(judged) - set(unbalanced)
        charged = [
            r
            for r in consistency.find_charge_unbalanced_reactions(sorted(left, key=lambda r: r.id))
            if all(m.charge is not None for m in r.metabolites)
            and abs(r.check_mass_balance().get("charge", 0.0)) > BALANCE_TOLERANCE
        ]
        found = balance_findings([r.id for r in unbalanced], len(judged))
        if charged:
            message = f"expected charge to balance, found {len(charged)} of {len(left)} reactions that don't"
            found.append(finding("MET-003", named([r.id for r in charged]), message, count=len(charged)))
        found += _network_findings(consistency, model)
    facts |= {"internal_reactions": len(internal), "judged_for_balance": len(judged), "unbalanced": len(unbalanced)}
    return found, facts, [tool("memote")]


def _network_findings(consistency: Any, model: Any) -> list[Finding]:
    found = []
    for rule, what, names in (
        ("MET-005", "only consumed", consistency.find_orphans(model)),
        ("MET-005", "only produced", consistency.find_deadends(model)),
        ("MET-006", "in no reaction", consistency.find_disconnected(model)),
    ):
        if names:
            ids = [m.id for m in names]
            found.append(finding(rule, named(ids), f"found {len(ids)} compounds {what}", count=len(ids)))
    if 0 < len(model.reactions) <= CONSISTENCY_REACTIONS:
        try:
            consistent = consistency.check_stoichiometric_consistency(model)
        except Exception as error:  # a solver's failure is no statement about the model
            return [*found, finding("FILE-010", "memote", f"expected an answer, found {_sentence(error)}")]
        if not consistent:
            found.append(finding("MET-004", "stoichiometric matrix", "expected positive masses, found none that fit"))
    return found


def check_votable(path: Path) -> tuple[list[Finding], list[Any], list[str]]:
    """astropy's verification of a VOTable that has passed `intake.guard_xml`; returns its tables too."""
    from astropy.io.votable import parse
    from astropy.io.votable.exceptions import VOTableSpecError, VOWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tables = list(parse(str(path), verify="warn").iter_tables())
        except (VOTableSpecError, VOWarning) as error:
            return [finding("VOT-1", _place(error), _sentence(error), severity="fatal")], [], [tool("astropy")]
        except Exception as error:  # struct, base64, Unicode … errors of broken streams
            message = f"expected a whole VOTable, found {_sentence(error)}"
            return [finding("FILE-003", path.name, message)], [], [tool("astropy")]
    groups: dict[str, list[Any]] = defaultdict(list)
    for one in caught:
        if isinstance(one.message, (VOWarning, VOTableSpecError)):
            groups[type(one.message).__name__].append(one.message)
    found = []
    for code, messages in groups.items():
        rule = "VOT-1" if code.startswith("E") else "VOT-2"
        found.append(finding(rule, f"{code} {_place(messages[0])}", _sentence(messages[0]), count=len(messages)))
    return found, tables, [tool("astropy")]


def _place(error: BaseException) -> str:
    position = re.search(r":(\d+):(\d+):", str(error))
    return f"line {position[1]}, column {position[2]}" if position else "VOTable"
