"""Fixtures that several test folders share: small worlds that are physically valid and shaped like real ones."""

from __future__ import annotations

import warnings

from jaxtyping import install_import_hook

with warnings.catch_warnings():  # importing PyTorch Geometric 2.8 calls the deprecated torch.jit.script
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    import torch_geometric.data  # noqa: F401

# Shape annotations of what computes are checked while tests run; `batch` checks itself and says so in a sentence.
install_import_hook(["astrobio.models", "astrobio.system", "astrobio.losses"], "beartype.beartype")

from collections.abc import Callable, Sequence  # noqa: E402 (the hook must stand before the package's imports)
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from astrobio.batch import (  # noqa: E402
    ELEMENTS,
    INHABITED_STATES,
    WORLD_STATES,
    ClimateCube,
    Collator,
    MetabolicGraph,
    MultiModalBatch,
    Sample,
    Spectrum,
    Statistics,
)
from astrobio.models.climate_cnn import ClimateCNNConfig  # noqa: E402
from astrobio.models.decoder import DecoderConfig  # noqa: E402
from astrobio.models.fusion import FusionConfig  # noqa: E402
from astrobio.models.metabolic_vae import MetabolicVAEConfig  # noqa: E402
from astrobio.models.spectrum_encoder import SpectrumEncoderConfig  # noqa: E402
from astrobio.system import SystemConfig  # noqa: E402
from astrobio.units import STEFAN_BOLTZMANN  # noqa: E402

if TYPE_CHECKING:
    from astrobio.training.config import RunConfig

ENCODINGS = 16
CUBE = (2, 5, 16, 32)  # T, P, Y, X
FORMULAE = {
    "co2": {"C": 1, "O": 2}, "h2": {"H": 2}, "ch4": {"C": 1, "H": 4}, "h2o": {"H": 2, "O": 1}, "o2": {"O": 2},
    "ch2o": {"C": 1, "H": 2, "O": 1},
}  # fmt: skip
METHANOGENESIS = {"co2": -1, "h2": -4, "ch4": 1, "h2o": 2}
RESPIRATION = {"ch2o": -1, "o2": -1, "co2": 1, "h2o": 1}


@dataclass(frozen=True)
class WordTokenizer:
    """Words → numbers below 256 by their bytes; enough for tests, no training."""

    bos_id: int = 0
    eos_id: int = 1
    pad_id: int = 2
    vocab_size: int = 256

    def encode(self, text: str) -> list[int]:
        return [3 + sum(word.encode()) % 253 for word in text.split()]


def respiring_graph(core: dict[str, int], rate: float, *, dg_prime: float = -130.0) -> MetabolicGraph:
    """A cell with one conversion, and transport and exchange of every compound in it; all balanced, all fluxes known.

    `rate` mmol/gDW/h of the conversion, `core` its stoichiometry.
    """
    names = sorted(core)
    compounds = [f"{name}_c" for name in names] + [f"{name}_e" for name in names]
    entries: list[tuple[str, str, float]] = [(f"{name}_c", "CORE", float(s)) for name, s in core.items()]
    flux = {"CORE": rate}
    for name, s in core.items():
        entries += [
            (f"{name}_e", f"T_{name}", -1.0),
            (f"{name}_c", f"T_{name}", 1.0),
            (f"{name}_e", f"EX_{name}", -1.0),
        ]
        flux[f"T_{name}"], flux[f"EX_{name}"] = -s * rate, s * rate
    reactions = list(flux)
    c, r = len(compounds), len(reactions)
    elements = np.array([[FORMULAE[name[:-2]].get(e, 0) for e in ELEMENTS] for name in compounds], dtype=float)
    dg = np.array([dg_prime if name == "CORE" else np.nan for name in reactions])
    return MetabolicGraph(
        compounds=tuple(compounds), reactions=tuple(reactions), elements=elements, charge=np.zeros(c),
        external=np.array([name.endswith("_e") for name in compounds]),
        edge_compound=np.array([compounds.index(name) for name, _, _ in entries]),
        edge_reaction=np.array([reactions.index(name) for _, name, _ in entries]),
        stoichiometry=np.array([s for _, _, s in entries]), dg_prime=dg, dg_sd=np.where(np.isfinite(dg), 5.0, np.nan),
        reversible=np.array([name != "CORE" for name in reactions]), lower_bound=np.full(r, -1000.0),
        upper_bound=np.full(r, 1000.0), ec=tuple("1.1.1.1" if name == "CORE" else "" for name in reactions),
        encodings=np.random.default_rng(0).random((c + r, ENCODINGS)),
        exchange={name.upper(): s * rate for name, s in core.items() if name != "ch2o"},
        flux=np.array([flux[name] for name in reactions]), organism="test", guild="test", growth_temperature=295.0,
    )  # fmt: skip


GRAPHS = (respiring_graph(METHANOGENESIS, 8.0, dg_prime=-131.0), respiring_graph(RESPIRATION, 12.0, dg_prime=-480.0))


def make_cube(rng: np.random.Generator, shape: tuple[int, int, int, int] = CUBE) -> ClimateCube:
    """A tidally locked planet: warm under its star, colder with height, in balance within a few W/m²."""
    t, p, y, x = shape
    latitude = (np.arange(y) + 0.5) * 180 / y - 90
    longitude = np.arange(x) * 360 / x - 180
    levels = np.geomspace(1e5, 1e3, p)
    zenith = np.cos(np.deg2rad(latitude))[:, None] * np.cos(np.deg2rad(longitude))[None]
    surface = rng.uniform(240, 300) + 40 * zenith.clip(0) + rng.normal(0, 1, (t, 1, y, x))
    air = surface * (levels / 1e5)[:, None, None] ** 0.15
    olr = 0.62 * STEFAN_BOLTZMANN * surface**4  # Earth's greenhouse: 238 of 390 W/m²
    shape3 = (t, p, y, x)
    fields = {
        "surface_temperature": surface,
        "toa_net_downward_shortwave_flux": np.broadcast_to(4 * zenith.clip(0) * olr.mean(), (t, 1, y, x)).copy(),
        "toa_outgoing_longwave_flux": olr,
        "air_temperature": air,
        "specific_humidity": 0.01 * np.exp((air - 290) / 15).clip(0, 3),
        "cloud_area_fraction_in_atmosphere_layer": rng.uniform(0, 1, shape3),
        "eastward_wind": rng.normal(0, 10, shape3),
        "northward_wind": rng.normal(0, 10, shape3),
    }
    return ClimateCube(fields=fields, levels=levels, latitude=latitude, longitude=longitude)


def make_spectrum(rng: np.random.Generator, state: str, points: int = 60) -> Spectrum:
    """A flat transit depth with methane's 3.3 µm band where the state has methane, and noise."""
    wavelength = np.geomspace(0.6, 5.3, points)
    methane = state in ("lifeless-reducing", *INHABITED_STATES)
    sigma = rng.uniform(20, 40, points)
    band = 80 * methane * np.exp(-(((wavelength - 3.3) / 0.2) ** 2))
    return Spectrum(
        wavelength=wavelength, value=5000 + band + rng.normal(0, sigma), sigma=sigma, bin_width=wavelength / 30
    )


def make_sample(index: int, *, state: str | None = None, without: Sequence[str] = (), **changes: Any) -> Sample:
    """World `index`: deterministic, state by turns unless given, without the modalities named."""
    rng = np.random.default_rng(index)
    state = WORLD_STATES[index % len(WORLD_STATES)] if state is None else state
    cube = make_cube(rng)
    parts: dict[str, Any] = {
        "context": f"star M{index % 9} radius {index % 5} transits {index % 7} instrument prism",
        "assessment": f"this world reads as {state}",
        "spectrum": make_spectrum(rng, state),
        "climate": cube,
        "metabolism": GRAPHS[index % len(GRAPHS)],
    }
    for name in without:
        parts["context" if name == "text" else name] = None
    physics = {
        "surface_temperature": cube.global_mean("surface_temperature"),
        "asr": cube.global_mean("toa_net_downward_shortwave_flux"),
        "olr": cube.global_mean("toa_outgoing_longwave_flux"),
        "log10_CO2": float(rng.uniform(-5, 0)),
        "log10_CH4": float(rng.uniform(-8, -2)),
    }
    return Sample(**({"world_id": f"w{index}", "state": state, "physics": physics} | parts | changes))


@pytest.fixture(scope="session")
def sample_factory() -> Callable[..., Sample]:
    """`make_sample`, for tests anywhere."""
    return make_sample


@pytest.fixture(scope="session")
def statistics() -> Statistics:
    return Statistics.fit(make_sample(index) for index in range(6))


@pytest.fixture(scope="session")
def collator(statistics: Statistics) -> Collator:
    return Collator(WordTokenizer(), statistics)


@pytest.fixture(scope="session")
def batch(collator: Collator) -> MultiModalBatch:
    """Eight worlds, of which some lack some modality and each modality is there at least twice on inhabited ones."""
    without: list[tuple[str, ...]] = [(), ("climate",), (), ("spectrum",), (), (), ("text",), ("metabolism",)]
    months = make_cube(np.random.default_rng(4))
    changes = {4: {"climate": ClimateCube(**{**months.__dict__, "time_kind": "months"})}}
    states = [WORLD_STATES[4 + index % 2] if index in (2, 4, 5) else None for index in range(8)]
    return collator(
        [
            make_sample(i, state=state, without=names, **changes.get(i, {}))
            for i, (state, names) in enumerate(zip(states, without, strict=True))
        ]
    )


SPLITS = {"train": range(12), "validation": range(12, 18), "test": range(18, 24)}


class MemoryWorlds:
    """A split of worlds made on the spot; every fourth training world lacks something."""

    def __init__(self, split: str) -> None:
        without = [(), ("climate",), ("text", "spectrum"), ()]
        self.samples = [make_sample(i, without=without[i % 4] if split == "train" else ()) for i in SPLITS[split]]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def metabolism(self, index: int) -> MetabolicGraph | None:
        return self.samples[index].metabolism


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryWorlds]:
    """The three splits; training and evaluation read them whatever folder they are given."""
    from astrobio.training import loop

    splits = {name: MemoryWorlds(name) for name in SPLITS}
    monkeypatch.setattr(loop, "WorldDataset", lambda folder, split: splits[split])
    return splits


@pytest.fixture
def tiny_system() -> SystemConfig:
    """The whole architecture with the fewest numbers."""
    return SystemConfig(
        decoder=DecoderConfig(
            width=32, layers=2, heads=2, kv_heads=1, inner_width=32, vocabulary=300,
            bridge_every=2, bridge_width=16, bridge_heads=1, context_width=16,
        ),
        metabolic_vae=MetabolicVAEConfig(
            node_width=8, node_layers=1, node_inner=8, width=16, layers=1, heads=2, inner_width=16, tokens=2,
            latent=4, edge_width=4,
        ),
        climate_cnn=ClimateCNNConfig(patch=(5, 4, 4), widths=(8, 8, 16), blocks=(1, 1, 1), tokens=2, heads=2),
        spectrum_encoder=SpectrumEncoderConfig(
            anchors=16, basis=4, width=16, layers=1, heads=2, inner_width=16, tokens=2
        ),
        fusion=FusionConfig(
            width=16, layers=1, heads=2, inner_width=16, alignment_width=8, context_width=16, text_width=32
        ),
        token_width=16,
    )  # fmt: skip


@pytest.fixture
def tiny_run(tiny_system: SystemConfig) -> RunConfig:
    """Six steps of two micro-batches of three worlds, two of them an epoch, on the CPU."""
    from astrobio.training.config import RunConfig, TrainingConfig

    training = TrainingConfig(
        steps=6, batch_size=3, accumulation=2, warmup_steps=2, modality_dropout=0.3, device="cpu", log_every=1,
        checkpoint_every=3, gradient_norms_every=4, cache="memory",
    )  # fmt: skip
    return RunConfig(tiny_system, training)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Where a run goes."""
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
