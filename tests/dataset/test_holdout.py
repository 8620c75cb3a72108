"""Splits out of distribution: complete, apart from all others, and without effect on what they do not concern."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from astrobio.batch import WORLD_STATES
from astrobio.dataset import splits
from astrobio.dataset.build import Plan, build_dataset, pools_of
from astrobio.dataset.croissant import metadata
from astrobio.dataset.datasheet import facts
from astrobio.dataset.holdout import DEFAULTS, HoldOuts
from astrobio.dataset.reader import WorldDataset, split_names
from astrobio.errors import InputError
from astrobio.evaluation.audit import Seen, _held_out
from astrobio.worlds.scenario import OXYGEN_PATHS, Pools
from astrobio.worlds.simulate import SimulationSettings, draw_world
from astrobio.worlds.stars import spectral_class

WORLDS, SEED = 22, 5  # not a multiple of six; the seed of conftest
SETTINGS = SimulationSettings(gcm="um+exocam")
APART = ["ood-gcm", "ood-noise", "ood-path", "ood-star"]


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Worlds and spectra only, which are the fastest to read."""
    out = tmp_path_factory.mktemp("apart") / "worlds"
    held = HoldOuts.parse(["all", "star=M8"], SETTINGS)
    build_dataset(
        out, WORLDS, SEED, 1, settings=SETTINGS, organisms=folder / "organisms.npz", hold_outs=held, quiet=True,
        modalities=("worlds", "spectra"),
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def parts(root: Path) -> dict[str, list[dict]]:
    data = {name: WorldDataset(root, name) for name in split_names(root)}
    return {name: [worlds.record(i) for i in range(len(worlds))] for name, worlds in data.items()}


def test_every_split_is_there_with_every_state(root: Path, parts: dict[str, list[dict]]) -> None:
    assert list(parts) == ["train", "validation", "test", *APART]
    assert sum(len(parts[name]) for name in splits.SPLITS) == WORLDS
    for name in APART:
        assert len(parts[name]) == 6 == len({record["state"] for record in parts[name]}), name
        assert len(WorldDataset(root, name)[0].spectrum.wavelength) > 100  # pyright: ignore[reportOptionalMemberAccess]
    ids = [record["world_id"] for group in parts.values() for record in group]
    assert len(set(ids)) == len(ids) == WORLDS + 6 * len(APART)


def test_each_thing_is_in_its_split_alone(parts: dict[str, list[dict]]) -> None:
    for name, group in parts.items():
        for record in group:
            source, truth = record["provenance"], record["provenance"]["truth"]
            assert (source["gcm"] == "exoplasim") == (name == "ood-gcm")
            assert source["transits"] == (5 if name == "ood-noise" else 50)
            assert (spectral_class(truth["teff"]) == "M8") == (name == "ood-star")
            if record["state"] == "lifeless-oxygenated":
                assert (truth["path"] == "dry-CO2") == (name == "ood-path")
    assert {r["provenance"]["gcm"] for r in parts["train"]} == {"um", "exocam"}
    assert any("5 transits" in r["context"].replace("\n", " ") for r in parts["ood-noise"])


def test_splits_share_no_star_and_no_climate(parts: dict[str, list[dict]]) -> None:
    for key in ("star", "climate_seed"):
        found = [{record["provenance"][key] for record in group} for group in parts.values()]
        assert sum(map(len, found)) == len(set().union(*found)), key


def test_organisms_are_those_of_the_test_split(root: Path, parts: dict[str, list[dict]]) -> None:
    names = [label for label in json.loads((root / "manifest.json").read_text())["split_rule"]["organisms"]]
    assert "methanogen" in names
    trained = {record["metabolism"] for name in ("train", "validation") for record in parts[name]}
    assert not trained & {record["metabolism"] for name in APART for record in parts[name]}


def test_what_is_not_concerned_keeps_its_bits(folder: Path) -> None:
    """Holding out a climate model that no world imitates, or fewer transits, changes nothing that others draw from."""
    common = SimulationSettings()
    held = HoldOuts.parse(["gcm=exocam", "noise=5"], common)
    plans = Plan(36, SEED, common), Plan(36, SEED, common, hold_outs=held)
    assert [plans[0].split(i) for i in range(36)] == [plans[1].split(i) for i in range(36)]
    before, after = (pools_of(folder, plan) for plan in plans)
    assert set(after) - set(before) == set(held.splits)
    for split, (organisms, pools, settings) in before.items():
        assert [o.name for o in organisms] == [o.name for o in after[split][0]] and (pools, settings) == after[split][
            1:
        ]
    with pytest.raises(InputError, match="another data set"):
        build_dataset(folder, 36, SEED, 1, hold_outs=held, quiet=True)


def test_papers_name_them(root: Path) -> None:
    assert facts(root)["worlds"] == WORLDS + 24 and "ood-star 6" in facts(root)["splits"]
    for name, what in (("ood-gcm", "exoplasim"), ("ood-noise", "5 transits"), ("ood-path", "dry-CO2")):
        assert f"- {name}: " in facts(root)["rules"] and what in facts(root)["rules"]
        assert name in metadata(root).description


def test_the_audit_sees_what_strays(root: Path, parts: dict[str, list[dict]]) -> None:
    held = HoldOuts(**json.loads((root / "manifest.json").read_text())["identity"]["hold_out"])

    def see(record: dict) -> Seen:
        return Seen(WORLD_STATES.index(record["state"]), "", {}, {}, {}, held.held(record["provenance"]))

    seen = {name: [see(record) for record in group] for name, group in parts.items()}
    assert {f.check: f.passed for f in _held_out(seen)} == {f"{name} in other splits": True for name in APART}
    seen["test"][0] = replace(seen["test"][0], held=frozenset({"noise"}))
    seen["ood-gcm"][0] = replace(seen["ood-gcm"][0], held=frozenset())
    assert [f.check.split()[0] for f in _held_out(seen) if not f.passed] == ["ood-gcm", "ood-noise"]
    assert not HoldOuts().held(parts["train"][0]["provenance"])


def test_words_and_their_defaults() -> None:
    held = HoldOuts.parse(["all"], SimulationSettings())
    assert held.to_dict() == DEFAULTS | {"noise": 5}
    assert HoldOuts.parse(["noise"], SimulationSettings(depth_grid=True)).noise == 1
    assert HoldOuts.parse(["noise"], SimulationSettings(transits=5000)).noise == 500
    assert HoldOuts.parse(["star=K", "path=wet-CO2"], SimulationSettings()).splits == ("ood-star", "ood-path")
    assert set(held.excluded("ood-path")) == set(OXYGEN_PATHS) - {"dry-CO2"} and held.excluded("train") == ("dry-CO2",)


@pytest.mark.parametrize(
    "word", ["clouds", "gcm=um", "gcm=cesm", "star=G2", "star=K+M", "noise=50", "noise=0", "noise=few", "path=life", ""]
)
def test_what_cannot_be_held_out_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="--hold-out"):
        HoldOuts.parse([word], SimulationSettings())


def test_a_pool_can_exclude_a_path() -> None:
    hosts = splits.host_pools(36, SEED)["train"]
    drawn = [draw_world(i, SEED, [], Pools(hosts, ("water-loss",)), SimulationSettings())[0] for i in range(36)]
    paths = {scenario.path for scenario in drawn}
    assert "water-loss" not in paths and len(drawn) == 36
