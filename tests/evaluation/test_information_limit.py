"""The forecast of what photon noise hides: retrieval of toys and of rebuilt worlds, chunks that are kept."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from astrobio.dataset.build import build_dataset
from astrobio.dataset.reader import WorldDataset
from astrobio.errors import InputError
from astrobio.worlds import instrument, spectrum
from astrobio.worlds.opacity import opacity_tables
from astrobio.worlds.scenario import Scenario
from astrobio.worlds.simulate import SimulationSettings
from astrobio.worlds.spectrum import Limb

ROOT = Path(__file__).parents[2]
GRID = instrument.default_grid()
CO2 = 1  # place among the gases
LIMIT = 2  # worlds of each split that the benchmark looks at here


@pytest.fixture(scope="module")
def limit() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("information_limit")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen worlds without spots on their stars and without organisms."""
    folder = tmp_path_factory.mktemp("data") / "worlds"
    settings = SimulationSettings(transits=5000, floor=False, contamination=False)
    build_dataset(folder, 18, 4, workers=1, settings=settings, metabolism=False, quiet=True)
    return folder


@pytest.fixture(scope="module")
def rebuilt(limit: ModuleType, data: Path) -> tuple[Scenario, Limb, Any]:
    """One world, and its observer."""
    scenario, limb = limit.rebuild(data, WorldDataset(data, "train").record(1)["provenance"])
    binning = limit.sparse.csr_array(spectrum.binning_of(None, "prism+lrs"))
    return scenario, limb, limit.Observer.of(scenario, limb, opacity_tables(), binning)


def test_a_linear_world_is_retrieved_with_its_exact_posterior(limit: ModuleType):
    rng = np.random.default_rng(1)
    slopes, sigma = rng.normal(0, 3, (3, 20)), rng.uniform(1, 3, 20)
    prior = limit.Prior(np.array([-6.0, -4.0, 1.0]), np.array([1.5, 0.5, 2.0]))
    design = np.vstack([slopes, np.ones(20)]) / sigma  # with the offset as a parameter of no prior
    information = design @ design.T + np.diag([*prior.spread**-2.0, 0.0])
    posterior = np.linalg.inv(information)[:3, :3]
    wrong = []
    for _ in range(400):
        truth = prior.mean + prior.spread * rng.standard_normal(3)
        observed = slopes.T @ truth + rng.normal(0, 100) + sigma * rng.standard_normal(20)
        estimate, error = limit.retrieve(lambda x: (slopes.T @ x, slopes), observed, sigma, prior)
        wanted = np.linalg.solve(information, design @ (observed / sigma) + [*(prior.mean * prior.spread**-2.0), 0.0])[
            :3
        ]
        assert np.abs((estimate - wanted) / error).max() < 0.05
        np.testing.assert_allclose(error, np.sqrt(np.diag(posterior)), rtol=1e-6)
        wrong.append(estimate - truth)
    assert np.abs(np.mean(wrong, axis=0) / np.sqrt(np.diag(posterior))).max() < 0.2
    scale = np.sqrt(np.outer(np.diag(posterior), np.diag(posterior)))
    assert np.abs((np.cov(np.transpose(wrong)) - posterior) / scale).max() < 0.2


def test_a_gas_that_the_prior_hides_is_found(limit: ModuleType):
    """At the prior's mean the gas is a ten-thousandth of the noise; there is far more, or none."""
    band = np.exp(-0.5 * np.linspace(-3, 3, 20) ** 2)
    prior = limit.Prior(np.array([-6.0, 0.0]), np.array([3.0, 30.0]))

    def forward(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        depth = 100.0 * 10.0 ** state[0] * band
        return depth, np.stack([np.log(10.0) * depth, np.zeros(20)])

    there, error = limit.retrieve(forward, forward(np.array([-0.5, 0.0]))[0], np.ones(20), prior)
    assert there[0] == pytest.approx(-0.5, abs=0.05) and error[0] < 0.05
    absent, error = limit.retrieve(forward, np.zeros(20), np.ones(20), prior)
    assert absent[0] == pytest.approx(-6.0, abs=0.5) and error[0] > 2.5


@pytest.mark.parametrize("place", [0, 3])
def test_a_rebuilt_world_with_its_noise_is_the_spectrum_of_the_data_set(
    limit: ModuleType, data: Path, rebuilt: tuple[Scenario, Limb, Any], place: int
):
    sample = WorldDataset(data, "test")[place]
    scenario, limb = limit.rebuild(data, sample.provenance)
    observer = limit.Observer.of(scenario, limb, opacity_tables(), rebuilt[2].columns[0].binning)
    depth, _ = observer(observer.truth)
    assert sample.spectrum is not None
    noise = instrument.noise_draws(scenario.noise_seed, len(depth)) * sample.spectrum.sigma
    np.testing.assert_allclose(depth + noise, sample.spectrum.value, rtol=1e-6)


def test_another_world_under_the_same_name_is_refused(limit: ModuleType, data: Path):
    known = WorldDataset(data, "train").record(0)["provenance"]
    truth = known["truth"] | {"log10_CO2": known["truth"]["log10_CO2"] + 0.1}
    with pytest.raises(InputError, match="install"):
        limit.rebuild(data, known | {"truth": truth})


def test_derivatives_are_those_of_the_forward_model(limit: ModuleType, rebuilt: tuple[Scenario, Limb, Any]):
    scenario, limb, observer = rebuilt
    _, derivatives = observer(observer.truth)

    def depth(changed: Limb) -> np.ndarray:
        return observer.columns[0].binning @ spectrum.transit_depth(scenario, changed, opacity_tables())

    def scaled(gas: str, dex: float) -> Limb:
        mixing = {**limb.mixing, gas: limb.mixing[gas] * 10**dex}
        mixing["N2"] = mixing["N2"] + limb.mixing[gas] - mixing[gas]
        return replace(limb, mixing=mixing)

    for place, gas in enumerate(limit.TRUTHS):
        wanted = (depth(scaled(gas, 0.02)) - depth(scaled(gas, -0.02))) / 0.04
        assert np.abs(derivatives[place] - wanted).max() < 0.05 * np.abs(wanted).max() + 1e-3, gas
    step = limit.TEMPERATURE_STEP
    warm = (depth(replace(limb, temperature=limb.temperature + step)) - depth(limb)) / step
    np.testing.assert_allclose(derivatives[-1], warm, atol=1e-4)


def test_carbon_dioxide_shows_most_at_its_strongest_band(rebuilt: tuple[Scenario, Limb, Any]):
    state = rebuilt[2].truth.copy()
    state[CO2] = -5.0  # more would saturate the band's middle
    _, derivatives = rebuilt[2](state)
    assert 4.2 < GRID.center[np.argmax(derivatives[CO2])] < 4.4


@pytest.fixture(scope="module")
def result(limit: ModuleType, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of the whole benchmark on few worlds: its folder of chunks, and what it wrote."""
    work, out = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("out")
    words = ["--data", str(data), "--work", str(work), "--out", str(out), "--workers", "1", "--trials", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["information_limit.py", *words, "--limit", str(LIMIT)])
        patch.setattr(limit, "CHUNK", 1)
        limit.main()
    return work, json.loads((out / "information_limit.json").read_text())


def test_the_result_names_every_system_and_gas(limit: ModuleType, result: tuple[Path, dict[str, Any]]):
    found = result[1]
    assert found["worlds"] == {"train": LIMIT, "validation": LIMIT, "test": LIMIT} and found["seconds_a_world"] > 0
    assert list(found["systems"]) == list(limit.SYSTEMS) and len(found["lost"]) == len(limit.LOSSES)
    for name in instrument.DEPTHS:
        assert {tuple(gases) for gases in found["median_dex"][name].values()} == {tuple(limit.TRUTHS)}
    better, worse = (found["median_dex"][name]["forecast"] for name in ("deep", "jwst-50"))
    assert all(better[gas] <= worse[gas] for gas in limit.TRUTHS)


def test_where_nothing_is_seen_trees_are_told_the_prior(limit: ModuleType, data: Path, result: tuple[Path, dict]):
    paths = [limit.Chunk(path.stem[:5], range(1), path) for path in sorted(result[0].glob("*.npz"))]
    (found,) = limit.read_chunks([chunk._replace(split="all") for chunk in paths]).values()
    view = limit.View.fit(WorldDataset(data, "train"))
    width = len(limit.TRUTHS)
    blind, deep, without = (limit.told(found, name, view).features for name in ("blind", "deep", "no gases"))
    assert np.ptp(blind[:, -2 * width :], axis=0).max() == 0.0 < np.ptp(deep[:, -2 * width :], axis=0).min()
    np.testing.assert_array_equal(blind[:, : -2 * width], without)


def test_what_is_there_is_not_made_again(
    limit: ModuleType, data: Path, result: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    work = tmp_path / "work"
    shutil.copytree(result[0], work)
    monkeypatch.setattr(limit, "CHUNK", 1)
    chunks = limit.chunks_of(data, LIMIT, work)
    lost = chunks[3].path
    before = {name: value.copy() for name, value in np.load(lost).items()}
    lost.unlink()
    kept = {chunk.path: chunk.path.stat().st_mtime_ns for chunk in chunks if chunk.path != lost}
    view = limit.View.fit(WorldDataset(data, "train"))
    assert len(limit.study_all(data, work, chunks, view, 1)) == 1
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    for name, value in np.load(lost).items():
        np.testing.assert_array_equal(value, before[name])
    assert {path.name for path in work.iterdir()} == {"about.json", *(chunk.path.name for chunk in chunks)}


def test_chunks_of_other_worlds_are_refused(limit: ModuleType, data: Path, tmp_path: Path):
    (tmp_path / "about.json").write_text("{}")
    view = limit.View.fit(WorldDataset(data, "train"))
    with pytest.raises(InputError, match="other worlds"):
        limit.study_all(data, tmp_path, limit.chunks_of(data, LIMIT, tmp_path), view, 1)


def test_eclipses_are_refused(limit: ModuleType, data: Path, tmp_path: Path):
    shutil.copytree(data, tmp_path / "worlds")
    path = tmp_path / "worlds" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["identity"]["settings"]["kind"] = "emission"
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="expected transits"):
        limit.plan_of(tmp_path / "worlds")
