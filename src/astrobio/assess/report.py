"""`Assessment` → one self-contained HTML page: answer first, then why, then from what."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from astrobio.assess.figures import climate_figure, colour_ramp, spectrum_figure
from astrobio.assess.predict import COLD_NOTE, Assessment
from astrobio.batch import INHABITED_STATES, ClimateCube, Spectrum
from astrobio.evaluation.ranges import PHYSICS_UNITS

NAMES = {
    "lifeless-inhospitable": "Lifeless, inhospitable",
    "lifeless-temperate": "Lifeless, temperate",
    "lifeless-oxygenated": "Lifeless, oxygen without life",
    "lifeless-reducing": "Lifeless, methane without life",
    "anoxic-biosphere": "Biosphere without oxygen",
    "oxygenic-biosphere": "Biosphere with oxygen",
}
MEANING = {
    "lifeless-inhospitable": "Too hot or too cold for liquid water anywhere on its surface.",
    "lifeless-temperate": "Liquid water is possible, and outgassing alone explains its air.",
    "lifeless-oxygenated": "Oxygen from lost water or broken CO₂: the best-known false positive.",
    "lifeless-reducing": "Methane from volcanoes or rock, which brings carbon monoxide: a false positive.",
    "anoxic-biosphere": "Methane-making life, as on the Archean Earth: CH₄ beside CO₂ and little CO.",
    "oxygenic-biosphere": "Oxygen-making life: O₂ and CH₄ together, which only a steady source can keep.",
}
INPUTS = {"text": "words", "spectrum": "spectrum", "climate": "climate", "metabolism": "metabolism"}
VERDICTS = (  # least probability of life → sentence
    (0.95, "Life is by far the better explanation, for this model."),
    (0.75, "Probably inhabited."),
    (0.55, "More likely inhabited than not."),
    (0.45, "Undecided."),
    (0.25, "More likely lifeless than not."),
    (0.05, "Probably lifeless."),
    (0.0, "No sign of life that this model knows."),
)
LABELS = {
    "surface_temperature": "mean surface temperature", "asr": "absorbed starlight", "olr": "outgoing longwave",
}  # fmt: skip
DECADES = 12  # of the axis on which gases are drawn: from the floor of mixing ratios to all of the air


def write_report(assessment: Assessment, path: Path | str) -> None:
    """Write the page, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_text(render_report(assessment), encoding="utf-8")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def render_report(a: Assessment) -> str:
    """The page as text; it loads nothing from elsewhere."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("astrobio.assess") / "report.html").read_text(encoding="utf-8"))
    exchange, metabolism_caption = _exchange(a)
    return template.render(
        a=a,
        title=_title(a),
        given=", ".join(INPUTS[name] for name in a.attribution),
        verdict=verdict(a.inhabited),
        names=NAMES, meaning=MEANING, inhabited=INHABITED_STATES, percent=percent, signed=signed, cold=COLD_NOTE,
        states=sorted(a.state_probabilities.items(), key=lambda item: -item[1]),
        attribution=[(INPUTS[name], value) for name, value in a.attribution.items()],
        total=a.prior + sum(a.attribution.values()),
        split=_splitter(a.attribution.values()), gas_split=_splitter([value for _, value in exchange]),
        spectrum_svg=Markup(spectrum_figure(a.sample.spectrum, a.saliency.spectrum)) if a.sample.spectrum else "",
        spectrum_caption=_spectrum_caption(a.sample.spectrum) if a.sample.spectrum else "",
        climate_svg=Markup(climate_figure(a.sample.climate, a.saliency.climate)) if a.sample.climate else "",
        climate=_climate_facts(a.sample.climate) if a.sample.climate else {},
        climate_caption=_climate_caption(a),
        ramp=colour_ramp(), exchange=exchange, metabolism_caption=metabolism_caption,
        physics=retrieved(a), raised=_raised, notes=_notes(a.notes),
    )  # fmt: skip


def verdict(inhabited: float) -> str:
    """A probability of life in one sentence."""
    return next(sentence for least, sentence in VERDICTS if inhabited >= least)


def subscripts(formula: str) -> str:
    """`CO2` → `CO₂`."""
    return formula.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def percent(probability: float) -> str:
    """A probability in whole percent, never rounded to certainty."""
    if probability < 0.005:
        return "<1"
    return ">99" if probability > 0.995 else f"{100 * probability:.0f}"


def signed(value: float) -> str:
    """A number with its sign, a true minus, and as many digits as it needs."""
    digits = 2 if abs(value) < 10 else 0
    return f"{'−' if value < 0 else '+'}{abs(value):.{digits}f}"


def _splitter(values: Any) -> Callable[[float], str]:
    """CSS of a bar that grows from the middle to either side, in proportion to the longest."""
    longest = max((abs(value) for value in values), default=0.0) or 1.0

    def style(value: float) -> str:
        width = 50 * abs(value) / longest
        return f"left:{50 if value >= 0 else 50 - width:.2f}%;width:{width:.2f}%"

    return style


def _title(a: Assessment) -> str:
    named = [entry["file"] for entry in a.provenance.get("files", {}).values() if "file" in entry]
    return named[0] if named else a.sample.world_id


def _spectrum_caption(spectrum: Spectrum) -> str:
    reflection = spectrum.kind == "reflection"
    scale, unit = (1.0, "") if reflection else (1.0, " ppm")
    return (
        f"{spectrum.kind.capitalize()}, {len(spectrum.value)} points, median uncertainty "
        f"{float(np.median(spectrum.sigma)) * scale:.3g}{unit}; vertical lines are one standard deviation."
    )


def _climate_facts(cube: ClimateCube) -> dict[str, Any]:
    surface = cube.fields["surface_temperature"].mean(axis=(0, 1))
    facts = [("mean surface temperature", f"{cube.global_mean('surface_temperature'):.1f} K")]
    habitable = float((cube.area_weights() * ((surface > 273.15) & (surface < 373.15))).sum())
    facts.append(("area between 273 and 373 K", f"{100 * habitable:.0f}%"))
    budget = ("toa_net_downward_shortwave_flux", "toa_outgoing_longwave_flux")
    if all(name in cube.fields for name in budget):
        absorbed, emitted = (cube.global_mean(name) for name in budget)
        facts += [("absorbed starlight", f"{absorbed:.0f} W/m²"), ("outgoing longwave", f"{emitted:.0f} W/m²"),
                  ("imbalance", f"{signed(absorbed - emitted)} W/m²")]  # fmt: skip
    facts.append(("lowest level", f"{cube.levels[0] / 1e5:.3g} bar"))
    return {"low": f"{surface.min():.0f}", "high": f"{surface.max():.0f}", "facts": facts}


def _climate_caption(a: Assessment) -> str:
    if a.sample.climate is None:
        return ""
    count = a.sample.climate.shape[1]
    over = f"Mean over {count} {a.sample.climate.time_kind}. " if count > 1 else ""
    if a.notes.get("climate", {}).get("tidally_locked"):
        over += "The star stands over longitude 0°. "
    ranked = sorted(a.saliency.climate_variables.items(), key=lambda item: -abs(item[1]))[:3]
    weights = ", ".join(f"{name.replace('_', ' ')} ({signed(value)})" for name, value in ranked)
    return (
        f"{over}Dotted: the tenth of the grid that mattered most. Weightiest variables, in nats against the training "
        f"worlds' mean: {weights}."
    )


def _exchange(a: Assessment) -> tuple[list[tuple[str, float]], str]:
    """Gases exchanged, largest first, and where the numbers come from."""
    graph = a.sample.metabolism
    if graph is None or a.exchange is None:
        return [], ""
    known = graph.exchange is not None
    values = graph.exchange if graph.exchange is not None else a.exchange
    shown = sorted(((gas, value) for gas, value in values.items() if abs(value) > 0.01), key=lambda item: -abs(item[1]))
    source = (
        "flux balance analysis of the given model" if known else "predicted by the network: the file has no objective"
    )
    return [(subscripts(gas), value) for gas, value in shown], (
        f"{len(graph.compounds):,} compounds and {len(graph.reactions):,} reactions. Gas exchange in mmol per gram of "
        f"dry weight and hour, released to the right, taken up to the left ({source})."
    )


@dataclass(frozen=True)
class Retrieved:
    """One retrieved number in words.

    Args:
        label: what it is. value, range: with unit, `range` "" where the run has none; powers are written `10^−3.2`.
        places: of the value and of the range's ends on the gases' axis, %; fewer without a range, none but for gases.
    """

    label: str
    value: str
    range: str
    places: tuple[float, ...] = ()


def retrieved(a: Assessment) -> list[Retrieved]:
    """What the model infers of the planet, target by target."""
    out = []
    for name, value in a.physics.items():
        gas, ends = name.startswith("log10_"), a.physics_range.get(name, ())
        if gas:
            said, places = _mixing_ratio(value), tuple(_place(x) for x in (value, *ends))
            out.append(Retrieved(subscripts(name.removeprefix("log10_")), said, _between(ends, _power, ""), places))
        else:
            unit = PHYSICS_UNITS[name].replace("m2", "m²")
            out.append(Retrieved(LABELS[name], f"{value:.0f} {unit}", _between(ends, "{:.0f}".format, f" {unit}")))
    return out


def _between(ends: tuple[float, ...], say: Callable[[float], str], unit: str) -> str:
    return f"{say(ends[0])} to {say(ends[1])}{unit}" if ends else ""


def _place(log_ratio: float) -> float:
    return 100.0 * min(max(1.0 + log_ratio / DECADES, 0.0), 1.0)


def _power(log_ratio: float) -> str:
    """`10^−3.2`, a number of parts in one."""
    exponent = f"{min(log_ratio, 0.0):.1f}".replace("-", "−")
    return "1" if exponent in ("0.0", "−0.0") else f"10^{exponent}"


def _mixing_ratio(log_ratio: float) -> str:
    """`630 ppm, 10^−3.2`; the power alone below 1 ppb."""
    power, ratio = _power(log_ratio), 10.0 ** min(log_ratio, 0.0)
    for least, scale, unit in ((1e-2, 1e2, "%"), (1e-6, 1e6, " ppm"), (1e-9, 1e9, " ppb")):
        if ratio >= least:
            return f"{float(f'{ratio * scale:.2g}'):g}{unit}, {power}"
    return power


def _raised(text: str) -> Markup:
    """`10^−3.2` → HTML with a raised exponent."""
    return Markup(re.sub(r"10\^(−?[\d.]+)", r"10<sup>\1</sup>", str(escape(text))))


def _notes(notes: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (name, [(key.replace("_", " "), _plain(value)) for key, value in rows.items()]) for name, rows in notes.items()
    ]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_plain(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool) or value is None:
        return "unknown" if value is None else "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
