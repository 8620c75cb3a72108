"""ΔG′° of reactions: a table that ships with the package, completed with equilibrator and cached on demand.

`worlds.biosphere.write_gibbs_table` computes the table.

Conditions everywhere: pH 7, ionic strength 0.25 M, 298.15 K, pMg 3, 1 M of each compound (component contribution,
Noor et al. 2013, doi:10.1371/journal.pcbi.1003098; equilibrator, Beber et al. 2022, doi:10.1093/nar/gkab1106).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_dir

Stoichiometry = Mapping[
    str, float
]  # base compound (BiGG id without compartment) → coefficient, negative for substrates
Energy = tuple[float, float]  # ΔG′° and its standard deviation, kJ/mol; NaN where no estimate exists

CONDITIONS = {"p_h": "7", "p_mg": "3", "ionic_strength": "0.25 M", "temperature": "298.15 K"}
LARGEST_SD = 100.0  # kJ/mol; beyond it component contribution has no group for the compound, the estimate says nothing
PROTON = "h"  # absent from transformed energies: pH is held


def cache_folder() -> Path:
    """Where computed things are kept between runs: `$ASTROBIO_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("ASTROBIO_CACHE") or user_cache_dir("astrobio"))


def reaction_key(stoichiometry: Stoichiometry) -> tuple[str, int]:
    """(hash of the net reaction, direction): a reaction and its reverse share the hash and differ in the sign ±1."""
    entries = sorted((name, value) for name, value in stoichiometry.items() if name != PROTON and value)
    if not entries:
        return "", 1
    sign = 1 if entries[0][1] < 0 else -1
    text = ";".join(f"{name}:{value * sign:.6g}" for name, value in entries)
    return hashlib.sha256(text.encode()).hexdigest()[:12], sign


def read_table(stream: io.TextIOBase | Iterable[str]) -> dict[str, Energy]:
    """Rows `key,dg,sd` (empty numbers: no estimate) → {key: (ΔG′°, sd)} for the reaction in its hashed direction."""
    table = {}
    for row in csv.DictReader(stream):
        table[row["key"]] = (float(row["dg_prime"] or "nan"), float(row["sd"] or "nan"))
    return table


@lru_cache(maxsize=1)
def shipped_table() -> dict[str, Energy]:
    """The table that comes with the package: every reaction of the default organisms that one compartment holds."""
    packed = resources.files("astrobio.formats").joinpath("data/dg_prime.csv.gz").read_bytes()
    return read_table(io.StringIO(gzip.decompress(packed).decode()))


def _cached_table(path: Path) -> dict[str, Energy]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        return read_table(stream)


def reaction_energies(reactions: Mapping[str, Stoichiometry], *, compute: bool = True) -> dict[str, Energy]:
    """ΔG′° and sd (kJ/mol) of each reaction: from the shipped table, else the cache, else equilibrator.

    Args:
        reactions: name → stoichiometry over base compounds, all in one compartment.
        compute: ask equilibrator (if installed; seconds) for what neither table knows, and cache the answer.
    """
    keys = {name: reaction_key(stoichiometry) for name, stoichiometry in reactions.items()}
    table = shipped_table()
    missing = {key: name for name, (key, _) in keys.items() if key and key not in table}
    if missing:
        path = cache_folder() / "dg_prime.csv"
        cached = _cached_table(path)
        unknown = {key: name for key, name in missing.items() if key not in cached}
        if unknown and compute and find_spec("equilibrator_api"):
            computed = compute_energies(
                {key: _forward(reactions[name], keys[name][1]) for key, name in unknown.items()}
            )
            cached |= computed
            write_table(path, cached)
        table = {**cached, **table}
    energies = {}
    for name, (key, sign) in keys.items():
        energy, deviation = table.get(key, (float("nan"), float("nan")))
        energies[name] = (sign * energy, deviation)
    return energies


def _forward(stoichiometry: Stoichiometry, sign: int) -> dict[str, float]:
    return {name: sign * value for name, value in stoichiometry.items()}


def compute_energies(reactions: Mapping[str, Stoichiometry]) -> dict[str, Energy]:
    """Ask equilibrator, in one batch, for ΔG′° and sd (kJ/mol) of reactions over BiGG compounds; NaN: no estimate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy and pint warn on import of equilibrator; nothing of ours
        from equilibrator_api import Q_, ComponentContribution, Reaction
        from equilibrator_cache import CompoundCache
        from equilibrator_cache_data import MINI_COMPOUND_CACHE_PATH
        from sqlalchemy import create_engine

        # The compounds of KEGG and BiGG come installed; the default cache would download 1.3 GB for a rarer one.
        engine = create_engine(f"sqlite:///{MINI_COMPOUND_CACHE_PATH}", future=True)
        contribution = ComponentContribution(ccache=CompoundCache(engine))
        for name, value in CONDITIONS.items():
            setattr(contribution, name, Q_(value))
        names = {name for stoichiometry in reactions.values() for name in stoichiometry}
        compounds = {name: contribution.get_compound(f"bigg.metabolite:{name}") for name in sorted(names)}
        ready = {}
        for key, stoichiometry in reactions.items():
            found: dict[Any, float] = defaultdict(float)  # equilibrator has one compound for an acid and its base
            for name, value in stoichiometry.items():
                found[compounds[name]] += value
            sparse = {compound: value for compound, value in found.items() if value}
            if None not in found and sparse:
                ready[key] = Reaction(sparse)
        energies: dict[str, Energy] = dict.fromkeys(reactions, (float("nan"), float("nan")))
        if ready:
            mean, root = contribution.standard_dg_prime_multi(
                list(ready.values()), uncertainty_representation="fullrank"
            )
            deviations = np.linalg.norm(root.m_as("kJ/mol"), axis=1)
            for key, value, deviation in zip(ready, mean.m_as("kJ/mol"), deviations, strict=True):
                if np.isfinite(value) and deviation < LARGEST_SD:
                    energies[key] = (round(float(value), 2), round(float(deviation), 2))
    return energies


def write_table(path: Path, table: Mapping[str, Energy]) -> None:
    """Write `key,dg_prime,sd` rows sorted by key, gzipped where the name ends in .gz; whole or not at all."""
    lines = ["key,dg_prime,sd"]
    for key in sorted(table):
        energy, deviation = table[key]
        lines.append(f"{key},," if np.isnan(energy) else f"{key},{energy:g},{deviation:g}")
    data = ("\n".join(lines) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    os.replace(temporary, path)
