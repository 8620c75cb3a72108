"""A trained run → the few small files that `astrobio assess` needs, with a model card: `astrobio export`."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from astrobio import __version__
from astrobio.assess.card import model_card
from astrobio.errors import InputError
from astrobio.training.checkpoint import read_json, read_run, write_json
from astrobio.training.execution import ExecutionConfig

MOST_BYTES = 10_000_000  # of all files together: what a package may weigh
COPIED = ("tokenizer.json", "statistics.json", "calibration.json")
OPTIONAL = ("tokenizer_config.json",)


def export_run(
    run: Path, out: Path, *, result: Path | None = None, most_bytes: int = MOST_BYTES, console: Console | None = None
) -> Path:
    """Write a run's best weights in bfloat16 with what they need to be used; returns `out`.

    Args:
        run: folder of a finished and calibrated run. out: folder to write, replaced as a whole if it holds a model.
        result: JSON of `astrobio evaluate` or of a benchmark that the card quotes [RUN/evaluation.json].
        most_bytes: the files together may weigh no more.

    Raises:
        InputError: an unfinished or uncalibrated run, files heavier than allowed, or a folder of something else.
    """
    config, _, _ = read_run(run)
    _require_complete(run)
    _require_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        temporary = Path(folder) / "model"
        temporary.mkdir()
        for name in (*COPIED, *(name for name in OPTIONAL if (run / name).is_file())):
            shutil.copyfile(run / name, temporary / name)
        training = replace(config.training, decoder=None, device="auto", cache="auto")  # no path, no other machine
        kept = replace(config, training=training, execution=ExecutionConfig())  # nor how that one trained
        write_json(temporary / "config.json", kept.to_dict())
        _write_half(run / "model.safetensors", temporary / "model.safetensors")
        scores = read_json(result or run / "evaluation.json") if result or (run / "evaluation.json").is_file() else {}
        card = model_card(config, read_json(run / "best.json"), scores, _size(temporary))
        (temporary / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        size = _size(temporary)
        if size > most_bytes:
            raise InputError(
                f"{run}: expected at most {most_bytes / 1e6:.1f} MB of model files, found {size / 1e6:.1f} MB; "
                "export a smaller preset, or allow more with --most-mb"
            )
        shutil.rmtree(out, ignore_errors=True)
        os.replace(temporary, out)
    if console is not None:
        console.print(f"{out}: {size / 1e6:.1f} MB", highlight=False)
    return out


def _require_complete(run: Path) -> None:
    for name, remedy in (
        ("model.safetensors", "let `astrobio train` finish"),
        ("best.json", "let `astrobio train` finish"),
        ("calibration.json", f"calibrate with `astrobio evaluate {run} --data DIR --no-baselines`"),
    ):
        if not (run / name).is_file():
            raise InputError(f"{run}: expected {name}, found none; {remedy}")


def _require_replaceable(out: Path) -> None:
    """A folder may be replaced if it is empty, absent or an earlier export."""
    if out.is_dir() and any(out.iterdir()) and not (out / "MODEL_CARD.md").is_file():
        raise InputError(f"{out}: expected an empty folder or an earlier export, found other files; name another --out")


def _write_half(source: Path, target: Path) -> None:
    """All floating-point weights in bfloat16, which the loader widens again."""
    weights = load_file(source)
    half = {name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in weights.items()}
    save_file(half, target, metadata={"format": "pt", "astrobio": __version__})


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
