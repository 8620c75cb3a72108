"""Climate files of several models and conventions onto the canonical grid, and what is said of the unusable ones."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from astrobio.batch import ClimateCube
from astrobio.errors import InputError
from astrobio.formats.climate import LATITUDE, LONGITUDE, canonical_levels, load_climate, read_climate, write_climate
from astrobio.formats.climate_names import conversion
from astrobio.formats.regrid import first_harmonic, to_canonical, to_pressures, wrap_longitude

SHARED = Path(__file__).parents[2] / "../shared/data/climate"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared climate files are not here")
LEVELS = np.array([20_000.0, 50_000.0, 85_000.0, 100_000.0])  # Pa, top first
LAT = np.linspace(90, -90, 19)
LON = np.arange(0.0, 360.0, 10.0)
STAR = 180.0  # longitude of the substellar point in the files made here


def _fields(steps: int = 3) -> dict[str, np.ndarray]:
    """Truth that any reader must find: everything follows the star's height, warmer below."""
    light = np.cos(np.deg2rad(LAT))[:, None] * np.cos(np.deg2rad(LON - STAR))[None]  # [Y, X]
    shape = (steps, *light.shape)
    column = 300 * (LEVELS / 1e5) ** 0.2
    return {
        "ts": np.broadcast_to(250 + 50 * light, shape).copy(),
        "rst": np.broadcast_to(900 * light.clip(0), shape).copy(),
        "rlut": np.broadcast_to(200 + 50 * light, shape).copy(),
        "ta": np.broadcast_to(column[:, None, None] + 10 * light, (steps, len(LEVELS), *light.shape)).copy(),
    }


def _dataset(**changes: Any) -> xr.Dataset:
    fields = {**_fields(), **changes}
    units = {"ts": "K", "rst": "W m-2", "rlut": "W m-2", "ta": "K", "ps": "Pa"}
    data = {}
    for name, values in fields.items():
        dims = ("time", "plev", "lat", "lon")[-values.ndim :] if values.ndim != 3 else ("time", "lat", "lon")
        data[name] = (dims, values, {"units": units[name]})
    coordinates = {
        "plev": ("plev", LEVELS / 100, {"units": "hPa", "standard_name": "air_pressure"}),
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
        "time": ("time", np.array([15.0, 45.0, 75.0]), {"units": "days since 2000-01-01", "calendar": "360_day"}),
    }
    return xr.Dataset(data, coordinates)


def _saved(tmp_path: Path, data: xr.Dataset, name: str = "world.nc") -> Path:
    data.to_netcdf(tmp_path / name, engine="netcdf4")
    return tmp_path / name


def _assert_truth(cube: ClimateCube, tolerance: float = 1.0) -> None:
    light = np.cos(np.deg2rad(LATITUDE))[:, None] * np.cos(np.deg2rad(LONGITUDE))[None]
    np.testing.assert_allclose(cube.fields["surface_temperature"][0, 0], 250 + 50 * light, atol=tolerance)
    expected = 300 * (cube.levels.clip(LEVELS[0], LEVELS[-1]) / 1e5) ** 0.2
    found = (cube.fields["air_temperature"][0] - 10 * light).mean(axis=(1, 2))
    np.testing.assert_allclose(found, expected, atol=3.0)  # linear in log p between four levels


def test_pressure_levels_any_order_become_the_convention(tmp_path: Path) -> None:
    cube, notes = load_climate(_saved(tmp_path, _dataset(ps=np.full((3, 19, 36), 1e5))))
    assert cube.shape == (8, 3, 10, 32, 64) and cube.time_kind == "months"
    np.testing.assert_allclose(cube.levels, canonical_levels(1e5))
    assert notes["longitude_shift"] == STAR and notes["tidally_locked"]
    _assert_truth(cube)
    assert "specific_humidity" in notes["absent"] and "specific_humidity" not in cube.fields


def test_global_means_survive_regridding(tmp_path: Path) -> None:
    data = _dataset()
    cube = read_climate(_saved(tmp_path, data))
    weights = np.sin(np.deg2rad(np.clip(LAT + 5, -90, 90))) - np.sin(np.deg2rad(np.clip(LAT - 5, -90, 90)))
    for short, name in (("ts", "surface_temperature"), ("rst", "toa_net_downward_shortwave_flux")):
        truth = float(np.average(data[short].values[0].mean(axis=1), weights=weights))
        assert cube.global_mean(name) == pytest.approx(truth, rel=5e-3)


def test_explicit_substellar_longitude_wins(tmp_path: Path) -> None:
    path = _saved(tmp_path, _dataset())
    cube, notes = load_climate(path, substellar_longitude=90.0)
    warmest = LONGITUDE[cube.fields["surface_temperature"][0, 0].mean(axis=0).argmax()]
    assert notes["longitude_shift"] == 90.0 and warmest == pytest.approx(90.0, abs=5)


def test_days_that_average_out_are_not_rotated(tmp_path: Path) -> None:
    zonal = np.broadcast_to(240 * np.cos(np.deg2rad(LAT))[:, None], (3, 19, 36)).copy()
    _, notes = load_climate(_saved(tmp_path, _dataset(rst=zonal)))
    assert notes["longitude_shift"] == 0.0 and not notes["tidally_locked"]


def test_units_signs_and_incoming_minus_outgoing(tmp_path: Path) -> None:
    data = _dataset(rlut=-_fields()["rlut"])
    data["ts"] = (data["ts"] - 273.15).assign_attrs(units="degC")
    data["rsdt"] = (data["rst"] + 100).assign_attrs(units="W m-2")
    data["rsut"] = xr.full_like(data["rst"], 100.0).assign_attrs(units="W m-2")
    cube = read_climate(_saved(tmp_path, data.drop_vars("rst")))
    _assert_truth(cube)
    assert cube.fields["toa_outgoing_longwave_flux"].min() > 100
    assert cube.fields["toa_net_downward_shortwave_flux"].max() == pytest.approx(900, rel=0.02)
    data["ts"].attrs["units"] = "furlong"
    with pytest.raises(InputError, match="ts: expected a unit that converts to 'K', found 'furlong'"):
        read_climate(_saved(tmp_path, data, "furlong.nc"))


@pytest.mark.parametrize("style", ["sigma", "formula", "cesm", "field"])
def test_vertical_coordinates(tmp_path: Path, style: str) -> None:
    ground = np.full((3, 19, 36), 1e5)
    data = _dataset(ps=ground).drop_vars("plev").rename({"plev": "lev"})
    sigma = LEVELS / 1e5
    if style == "sigma":
        data = data.assign_coords(lev=("lev", sigma, {"standard_name": "atmosphere_sigma_coordinate"}))
    elif style == "formula":
        terms = {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate", "formula_terms": "ap: ap b: b ps: ps"}
        data = data.assign_coords(lev=("lev", np.arange(4.0), terms))
        data = data.assign(ap=("lev", LEVELS * 0.3), b=("lev", sigma * 0.7))
    elif style == "cesm":
        data = data.assign(hyam=("lev", sigma * 0.4), hybm=("lev", sigma * 0.6), P0=1e5)
    else:
        field = np.broadcast_to(LEVELS[None, :, None, None], data["ta"].shape)
        data = data.assign(flpr=(data["ta"].dims, field.copy(), {"units": "Pa"}))
    cube, notes = load_climate(_saved(tmp_path, data))
    expected = {"sigma": "sigma", "formula": "hybrid", "cesm": "hybrid", "field": "pressure field"}
    assert notes["level_coordinate"] == expected[style]
    _assert_truth(cube)
    if style == "sigma":
        with pytest.raises(InputError, match="expected surface_air_pressure beside sigma levels, found none"):
            read_climate(_saved(tmp_path, data.drop_vars("ps"), "without.nc"))


def test_cells_below_the_ground_are_filled_and_other_nan_refused(tmp_path: Path) -> None:
    ta, ground = _fields()["ta"], np.full((3, 19, 36), 1e5)
    ground[:, :, :4] = 8e4
    ta[:, 2:, :, :4] = np.nan  # 850 and 1000 hPa lie in the mountain
    cube, notes = load_climate(_saved(tmp_path, _dataset(ta=ta, ps=ground)))
    assert np.isfinite(cube.fields["air_temperature"]).all() and notes["below_ground_cells_filled"] == 2 * 19 * 4
    ta[1, 0, 5, 7] = np.nan
    with pytest.raises(InputError, match=r"air_temperature \(ta\): expected finite values, found 1 NaN or infinite"):
        read_climate(_saved(tmp_path, _dataset(ta=ta, ps=ground), "hole.nc"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("ts"), "found no surface_temperature among rlut, rst, ta"),
        (lambda d: d.drop_vars("ta"), "found no air_temperature among"),
        (lambda d: d.isel(lat=slice(0, 9)), "expected a global grid, found latitudes 10"),
        (lambda d: d.isel(lon=slice(0, 20)), "expected a global grid"),
        (
            lambda d: d.rename({"lat": "rlat"}).drop_vars("rlat"),
            "surface_temperature: expected axes time, latitude, longitude, found 'ts' with time, rlat, lon",
        ),
        (
            lambda d: d.drop_vars("plev"),
            "expected pressure, sigma or hybrid sigma-pressure levels, found no coordinate",
        ),
        (lambda d: d.assign(ts=d["ts"].assign_attrs(units="K") * 100), "values in 30…3000"),
    ],
)
def test_unusable_files_say_why(tmp_path: Path, change: Any, message: str) -> None:
    path = _saved(tmp_path, change(_dataset()))
    with pytest.raises(InputError) as caught:
        read_climate(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    whole = _saved(tmp_path, _dataset()).read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.nc").write_text("no climate")
    (tmp_path / "cut.nc.xz").write_bytes(lzma.compress(whole)[:500])
    (tmp_path / "folder").mkdir()
    for name in ("cut.nc", "text.nc", "cut.nc.xz", "folder", "absent.nc"):
        with pytest.raises(InputError, match=name):
            read_climate(tmp_path / name)


def test_compressed_and_zarr_are_the_same_climate(tmp_path: Path) -> None:
    plain = _saved(tmp_path, _dataset())
    (tmp_path / "world.nc.xz").write_bytes(lzma.compress(plain.read_bytes()))
    _dataset().to_zarr(tmp_path / "world.zarr", consolidated=False)
    expected = read_climate(plain).fields["air_temperature"]
    for name in ("world.nc.xz", "world.zarr"):
        np.testing.assert_array_equal(read_climate(tmp_path / name).fields["air_temperature"], expected)


def test_long_series_becomes_a_monthly_climatology(tmp_path: Path) -> None:
    steps = 24
    data = xr.Dataset(
        {name: (("time", "plev", "lat", "lon")[4 - v.ndim :] if v.ndim == 4 else ("time", "lat", "lon"), v)
         for name, v in _fields(steps).items()},
        {"plev": ("plev", LEVELS, {"units": "Pa"}), "lat": LAT, "lon": LON,
         "time": ("time", np.arange(steps) * 30.0 + 15, {"units": "days since 0001-01-01", "calendar": "360_day"})},
    )  # fmt: skip
    data["ts"] = data["ts"] + xr.DataArray(np.repeat([-1.0, 1.0], 12), dims="time")
    cube, notes = load_climate(_saved(tmp_path, data))
    assert cube.shape[1] == 12 and cube.time_kind == "months" and notes["steps_read"] == 24
    assert cube.global_mean("surface_temperature") == pytest.approx(250, abs=0.1)
    assert set(notes["units_assumed"]) == {"ts", "rst", "rlut", "ta"}


def test_clero_dictionaries(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields = {"surface_temperature": rng.uniform(200, 300, (32, 64)), "asr": rng.uniform(0, 1, (32, 64)),
              "olr": rng.uniform(100, 300, (32, 64))}  # fmt: skip
    fields.update({f"temperature_{k}": rng.uniform(150, 300, (32, 64)) for k in range(10)})
    data = xr.Dataset(
        {k: (("lat", "lon"), v) for k, v in fields.items()}, {"lat": LATITUDE, "lon": LONGITUDE}, {"P0": 2.0}
    )
    cube, notes = load_climate(_saved(tmp_path, data))
    np.testing.assert_allclose(cube.levels, canonical_levels(2e5))
    np.testing.assert_allclose(cube.fields["air_temperature"][0, 3], fields["temperature_3"], rtol=1e-6)
    assert cube.time_kind == "realizations" and notes["level_coordinate"] == "clero"


@pytest.mark.parametrize("kind", ["realizations", "months", "phases", "epochs"])
def test_what_is_written_is_read_back(tmp_path: Path, kind: Any) -> None:
    rng = np.random.default_rng(1)
    fields = {"surface_temperature": rng.uniform(200, 300, (4, 1, 32, 64)).astype(np.float32),
              "toa_outgoing_longwave_flux": rng.uniform(100, 300, (4, 1, 32, 64)).astype(np.float32),
              "air_temperature": rng.uniform(200, 300, (4, 10, 32, 64)).astype(np.float32)}  # fmt: skip
    cube = ClimateCube(fields, canonical_levels(3e5), LATITUDE, LONGITUDE, kind)
    write_climate(cube, tmp_path / "cube.nc")
    again = read_climate(tmp_path / "cube.nc")
    assert again.time_kind == kind
    np.testing.assert_array_equal(again.levels, cube.levels)
    for name, values in fields.items():
        np.testing.assert_array_equal(again.fields[name], values)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cube.nc"]
    with xr.open_dataset(tmp_path / "cube.nc") as data:
        assert data.attrs["Conventions"] == "CF-1.8" and data["ta"].attrs["standard_name"] == "air_temperature"
    with pytest.raises(InputError, match=r"expected a name ending in \.nc"):
        write_climate(cube, tmp_path / "cube.txt")


@given(st.integers(8, 90), st.integers(12, 150), st.floats(-180, 180))
def test_regridding_keeps_constants_and_stays_within_bounds(rows: int, columns: int, phase: float) -> None:
    latitude = np.linspace(-90 + 90 / rows, 90 - 90 / rows, rows)
    longitude = np.sort(wrap_longitude(np.arange(columns) * 360 / columns + phase))
    field = np.random.default_rng(rows).uniform(0, 1, (rows, columns))
    out = to_canonical(field, latitude, longitude)
    assert out.min() >= field.min() - 1e-9 and out.max() <= field.max() + 1e-9
    np.testing.assert_allclose(to_canonical(np.ones((rows, columns)), latitude, longitude), 1.0, rtol=1e-9)


def test_pressure_interpolation_is_exact_for_log_linear_columns() -> None:
    pressure = np.array([1e5, 4e4, 1e4, 1e3])[:, None, None] * np.linspace(0.9, 1.1, 6).reshape(1, 2, 3)
    found = to_pressures(np.log(pressure), pressure, np.array([8e4, 2e4, 3e3]))
    np.testing.assert_allclose(found, np.log([8e4, 2e4, 3e3])[:, None, None] * np.ones((1, 2, 3)), rtol=1e-12)
    held = to_pressures(np.log(pressure), pressure, np.array([1e6, 1.0]))
    np.testing.assert_allclose(held, np.log(pressure)[[0, -1]])


def test_first_harmonic_finds_the_star() -> None:
    light = np.clip(np.cos(np.deg2rad(LON - 130)), 0, None)[None] * np.ones((19, 1))
    degrees, strength = first_harmonic(light, LAT, LON)
    assert degrees == pytest.approx(130, abs=1) and strength == pytest.approx(np.pi / 4, rel=0.02)
    assert first_harmonic(np.zeros((19, 36)), LAT, LON) == (0.0, 0.0)


def test_unit_spellings() -> None:
    assert conversion("m s**-1", "m s-1", "x") == (1.0, 0.0)
    assert conversion("millibars", "Pa", "x") == (100.0, 0.0)
    assert conversion(None, "K", "x") == (1.0, 0.0)


@needs_shared
@pytest.mark.parametrize(
    ("name", "surface", "net"),
    [("earth_t21_year3", 288.5, 1.35), ("tl_f1000_t21_year13", 230.4, -0.6), ("tl_f1200_t21_year13", 246.9, 0.9),
     ("trappist1e_like_t21_year4", 236.7, -6.4)],
)  # fmt: skip
def test_real_exoplasim_runs(name: str, surface: float, net: float) -> None:
    """Means of surface temperature and net flux as noted with the files; the star at longitude 0 where locked."""
    cube, notes = load_climate(SHARED / f"exoplasim/{name}.nc")
    assert cube.global_mean("surface_temperature") == pytest.approx(surface, abs=0.1)
    absorbed, emitted = (cube.global_mean(f"toa_{x}_flux") for x in ("net_downward_shortwave", "outgoing_longwave"))
    assert absorbed - emitted == pytest.approx(net, abs=0.1)
    assert len(cube.fields) == 8 and cube.shape == (8, 12, 10, 32, 64) and cube.time_kind == "months"
    assert notes["tidally_locked"] is not name.startswith("earth")
    if notes["tidally_locked"]:
        light = cube.fields["toa_net_downward_shortwave_flux"].mean(axis=(0, 1))
        assert first_harmonic(light, LATITUDE, LONGITUDE)[0] == pytest.approx(0, abs=2)


@needs_shared
@pytest.mark.parametrize("name", ["A1B_north_america.nc", "hybrid_height.nc", "ostia_monthly.nc", "rotated_pole.nc"])
def test_real_files_that_lack_the_atmosphere_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: .*(expected|found no) (axes|surface_temperature|air_temperature)"):
        read_climate(SHARED / "iris" / name)


@needs_shared
def test_real_reanalysis_winds(tmp_path: Path) -> None:
    """ERA-Interim's u and v on 3 pressure levels, given the temperatures that the file lacks."""
    with lzma.open(SHARED / "eraint_uvz.nc.xz") as packed:
        (tmp_path / "era.nc").write_bytes(packed.read())
    with pytest.raises(InputError, match="found no surface_temperature among u, v, z"):
        read_climate(SHARED / "eraint_uvz.nc.xz")
    with xr.open_dataset(tmp_path / "era.nc", decode_times=False, mask_and_scale=False) as data:
        winds = data[["u"]].load()
    scale = winds["u"].attrs.get("scale_factor", 1.0)
    truth = (winds["u"].astype(float) * scale + winds["u"].attrs.get("add_offset", 0.0)).drop_attrs()
    full = truth.to_dataset(name="u")
    full["u"].attrs.update(units="m s**-1", standard_name="eastward_wind")
    full["t"] = xr.full_like(truth, 250.0).assign_attrs(units="K")
    full["skt"] = xr.full_like(truth.isel(level=0, drop=True), 280.0).assign_attrs(units="K")
    full = full.assign_coords(level=full["level"].assign_attrs(units="millibars"))
    cube = read_climate(_saved(tmp_path, full, "full.nc"))
    assert cube.time_kind == "months" and cube.shape[1] == 2
    jet = cube.fields["eastward_wind"][0, 6].mean(axis=-1)  # January, 281 hPa-like level
    assert 20 < LATITUDE[jet.argmax()] < 45  # the northern winter's jet stream
