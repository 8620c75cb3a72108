"""A leak that was put in is found; one that is not there is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from astrobio.batch import MODALITIES, WORLD_STATES
from astrobio.evaluation.audit import LIVING, Finding, Seen, _shared, _trees, report

SIZES = {"train": 360, "validation": 60, "test": 180}


@pytest.fixture
def seen() -> dict[str, list[Seen]]:
    """Worlds whose features are noise, except for the truth."""
    rng = np.random.default_rng(0)
    found: dict[str, list[Seen]] = {}
    for split, size in SIZES.items():
        worlds = []
        for index in range(size):
            label = index % len(WORLD_STATES)
            views = {name: rng.standard_normal(4) for name in (*MODALITIES, "metadata")}
            keys = {"host stars in two splits": f"{split}{index // 3}"}
            worlds.append(Seen(label, f"{split}{index // 3}", keys, views, {"log10_CO": label + 0.1 * rng.random()}))
        found[split] = worlds
    return found


def by_name(findings: list[Finding], start: str) -> Finding:
    return next(finding for finding in findings if finding.check.startswith(start))


def test_noise_passes_and_the_oracle_knows(seen: dict[str, list[Seen]]) -> None:
    findings = _trees(seen)
    assert by_name(findings, "state from file order").passed
    assert by_name(findings, "life from metabolism").passed
    assert float(by_name(findings, "oracle").found.split()[0]) > 0.95
    assert report(findings).row_count == len(findings)


def test_order_and_metabolism_that_tell_are_found(seen: dict[str, list[Seen]]) -> None:
    told = {
        split: [
            replace(world, views=world.views | {
                "metadata": np.array([float(world.label)]),
                "metabolism": np.array([float(world.label in LIVING) + 0.6 * np.sin(index)]),
            })
            for index, world in enumerate(worlds)
        ]
        for split, worlds in seen.items()
    }  # fmt: skip
    findings = _trees(told)
    assert by_name(findings, "state from file order").passed is False
    assert by_name(findings, "life from metabolism").passed is False


def test_a_star_in_two_splits_is_found(seen: dict[str, list[Seen]]) -> None:
    assert all(finding.passed for finding in _shared(seen))
    seen["test"][0] = replace(seen["test"][0], keys=seen["train"][0].keys)
    (finding,) = _shared(seen)
    assert finding.passed is False and finding.found == "1"
