"""The pure checks: each is broken once, and only once, by a sound input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from astrobio.batch import ClimateCube, MetabolicGraph, Sample, Spectrum
from astrobio.quality import RULES, check_climate, check_metabolism, check_sample, check_spectrum, verdict_of
from astrobio.quality.checks import check_axis, check_energy_budget, check_spectrum_columns, stoichiometric_residual


def rules(found) -> list[str]:
    return [f.rule for f in found]


def make_graph(**changes) -> MetabolicGraph:
    """Two reactions: H2O + CO2 → CH2O2 (balanced), and its transport out."""
    elements = np.zeros((4, 20))
    elements[0, [1, 3]] = 2, 1  # H2O
    elements[1, [0, 3]] = 1, 2  # CO2
    elements[2, [0, 1, 3]] = 1, 2, 3  # CH2O3
    elements[3] = elements[2]
    graph = {
        "compounds": ("h2o", "co2", "h2co3", "h2co3_e"), "reactions": ("HYD", "OUT"), "elements": elements,
        "charge": np.zeros(4), "external": np.array([False, False, False, True]),
        "edge_compound": np.array([0, 1, 2, 2, 3]), "edge_reaction": np.array([0, 0, 0, 1, 1]),
        "stoichiometry": np.array([-1.0, -1.0, 1.0, -1.0, 1.0]), "dg_prime": np.array([np.nan, np.nan]),
        "dg_sd": np.array([np.nan, np.nan]), "reversible": np.array([True, True]),
        "lower_bound": np.array([-10.0, -10.0]), "upper_bound": np.array([10.0, 10.0]), "ec": ("", ""),
        "encodings": np.zeros((6, 16)),
    }  # fmt: skip
    return MetabolicGraph(**{**graph, **changes})


def test_every_rule_names_its_standard_and_remedy() -> None:
    assert len(RULES) > 60
    for rule in RULES.values():
        assert rule.title and rule.remedy and rule.standard and rule.reference
        assert rule.severity in ("fatal", "error", "warning", "note")


def test_verdicts_follow_the_worst_severity() -> None:
    assert verdict_of(set()) == verdict_of({"note", "warning"}) == "accept"
    assert verdict_of({"warning", "error"}) == "quarantine"
    assert verdict_of({"error", "fatal"}) == "reject"


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([-90.0, 0.0, 90.0], "latitude", []),
        ([90.0, 0.0, -90.0], "latitude", []),
        ([0.0, 1.0, 1.0], "time", ["CLIM-001"]),
        ([0.0, 2.0, 1.0], "level", ["CLIM-001"]),
        ([0.0, np.nan, 1.0], "time", ["CLIM-001"]),
        ([-91.0, 0.0, 90.0], "latitude", ["CLIM-002"]),
        ([0.0, 180.0, 400.0], "longitude", ["CLIM-002"]),
    ],
)
def test_axes(values: list[float], kind: str, expected: list[str]) -> None:
    assert rules(check_axis("axis", np.array(values), kind)) == expected


@pytest.mark.parametrize(("net", "expected"), [(0.8, []), (-6.4, ["CLIM-007"]), (60.0, ["CLIM-008"])])
def test_the_energy_budget(net: float, expected: list[str], new_cube: Callable[..., ClimateCube]) -> None:
    assert rules(check_energy_budget(238.0 + net, 238.0)) == expected
    assert rules(check_climate(new_cube(imbalance=net))) == expected


def test_a_dead_field_is_noticed(new_cube: Callable[..., ClimateCube]) -> None:
    cube = new_cube()
    dead = replace(cube, fields={**cube.fields, "eastward_wind": np.zeros_like(cube.fields["eastward_wind"])})
    assert rules(check_climate(dead)) == ["CLIM-010"]


def test_spectrum_columns() -> None:
    wavelength, value, sigma = np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 5000.0), np.full(4, 10.0)
    assert check_spectrum_columns(wavelength, value, sigma) == ([], {})
    sigma[1], value[2] = 0.0, np.nan
    found, reasons = check_spectrum_columns(wavelength, value, sigma)
    assert rules(found) == ["SPEC-001", "SPEC-003"]
    assert reasons == {2: ["SPEC-001"], 3: ["SPEC-003"]}


def test_repeated_rows_and_wavelengths_differ() -> None:
    wavelength, value = np.array([1.0, 1.0, 2.0, 2.0]), np.array([5.0, 5.0, 6.0, 7.0])
    found, reasons = check_spectrum_columns(wavelength, value, np.ones(4))
    assert rules(found) == ["SPEC-002", "SPEC-006"] and reasons == {2: ["SPEC-006"], 4: ["SPEC-002"]}
    orders = np.array([1.0, 2.0, 1.0, 2.0])  # overlapping orders of one spectrograph may repeat a wavelength
    assert check_spectrum_columns(wavelength, value, np.ones(4), orders)[0] == []


def test_spectrum_plausibility(new_spectrum: Callable[..., Spectrum]) -> None:
    sound = new_spectrum()
    assert check_spectrum(sound) == []
    spike = sound.value.copy()
    spike[30] += 2000.0
    assert rules(check_spectrum(replace(sound, value=spike))) == ["SPEC-005"]
    assert rules(check_spectrum(replace(sound, sigma=sound.sigma / 100))) == ["SPEC-008"]
    assert "SPEC-004" in rules(check_spectrum(replace(sound, value=sound.value * 1e4)))


def test_a_balanced_graph_passes() -> None:
    atoms, charge, complete = stoichiometric_residual(make_graph())
    assert not atoms.any() and not charge.any() and complete.all()
    assert check_metabolism(make_graph()) == []


def test_mass_charge_bounds_and_copies() -> None:
    graph = make_graph()
    wrong = graph.stoichiometry * np.array([2.0, 1.0, 1.0, 1.0, 1.0])
    assert rules(check_metabolism(make_graph(stoichiometry=wrong))) == ["MET-001"]
    assert rules(check_metabolism(make_graph(charge=np.array([1.0, 0.0, 0.0, 0.0])))) == ["MET-003"]
    assert rules(check_metabolism(make_graph(lower_bound=np.array([20.0, 0.0])))) == ["MET-007"]
    copy = {"edge_compound": np.array([0, 1, 2, 0, 1, 2]), "edge_reaction": np.array([0, 0, 0, 1, 1, 1])}
    twice = make_graph(**copy, stoichiometry=np.array([-1.0, -1.0, 1.0, 2.0, 2.0, -2.0]))
    assert rules(check_metabolism(twice)) == ["MET-008"]


def test_a_tenth_is_three_tenths_of_three() -> None:
    """0.1 × 3 ≠ 0.3 in floats: an exact comparison would call this reaction unbalanced."""
    stoichiometry = np.array([-0.1, -0.1, 0.1, -1.0, 1.0]) * 3
    assert check_metabolism(make_graph(stoichiometry=stoichiometry)) == []


def test_unknown_formulae_are_not_imbalance() -> None:
    elements = make_graph().elements.copy()
    elements[0] = np.nan
    assert rules(check_metabolism(make_graph(elements=elements))) == ["MET-009"]


def test_second_law_and_flux_balance() -> None:
    uphill = {"dg_prime": np.array([500.0, 0.0]), "dg_sd": np.array([1.0, 1.0]), "lower_bound": np.array([0.0, 0.0])}
    assert rules(check_metabolism(make_graph(**uphill))) == ["MET-011"]
    assert rules(check_metabolism(make_graph(flux=np.array([1.0, 0.5])))) == ["MET-012"]


def test_a_sample_is_checked_in_all_its_parts(
    new_spectrum: Callable[..., Spectrum], new_cube: Callable[..., ClimateCube]
) -> None:
    sample = Sample("w", spectrum=new_spectrum(), climate=new_cube(imbalance=-60.0), metabolism=make_graph())
    assert rules(check_sample(sample)) == ["CLIM-008"]
