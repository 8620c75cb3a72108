"""What `sources list` claims of each connector's tests is true: they are there, and of the kind that is claimed."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from astrobio.sources import ALL_SOURCES, find_source
from astrobio.sources.kinds import Source

ROOT = Path(__file__).parents[2]
RECORDED = {"recording", "recorded", "payload", "files"}  # what gives a test the recorded answers
SERVED = ("tests/services/", "tests/sources/test_servers.py", "tests/sources/test_buckets.py")
OFFICIAL = {"PdsProducts"}  # models published by a database itself


@cache
def functions(path: str) -> dict[str, ast.FunctionDef]:
    """Functions of a test file by name, fixtures included."""
    tree = ast.parse((ROOT / path).read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def reached(path: str, name: str) -> list[ast.FunctionDef]:
    """A test, and the fixtures and helpers of its file that it uses."""
    known, found, left = functions(path), [], [name]
    while left:
        node = known[left.pop()]
        if node not in found:
            found.append(node)
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {a.arg for a in node.args.args}
            left += [other for other in names if other in known]
    return found


def words(nodes: list[ast.FunctionDef]) -> tuple[set[str], set[str]]:
    """(names, texts) that the code of functions mentions."""
    inside = [n for node in nodes for n in ast.walk(node)]
    names = {n.id for n in inside if isinstance(n, ast.Name)} | {n.arg for n in inside if isinstance(n, ast.arg)}
    return names, {n.value for n in inside if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.mark.parametrize("source", ALL_SOURCES.values(), ids=list(ALL_SOURCES))
def test_the_tests_that_a_database_names_are_there_and_about_it(source: Source) -> None:
    evidence = source.tested_by
    assert evidence.tests
    kinds = []
    for test in evidence.tests:
        path, _, name = test.partition("::")
        nodes = reached(path, name)
        names, texts = words(nodes)
        assert source.name in texts, f"{test} does not mention {source.name}"
        asserts = [n for node in nodes for n in ast.walk(node) if isinstance(n, ast.Assert)]
        assert asserts or "raises" in ast.dump(nodes[0]), f"{test} asserts nothing"
        kinds.append("real server" if path.startswith(SERVED) else "")
        kinds[-1] = kinds[-1] or ("recorded answers" if RECORDED & names else "schema" if OFFICIAL & names else "mock")
    if evidence.kind != "mock contract":
        assert evidence.kind == kinds[0], (evidence.kind, kinds)


def test_at_least_thirteen_databases_are_tested_on_what_is_their_own() -> None:
    kinds = Counter(source.tested_by.kind for source in ALL_SOURCES.values())
    assert sum(kinds.values()) - kinds["mock contract"] >= 13 and kinds["recorded answers"] >= 13, kinds
    for source in ALL_SOURCES.values():
        if source.tested_by.kind == "mock contract":
            assert re.search("made after|another collection|none of its own", source.tested_by.detail), source.name
    served = [s.tested_by.detail for s in ALL_SOURCES.values() if s.tested_by.kind == "real server"]
    assert len(set(served)) == len(served), "one server's tables do not count for two databases"


def test_every_recording_is_used_and_has_a_known_origin() -> None:
    folder = Path(__file__).parent / "recordings"
    origins = (folder / "README.md").read_text()
    tests = (Path(__file__).parent / "test_recordings.py").read_text() + (ROOT / "tests/test_real_data.py").read_text()
    for path in folder.iterdir():
        if path.name != "README.md":
            assert f"`{path.name}`" in origins and f'"{path.name}"' in tests, path.name


def test_the_documented_way_to_add_a_database_works(canned, settings, monkeypatch) -> None:
    text = (ROOT / "docs" / "sources.md").read_text()
    code = re.search(r"## Adding a database\n.*?```python\n(.*?)```", text, re.DOTALL)[1]  # type: ignore[index]
    assert code.count("\n") <= 40
    space: dict = {}
    exec(code, space)  # the example in our own documentation
    mine = space["MY_ARCHIVE"]
    monkeypatch.setitem(ALL_SOURCES, mine.name, mine)
    assert find_source("my-archive") is mine
    monkeypatch.setenv("MY_ARCHIVE_TOKEN", "token-of-my-archive")

    def answer(request) -> tuple[int, bytes, dict[str, str]]:
        rows = [{"name": "TRAPPIST-1 e", "radius": 0.92}, {"name": "K2-18 b", "radius": "large"}]
        return 200, json.dumps({"results": rows}).encode(), {}

    with canned(mine, settings, answer) as session:
        found = list(mine.records("TRAPPIST-1", session, 10, lambda *a: None))
        assert session.canned.asked[0].headers["Authorization"] == "Bearer token-of-my-archive"
        assert "search=TRAPPIST-1" in session.canned.asked[0].url
    assert found[0].identifier == "TRAPPIST-1 e" and "radius" in found[1].reason
