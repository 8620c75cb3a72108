"""Physics terms against hand numbers and laws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch

from astrobio.batch import ELEMENTS, GASES, Sample
from astrobio.batch.graph import FLUX_SCALE, to_data
from astrobio.losses import physics


@pytest.fixture
def graph(sample_factory: Callable[..., Sample]) -> Any:
    """Methanogenesis at 8 mmol/gDW/h: CO2 + 4 H2 → CH4 + 2 H2O, with transports and exchanges."""
    return graph_of(sample_factory)


def graph_of(sample_factory: Callable[..., Sample]) -> Any:
    metabolism = sample_factory(0).metabolism
    assert metabolism is not None
    return Batch.from_data_list([to_data(metabolism)])


def scaled(flux: torch.Tensor) -> torch.Tensor:
    return torch.asinh(flux / FLUX_SCALE)


def internal(graph: Any) -> torch.Tensor:
    return graph.internal & ~graph.is_reaction


def test_global_energy_is_measured_against_the_cubes_own_net() -> None:
    asr, olr, net = torch.tensor([240.0, 300.0]), torch.tensor([238.0, 250.0]), torch.tensor([2.0, 0.0])
    weight = torch.tensor([1.0, 1.0])
    assert float(physics.global_energy(asr, olr, net, weight)) == pytest.approx(50 / 10 - 0.5)  # smooth L1 beyond 1
    assert float(physics.global_energy(asr, olr, net, torch.tensor([1.0, 0.0]))) == 0.0


def test_true_fluxes_balance(graph: Any) -> None:
    assert float(physics.flux_balance(scaled(graph.flux), graph, internal(graph))) < 1e-9


def test_an_unbalanced_flux_by_hand(graph: Any) -> None:
    """Without transport of water, methanogenesis at rate 8 piles up 16 mmol/gDW/h of it: wholly unbalanced."""
    flux = graph.flux.clone()
    outflow = (flux == -16.0).nonzero()[0, 0]  # transports count inwards, so water leaves at −16
    flux[outflow] = 0.0
    found = float(physics.flux_balance(scaled(flux), graph, internal(graph)))
    assert found == pytest.approx((16 / (16 + physics.FLUX_FLOOR)) ** 2, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(rate=st.floats(-500, 500), seed=st.integers(0, 1000))
def test_balance_holds_at_any_rate_and_never_exceeds_one_a_compound(
    rate: float, seed: int, sample_factory: Callable[..., Sample]
) -> None:
    graph = graph_of(sample_factory)
    flux = graph.flux / 8.0 * rate
    assert float(physics.flux_balance(scaled(flux), graph, internal(graph))) < 1e-6
    noise = torch.randn(len(flux), generator=torch.Generator().manual_seed(seed)) * 3
    value = float(physics.flux_balance(noise, graph, internal(graph)))
    assert 0 < value <= int(internal(graph).sum())


def test_second_law_forbids_uphill_flux(graph: Any) -> None:
    core = int(graph.dg_known.nonzero()[0, 0])
    flux = torch.zeros(len(graph.x))
    everything = torch.ones_like(graph.is_reaction)
    assert float(physics.second_law(flux, graph, everything)) == 0.0
    graph.dg_min[core], graph.dg_max[core] = 5.0, 90.0  # uphill at any concentration
    flux[core] = 2.0
    assert float(physics.second_law(flux, graph, everything)) == pytest.approx(4.0)
    flux[core] = -2.0
    assert float(physics.second_law(flux, graph, everything)) == 0.0
    graph.dg_min[core], graph.dg_max[core] = -90.0, -5.0
    assert float(physics.second_law(flux, graph, everything)) == pytest.approx(4.0)
    graph.dg_min[core], graph.dg_max[core] = -5.0, 5.0  # concentrations decide: nothing is forbidden
    assert float(physics.second_law(flux, graph, everything)) == 0.0
    graph.dg_max[core], graph.dg_known[core] = -1.0, False
    assert float(physics.second_law(flux, graph, everything)) == 0.0


def test_unknown_formulae_and_inner_compounds_are_no_external_gas(graph: Any) -> None:
    found = physics.external_gases(graph)
    assert found.any(1).sum() == 4  # CO2, H2, CH4, H2O outside
    assert sorted(GASES[g] for g in found.nonzero()[:, 1].tolist()) == ["CH4", "CO2", "H2", "H2O"]
    assert not found[graph.internal].any()
    graph.formula_known[:] = False
    assert not physics.external_gases(graph).any()


def test_charge_tells_ammonium_and_superoxide(graph: Any) -> None:
    """NH4+ counts as NH3, as in the exchange of real models; O2− is not O2."""
    first, second = physics.external_gases(graph).any(1).nonzero()[:2, 0].tolist()
    graph.elements[[first, second]] = 0.0
    graph.elements[first, ELEMENTS.index("N")], graph.elements[first, ELEMENTS.index("H")] = 1.0, 4.0
    graph.elements[second, ELEMENTS.index("O")] = 2.0
    graph.x[first, physics.CHARGE_FEATURE], graph.x[second, physics.CHARGE_FEATURE] = 0.25, -0.25
    found = physics.external_gases(graph)
    assert found[first].nonzero()[:, 0].tolist() == [GASES.index("NH3")]
    assert not found[second].any()


def test_the_true_exchange_conserves_elements(graph: Any) -> None:
    valid = torch.tensor([True])
    assert float(physics.element_balance(scaled(graph.flux), scaled(graph.exchange), graph, valid)) < 1e-9


def test_a_forgotten_gas_breaks_the_element_balance_by_hand(graph: Any) -> None:
    """Without the 8 of CH4, carbon has 8 of (8 CO2 by exchange, 8 CO2 and 8 CH4 by flux) unaccounted for."""
    exchange = graph.exchange.clone()
    exchange[0, GASES.index("CH4")] = 0.0
    found = float(physics.element_balance(scaled(graph.flux), scaled(exchange), graph, torch.tensor([True])))
    carbon = 8 / (8 + 16 + physics.FLUX_FLOOR)
    hydrogen = 32 / (64 + 32 + 64 + 32 + 32 + physics.FLUX_FLOOR)  # H2 32·2, H2O 16·2, and CH4 8·4 by flux alone
    assert found == pytest.approx(carbon**2 + hydrogen**2, rel=1e-4)


def test_huge_predictions_stay_finite(graph: Any) -> None:
    flux = torch.full((len(graph.x),), 1e4, requires_grad=True)
    total = physics.flux_balance(flux, graph, internal(graph)) + physics.second_law(
        flux, graph, torch.ones_like(graph.is_reaction)
    )
    total.backward()
    assert math.isfinite(total.item())
    assert flux.grad is not None and torch.isfinite(flux.grad).all()


def test_gas_formulae_are_those_of_all_gases() -> None:
    assert set(physics.GAS_FORMULAE) == set(GASES)
