"""The report of the big benchmark from made-up answers: keys, comparisons and figures."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console

from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.errors import InputError

ROOT = Path(__file__).parents[2]
SPLITS = {"validation": 120, "test": 120, "ood-star": 60}
SKILL = {"unified": 3.0, "no-alignment": 2.5, "text": 0.5, "spectrum": 2.0, "climate": 1.5, "metabolism": 0.2}


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("worlds_20k_report")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two seeds of every system, trees on two views, words of one system."""
    folder = tmp_path / "out" / "deep"
    (folder / "predictions").mkdir(parents=True)
    (folder / "language").mkdir()
    labels = {split: np.arange(size) % len(WORLD_STATES) for split, size in SPLITS.items()}
    about = {}
    for split, size in SPLITS.items():
        about |= {
            f"{split}.labels": labels[split], f"{split}.groups": np.array([f"star-{i // 4}" for i in range(size)]),
            f"{split}.present": np.ones((size, 4), dtype=bool),
            f"{split}.world_ids": np.array([f"{split}-{i}" for i in range(size)]),
        }  # fmt: skip
    np.savez_compressed(folder / "worlds.npz", **about)
    for place, (name, skill) in enumerate(SKILL.items()):
        for seed in range(2):
            rng, arrays = np.random.default_rng([place, seed]), {}
            for split, truth in labels.items():
                logits = rng.normal(0, 1, (len(truth), 6)) + skill * np.eye(6)[truth]
                unimodal = np.zeros((len(truth), 4, 6))
                unimodal[:, 1] = logits / 2
                arrays |= {f"{split}.logits": logits, f"{split}.unimodal": unimodal}
            np.savez_compressed(folder / "predictions" / f"{name}-seed-{seed}.npz", **arrays)
    for view in ("all", "oracle"):
        probabilities = {split: np.eye(6)[truth] * 0.4 + 0.1 for split, truth in labels.items()}
        np.savez_compressed(folder / "predictions" / f"trees-{view}.npz", **probabilities)
    shares = ("right_state", "right_verdict", "consistent", "gases_agree", "gases_exact", "gases_named")
    words = {**dict.fromkeys(shares, 0.5), "temperature_agrees": float("nan"), "worlds": 120, "seconds": 3.0}
    (folder / "language" / "unified-seed-0.json").write_text(json.dumps(words | {"unguided": words}))
    return tmp_path / "out"


def test_report_holds_every_finding(report: ModuleType, out: Path, tmp_path: Path):
    report.report(out, tmp_path, tmp_path / "figures", Console(quiet=True))
    found = json.loads((tmp_path / "worlds_20k.json").read_text(), parse_constant=pytest.fail)
    assert {"unified", "single", "isolated_late_fusion", "gradient_boosting", "confusion"} <= set(found)
    assert {"oracle", "depths", "ablations", "language", "ood"} <= set(found)
    assert set(found["single"]) == set(MODALITIES) and found["oracle"]["macro_accuracy"] == 1.0
    assert len(found["unified"]["seeds"]) == 2 and np.sum(found["confusion"]) == 120
    deep = found["depths"]["deep"]
    assert deep["difference"]["text"]["beaten"] and not deep["difference"]["trees-oracle"]["beaten"]
    low, high = found["ablations"]["no-alignment"]["ci95"]
    assert low <= found["ablations"]["no-alignment"]["mean"] <= high
    assert found["language"]["unified-seed-0"]["temperature_agrees"] is None
    assert set(found["ood"]["ood-star"]) == {"unified", "trees-all", "unlike_training"}
    figures = {path.stem.removeprefix("worlds_20k_") for path in (tmp_path / "figures").glob("*.png")}
    assert figures == {"systems", "ablations", "language", "ood", "reliability", "confusion"}
    page = (tmp_path / "worlds_20k.md").read_text()
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert "| unified-seed-0, unguided, deep | 120 | 50.0% |" in page and "| unified, mini, seeds averaged |" in page
    assert "| late fusion of the four alone, mini |" in page and len({line.count("|") for line in tables[:8]}) == 1


def test_without_answers_the_remedy_is_said(report: ModuleType, tmp_path: Path):
    with pytest.raises(InputError, match="run the other stages first"):
        report.report(tmp_path, tmp_path, tmp_path, Console(quiet=True))
