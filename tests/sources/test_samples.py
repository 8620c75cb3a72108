"""Real records become samples, and a real-data batch of all four modalities can be collated."""

from __future__ import annotations

import csv
import lzma
import math
from importlib.resources import files
from pathlib import Path

import pytest

from astrobio.batch import Statistics, multimodal_collate_fn
from astrobio.errors import InputError
from astrobio.sources import ALL_SOURCES
from astrobio.sources.record import Answer, Provenance, Record, now
from astrobio.sources.samples import metabolism_of, planet_text, sample_from_planet, samples_from_planets

EARTH_LIKE = {
    "pl_name": "TRAPPIST-1 e", "hostname": "TRAPPIST-1", "sy_dist": 12.43, "pl_orbper": 6.101013, "pl_rade": 0.92,
    "pl_bmasse": 0.692, "pl_eqt": 249.7, "st_teff": 2566.0, "st_rad": 0.1192, "st_mass": 0.0898, "pl_orbsmax": 0.02925,
    "discoverymethod": "Transit", "disc_year": 2017,
}  # fmt: skip


NOW = now()


class Words:
    """A tokenizer that counts letters; enough for collation."""

    bos_id, eos_id, pad_id = 1, 2, 0

    def encode(self, text: str) -> list[int]:
        return [3 + len(word) for word in text.split()]


def record(payload, source: str = "nasa-exoplanet-archive") -> Record:
    made = ALL_SOURCES[source]
    provenance = Provenance("https://example.org", "q", NOW, "0" * 64, 1)
    return Record(source, "x", made.modality, payload, provenance, made.licence)


def test_a_catalogue_row_reads_as_a_text() -> None:
    text = planet_text(EARTH_LIKE)
    assert text.startswith("Planet TRAPPIST-1 e of TRAPPIST-1; host effective temperature 2566 K")
    assert "radius 0.92 Earth" in text and "found by Transit" in text and text.endswith("in 2017.")
    light = 0.1192**2 * (2566 / 5772) ** 4 / 0.02925**2  # Stefan-Boltzmann and the inverse square, relative to Earth
    assert f"receives {light:.3g} of Earth's light" in text and math.isclose(light, 0.648, rel_tol=0.01)


def test_missing_values_are_left_out_never_guessed() -> None:
    text = planet_text({"pl_name": "X b", "pl_rade": None, "st_teff": math.nan, "pl_bmasse": ""})
    assert text == "Planet X b."


@pytest.mark.parametrize("row", [{}, {"pl_name": ""}, {"pl_name": 7}, {"pl_name": "X b", "pl_rade": "large"}])
def test_unusable_rows_are_refused(row: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        planet_text(row)


def test_every_real_planet_becomes_a_sample(payload) -> None:
    with lzma.open(payload("catalogues", "nasa_pscomppars_16col.csv.xz"), "rt") as stream:
        samples = samples_from_planets([record(dict(row)) for row in csv.DictReader(stream)])
    assert len(samples) == 6087 and len({sample.world_id for sample in samples}) == 6087
    for sample in samples:
        assert sample.present == (True, False, False, False) and sample.state is None and sample.assessment is None
        assert sample.provenance["text"]["licence"]["name"] == "public; cite the archive"


def test_what_the_command_line_saved_becomes_samples(tmp_path: Path) -> None:
    spectrum = tmp_path / "e.csv"
    spectrum.write_text("wavelength [um],depth [ppm],sigma [ppm]\n1,4900,40\n1.5,4950,40\n")
    saved = Answer([record(EARTH_LIKE), record(spectrum, "mast")], complete=False, notes=["cut"]).save(tmp_path / "out")
    answer = Answer.load(saved)
    assert answer.notes == ["cut"] and not answer.complete and answer.records[0] == record(EARTH_LIKE)
    row, file = answer.records
    sample = sample_from_planet(row, spectrum=file)
    assert sample.present == (True, True, False, False) and file.provenance.sha256 == "0" * 64
    (saved / "files" / "e.csv").unlink()
    with pytest.raises(InputError, match=r"FileNotFoundError: e\.csv is missing"):
        Answer.load(saved)
    for content in ("", "{}", '{"complete": 1}'):
        (saved / "answer.json").write_text(content)
        with pytest.raises(InputError, match="fetch it anew"):
            Answer.load(saved)


def test_a_planet_without_its_row_is_refused() -> None:
    with pytest.raises(InputError, match="expected a catalogue row"):
        sample_from_planet(record(b"bytes"))
    with pytest.raises(InputError, match="expected a file, found a row"):
        metabolism_of(record(EARTH_LIKE))
    with pytest.raises(InputError, match="expected KEGG records"):
        metabolism_of([record(EARTH_LIKE)])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_real_batch_of_all_four_modalities(payload, tmp_path: Path) -> None:
    """A real planet, a measured spectrum's form, a model's climate, a real organism's network, in one batch."""
    spectrum = tmp_path / "e.csv"
    spectrum.write_text(
        "wavelength_um,depth_ppm,sigma_ppm\n" + "".join(f"{1 + n / 10},{4900 + n},40\n" for n in range(20))
    )
    model = tmp_path / "core.xml.gz"
    model.write_bytes(files("cobra").joinpath("data/textbook.xml.gz").read_bytes())
    sample = sample_from_planet(
        record(EARTH_LIKE), spectrum=record(spectrum, "mast"), metabolism=record(model, "bigg"),
        climate=record(Path(payload("climate", "exoplasim", "trappist1e_like_t21_year4.nc")), "ges-disc"),
    )  # fmt: skip
    assert sample.present == (True, True, True, True)
    assert set(sample.provenance) == {"text", "spectrum", "climate", "metabolism"}
    batch = multimodal_collate_fn([sample], tokenizer=Words(), statistics=Statistics.fit([sample]))
    assert batch.present.all() and batch.graph.num_graphs == 1 and batch.climate.shape[3:] == (10, 32, 64)
