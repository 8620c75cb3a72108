"""The contract refuses what is not physical, naming field, expected and found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.batch import ClimateCube, Sample, Spectrum
from astrobio.errors import InputError


def cube_of(sample_factory: Callable[..., Sample]) -> ClimateCube:
    cube = sample_factory(0).climate
    assert cube is not None
    return cube


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wavelength": np.array([1.0, 3.0, 2.0])}, "strictly increasing"),
        ({"value": np.array([1.0, np.nan, 2.0])}, r"Spectrum\.value: expected finite numbers only, found 1"),
        ({"sigma": np.array([1.0, 0.0, 2.0])}, "positive uncertainties"),
        ({"sigma": np.ones(2)}, r"Spectrum\.sigma: expected shape \(3,\), found \(2,\)"),
        ({"kind": "guess"}, r"Spectrum\.kind"),
    ],
)
def test_spectra(changes: dict[str, object], message: str) -> None:
    good = {"wavelength": np.array([1.0, 2.0, 3.0]), "value": np.ones(3), "sigma": np.ones(3), "bin_width": np.ones(3)}
    Spectrum(**good)
    with pytest.raises(InputError, match=message):
        Spectrum(**{**good, **changes})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": np.array([1.0, 2.0, 3.0, 4.0, 5.0])}, "surface first"),
        ({"latitude": np.linspace(-95, 95, 16)}, "latitude"),
        ({"fields": {}}, "at least one"),
        ({"time_kind": "weeks"}, "time_kind"),
    ],
)
def test_cubes(changes: dict[str, object], message: str, sample_factory: Callable[..., Sample]) -> None:
    with pytest.raises(InputError, match=message):
        ClimateCube(**{**cube_of(sample_factory).__dict__, **changes})  # pyright: ignore[reportArgumentType]


def test_cubes_refuse_unphysical_fields(sample_factory: Callable[..., Sample]) -> None:
    cube = cube_of(sample_factory)
    celsius = {**cube.fields, "air_temperature": cube.fields["air_temperature"] - 273.15}
    with pytest.raises(InputError, match="air_temperature"):
        ClimateCube(**{**cube.__dict__, "fields": celsius})


@settings(max_examples=15, deadline=None)
@given(value=st.floats(200, 400))
def test_a_constant_field_is_its_own_global_mean(value: float, sample_factory: Callable[..., Sample]) -> None:
    cube = cube_of(sample_factory)
    fields = {"surface_temperature": np.full_like(cube.fields["surface_temperature"], value)}
    constant = ClimateCube(**{**cube.__dict__, "fields": fields})
    assert constant.global_mean("surface_temperature") == pytest.approx(value)
    assert constant.area_weights().sum() == pytest.approx(1.0)


def test_samples() -> None:
    assert Sample(world_id="w").present == (False, False, False, False)
    for changes, message in (
        ({"world_id": ""}, "identifier"),
        ({"state": "alive"}, r"Sample\.state"),
        ({"physics": {"mass": 1.0}}, "mass"),
        ({"physics": {"asr": float("nan")}}, "finite"),
    ):
        with pytest.raises(InputError, match=message):
            Sample(**{"world_id": "w", **changes})
