"""The model card of a shipped model, after Mitchell et al. 2019 (doi:10.1145/3287560.3287596), from its own files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrobio import __version__
from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.system.unified import UnifiedMultiModalSystem
from astrobio.training.config import RunConfig

ROWS = {
    "unified": "this system", **{name: f"{name} alone, trained in isolation" for name in MODALITIES},
    "isolated_late_fusion": "late fusion of these", "late_fusion": "late fusion of these",
    "gradient_boosting": "boosted trees on hand-made features", "oracle": "trees on the noise-free truth",
}  # fmt: skip
CARD = """\
# Model card

A trained `UnifiedMultiModalSystem` of astrobio {version}, Apache-2.0. Given any subset of a spectrum, a
climate, a candidate metabolism and an observing record it answers with probabilities of six world states
({states}), P(inhabited), gases, and an assessment in words.

## What it is

{parameters:,} parameters ({parts}), stored in bfloat16, {megabytes:.1f} MB with its files. Trained for
{steps:,} steps of {batch} worlds at a peak learning rate of {lr:g} (seed {seed}); the weights are those of
step {best_step:,}, which validated best (accuracy {best_accuracy:.3f}).

## What it was trained on

{data}

## How well it does

{scores}

Macro accuracy over six states (chance is 16.7%) with the 95% interval from resampling host stars, on worlds
whose stars and climates were in no training; `ece` is the expected calibration error. `calibration.json`
holds scales of the experts, conformal thresholds (90% coverage by state), the outlier models and 90% ranges of the
retrieved gases, temperature and radiation, all fitted on the validation split.

## For what, and for what not

- For learning how joint models of planets work, for ranking simulated worlds, and as a baseline. Not for
  claims of life: a model's output alone never exceeds level 1 of the CoLD scale
  (doi:10.1038/s41586-021-03804-9).
- The worlds are simulated. The model knows the priors of that simulation and nothing else; a real planet
  outside of them is answered by extrapolation. `outliers` in an answer above 1 says that a modality is unlike
  anything in the training.
- Rocky planets of 1–8 Earth masses around K and M stars only. Gas giants, sub-Neptunes and other stars lie
  outside.
- The words open with the answer; the rest is the decoder's own. They describe the world, they do not justify
  the answer.
"""


def model_card(config: RunConfig, best: Mapping[str, Any], scores: Mapping[str, Any], size: int) -> str:
    """The card as Markdown.

    Args:
        best: RUN/best.json. scores: as `astrobio evaluate` or a benchmark writes them; may be empty. size: bytes.
    """
    scores = _of_mini(scores) if "depths" in scores else scores
    counts = UnifiedMultiModalSystem(config.system).count_parameters()
    training = config.training
    return CARD.format(
        version=__version__, states=", ".join(WORLD_STATES), parameters=counts.pop("total"), megabytes=size / 1e6,
        parts=", ".join(f"{name.replace('_', ' ')} {count / 1e6:.1f} M" for name, count in counts.items()),
        steps=training.steps, batch=training.batch_size * training.accumulation, lr=training.lr, seed=training.seed,
        best_step=best["step"], best_accuracy=best["accuracy"], data=_data(scores),
        scores=_scores(scores, training.seed),
    )  # fmt: skip


def _of_mini(result: Mapping[str, Any]) -> dict[str, Any]:
    """What `benchmarks/worlds_20k.py` says of the `mini` system, at its deep survey where it has one."""
    depths = result["depths"]
    depth = depths.get("deep") or next(iter(depths.values()))
    systems = {name.replace("trees-all", "gradient_boosting").replace("trees-oracle", "oracle"): entry
               for name, entry in depth["systems"].items()}  # fmt: skip
    words = depth["language"].get("unified-seed-0", {})
    return {**systems, "language": words, "data": depth["observation"]}


def _data(scores: Mapping[str, Any]) -> str:
    found = scores.get("data") or scores.get("observation")
    if not found:
        return "Simulated worlds of `astrobio simulate`; the run does not say which."
    settings = found.get("settings", {})
    floor = "with" if settings.get("floor") else "without"
    organisms = "organisms of genome tables" if found.get("genomes") else "the default organisms"
    return (
        f"{found.get('worlds', '?'):,} simulated worlds (`astrobio simulate`, version {found.get('version')}, seed "
        f"{found.get('seed')}): {settings.get('kind')} spectra of {settings.get('instruments')}, "
        f"{settings.get('transits'):,} transits {floor} the instruments' noise floor, climates of CLERO "
        f"({settings.get('gcm')}), metabolisms of {organisms}, 70% of the worlds for training."
    )


def _scores(scores: Mapping[str, Any], seed: int) -> str:
    entries = {**(scores.get("mean") or {}), **scores, **(scores.get("single") or {})}
    rows = [(name, entry) for name in ROWS if isinstance(entry := entries.get(name), Mapping) and "ci95" in entry]
    if not rows:
        return "Not evaluated beside its rivals yet."
    lines = ["| | macro accuracy | ece |", "|-|-|-|"]
    for name, entry in rows:
        low, high = entry["ci95"]
        mean = entry.get("macro_accuracy", entry.get("mean"))
        ece = f"{entry['ece']:.3f}" if "ece" in entry else ""
        lines.append(f"| {ROWS[name]} | {100 * mean:.1f}% [{100 * low:.1f}, {100 * high:.1f}] | {ece} |")
    return "\n".join([*lines, *_own(entries.get("unified") or {}, seed), *_language(scores.get("language") or {})])


def _own(entry: Mapping[str, Any], seed: int) -> list[str]:
    """What these very weights reach, where the table shows a mean over several seeds."""
    seeds = entry.get("seeds") or []
    if len(seeds) < 2 or seed >= len(seeds):
        return []
    return ["", f"Means over {len(seeds)} seeds; these weights, of seed {seed}, reach {100 * seeds[seed]:.1f}%."]


def _language(found: Mapping[str, Any]) -> list[str]:
    if "right_state" not in found:
        return []
    gases = ""
    if "gases_agree" in found:
        right, named = (100 * found[key] for key in ("gases_agree", "gases_named"))
        gases = f"; {right:.1f}% of the gases it states are right, and it states {named:.1f}% of those worth naming"
    return ["", f"Its words open with the right state in {100 * found['right_state']:.1f}% of the test worlds{gases}."]
