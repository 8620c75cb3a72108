"""Files → one world → `Assessment`: what a trained system says of it, how sure it is, and why."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astrobio import __version__
from astrobio.assess.attribute import UNSCALED, Saliency, coalition_logits, life_log_odds, saliency, shapley
from astrobio.batch import (
    GASES,
    INHABITED_STATES,
    MODALITIES,
    PHYSICS_TARGETS,
    WORLD_STATES,
    Collator,
    Sample,
)
from astrobio.batch.graph import FLUX_SCALE
from astrobio.errors import InputError
from astrobio.evaluation.calibrate import Calibration
from astrobio.evaluation.language import MAX_NEW_TOKENS, opening, strike_unsure
from astrobio.evaluation.ranges import PHYSICS_UNITS
from astrobio.formats.climate import load_climate
from astrobio.formats.metabolism import read_metabolism_counted
from astrobio.formats.spectra import read_spectrum
from astrobio.training.checkpoint import LoadedRun, load_run

PACKAGED_RUN = Path(__file__).parent / "model"  # a trained run that ships with the package
COLD_NOTE = (
    "On the Confidence of Life Detection scale (Green et al. 2021, doi:10.1038/s41586-021-03804-9) a model's output "
    "alone never exceeds level 1: it points at a possible signal, it does not detect life."
)


@dataclass(frozen=True, eq=False)
class Assessment:
    """What a trained system says of one world.

    Args:
        sample: the world as it was read. state_probabilities: state → probability, adding up to 1.
        inhabited: probability of life. inhabited_range: its lowest and highest value when any one of the given
            inputs is left out (equal to `inhabited` with one input).
        attribution: given modality → its share (Shapley value) of the log-odds of life, nats; `prior` is the
            log-odds with nothing known, so that prior + shares = the answer's log-odds.
        state_attribution: the same for the log-probability of the likeliest state.
        modality_weights: the fusion's own weights of the given modalities.
        assessment_text: in words: it opens with the likeliest state, all that follows is the decoder's, without the
            gases that `physics_range` does not bear out.
        prediction_set: states that can't be ruled out at 90% coverage; None where the run is not calibrated.
        outliers: modality → distance from the training worlds over the threshold; above 1 is unlike any of them.
        physics: predicted `PHYSICS_TARGETS` in their units (`PHYSICS_UNITS`).
        physics_range: target → (low, high) that holds the truth in 90% of held-out worlds with the same inputs and
            likeliest state; empty where the run has no such calibration.
        exchange: predicted gas exchange, mmol/gDW/h, or None.
        saliency: where inside spectrum and climate the answer comes from.
        notes: modality → what reading its file did. provenance: files, hashes, versions, time.
    """

    sample: Sample
    state_probabilities: dict[str, float]
    inhabited: float
    inhabited_range: tuple[float, float]
    attribution: dict[str, float]
    state_attribution: dict[str, float]
    prior: float
    modality_weights: dict[str, float]
    assessment_text: str
    prediction_set: tuple[str, ...] | None
    outliers: dict[str, float]
    physics: dict[str, float]
    physics_range: dict[str, tuple[float, float]]
    exchange: dict[str, float] | None
    saliency: Saliency
    notes: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def state(self) -> str:
        """The likeliest state."""
        return max(self.state_probabilities, key=lambda name: self.state_probabilities[name])

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before believing the answer, one sentence each."""
        out = [
            f"The {name} lies outside what the model was trained on ({ratio:.1f} times the threshold): "
            "read the answer as an extrapolation."
            for name, ratio in self.outliers.items()
            if ratio > 1
        ]
        if self.prediction_set is None:
            out.append(
                "The model is not calibrated: its probabilities may be too sure. `astrobio evaluate` calibrates."
            )
        elif not self.prediction_set:
            out.append("At 90% coverage no state is plausible: the world fits none that the model knows.")
        absent = [name for name, there in zip(MODALITIES, self.sample.present, strict=True) if not there]
        if absent:
            out.append(f"Nothing was given as {', '.join(absent)}.")
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (without the arrays)."""
        return {
            "state_probabilities": self.state_probabilities,
            "inhabited": self.inhabited,
            "inhabited_range": list(self.inhabited_range),
            "state": self.state,
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "attribution": self.attribution,
            "state_attribution": self.state_attribution,
            "prior_log_odds": self.prior,
            "modality_weights": self.modality_weights,
            "assessment_text": self.assessment_text,
            "outliers": self.outliers,
            "predicted_physics": self.physics,
            "predicted_physics_range": {name: list(pair) for name, pair in self.physics_range.items()},
            "physics_units": PHYSICS_UNITS,
            "predicted_exchange": self.exchange,
            "climate_attribution": self.saliency.climate_variables,
            "warnings": self.warnings,
            "cold_scale": {"highest_level": 1, "note": COLD_NOTE},
            "inputs": self.notes,
            "provenance": self.provenance,
        }


def assess(
    run: Path | str | LoadedRun | None = None,
    *,
    spectrum: Path | str | None = None,
    climate: Path | str | None = None,
    metabolism: Path | str | None = None,
    text: str | None = None,
    units: str | None = None,
    substellar_longitude: float | None = None,
    device: str = "cpu",
) -> Assessment:
    """Assess one world from any non-empty subset of inputs.

    Args:
        run: folder of a trained run, one already loaded, or None for the model that ships with the package.
        spectrum, climate, metabolism: files. text: what is known of the planet and its star, in words.
        units: units that the spectrum's file lacks (`wavelength=um,depth=ppm`).
        substellar_longitude: degrees in the climate file's longitudes; None finds it.

    Raises:
        InputError: no input, no trained run, or an unusable file.
    """
    sample, notes, files = read_world(spectrum, climate, metabolism, text, units, substellar_longitude)
    loaded, calibration, model = _open_run(run, device)
    return assess_sample(sample, loaded, calibration, notes=notes, provenance={**_versions(), **model, "files": files})


def read_world(
    spectrum: Path | str | None = None,
    climate: Path | str | None = None,
    metabolism: Path | str | None = None,
    text: str | None = None,
    units: str | None = None,
    substellar_longitude: float | None = None,
) -> tuple[Sample, dict[str, Any], dict[str, Any]]:
    """Files → (world, what reading each did, name, size and SHA-256 of each)."""
    words = " ".join(text.split()) if text is not None else None
    readers: dict[str, tuple[Path | str | None, Callable[[Path], tuple[Any, dict[str, Any]]]]] = {
        "spectrum": (spectrum, lambda path: read_spectrum(path, units=units)),
        "climate": (climate, lambda path: load_climate(path, substellar_longitude=substellar_longitude)),
        "metabolism": (metabolism, _read_metabolism),
    }
    if not words and all(path is None for path, _ in readers.values()):
        raise InputError("assess: expected at least one of --spectrum, --climate, --metabolism, --text, found none")
    parts, notes, files = {}, {}, {}
    for name, (path, reader) in readers.items():
        if path is not None:
            parts[name], notes[name] = reader(Path(path))
            files[name] = _fingerprint(Path(path))
    if words:
        files["text"] = {"characters": len(words), "sha256": hashlib.sha256(words.encode()).hexdigest()}
    digest = hashlib.sha256(repr(sorted((k, v["sha256"]) for k, v in files.items())).encode()).hexdigest()
    return Sample(world_id=f"assessed-{digest[:12]}", context=words or None, **parts), notes, files


def _read_metabolism(path: Path) -> tuple[Any, dict[str, Any]]:
    graph, counts = read_metabolism_counted(path)
    return graph, {"compounds": len(graph.compounds), "reactions": len(graph.reactions), **counts}


def assess_sample(
    sample: Sample,
    run: LoadedRun,
    calibration: Calibration | None = None,
    *,
    notes: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Assessment:
    """Assess a world that is already a `Sample`."""
    system, scales = run.system.eval(), UNSCALED if calibration is None else calibration.scales
    collate = Collator(run.tokenizer, run.statistics, run.config.training.max_length, with_assessment=False)
    present = tuple(name for name, there in zip(MODALITIES, sample.present, strict=True) if there)
    coalitions = coalition_logits(system, collate, sample, scales)
    odds = {key: float(life_log_odds(torch.from_numpy(value)[None])) for key, value in coalitions.items()}
    probabilities = _softmax(coalitions[present])
    likeliest = int(probabilities.argmax())
    state = WORLD_STATES[likeliest]
    batch = collate([sample]).to(next(system.parameters()).device)
    with torch.inference_mode():
        outputs = system(batch)
    physics = _physics(outputs.physics[0], run)
    ranges = {} if calibration is None else calibration.physics_range(physics, present, state)
    begun = run.tokenizer.encode(opening(state))
    text = run.tokenizer.decode(system.generate(batch, MAX_NEW_TOKENS, run.tokenizer.eos_id, [begun])[0]).strip()
    without = [_sigmoid(odds[tuple(m for m in present if m != name)]) for name in present] if len(present) > 1 else []
    inhabited = float(sum(probabilities[WORLD_STATES.index(name)] for name in INHABITED_STATES))
    return Assessment(
        sample=sample,
        state_probabilities=dict(zip(WORLD_STATES, probabilities.tolist(), strict=True)),
        inhabited=inhabited,
        inhabited_range=(min([inhabited, *without]), max([inhabited, *without])),
        attribution=shapley(odds),
        state_attribution=shapley({k: float(np.log(_softmax(v)[likeliest])) for k, v in coalitions.items()}),
        prior=odds[()],
        modality_weights={n: float(outputs.modality_weights[0, MODALITIES.index(n)]) for n in present},
        assessment_text=strike_unsure(text, ranges),
        prediction_set=None if calibration is None else calibration.prediction_set(probabilities),
        outliers=_outliers(calibration, outputs.embeddings, present),
        physics=physics,
        physics_range=ranges,
        exchange=_exchange(outputs.metabolism.exchange[0]) if "metabolism" in present else None,
        saliency=saliency(system, collate, sample, scales),
        notes=dict(notes or {}),
        provenance=dict(provenance or _versions()),
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponential = np.exp(logits - logits.max())
    return exponential / exponential.sum()


def _sigmoid(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds))


def _outliers(
    calibration: Calibration | None, embeddings: Mapping[str, torch.Tensor], present: tuple[str, ...]
) -> dict[str, float]:
    if calibration is None:
        return {}
    ratios = {name: calibration.outlier_ratio(name, embeddings[name][0].float().cpu().numpy()) for name in present}
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}


def _physics(values: torch.Tensor, run: LoadedRun) -> dict[str, float]:
    scaled = values.float().cpu().numpy() * np.array(run.statistics.physics_std) + np.array(run.statistics.physics_mean)
    return dict(zip(PHYSICS_TARGETS, scaled.tolist(), strict=True))


def _exchange(values: torch.Tensor) -> dict[str, float]:
    flux = np.sinh(values.float().cpu().numpy()) * FLUX_SCALE
    return {name: float(value) for name, value in zip(GASES, flux, strict=True)}


def _open_run(run: Path | str | LoadedRun | None, device: str) -> tuple[LoadedRun, Calibration | None, dict[str, Any]]:
    """The trained run, its calibration where it has one, and what to say of both."""
    if isinstance(run, LoadedRun):
        return run, None, {"model": {"run": "given in memory"}}
    if run is None and not (PACKAGED_RUN / "model.safetensors").is_file():
        raise InputError(
            "assess: expected the folder of a trained run, found none given and no model in this installation; "
            "train one with `astrobio train --preset mini --data DIR --out RUN`, then `astrobio assess RUN …`"
        )
    folder = PACKAGED_RUN if run is None else Path(run)
    loaded = load_run(folder, device)
    calibrated = folder / "calibration.json"
    calibration = Calibration.load(calibrated) if calibrated.is_file() else None
    about = {
        "run": folder.name if run is not None else "shipped with astrobio",
        **_fingerprint(folder / "model.safetensors"),
    }
    return loaded, calibration, {"model": {**about, "calibrated": calibration is not None}}


def _fingerprint(path: Path) -> dict[str, Any]:
    """Name, bytes and SHA-256 of a file, or of all files of a folder in order of their names."""
    digest, size = hashlib.sha256(), 0
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            with open(part, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
                    size += len(block)
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}


def _versions() -> dict[str, Any]:
    packages = {name: metadata.version(name) for name in ("torch", "numpy", "xarray", "astropy", "cobra")}
    return {"astrobio": __version__, "packages": packages, "time": datetime.now(UTC).isoformat(timespec="seconds")}
