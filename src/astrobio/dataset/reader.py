"""Reading a data set: `WorldDataset` is a map-style sequence of `Sample`s of one split."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from astrobio.batch import MetabolicGraph, Sample
from astrobio.dataset.splits import SPLITS
from astrobio.dataset.store import PIECES, OpenPiece, Piece, open_piece, piece_path, read_climate, read_spectrum
from astrobio.errors import InputError
from astrobio.formats.graphs import load_graphs

T = TypeVar("T")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**26  # bytes: larger blocks, and more than this at the end of the heap, still go back
OPEN_PIECES = 4096  # kept per process; each holds 0.1 MB, its fields stay on disk


def read_manifest(root: Path | str) -> dict[str, Any]:
    """The manifest of a finished data set.

    Raises:
        InputError: nothing there, not a data set, or an unfinished one.
    """
    root = Path(root)
    remedy = f"make one with `astrobio simulate --worlds N --out {root}`"
    if not root.is_dir() or not any(root.iterdir()):
        raise InputError(
            f"{root}: expected a folder of worlds, found {'nothing' if not root.exists() else 'no files'}; {remedy}"
        )
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        complete, pieces = manifest["complete"], manifest["modalities"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        raise InputError(
            f"{root}: expected a data set with manifest.json, found none that is readable; {remedy}"
        ) from None
    if not complete:
        raise InputError(
            f"{root}: expected a finished data set, found an interrupted build; run the same `astrobio simulate` again"
        )
    unknown = set(pieces) - set(PIECES)
    if unknown:
        raise InputError(f"{root}/manifest.json: modalities: expected some of {PIECES}, found {sorted(unknown)}")
    return manifest


def split_names(root: Path | str) -> list[str]:
    """Splits of a finished data set: train, validation, test, then those out of distribution.

    Raises:
        InputError: as `read_manifest`.
    """
    found = read_manifest(root)["splits"]
    return [name for name in (*SPLITS, *sorted(set(found) - set(SPLITS))) if name in found]


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next arrays, instead of handing it back page by page.

    A climate takes 2 MB; fetching these from the system anew costs as much as decompressing it. Meant for processes
    that only load. With glibc; elsewhere nothing happens and False is returned.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, KEPT) and library.mallopt(M_TRIM_THRESHOLD, KEPT))


class WorldDataset:
    """Worlds of one split, read on demand; safe to use from several processes, each with its own copy.

    Args:
        root: folder of the data set. split: "train", "validation", "test" or one out of distribution, as the manifest
            names them.
    """

    def __init__(self, root: Path | str, split: str) -> None:
        self.root, self.split = Path(root), split
        self.manifest = read_manifest(self.root)
        if split not in self.manifest["splits"]:
            raise InputError(f"split: expected one of {split_names(root)}, found {split!r}")
        self._rows: list[tuple[int, int, dict[str, Any]]] = []
        for shard in range(self.manifest["shards"]):
            path = piece_path(self.root, "worlds", shard)
            for row, line in enumerate(_lines(path)):
                record = json.loads(line)
                if record["split"] == split:
                    self._rows.append((shard, row, record))
        self._graphs: dict[str, MetabolicGraph] = {}
        if (self.root / "organisms.npz").exists():
            self._graphs = {label["name"]: graph for graph, label in load_graphs(self.root / "organisms.npz")}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        shard, row, record = self._rows[index]
        spectrum = self._read("spectra", shard, row, read_spectrum)
        climate = self._read("climate", shard, row, read_climate)
        known = {
            key: value for key, value in record.items() if key not in ("split", "metabolism", "growth_temperature")
        }
        return Sample(**known, spectrum=spectrum, climate=climate, metabolism=self.metabolism(index))

    def _read(self, piece: Piece, shard: int, row: int, read: Callable[[OpenPiece, int], T]) -> T | None:
        """One world's part of a piece, None where the data set lacks the piece."""
        if piece not in self.manifest["modalities"]:
            return None
        path = piece_path(self.root, piece, shard)
        try:
            return read(_open(path), row)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: expected a piece of the data set, found {type(error).__name__}; "
                "run the same `astrobio simulate` again"
            ) from None

    def metabolism(self, index: int) -> MetabolicGraph | None:
        """A world's metabolism, a strain of a network that many worlds share, without reading anything else."""
        record = self._rows[index][2]
        if record["metabolism"] is None:
            return None
        network, growth = self._graphs[record["metabolism"]], record.get("growth_temperature")
        return network if growth is None else network.strain(growth)

    def record(self, index: int) -> dict[str, Any]:
        """Texts, state, physics and provenance of a world, without reading spectrum or climate."""
        return self._rows[index][2]

    def texts(self) -> list[str]:
        """All contexts and assessments, for training a tokenizer."""
        found = (record[key] for _, _, record in self._rows for key in ("context", "assessment"))
        return [text for text in found if text]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: expected a piece of the data set, found {error.strerror}; run the same `astrobio simulate` again"
        ) from None


@lru_cache(maxsize=OPEN_PIECES)
def _open(path: Path) -> OpenPiece:
    return open_piece(path)
