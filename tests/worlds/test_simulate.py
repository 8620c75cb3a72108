import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from astrobio.batch import INHABITED_STATES, PHYSICS_TARGETS, WORLD_STATES
from astrobio.errors import InputError
from astrobio.worlds.biosphere import Organism
from astrobio.worlds.haze import Haze
from astrobio.worlds.instrument import DEPTH_GRID
from astrobio.worlds.simulate import SimulationSettings, latent_truth, simulate_worlds, world_state, world_transits
from astrobio.worlds.spectrum import limb_column
from astrobio.worlds.stars import draw_stars

STARS = draw_stars(12, seed=5)


@pytest.fixture(scope="module")
def samples():
    return simulate_worlds(range(6), 3, stars=STARS)


def same(first, second) -> bool:
    cubes = all(np.array_equal(first.climate.fields[k], second.climate.fields[k]) for k in first.climate.fields)
    spectra = np.array_equal(first.spectrum.value, second.spectrum.value)
    texts = (first.context, first.assessment, first.physics, first.provenance)
    return cubes and spectra and texts == (second.context, second.assessment, second.physics, second.provenance)


def test_worlds_are_whole_and_balanced(samples):
    assert {sample.state for sample in samples} == set(WORLD_STATES)
    assert len({sample.world_id for sample in samples}) == 6
    for sample in samples:
        assert sample.present == (True, True, True, False)
        assert set(sample.physics) == set(PHYSICS_TARGETS)
        assert sample.provenance["star"] in {star.name for star in STARS}
        assert sample.provenance["truth"]["log10_CO2"] == sample.physics["log10_CO2"]
        assert sample.state not in sample.context and sample.state in sample.assessment
        assert not any(label in sample.world_id for label in WORLD_STATES)


def test_a_world_is_the_same_alone_and_in_any_order(samples):
    assert same(simulate_worlds([4], 3, stars=STARS)[0], samples[4])
    assert same(simulate_worlds([5, 2], 3, stars=STARS)[1], samples[2])
    assert not same(simulate_worlds([2], 4, stars=STARS)[0], samples[2])


def test_organisms_come_along_and_set_ratios(sample_factory, samples):
    graph = replace(sample_factory(0).metabolism, exchange={"CH4": 2.0, "O2": 2.0, "CO": -1.0})
    organisms = [Organism(f"m/{guild}", guild, "clade", graph, 0.1, 0) for guild in ("methanogen", "phototroph")]
    with_life = simulate_worlds(range(6), 3, organisms, stars=STARS)
    for bare, full in zip(samples, with_life, strict=True):
        assert full.metabolism.network is graph and full.metabolism.growth_temperature is not None
        difference = full.physics["log10_CO"] - bare.physics["log10_CO"]
        inhabited = full.state in INHABITED_STATES
        assert difference == pytest.approx(np.log10(0.5) if inhabited else 0.0, abs=1e-6)
        assert full.physics["log10_CH4"] == bare.physics["log10_CH4"]


def test_states_are_balanced_but_not_told_by_index():
    states = [world_state(index, 7) for index in range(600)]
    assert all(states.count(state) == 100 for state in WORLD_STATES)
    first = [states[index] for index in range(0, 600, 6)]
    assert max(first.count(state) for state in WORLD_STATES) < 35


def test_depth_is_a_knob_that_leaves_the_world_alone(samples):
    deep = simulate_worlds([0], 3, stars=STARS, settings=SimulationSettings(transits=1000, floor=False))[0]
    assert deep.spectrum.sigma.mean() < samples[0].spectrum.sigma.mean()
    assert deep.physics == samples[0].physics and "1000" in deep.context


@pytest.mark.parametrize(
    ("setting", "match"),
    [({"transits": 0}, "at least 1"), ({"instruments": "niriss"}, "prism"), ({"kind": "reflection"}, "emission")],
)
def test_impossible_settings_are_clear_errors(setting, match):
    with pytest.raises(InputError, match=match):
        SimulationSettings(**setting)


def test_depths_of_the_grid_come_with_the_world():
    settings = SimulationSettings(depth_grid=True)
    depths = [world_transits(index, 3, settings) for index in range(200)]
    assert set(depths) == set(DEPTH_GRID) and min(depths.count(depth) for depth in DEPTH_GRID) > 20
    sample = simulate_worlds([4], 3, stars=STARS, settings=settings)[0]
    assert sample.provenance["transits"] == depths[4] and str(depths[4]) in sample.context


def test_contamination_changes_the_spectrum_alone(samples):
    clean = simulate_worlds([0], 3, stars=STARS, settings=SimulationSettings(contamination=False))[0]
    assert samples[0].provenance["contamination"] and not clean.provenance["contamination"]
    assert not np.array_equal(clean.spectrum.value, samples[0].spectrum.value)
    assert np.array_equal(clean.spectrum.sigma, samples[0].spectrum.sigma)
    assert clean.provenance["truth"] == samples[0].provenance["truth"] and clean.context == samples[0].context


def test_emission_of_the_same_world(samples):
    settings = SimulationSettings(kind="emission")
    first, second = (simulate_worlds(indices, 3, stars=STARS, settings=settings)[-1] for indices in ([1], [3, 1]))
    assert same(first, second) and first.spectrum.kind == "emission" and "eclipses" in first.context
    assert first.physics == samples[1].physics and first.provenance["instruments"] == "lrs+filters"


def test_prism_alone_is_a_part_of_the_whole(samples):
    part = simulate_worlds([2], 3, stars=STARS, settings=SimulationSettings(instruments="prism"))[0]
    assert np.array_equal(part.spectrum.wavelength, samples[2].spectrum.wavelength[: len(part.spectrum.value)])
    assert "LRS" not in part.context and "PRISM" in part.context


def test_gibbs_energy_follows_the_air(samples):
    energies = {sample.state: sample.provenance["truth"]["gibbs_energy"] for sample in samples}
    assert all(energy >= 0 for energy in energies.values())
    assert energies["oxygenic-biosphere"] > energies["lifeless-temperate"]


def test_truth_tells_haze_and_spots(scenarios, modern_earthlike):
    _, cube = modern_earthlike
    hazy = replace(scenarios["anoxic-biosphere"][0], haze=Haze(3.0, 0.1, 2.0, 1e4))
    truth = latent_truth(hazy, limb_column(hazy, cube), 1.0)
    assert truth["haze"] and truth["haze_optical_depth"] == 3.0 and truth["gibbs_energy"] == 1.0
    assert truth["spots"] == hazy.surface.spots and truth["faculae"] == hazy.surface.faculae
    assert all(isinstance(value, bool | float | str) for value in truth.values())


def test_worlds_are_made_without_torch():
    """Its import would cost each worker process seconds and half a gigabyte."""
    code = "import sys, astrobio.worlds.simulate, astrobio.worlds.biosphere; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
