"""Do a system's words agree with the world? Assessments are read back and compared with what is true.

Dimension letters: N worlds, G gases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from rich.progress import track

from astrobio.batch import INHABITED_STATES, PHYSICS_TARGETS, WORLD_STATES
from astrobio.evaluation.calibrate import MISCOVERAGE
from astrobio.training.checkpoint import LoadedRun
from astrobio.training.feed import Row, Store, sweep
from astrobio.training.step import autocast

MAX_NEW_TOKENS = 160
WRITTEN_AT_ONCE = 256  # worlds; each step of generation costs the same launches for one world or for many
DECADE = 1.0  # a stated gas is right within one order of magnitude
NEAREST = 0.5 + 1e-6  # and exact where no other power of ten lies nearer
WARM = 15.0  # K; temperatures are stated in tens
GASES = tuple(name.removeprefix("log10_") for name in PHYSICS_TARGETS if name.startswith("log10_"))
STATED_GAS = re.compile(r"\b([A-Z][A-Za-z0-9]{1,3}) (\d(?:\.\d+)?e-?\d+)\b")
GAS_LIST = re.compile(rf"{STATED_GAS.pattern}(?:, {STATED_GAS.pattern})*")
SURE = 0.9  # chance of being right with which a gas is stated
NONE_SURE = "none to within a decade"  # what stands in place of a list of gases that are all struck
STATED_TEMPERATURE = re.compile(r"[Ss]urface (?:near )?(\d+(?:\.\d+)?) K\b")


Ranges = Mapping[str, tuple[float, float]]  # physics target → (low, high)


@dataclass(frozen=True)
class Stated:
    """What an assessment says.

    Args:
        state: the one it names first, or None. inhabited: its verdict, or None. temperature: K, or None.
        gases: volume fractions by gas, of gases that the simulator knows.
    """

    state: str | None = None
    inhabited: bool | None = None
    gases: dict[str, float] = field(default_factory=dict)
    temperature: float | None = None


@dataclass(frozen=True)
class Truth:
    """What is so.

    Args:
        state: of the world, or None where unknown. temperature: K, or None.
        gases: log10 of volume fractions. named: gases that a true assessment names.
    """

    state: str | None
    gases: Mapping[str, float]
    named: frozenset[str] = frozenset()
    temperature: float | None = None


def read_assessment(text: str) -> Stated:
    """Read an assessment back; what it does not say is None or missing."""
    gases = {
        gas: float(number) for gas, number in reversed(STATED_GAS.findall(text)) if gas in GASES
    }  # the first counts
    temperature = STATED_TEMPERATURE.search(text)
    return Stated(
        named_state(text), _verdict(text), {gas: value for gas, value in gases.items() if value > 0},
        None if temperature is None else float(temperature[1]),
    )  # fmt: skip


def named_state(text: str) -> str | None:
    """The world state that a text names first, hyphenated or not; None where it names none."""
    plain = " ".join(text.lower().replace("-", " ").split())
    found = {name: plain.find(name.replace("-", " ")) for name in WORLD_STATES}
    named = [name for name, at in found.items() if at >= 0]
    return min(named, key=lambda name: found[name]) if named else None


def _verdict(text: str) -> bool | None:
    found = re.search(r"\b(not )?inhabited\b", text.lower())
    return None if found is None else found[1] is None


def score_assessments(stated: Sequence[Stated], truths: Sequence[Truth]) -> dict[str, Any]:
    """Shares of worlds and of statements that are right.

    Returns:
        `worlds`; `right_state` and `right_verdict`, shares of the worlds whose state is known; `names_a_state`;
        `gases_agree` and `gases_exact`, shares of all stated gases within one order of magnitude and nearest to the
        stated power of ten; `gases_named`, share of the gases of true assessments that are stated;
        `all_gases_agree`, share of the worlds in which gases are stated and all agree; `temperature_agrees`, share of
        stated temperatures within 15 K; `by_gas` {gas: `stated`, `agree`}; `consistent`, share of texts whose
        verdict fits the state they name. NaN where there is nothing to judge.
    """
    known = [(s, t) for s, t in zip(stated, truths, strict=True) if t.state is not None]
    errors = [_gas_errors(s, t) for s, t in zip(stated, truths, strict=True)]
    every = [error for each in errors for error in each.values()]
    warm = [abs(s.temperature - t.temperature) <= WARM for s, t in zip(stated, truths, strict=True)
            if s.temperature is not None and t.temperature is not None]  # fmt: skip
    return {
        "worlds": len(stated),
        "right_state": share(s.state == t.state for s, t in known),
        "right_verdict": share(s.inhabited == (t.state in INHABITED_STATES) for s, t in known),
        "names_a_state": share(s.state is not None for s in stated),
        "consistent": share(s.inhabited == (s.state in INHABITED_STATES) for s in stated if s.state is not None),
        "gases_agree": share(error <= DECADE for error in every),
        "gases_exact": share(error <= NEAREST for error in every),
        "gases_named": share(gas in s.gases for s, t in zip(stated, truths, strict=True) for gas in t.named),
        "all_gases_agree": share(bool(e) and max(e.values()) <= DECADE for e in errors),
        "temperature_agrees": share(warm),
        "by_gas": {gas: _of_gas(gas, errors) for gas in GASES},
    }


def _gas_errors(stated: Stated, truth: Truth) -> dict[str, float]:
    """|log10 stated − log10 true| of every stated gas whose truth is known."""
    return {gas: abs(math.log10(value) - truth.gases[gas]) for gas, value in stated.gases.items() if gas in truth.gases}


def _of_gas(gas: str, errors: Sequence[Mapping[str, float]]) -> dict[str, float]:
    found = [each[gas] for each in errors if gas in each]
    return {"stated": len(found), "agree": share(error <= DECADE for error in found)}


def share(flags: Iterable[bool]) -> float:
    """Share of true ones; NaN where there is none to judge."""
    values = list(flags)
    return float(np.mean(values)) if values else float("nan")


def opening(state: str) -> str:
    """How an assessment of a world in this state begins, in the words of the simulator's own: its answer, no reasons.

    Assessments that the system gives begin so with the fused answer, which the decoder cannot see; what follows, gases,
    temperature and reason, is the decoder's own, and it goes on from this answer (`strike_unsure` then looks at the
    gases).
    """
    return f"State: {state}; {'inhabited' if state in INHABITED_STATES else 'not inhabited'}. Gases:"


def strike_unsure(text: str, ranges: Ranges) -> str:
    """An assessment without the gases that the calibrated ranges do not bear out.

    A stated gas stays where the truth lies within an order of magnitude of it with a chance of at least `SURE`, the
    range being read as the central 90% of a normal distribution. Without any ranges nothing is struck.

    Args:
        ranges: physics target → (low, high), as of `Calibration.physics_range`.
    """

    def judged(match: re.Match[str]) -> str:
        kept = [said for said in match[0].split(", ") if _chance(said, ranges) >= SURE]
        return ", ".join(kept) or NONE_SURE

    return GAS_LIST.sub(judged, text) if ranges else text


def _chance(said: str, ranges: Ranges) -> float:
    """That a statement such as "CO2 1e-2" is right to within an order of magnitude; 0 for a gas without a range."""
    gas, number = said.split(" ")
    if f"log10_{gas}" not in ranges or float(number) <= 0:
        return 0.0
    (low, high), stated = ranges[f"log10_{gas}"], math.log10(float(number))
    width = max((high - low) / 2 / NormalDist().inv_cdf(1 - MISCOVERAGE / 2), 1e-6)
    truth = NormalDist((low + high) / 2, width)
    return truth.cdf(stated + DECADE) - truth.cdf(stated - DECADE)


def write_assessments(
    run: LoadedRun,
    store: Store,
    states: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    at_once: int = WRITTEN_AT_ONCE,
    label: str = "",
) -> list[str]:
    """Assessments of the first `limit` worlds of a split, in order, in the run's own precision.

    Args:
        states: of each world, with which its assessment opens; None leaves every word to the decoder.
        at_once: worlds written side by side. label: name of the progress bar ("" hides it).
    """
    settings, size = run.config.training, len(store) if limit is None else min(limit, len(store))
    texts: list[str] = []
    run.system.eval()
    batches = sweep(store, size, batch_size=at_once, modalities=settings.modalities, assessments=False)
    for batch in track(batches, label, total=-(-size // at_once), disable=not label, transient=True):
        with torch.inference_mode(), autocast(store.device, settings.precision):
            here = None if states is None else states[len(texts) : len(texts) + len(batch)]
            begun = None if here is None else [run.tokenizer.encode(opening(state)) for state in here]
            written = run.system.generate(batch, MAX_NEW_TOKENS, run.tokenizer.eos_id, begun)
        texts += [run.tokenizer.decode(tokens) for tokens in written]
    return texts


def truth_of(row: Row, run: LoadedRun) -> Truth:
    """The truth of a prepared world, its gases from the normalised physics."""
    batch = row.batch
    values = (batch.physics[0] * batch.physics_std[0] + batch.physics_mean[0]).tolist()
    known = {
        name: value for name, value, k in zip(PHYSICS_TARGETS, values, batch.physics_mask[0].tolist(), strict=True) if k
    }
    label = int(batch.labels[0])
    return Truth(
        WORLD_STATES[label] if label >= 0 else None,
        {name.removeprefix("log10_"): value for name, value in known.items() if name.startswith("log10_")},
        frozenset(read_assessment(run.tokenizer.decode(row.target.tolist())).gases),
        known.get("surface_temperature"),
    )


def language(
    run: LoadedRun,
    store: Store,
    believed: Sequence[str],
    ranges: Sequence[Ranges],
    *,
    limit: int | None = None,
    label: str = "",
) -> dict[str, Any]:
    """Write assessments of the first worlds and score them (`score_assessments`).

    Args:
        believed: the state that the run's own calibrated answer gives each world of the split. ranges: of its physics.

    Returns:
        The scores of assessments that open with that answer and state the gases that the ranges bear out, as `astrobio
        assess` writes them; under `every_gas` those of the same texts before gases are struck; under `unguided` those
        of texts that are the decoder's alone, with `agrees`, the share of worlds in which it names the same state.
    """
    opened = write_assessments(run, store, believed, limit=limit, label=label)
    texts = {
        "guided": [strike_unsure(text, each) for text, each in zip(opened, ranges, strict=False)],
        "every_gas": opened,
        "unguided": write_assessments(run, store, limit=limit, label=label),
    }
    truths = [truth_of(store[index], run) for index in range(len(opened))]
    found = {kind: _scored(written, truths, believed) for kind, written in texts.items()}
    return {**found["guided"], "every_gas": found["every_gas"], "unguided": found["unguided"]}


def _scored(texts: Sequence[str], truths: Sequence[Truth], believed: Sequence[str]) -> dict[str, Any]:
    stated = [read_assessment(text) for text in texts]
    agrees = share(s.state == b for s, b in zip(stated, believed, strict=False))
    return {**score_assessments(stated, truths), "agrees": agrees, "examples": list(texts[:3])}
