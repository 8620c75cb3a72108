import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.errors import InputError
from astrobio.worlds.disequilibrium import available_gibbs_energy, equilibrium, moist

# The compositions of Krissansen-Totton et al. (2016), as distributed with their code: Mars at 214 K and 0.006 bar,
# Earth's gas phase at 288.15 K and 1.013 bar (without its 1e-9 of HCl, which reacts with nothing here).
MARS = {
    "CO2": 0.9597, "N2": 0.0189, "Ar": 0.019165, "O2": 1.46e-3, "CO": 5.57e-4, "H2O": 2e-4, "H2": 1.5e-5, "Ne": 2.5e-6,
    "O3": 4e-7, "Kr": 3e-7, "Xe": 8e-8, "H2O2": 4e-8, "NO": 1e-9,
}  # fmt: skip
EARTH = {
    "N2": 0.773095598, "O2": 0.2073826, "H2O": 9.90082e-3, "Ar": 9.247366e-3, "CO2": 3.46529e-4, "Ne": 1.79997e-5,
    "He": 5.18803e-6, "CH4": 1.68314e-6, "Kr": 1.12869e-6, "H2": 5.4455e-7, "N2O": 3.16826e-7, "CO": 1.2376e-7,
    "Xe": 8.61371e-8, "O3": 4.95041e-8,
}  # fmt: skip
MIXTURES = st.fixed_dictionaries(
    {gas: st.floats(-12.0, -0.3).map(lambda x: 10**x) for gas in ("CO2", "CH4", "O2", "CO", "H2O", "N2O", "O3", "N2")}
)


def test_mars_releases_136_joules():
    """136 J/mol in Krissansen-Totton et al. (2016)."""
    assert available_gibbs_energy(MARS, 214.0, 600.0) == pytest.approx(136.0, rel=0.01)


def test_earths_gas_phase_releases_one_and_a_half_joules():
    """1.51 J/mol in Krissansen-Totton et al. (2016)."""
    assert available_gibbs_energy(EARTH, 288.15, 101325.0) == pytest.approx(1.51, rel=0.01)


def test_oxygen_with_methane_is_further_out_than_either():
    def energy(**trace):
        return available_gibbs_energy({"N2": 0.8, "CO2": 1e-3} | trace, 288.0, 1e5)

    both = energy(O2=0.2, CH4=1e-3)
    assert both == pytest.approx(801.0, rel=0.05)  # the free energy of combustion, 801 kJ/mol of CH4
    assert both > 10 * (energy(O2=0.2) + energy(CH4=1e-3))


@given(gases=MIXTURES, temperature=st.floats(150.0, 430.0), pressure=st.floats(5e4, 5e5))
@settings(max_examples=60, deadline=None)
def test_every_equilibrium_is_certified_and_at_rest(gases, temperature, pressure):
    result = equilibrium(gases, temperature, pressure)
    assert result.error <= 1e-3 and result.energy >= -1e-3
    assert sum(result.gases.values()) == pytest.approx(1.0)
    assert available_gibbs_energy(result.gases, temperature, pressure) <= 2e-3


def test_every_kind_of_world_has_an_equilibrium(scenarios):
    for world in (world for worlds in scenarios.values() for world in worlds):
        for water, temperature in ((1e-10, 160.0), (1e-2, 290.0), (0.5, 430.0)):
            result = equilibrium(moist(world.gases, water), temperature, world.pressure * 1e5)
            assert result.error <= 1e-3 and result.energy >= -1e-3


def test_a_solver_that_stops_early_is_refused(monkeypatch):
    """The certificate, not the solver's word, decides."""
    import cantera

    monkeypatch.setattr(cantera.Solution, "equilibrate", lambda self, *a, **k: None)
    with pytest.raises(ArithmeticError, match="no certified equilibrium"):
        equilibrium({"O2": 0.2, "CH4": 0.01, "N2": 0.79}, 288.0, 1e5)


def test_one_failing_start_is_survived(monkeypatch):
    import cantera

    solve, calls = cantera.Solution.equilibrate, []

    def failing(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise cantera.CanteraError("no convergence")
        return solve(self, *args, **kwargs)

    monkeypatch.setattr(cantera.Solution, "equilibrate", failing)
    assert available_gibbs_energy(MARS, 214.0, 600.0) == pytest.approx(136.0, rel=0.05)
    assert len(calls) == 3  # the failure, then the hot start and its return to 214 K


def test_the_result_does_not_depend_on_what_was_asked_before():
    first = available_gibbs_energy(MARS, 214.0, 600.0)
    available_gibbs_energy({"CH4": 0.5, "N2": 0.5}, 400.0, 5e5)
    assert available_gibbs_energy(MARS, 214.0, 600.0) == first


@pytest.mark.parametrize(
    ("gases", "temperature", "match"),
    [({"Cl2": 1.0}, 288.0, "Cl2"), ({"N2": -1.0}, 288.0, "from 0"), ({"N2": np.nan}, 288.0, "from 0"),
     ({"N2": 1.0}, 50.0, "100–6000 K")],
)  # fmt: skip
def test_impossible_air_is_a_clear_error(gases, temperature, match):
    with pytest.raises(InputError, match=match):
        equilibrium(gases, temperature, 1e5)
