"""Worlds on runs of a climate model: what is the run's, what is drawn, and what does not suit."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from astrobio.batch import CLIMATE_VARIABLES, WORLD_STATES
from astrobio.errors import InputError
from astrobio.formats.climate import write_climate
from astrobio.worlds.exoplasim import RunSettings
from astrobio.worlds.gcm_runs import KEPT, GcmPool, GcmRun, RunParameters, digests, read_runs, reduced, write_run
from astrobio.worlds.simulate import simulate_worlds
from astrobio.worlds.stars import orbital_period

PARAMETERS = {
    "star_temperature": 2600, "instellation": 1100, "period": 5.25, "radius": 0.92, "gravity": 8.03, "pressure": 1.0,
    "CO2": 0.05,
}  # fmt: skip
LIVELY = {"lifeless-temperate", "lifeless-oxygenated", "lifeless-reducing", "anoxic-biosphere", "oxygenic-biosphere"}


@pytest.fixture(scope="module")
def pool() -> GcmPool:
    return read_runs(KEPT)


@pytest.fixture(scope="module")
def warm(pool: GcmPool) -> GcmRun:
    return next(run for run in pool.runs if run.name == "trappist-1100")


def changed(run: GcmRun, *, warmer: float = 0.0, **parameters: float) -> GcmRun:
    """The run with another surface temperature or other parameters."""
    fields = dict(run.cube.fields)
    fields["surface_temperature"] = fields["surface_temperature"] + np.float32(warmer)
    return replace(run, cube=replace(run.cube, fields=fields), parameters=replace(run.parameters, **parameters))


def test_kept_runs_are_small_complete_in_balance_and_say_what_they_are(pool: GcmPool):
    for run in pool.runs:
        assert (KEPT / f"{run.name}.nc").stat().st_size <= 1e6
        assert set(run.cube.fields) == set(CLIMATE_VARIABLES) and run.cube.shape == (8, 4, 10, 32, 64)
        assert run.model == "ExoPlaSim 3.4.2"
        said = run.provenance
        assert run.residual == pytest.approx(said["toa_net_w_m2"], abs=0.2)
        assert run.surface[1] == pytest.approx(said["surface_temperature_k"], abs=0.2)
        assert abs(said["toa_net_w_m2"] + said["growing_ice_w_m2"]) < RunSettings.balance
        assert said["settled"] is True
    assert len(pool.runs) == 4 and set(pool.suiting) == set(WORLD_STATES)


def test_a_run_written_and_read_again_is_the_same(warm: GcmRun, tmp_path: Path):
    write_run(warm, tmp_path)
    (again,) = read_runs(tmp_path).runs
    assert (again.name, again.model, again.parameters) == (warm.name, warm.model, warm.parameters)
    assert again.provenance == warm.provenance
    for name in CLIMATE_VARIABLES:
        np.testing.assert_array_equal(again.cube.fields[name], warm.cube.fields[name])
    assert [name for name, _ in digests(tmp_path)] == [warm.name]


def test_reduction_averages_time_and_rounds_little(warm: GcmRun):
    values = warm.cube.fields["air_temperature"]
    noise = np.random.default_rng(0).normal(0, 3, (12, *values.shape[1:])).astype(np.float32)
    months = {name: np.repeat(field, 3, axis=0) for name, field in warm.cube.fields.items()}
    months["air_temperature"] = months["air_temperature"] + noise
    found = reduced(replace(warm.cube, fields=months, time_kind="months"), "")
    expected = values + noise.reshape(4, 3, *values.shape[1:]).mean(axis=1)
    np.testing.assert_allclose(found.fields["air_temperature"], expected, atol=0.04)
    assert found.time_kind == "realizations"
    single = {name: field[:1] for name, field in warm.cube.fields.items()}
    assert reduced(replace(warm.cube, fields=single), "").shape[1] == 4


@pytest.mark.parametrize("state", sorted(LIVELY))
def test_worlds_take_star_planet_and_co2_from_the_run_and_the_rest_from_the_prior(warm: GcmRun, state: str):
    rng = np.random.default_rng(5)
    worlds = [world for _ in range(8) if (world := warm.draw(state, rng)) is not None]
    assert len(worlds) == 8
    for world in worlds:
        star, planet, run = world.star, world.planet, warm.parameters
        assert (star.teff, planet.instellation, planet.period) == (run.star_temperature, run.instellation, run.period)
        assert (planet.radius, planet.gravity, world.pressure) == (run.radius, run.gravity, run.pressure)
        assert orbital_period(star.luminosity, star.mass, planet.instellation) == pytest.approx(run.period)
        assert world.gases["CO2"] == run.CO2 and sum(world.gases.values()) == pytest.approx(1.0)
        assert world.water == (0.0, 1.0) and world.gcm == warm.name and world.path != "dry-CO2"
    assert len({world.star.name for world in worlds}) == 8
    assert len({world.gases["CO"] for world in worlds}) == 8


def test_states_must_suit_the_runs_temperature_and_co2(warm: GcmRun):
    assert set(GcmPool((warm,)).suiting) == LIVELY
    assert set(GcmPool((changed(warm, warmer=-60.0),)).suiting) == {"lifeless-inhospitable"}
    assert GcmPool((changed(warm, warmer=60.0),)).suiting == {}, "too hot for life, no runaway either"
    lean = GcmPool((changed(warm, CO2=3e-4),)).suiting
    assert set(lean) == LIVELY - {"anoxic-biosphere", "lifeless-reducing"}, "their priors start at 4 and 1 mbar"
    with pytest.raises(InputError, match="found none; add runs"):
        GcmPool((changed(warm, warmer=60.0),)).draw(0, 0, np.random.default_rng(0))


def test_worlds_are_the_same_alone_and_hold_every_suiting_state_in_turn(warm: GcmRun):
    runs = GcmPool((warm, changed(replace(warm, name="frozen"), warmer=-60.0)))
    together = simulate_worlds(range(6), 3, runs=runs)
    assert {world.state for world in together} == LIVELY | {"lifeless-inhospitable"}
    (alone,) = simulate_worlds([4], 3, runs=runs)
    assert alone.context == together[4].context and alone.physics == together[4].physics
    np.testing.assert_array_equal(alone.spectrum.value, together[4].spectrum.value)  # pyright: ignore
    for world in together:
        assert world.climate is not None and world.provenance is not None and world.physics is not None
        run = runs.cube(world.provenance["gcm"])
        assert world.climate is run
        assert world.physics["surface_temperature"] == run.global_mean("surface_temperature")
        assert world.provenance["truth"]["instellation"] == 1100.0
        assert (world.provenance["gcm"] == "frozen") == (world.state == "lifeless-inhospitable")


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({**PARAMETERS, "period": 30.0}, "period: expected .* days, where a dwarf of 2600 K gives 1100 W/m², found 30"),
        ({**PARAMETERS, "CO2": 2.0}, r"CO2: expected a number in 1e-07…0.97, found 2.0"),
        ({**PARAMETERS, "radius": "1"}, "radius: expected a number"),
        ({name: value for name, value in PARAMETERS.items() if name != "gravity"}, "parameters: expected .*'gravity'"),
        (None, "parameters: expected"),
        ([1.0], "parameters: expected"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_expected(parameters: object, sentence: str):
    with pytest.raises(InputError, match=sentence):
        RunParameters.from_dict(parameters, "run.json")


def test_a_folder_without_runs_and_a_climate_without_its_json_say_what_to_do(warm: GcmRun, tmp_path: Path):
    with pytest.raises(InputError, match=r"expected GCM runs, each .* beside it, found no such folder"):
        read_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"found no \.nc file"):
        read_runs(tmp_path)
    write_climate(warm.cube, tmp_path / "bare.nc")
    with pytest.raises(InputError, match=r"bare.json: expected model and parameters of bare.nc, found FileNotFound"):
        read_runs(tmp_path)
    (tmp_path / "bare.json").write_text(json.dumps({"parameters": asdict(warm.parameters)}))
    with pytest.raises(InputError, match="model: expected the name of the climate model"):
        read_runs(tmp_path)
    incomplete = {name: field for name, field in warm.cube.fields.items() if name != "eastward_wind"}
    with pytest.raises(InputError, match="found no eastward_wind"):
        reduced(replace(warm.cube, fields=incomplete), "file.nc")
