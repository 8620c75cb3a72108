"""Real data through the system: a catalogue's planets, a JWST spectrum, a GCM's climate and a bacterium's network.

Everything that is needed stands beside the connectors' tests, so that this runs on every machine.
"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from astropy.table import Table

from astrobio.batch import Collator, MultiModalBatch, Sample, Statistics
from astrobio.losses import compute_multimodal_loss
from astrobio.sources import ALL_SOURCES
from astrobio.sources.kinds.base import rows_to_records
from astrobio.sources.kinds.tap import votable_rows
from astrobio.sources.record import Provenance, Record, now
from astrobio.sources.samples import samples_from_planets
from astrobio.system import UnifiedMultiModalSystem, preset

HERE = Path(__file__).parent
RECORDINGS = HERE / "sources" / "recordings"
SPECTRUM, CLIMATE = RECORDINGS / "wasp-39b_niriss_r100.csv", RECORDINGS / "exoplasim_trappist1e_like.nc"
PLANETS = ("TRAPPIST-1 e", "WASP-39 b", "K2-18 b", "TRAPPIST-1 f")


def catalogue() -> list[Record]:
    """The Exoplanet Archive's own rows of four planets, through the connector's reader."""
    with open(HERE / "services" / "exo" / "planets.csv", newline="") as stream:
        rows = {row["pl_name"]: row for row in csv.DictReader(stream)}
    columns = ("pl_orbper", "pl_rade", "pl_bmasse", "pl_eqt", "st_teff", "st_rad", "st_mass", "sy_dist")
    table = Table({"pl_name": list(PLANETS), "hostname": [rows[name]["hostname"] for name in PLANETS]})
    for column in columns:
        table[column] = [float(rows[name][column]) for name in PLANETS]
    body = io.BytesIO()
    table.write(body, format="votable")
    source = ALL_SOURCES["nasa-exoplanet-archive"]
    provenance = Provenance(source.base, "four planets", now(), "0" * 64, len(body.getvalue()))
    found = list(rows_to_records(source, votable_rows(body.getvalue(), source.name), provenance, 0))
    return [item for item in found if isinstance(item, Record)]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Four worlds: text and climate and network; text and spectrum; text only; and one with everything at once."""
    network = tmp_path_factory.mktemp("real") / "e_coli_core.xml.gz"
    network.write_bytes(files("cobra").joinpath("data/textbook.xml.gz").read_bytes())
    return samples_from_planets(
        catalogue(),
        spectra={"WASP-39 b": SPECTRUM, "TRAPPIST-1 f": SPECTRUM},
        climates={"TRAPPIST-1 e": CLIMATE, "TRAPPIST-1 f": CLIMATE},
        metabolisms={"TRAPPIST-1 e": network, "TRAPPIST-1 f": network},
    )


def test_real_records_are_samples_without_a_verdict(samples: list[Sample]) -> None:
    present = [(True, False, True, True), (True, True, False, False), (True, False, False, False), (True,) * 4]
    assert [sample.present for sample in samples] == present
    assert all(sample.state is None and sample.assessment is None for sample in samples)
    assert [sample.world_id for sample in samples] == [f"nasa-exoplanet-archive:{name}" for name in PLANETS]
    hot = samples[1]
    assert "mass 89.3 Earth" in str(hot.context) and hot.spectrum is not None and len(hot.spectrum.wavelength) == 132
    assert 20_500 < hot.spectrum.value.mean() < 22_000  # ppm: (Rp/Rs)² of WASP-39 b is 2.1 %
    cube, network = samples[0].climate, samples[0].metabolism
    assert cube is not None and cube.shape == (8, 1, 10, 32, 64) and 236 < cube.global_mean("surface_temperature") < 238
    assert network is not None and len(network.reactions) > 70


def test_a_real_batch_runs_through_the_system(samples: list[Sample], sample_factory, collator: Collator) -> None:
    """Forward, loss and backward of real worlds beside simulated ones: all finite, every encoder moved."""
    torch.manual_seed(0)
    system = UnifiedMultiModalSystem(preset("mini"))
    simulated = [replace(sample_factory(index), climate=None) for index in range(2)]  # with states, without climates
    for worlds in (samples, samples[1:3], [*samples, *simulated]):
        real = Collator(collator.tokenizer, Statistics.fit([*samples, *simulated]))
        batch: MultiModalBatch = real(worlds)
        assert torch.equal(batch.present, torch.tensor([world.present for world in worlds]))
        system.zero_grad(set_to_none=True)
        outputs = system(batch)
        loss = compute_multimodal_loss(outputs, batch)
        loss.total.backward()
        assert torch.isfinite(outputs.state_logits).all() and torch.isfinite(loss.total)
        assert all(torch.isfinite(part).all() for part in loss.parts.values()), loss.parts
        gradients = {name: p.grad for name, p in system.named_parameters() if p.grad is not None}
        assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients.values())
    for part in ("spectrum_encoder", "climate_cnn", "metabolic_vae", "decoder", "fusion"):
        assert any(g.abs().sum() > 0 for name, g in gradients.items() if name.startswith(part)), part


def test_a_real_answer_has_no_state_until_it_is_assessed(samples: list[Sample], collator: Collator) -> None:
    """The system says something of real worlds: a distribution over states, and text."""
    system = UnifiedMultiModalSystem(preset("mini")).eval()
    real = Collator(collator.tokenizer, Statistics.fit(samples), with_assessment=False)
    with torch.no_grad():
        outputs = system(real(samples))
    assert torch.allclose(outputs.modality_weights.sum(1), torch.ones(4), atol=1e-5)
    assert ((outputs.inhabited >= 0) & (outputs.inhabited <= 1)).all()
    weights = outputs.modality_weights
    assert (weights[2, 1:] == 0).all() and weights[2, 0] == 1, "where text is all there is, it has all the weight"
    assert len(system.generate(real(samples), max_new_tokens=4, eos_id=1)) == 4
