"""The figures of `worlds_20k.py`, one a finding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from astrobio.batch import WORLD_STATES

Found = Mapping[str, dict[str, Any]]  # depth → what `worlds_20k_report.of_depth` found
ORDER = (
    "unified", "unified-averaged", "unified-short", "small", "small-averaged", "small-first", "small-longer",
    "small-reactions", "small-frozen", "no-experts", "late_fusion", "late_fusion-averaged", "trees-all",
    "trees-all-redrawn", "spectrum+climate", "trees-spectrum+climate", "spectrum", "trees-spectrum",
    "trees-spectrum-redrawn", "climate", "trees-climate", "text", "trees-text", "metabolism", "trees-metabolism",
    "trees-oracle", "trees-everything", "unified-clean", "unified-short-clean", "trees-all-clean",
    "trees-spectrum-clean",
)  # fmt: skip
NAMES = {
    "small": "unified, small", "small-frozen": "unified, small, decoder frozen", "unified": "unified, mini",
    "small-averaged": "unified, small, seeds averaged", "small-first": "unified, small, as first trained",
    "small-longer": "unified, small, 3,600 steps", "small-reactions": "unified, small, reactions hidden in training",
    "unified-averaged": "unified, mini, seeds averaged", "late_fusion": "late fusion of the four alone, mini",
    "late_fusion-averaged": "late fusion, seeds averaged", "trees-all": "boosted trees on all features",
    "trees-all-redrawn": "boosted trees on all features, noise redrawn",
    "trees-spectrum-redrawn": "trees on spectrum, noise redrawn", "trees-oracle": "oracle: trees on the hidden truth",
    "trees-everything": "trees on the hidden truth and all features",
    "unified-clean": "unified, mini, spectra without noise",
    "unified-short": "unified, mini, 500 steps", "spectrum+climate-short": "spectrum+climate alone, mini, 500 steps",
    "unified-short-clean": "unified, mini, 500 steps, spectra without noise",
    "trees-all-clean": "boosted trees on all features, spectra without noise",
    "trees-spectrum-clean": "trees on spectrum without noise",
}  # fmt: skip
SHOWN = (  # in the headline: ours, the strongest rivals, what a part of the evidence gives, and the limit
    "small", "unified-averaged", "unified", "unified-short", "late_fusion", "trees-all-redrawn", "spectrum+climate",
    "trees-climate+metabolism", "spectrum", "climate", "trees-everything",
)  # fmt: skip
OURS, RIVAL, LIMIT = "#b5179e", "#4a5568", "#2f855a"
COLOURS = ("#b5179e", "#4361ee", "#f77f00", "#2a9d8f", "#6b705c", "#c1121f")


def said(name: str) -> str:
    """A system as a reader should read it."""
    if name in NAMES:
        return NAMES[name]
    if name.startswith("trees-"):
        return f"trees on {name.removeprefix('trees-')}"
    return name.replace("no-", "unified, mini, without ") if name.startswith("no-") else f"{name} alone, mini"


def ordered(names: Collection[str]) -> list[str]:
    """Systems in the order of the tables: those named first, then the other pairs, then the ablations."""
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def draw_all(depths: Found, folder: Path, prefix: str) -> dict[str, Path]:
    """Draw what there is to draw into `folder/PREFIX_FIGURE.png`; returns figure → file."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawers: dict[str, Callable[[Any, Found], bool]] = {
        "headline": headline, "systems": systems, "ablations": ablations, "language": words, "ood": shifts,
        "reliability": diagram, "confusion": matrix,
    }  # fmt: skip
    drawn = {}
    for name, draw in drawers.items():
        path = folder / f"{prefix}_{name}.png"
        if _save(draw, depths, path):
            drawn[name] = path
    return drawn


def _save(draw: Callable[[Any, Found], bool], depths: Found, path: Path) -> bool:
    import matplotlib.pyplot as plt

    figure = plt.figure(layout="constrained")
    done = draw(figure, depths)
    if done:
        for axis in figure.axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_axisbelow(True)
        figure.savefig(path, dpi=110)
    plt.close(figure)
    return done


def _rows(axis: Any, names: list[str], label: str) -> None:
    axis.set_yticks(range(len(names)), [said(name) for name in names])
    axis.set_xlabel(label)
    axis.grid(axis="x", color="#e2e8f0", lw=0.8)


def _bar(axis: Any, row: float, low: float, mean: float, high: float, colour: str, label: str | None = None) -> None:
    axis.plot([low, high], [row, row], color=colour, lw=2.5, solid_capstyle="round")
    axis.plot(mean, row, "o", color=colour, ms=5, label=label)


def headline(figure: Any, depths: Found) -> bool:
    """The systems that matter most, with their figures; thin where other microbes are resampled as well as stars."""
    known = {name for found in depths.values() for name in found["systems"]}
    names = [name for name in reversed(SHOWN) if name in known]
    figure.set_size_inches(3.2 + 3.2 * len(depths), 1 + 0.34 * len(names))
    axes = figure.subplots(1, len(depths), sharey=True, sharex=True, squeeze=False)[0]
    for axis, (depth, found) in zip(axes, depths.items(), strict=True):
        wider = found.get("over_stars_and_clades", {}).get("macro_accuracy", {})
        for row, name in enumerate(names):
            if name not in found["systems"]:
                continue
            low, mean, high = _triple(found["systems"][name])
            if name in wider:
                axis.plot(wider[name]["ci95"], [row, row], color=_colour(name), lw=1)
            _bar(axis, row, low, mean, high, _colour(name))
            right = max(high, *wider[name]["ci95"]) if name in wider else high
            axis.text(right + 0.012, row, f"{100 * mean:.1f}%", va="center", fontsize=8, color=_colour(name))
        axis.set_title(f"{depth}: {found['worlds']['test']:,} test worlds", fontsize=9)
        axis.margins(x=0.12)
        _rows(axis, names, "macro accuracy")
    return True


def systems(figure: Any, depths: Found) -> bool:
    """Macro accuracy of every system at every depth."""
    names = ordered({n for found in depths.values() for n in found["systems"] if not n.startswith("no-")})[::-1]
    figure.set_size_inches(4 + 3 * len(depths), 0.9 + 0.27 * len(names))
    axes = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axis, (depth, found) in zip(axes, depths.items(), strict=True):
        for row, name in enumerate(names):
            if name in found["systems"]:
                entry = found["systems"][name]
                colour = _colour(name)
                _bar(axis, row, *_triple(entry), colour)
                axis.plot(entry["seeds"], [row] * len(entry["seeds"]), "|", color=colour, ms=9, alpha=0.6)
        axis.axvline(1 / 6, color="#a0aec0", lw=1, ls=":")
        axis.set_title(f"{depth}: {found['worlds']['test']} test worlds", fontsize=9)
        _rows(axis, names, "macro accuracy (dotted: chance)")
    return True


def _colour(name: str) -> str:
    """Ours, the rivals, and what knows the hidden truth."""
    if name in ("unified", "unified-averaged", "unified-short") or name.startswith("small"):
        return OURS
    return LIMIT if name in ("trees-oracle", "trees-everything") else RIVAL


def _triple(entry: Mapping[str, Any], key: str = "macro_accuracy") -> tuple[float, float, float]:
    return entry["ci95"][0], entry[key], entry["ci95"][1]


def ablations(figure: Any, depths: Found) -> bool:
    """What the mini system loses without a part."""
    names = sorted({name for found in depths.values() for name in found["ablations"]}, reverse=True)
    if not names:
        return False
    figure.set_size_inches(6.5, 1.2 + 0.4 * len(names))
    axis = figure.subplots()
    for place, (depth, found) in enumerate(depths.items()):
        shift = 0.12 * (place - (len(depths) - 1) / 2)
        label: str | None = depth
        for row, name in enumerate(names):
            if name in found["ablations"]:
                _bar(axis, row - shift, *_triple(found["ablations"][name], "mean"), COLOURS[place], label)
                label = None
    axis.axvline(0.0, color="#a0aec0", lw=1, ls=":")
    _rows(axis, names, "macro accuracy that the unified system has more")
    axis.legend(frameon=False, fontsize=8)
    return True


def words(figure: Any, depths: Found) -> bool:
    """How far the written assessments are right."""
    keys = (
        "right_state",
        "right_verdict",
        "consistent",
        "gases_agree",
        "gases_exact",
        "gases_named",
        "temperature_agrees",
    )
    texts = [(f"{name}{kind}, {depth}", scores) for depth, found in depths.items()
             for name, entry in found["language"].items()
             for kind, scores in (("", entry), (", unguided", entry["unguided"]))]  # fmt: skip
    runs = {name: scores for name, scores in texts if keys[0] in scores}
    if not runs:
        return False
    figure.set_size_inches(8.5, 3.4 + 0.1 * len(runs))
    axis = figure.subplots()
    width, systems = 0.8 / len(runs), list(dict.fromkeys(name.replace(", unguided", "") for name in runs))
    for place, (name, entry) in enumerate(runs.items()):
        shade = COLOURS[systems.index(name.replace(", unguided", "")) % len(COLOURS)]
        axis.bar(np.arange(len(keys)) + place * width, [entry[key] for key in keys], width, label=name, color=shade,
                 alpha=0.4 if ", unguided" in name else 1.0)  # fmt: skip
    axis.set_xticks(np.arange(len(keys)) + 0.4 - width / 2, [key.replace("_", "\n") for key in keys], fontsize=8)
    axis.set_ylim(0, 1)
    axis.set_ylabel("share")
    figure.legend(frameon=False, fontsize=7, ncols=2, loc="outside lower center")
    return True


def shifts(figure: Any, depths: Found) -> bool:
    """Accuracy in and out of distribution, and how many worlds are noticed to be unlike the training's."""
    found = next((found for found in depths.values() if found["ood"]), None)
    if found is None:
        return False
    splits = list(found["ood"])
    systems_ = [name for name in next(iter(found["ood"].values())) if name != "unlike_training"]
    figure.set_size_inches(8.5, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, name in enumerate(systems_):
        for column, split in enumerate(["test", *splits]):
            entry = found["systems"][name] if split == "test" else found["ood"][split][name]
            low, mean, high = _triple(entry)
            where = column + 0.18 * (place - (len(systems_) - 1) / 2)
            left.plot([where, where], [low, high], color=COLOURS[place], lw=2)
            left.plot(where, mean, "o", color=COLOURS[place], ms=5, label=said(name) if column == 0 else None)
    left.set_xticks(range(len(splits) + 1), ["test", *splits], fontsize=8)
    left.set_ylabel("macro accuracy")
    left.legend(frameon=False, fontsize=7)
    rates = {"test": found["unlike_training"] or {}}
    for split in splits:
        rates[split] = next((each for each in found["ood"][split]["unlike_training"].values() if each), {})
    for place, modality in enumerate(rates["test"]):
        values = [each.get(modality, np.nan) for each in rates.values()]
        right.plot(range(len(values)), values, "o-", color=COLOURS[place % 4], label=modality, lw=1, ms=4)
    right.set_xticks(range(len(rates)), list(rates), fontsize=8)
    right.set_ylabel("share noticed as unlike the training")
    if rates["test"]:
        right.legend(frameon=False, fontsize=7)
    return True


def diagram(figure: Any, depths: Found) -> bool:
    """Reliability: accuracy against confidence."""
    figure.set_size_inches(3.4 * len(depths), 3.3)
    axes = figure.subplots(1, len(depths), squeeze=False)[0]
    for axis, (depth, found) in zip(axes, depths.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="#a0aec0", lw=1, ls=":")
        for place, (name, bins) in enumerate(found["reliability"].items()):
            sizes = [4 + 26 * (entry["worlds"] / sum(e["worlds"] for e in bins)) for entry in bins]
            x, y = ([entry[key] for entry in bins] for key in ("confidence", "accuracy"))
            axis.plot(x, y, color=COLOURS[place], lw=1, label=f"{said(name)}: ece {found['systems'][name]['ece']:.3f}")
            axis.scatter(x, y, s=np.square(sizes) / 4, color=COLOURS[place], alpha=0.7)
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", title=depth)
        axis.legend(frameon=False, fontsize=7, loc="upper left")
    axes[0].set_ylabel("accuracy")
    return True


def matrix(figure: Any, depths: Found) -> bool:
    """Confusion of the headline system."""
    figure.set_size_inches(1.2 + 3.6 * len(depths), 4.2)
    axes = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axis, (depth, found) in zip(axes, depths.items(), strict=True):
        counts = np.array(found["confusion"], dtype=float)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Purples", vmin=0, vmax=1)
        for row, column in np.ndindex(*shares.shape):
            colour = "white" if shares[row, column] > 0.5 else "#2d3748"
            axis.text(
                column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour
            )
        axis.set_xticks(range(len(WORLD_STATES)), WORLD_STATES, rotation=40, ha="right", fontsize=7)
        axis.set_yticks(range(len(WORLD_STATES)), WORLD_STATES, fontsize=7)
        axis.set_title(f"{said(found['headline'])}, {depth}, %", fontsize=9)
    return True
