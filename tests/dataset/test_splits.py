"""Splits are made before sampling, share no host, and hold every guild."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrobio.dataset import splits
from astrobio.errors import InputError
from astrobio.worlds.biosphere import load_organisms


@given(st.integers(18, 30_000), st.integers(0, 2**40))
def test_blocks_are_split_in_fixed_shares(worlds: int, seed: int) -> None:
    names = splits.split_of_blocks(worlds, seed)
    counts = Counter(names)
    assert len(names) == -(-worlds // 6) and set(counts) == set(splits.SPLITS)
    assert counts["test"] == counts["validation"] == max(1, round(0.15 * len(names)))
    assert names == splits.split_of_blocks(worlds, seed)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_hosts_are_in_one_split_only(seed: int) -> None:
    pools = splits.host_pools(200, seed)
    names = [star.name for stars in pools.values() for star in stars]
    traits = {(star.teff, star.radius, star.age) for stars in pools.values() for star in stars}
    assert len(set(names)) == len(names) == len(traits)


def test_organisms_by_clade_where_there_are_enough() -> None:
    organisms = load_organisms()
    for seed in range(5):
        pools, how = splits.organism_pools(organisms, seed)
        assert sorted(index for indices in pools.values() for index in indices) == list(range(len(organisms)))
        for split, indices in pools.items():
            assert {organisms[i].guild for i in indices} == set(how), split
        for guild, rule in how.items():
            clades = [{organisms[i].clade for i in p if organisms[i].guild == guild} for p in pools.values()]
            if rule == "by clade":
                assert sum(map(len, clades)) == len(set.union(*clades)), "a clade in two splits"
        assert how["methanogen"] == how["phototroph"] == "by variant" and how["aerobe"] == "by clade"


def test_too_few() -> None:
    with pytest.raises(InputError, match="18"):
        splits.split_of_blocks(12, 0)
    few = [SimpleNamespace(guild="methanogen", clade="M")] * 2
    with pytest.raises(InputError, match="methanogen"):
        splits.organism_pools(few, 0)  # pyright: ignore[reportArgumentType]
