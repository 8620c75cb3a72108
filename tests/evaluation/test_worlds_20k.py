"""The report of the big benchmark from made-up answers: keys, comparisons and figures."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from astrobio.batch import MODALITIES, WORLD_STATES, Sample
from astrobio.errors import InputError
from astrobio.formats.graphs import save_graphs

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
            f"{split}.clades": np.array([f"order-{i % 5}" for i in range(size)]),
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
    assert figures == {"headline", "systems", "ablations", "language", "ood", "reliability", "confusion"}
    page = (tmp_path / "worlds_20k.md").read_text()
    assert "| unified, mini − boosted trees on all features, deep |" in page
    tables = [line for line in page.split("## Systems")[1].splitlines() if line.startswith("|")]
    assert "| unified-seed-0, unguided, deep | 120 | 50.0% |" in page and "| unified, mini, seeds averaged |" in page
    assert "| late fusion of the four alone, mini |" in page and len({line.count("|") for line in tables[:8]}) == 1


def test_gains_over_rivals_are_told_for_other_microbes_too(report: ModuleType, out: Path):
    depth = report.Depth(out / "deep")
    found = report.against_rivals(depth)
    wider = found["over_stars_and_clades"]
    assert wider["clades_in_test"] == 5
    assert set(found["difference_to_rivals"]) == set(wider["difference"]) == {"unified", "unified-averaged"}
    for other in ("late_fusion", "late_fusion-averaged", "trees-all"):
        by_star, by_both = (each["unified"][other] for each in (found["difference_to_rivals"], wider["difference"]))
        assert by_both["mean"] == by_star["mean"] and by_both["ci95"] != by_star["ci95"]
    depth.worlds.pop("test.clades")
    assert "over_stars_and_clades" not in report.against_rivals(depth), "older answers do not say whose clade"


def test_another_set_of_worlds_is_reported_with_what_was_trained(report: ModuleType, out: Path, tmp_path: Path):
    """One seed of two sizes, of one also with hidden reactions, and trees: no ablations, no figures."""
    folder = out / "deep"
    for old, new in (("unified", "unified"), ("climate", "small"), ("spectrum", "small-reactions")):
        (folder / "predictions" / f"{old}-seed-0.npz").rename(folder / f"{new}.npz")
    for path in folder.glob("predictions/*-seed-*.npz"):
        path.unlink()
    for name in ("unified", "small", "small-reactions"):
        (folder / f"{name}.npz").rename(folder / "predictions" / f"{name}-seed-0.npz")
    folder.rename(out / "deep-genomes")
    report.report(out, tmp_path, None, Console(quiet=True), "worlds_20k_genomes")
    found = json.loads((tmp_path / "worlds_20k_genomes.json").read_text(), parse_constant=pytest.fail)
    deep = found["depths"]["deep-genomes"]
    assert set(deep["systems"]) == {"unified", "small", "small-reactions", "trees-all", "trees-oracle"}
    assert set(found["single"].values()) == {None} and not found["ablations"] and deep["reaction_dropout"]["mean"] > 0
    assert set(deep["ood"]["ood-star"]) == {"unified", "small", "small-reactions", "trees-all", "unlike_training"}
    page = (tmp_path / "worlds_20k_genomes.md").read_text()
    assert page.startswith("# Worlds-20k-genomes\n") and "without" not in page and ".png" not in page
    assert "hiding reactions" in page and not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("only", ["small", "small-frozen"])
def test_one_system_alone_is_reported(report: ModuleType, out: Path, tmp_path: Path, only: str):
    predictions = out / "deep" / "predictions"
    kept = (predictions / "text-seed-0.npz").rename(predictions / "kept")
    for path in predictions.glob("*.npz"):
        path.unlink()
    kept.rename(predictions / f"{only}-seed-0.npz")
    report.report(out, tmp_path, tmp_path / "figures", Console(quiet=True))
    found = json.loads((tmp_path / "worlds_20k.json").read_text(), parse_constant=pytest.fail)
    assert found["depths"]["deep"]["headline"] == only and "reaction_dropout" not in found["depths"]["deep"]


@pytest.fixture
def options(report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command line of the benchmark as it is read."""

    def read(*words: str) -> Any:
        monkeypatch.setattr("sys.argv", ["worlds_20k.py", "--out", "out", *words])
        return importlib.import_module("worlds_20k").arguments()

    return read


def names_of(stage: str, options: Any) -> list[str]:
    return list(importlib.import_module("worlds_20k").variants_of(stage, options))


def test_systems_are_trained_as_asked(options: Callable[..., Any]):
    usual = options()
    assert names_of("mini", usual) == ["unified", *MODALITIES, "spectrum+climate"]
    assert names_of("small", usual) == ["small", "small-frozen"] and usual.figures == ROOT / "docs/figures"
    asked = ["--mini-systems", "unified", "--small-systems", "small", "small-reactions", "--name", "other"]
    other = options(*asked, "--data", "deep-genomes=a", "jwst-50-genomes=b")
    assert names_of("mini", other) == ["unified"] and other.figures is None
    assert other.data == {"deep-genomes": Path("a"), "jwst-50-genomes": Path("b")}
    jobs = importlib.import_module("worlds_20k").jobs_of("small", Path("out"), Path("a"), other)
    assert [(job.name, job.config.training.reaction_dropout) for job in jobs] == [
        ("small", 0),
        ("small-reactions", 0.3),
    ]


def test_an_unknown_system_is_refused(options: Callable[..., Any], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        options("--mini-systems", "unfied")
    assert "spectrum+climate, found ['unfied']" in capsys.readouterr().err


def test_genomes_are_grouped_by_clade_or_guild(
    report: ModuleType, tmp_path: Path, sample_factory: Callable[..., Sample]
):
    organisms = importlib.import_module("worlds_20k_organisms").organisms
    graphs = [sample_factory(index).metabolism for index in range(2)]
    labels = [{"name": "GCF_1", "clade": "Methanococcales"}, {"name": "iAF692/03", "clade": "Methanosarcinales"}]
    save_graphs(tmp_path / "organisms.npz", [graph for graph in graphs if graph is not None], labels)
    assert organisms(tmp_path, "parent") == {"GCF_1": "GCF_1", "iAF692/03": "iAF692"}
    assert organisms(tmp_path, "clade") == {"GCF_1": "Methanococcales", "iAF692/03": "Methanosarcinales"}
    assert organisms(tmp_path, "guild") == {"GCF_1": "test", "iAF692/03": "test"}


def test_without_answers_the_remedy_is_said(report: ModuleType, tmp_path: Path):
    with pytest.raises(InputError, match="run the other stages first"):
        report.report(tmp_path, tmp_path, tmp_path, Console(quiet=True))


def test_trees_on_other_noise_and_on_none(report: ModuleType, tmp_path: Path):
    """Two spectral features of six states: drowned in the noise as it is, plain without."""
    trees = importlib.import_module("worlds_20k_trees")
    rng = np.random.default_rng(0)
    columns = {"text": [0, 1], "spectrum": [1, 3], "climate": [3, 4], "metabolism": [4, 5]}
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "columns.json").write_text(json.dumps(columns))
    for split, size in (("train", 240), ("validation", 120), ("test", 120)):
        labels = np.arange(size) % 6
        clean = np.stack([labels % 2, labels // 2], axis=1)[:, None].astype(np.float32)
        redrawn = np.concatenate([clean, clean + rng.normal(0, 2.0, (size, trees.DRAWS, 2))], axis=1, dtype=np.float32)
        features = rng.normal(size=(size, 5)).astype(np.float32)
        features[:, 1:3] = clean[:, 0] + rng.normal(0, 2.0, (size, 2))
        found = {"features": features, "redrawn": redrawn, "truth": clean[:, 0], "labels": labels}
        trees.save_arrays(tmp_path / "features" / f"{split}-00000.npz", found)
    console = Console(quiet=True)
    views = ("all", "all-redrawn", "all-clean")
    trees.fit_views(tmp_path / "features", tmp_path / "predictions", 1, console, views)
    labels = np.arange(120) % 6
    right = {
        v: float((np.load(tmp_path / "predictions" / f"trees-{v}.npz")["test"].argmax(1) == labels).mean())
        for v in views
    }
    assert right["all-clean"] == 1.0 and right["all"] < 0.6 and right["all-redrawn"] < 0.6
    table = {name: value for name, value in np.load(tmp_path / "features" / "train-00000.npz").items()}
    slices = {name: slice(*ends) for name, ends in columns.items()}
    again = trees.under_draw(table, 2, "spectrum+climate", slices)
    assert np.array_equal(again.features[:, :2], table["redrawn"][:, 2]), "the spectrum is another"
    assert np.array_equal(again.features[:, 2], table["features"][:, 3]), "the climate is the same"
    assert trees.joined([again, again]).labels.shape == (480,)
