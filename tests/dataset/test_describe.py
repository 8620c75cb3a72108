"""A data set's papers: what they say is what the manifest says, and Croissant's own tools read the records."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from astrobio.dataset.croissant import FIELDS, write_croissant
from astrobio.dataset.datasheet import write_datasheet
from astrobio.dataset.describe import describe_dataset, organism_rows
from astrobio.errors import InputError


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("described") / "worlds"
    shutil.copytree(folder, copy)
    return copy


def test_croissant_loads_every_record(root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlcroissant's own dependencies
        import mlcroissant

        records = list(mlcroissant.Dataset(str(write_croissant(root))).records("worlds"))
    lines = [json.loads(line) for path in sorted((root / "worlds").glob("*")) for line in path.read_text().splitlines()]
    assert len(records) == len(lines) == 36
    by_id = {record["worlds/world_id"].decode(): record for record in records}
    for line in lines:
        for name in FIELDS:
            found = by_id[line["world_id"]][f"worlds/{name}"]
            assert found.decode() == line[name], name


def test_datasheet_tells_the_manifest(root: Path) -> None:
    text = write_datasheet(root).read_text()
    manifest = json.loads((root / "manifest.json").read_text())
    assert "36 simulated worlds (seed 5)" in text and "{" not in text
    for name, count in manifest["splits"].items():
        assert f"{name} {count}" in text
    assert all(licence in text for licence in manifest["licences"].values()) and "methanogen: by variant" in text


def test_description_writes_picture_and_papers(root: Path) -> None:
    table = describe_dataset(root)
    assert table.row_count == 6 + len(organism_rows(root))
    assert (root / "describe.png").stat().st_size > 20_000
    assert (root / "croissant.json").is_file() and (root / "DATASHEET.md").is_file()


def test_no_data_set_is_a_sentence(tmp_path: Path) -> None:
    for write in (describe_dataset, write_croissant, write_datasheet):
        with pytest.raises(InputError, match="expected a folder of worlds"):
            write(tmp_path / "nothing")
