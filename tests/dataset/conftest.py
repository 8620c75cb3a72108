"""One small data set, built once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from astrobio.dataset.build import BuildSummary, build_dataset

WORLDS, SEED = 36, 5  # two pieces: 32 worlds and 4


@pytest.fixture(scope="session")
def summary(tmp_path_factory: pytest.TempPathFactory) -> BuildSummary:
    return build_dataset(tmp_path_factory.mktemp("data") / "worlds", WORLDS, SEED, workers=1, quiet=True)


@pytest.fixture(scope="session")
def folder(summary: BuildSummary) -> Path:
    """The data set; tests that change it copy it first."""
    return summary.root
