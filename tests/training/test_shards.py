"""Rows written by several ranks are read by any other number, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from astrobio.errors import InputError
from astrobio.training import shards
from astrobio.training.shards import named_weights, read_shards, write_shards, write_whole


def write_by_two(folder: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, cut: int = 2) -> None:
    """Rank 0 has the first rows, rank 1 the others; tensors of one number belong to rank 0."""
    for rank in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(shards, "rank", lambda rank=rank: rank)
            patched.setattr(shards, "world_size", lambda: 2)
            patched.setattr(shards, "shard_place", lambda own, rank=rank: (cut * rank, rank == 0 or own.ndim > 0))
            rows = slice(0, cut) if rank == 0 else slice(cut, None)
            own = {name: value if value.ndim == 0 else value[rows] for name, value in tensors.items()}
            write_shards(folder, "model", own)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "matrix": torch.randn(5, 3), "half": torch.randn(3, 2).bfloat16(), "codes": torch.arange(6, dtype=torch.uint8),
        "step": torch.tensor(7.0), "empty_on_the_second": torch.randn(2, 2),
    }  # fmt: skip


def test_rows_of_two_ranks_are_read_by_one(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by_two(tmp_path, tensors, monkeypatch)
    assert len(list(tmp_path.iterdir())) == 2
    found = {name: torch.zeros_like(value) for name, value in tensors.items()}
    read_shards(tmp_path, "model", found)
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_a_rank_reads_only_its_rows(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by_two(tmp_path, tensors, monkeypatch)
    own = torch.zeros(2, 3)  # rows 1 and 2 of 5: across the cut
    monkeypatch.setattr(shards, "shard_place", lambda _: (1, True))
    files = [shards._open(path) for path in sorted(tmp_path.iterdir())]
    shards._fill(tmp_path, files, "matrix", own, 1, (5, 3))
    assert torch.equal(own, tensors["matrix"][1:3])


def test_lost_rows_and_other_shapes_are_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by_two(tmp_path, tensors, monkeypatch)
    with pytest.raises(InputError, match=r"matrix: expected shape \(5, 4\), found \(2, 3\)"):
        read_shards(tmp_path, "model", {"matrix": torch.zeros(5, 4)})
    (tmp_path / "model.rank-00001.safetensors").unlink()
    with pytest.raises(InputError, match="matrix: 3 rows are missing; delete this folder"):
        read_shards(tmp_path, "model", {"matrix": torch.zeros(5, 3)})
    (tmp_path / "model.rank-00000.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match=r"model\.rank-00000\.safetensors: unreadable"):
        read_shards(tmp_path, "model", {"matrix": torch.zeros(5, 3)})


def test_whole_files_are_plain_safetensors_with_shared_weights_once(tmp_path: Path) -> None:
    system = nn.ModuleDict({"a": nn.Linear(3, 4).bfloat16(), "b": nn.Linear(4, 2, bias=False)})
    system["c"] = system["b"]
    write_whole(tmp_path / "w.safetensors", named_weights(system))
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == {"a.weight", "a.bias", "b.weight"}
    assert all(torch.equal(found[name], value) for name, value in system.state_dict().items() if name in found)


def test_other_ranks_gather_on_when_the_file_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = []
    monkeypatch.setattr(shards, "_gathered", lambda value: gathered.append(value) or value)
    with pytest.raises(OSError, match="No such file"):
        write_whole(tmp_path / "nowhere" / "w.safetensors", {"a": torch.ones(2), "b": torch.ones(3)})
    assert len(gathered) == 2, "or the other ranks would wait for rank 0"
