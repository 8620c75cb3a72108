"""Who may draw from what: splits are given hosts and organisms before any world is sampled.

No host star is in two splits, and every world draws its own climate, so stars and climate draws of the test split are
unseen. Organisms are split by clade where a guild has enough of them; see `organism_pools`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from astrobio.batch import WORLD_STATES
from astrobio.dataset.holdout import PREFIX, HoldOuts
from astrobio.errors import InputError
from astrobio.worlds.biosphere import Organism
from astrobio.worlds.stars import Star, draw_star

SPLITS: tuple[str, ...] = ("train", "validation", "test")
SHARES: dict[str, float] = {"train": 0.70, "validation": 0.15, "test": 0.15}
WORLDS_PER_HOST = 4  # on average; systems of several planets share a host, as TRAPPIST-1's do
STREAMS = (*SPLITS, "ood-gcm", "ood-star", "ood-noise", "ood-path")  # of host draws, in this order for ever
MIN_HOSTS = 12  # a pool must span the spectral types
BLOCK = len(WORLD_STATES)  # consecutive worlds that hold each state once and stay in one split


def split_of_blocks(worlds: int, seed: int, hold_outs: HoldOuts | None = None) -> list[str]:
    """Split of each block of six worlds, in the shares above, every split with at least one block.

    The blocks of splits out of distribution come after those of all `worlds`, as many for each as for the test split.

    Raises:
        InputError: too few worlds for three splits.
    """
    blocks = -(-worlds // BLOCK)
    if blocks < len(SPLITS):
        raise InputError(
            f"worlds: expected at least {BLOCK * len(SPLITS)}, so that each split has some, found {worlds}"
        )
    held_out = max(1, round(SHARES["test"] * blocks))
    names = ["validation"] * held_out + ["test"] * held_out
    names += ["train"] * (blocks - len(names))
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x5B117,))).permutation(blocks)
    further = [split for split in (hold_outs or HoldOuts()).splits for _ in range(held_out)]
    return [names[place] for place in order] + further


def host_pools(worlds: int, seed: int, hold_outs: HoldOuts | None = None) -> dict[str, tuple[Star, ...]]:
    """Hosts of each split; their number grows with the split's share of worlds."""
    hold_outs = hold_outs or HoldOuts()
    pools = {}
    for split in (*SPLITS, *hold_outs.splits):
        place, initials = STREAMS.index(split), split.removeprefix(PREFIX)[:2].upper()
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x57A2, place)))
        count = max(MIN_HOSTS, round(SHARES.get(split, SHARES["test"]) * worlds / WORLDS_PER_HOST))
        admits = hold_outs.admits(split)
        pools[split] = tuple(_draw_host(rng, f"{initials}-{seed}-{index:05d}", admits) for index in range(count))
    return pools


def _draw_host(rng: np.random.Generator, name: str, admits: Callable[[Star], bool]) -> Star:
    while not admits(star := draw_star(rng, name)):
        pass
    return star


def organism_pools(organisms: Sequence[Organism], seed: int) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Indices of the organisms that each split may use, and how each guild was split.

    Guilds with at least three clades are split by clade: all variants of all parents of a clade stay in one split.
    Guilds with fewer (the default set holds one methanogen) are split by variant, so that every split holds every guild
    and a guild never tells the split; such a guild is marked "by variant", and no claim on unseen clades rests on it.
    A clade with organisms of several guilds is in one split with all of them.

    Raises:
        InputError: a guild with fewer than three variants.
    """
    guilds: dict[str, dict[str, list[int]]] = {}
    for index, organism in enumerate(organisms):
        guilds.setdefault(organism.guild, {}).setdefault(organism.clade, []).append(index)
    pools: dict[str, list[int]] = {split: [] for split in SPLITS}
    how: dict[str, str] = {}
    home: dict[str, str] = {}  # clade → split
    for number, (guild, clades) in enumerate(sorted(guilds.items())):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x096A, number)))
        by_clade = len(clades) >= len(SPLITS)
        units = [clades[name] for name in sorted(clades)] if by_clade else [[i] for c in clades.values() for i in c]
        if len(units) < len(SPLITS):
            raise InputError(f"organisms of guild {guild!r}: expected at least 3 variants, found {len(units)}")
        how[guild] = "by clade" if by_clade else "by variant"
        held_out = max(1, round(SHARES["test"] * len(units)))
        order = [units[place] for place in rng.permutation(len(units))]
        free = [unit for unit in order if not by_clade or organisms[unit[0]].clade not in home]
        fresh = dict.fromkeys(map(tuple, free[:held_out]), "validation")
        fresh |= dict.fromkeys(map(tuple, free[held_out : 2 * held_out]), "test")
        for unit in order:
            clade = organisms[unit[0]].clade
            split = fresh.get(tuple(unit)) or (home.get(clade, "train") if by_clade else "train")
            pools[split] += unit
            if by_clade:
                home[clade] = split
    return {split: sorted(indices) for split, indices in pools.items()}, how


def claims(organisms: Sequence[Organism], seed: int) -> list[dict[str, Any]]:
    """What rests on which organisms: a row for each guild and clade, with its organisms (parents) in each split."""
    pools, how = organism_pools(organisms, seed)
    rows: dict[tuple[str, str], dict[str, set[str]]] = {}
    for split, indices in pools.items():
        for organism in (organisms[index] for index in indices):
            row = rows.setdefault((organism.guild, organism.clade), {name: set() for name in SPLITS})
            row[split].add(organism.parent)
    return [
        {"guild": guild, "clade": clade, "how": how[guild], **{name: len(found) for name, found in row.items()}}
        for (guild, clade), row in sorted(rows.items())
    ]
