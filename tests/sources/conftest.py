"""A place of its own for every test: empty home, no credentials, no keyring, a fresh cache, loopback servers only."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keyring
import pytest
import requests
from keyring.backends.fail import Keyring as NoKeyring
from requests.adapters import BaseAdapter
from urllib3.response import HTTPResponse

from astrobio.sources import ALL_SOURCES
from astrobio.sources.client import Session, Settings
from astrobio.sources.kinds import Source

PAYLOADS = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret of the machine that runs the tests can be found, and none can be stored there."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith("ASTROBIO_") or name.endswith(("_TOKEN", "_PASSWORD", "_API_KEY", "CDSAPI_KEY")):
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(keyring.core, "_keyring_backend", NoKeyring())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Impatient settings with a cache of their own."""
    return Settings(cache_dir=tmp_path / "cache", attempts=3, timeout=5.0, deadline=10.0, longest_backoff=0.02)


def _local(source: Source | str, base: str, **changes: Any) -> Source:
    """A database's declaration, pointed at a server on this machine."""
    source = ALL_SOURCES[source] if isinstance(source, str) else source
    return replace(source, base=base.rstrip("/"), rate=(10_000, 1.0), **changes)


class Canned(BaseAdapter):
    """Answers every request of a session from memory with what `answer` gives: (status, body, headers)."""

    def __init__(self, answer: Callable[[requests.PreparedRequest], tuple[int, bytes, dict[str, str]]]) -> None:
        super().__init__()
        self.answer, self.asked = answer, []

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        self.asked.append(request.copy())
        status, body, headers = self.answer(request)
        response = requests.Response()
        response.status_code, response.url, response.request = status, request.url or "", request
        response.headers = requests.structures.CaseInsensitiveDict(headers)
        response.raw = HTTPResponse(body=io.BytesIO(body), headers=headers, status=status, preload_content=False)
        return response

    def close(self) -> None:
        """Nothing is open."""


def _canned(
    source: Source, settings: Settings, answer: Callable[[requests.PreparedRequest], tuple[int, bytes, dict[str, str]]]
) -> Session:
    """A session of a database that never reaches a socket."""
    session = source.session(settings)
    adapter = Canned(answer)
    session.adapters.update({"http://": adapter, "https://": adapter})
    session.canned = adapter  # type: ignore[attr-defined]
    return session


@pytest.fixture
def local() -> Callable[..., Any]:
    """`local(source or name, base, **changes)`: a declaration pointed at a server on this machine."""
    return _local


@pytest.fixture
def canned() -> Callable[..., Session]:
    """`canned(source, settings, answer)`: a session that never reaches a socket; `session.canned.asked` is its log."""
    return _canned


@pytest.fixture
def payload() -> Callable[..., Path]:
    """`payload(*parts)`: a recorded answer from the folder beside the repository; skips the test without it."""

    def find(*parts: str) -> Path:
        path = PAYLOADS.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"the recorded answers are not here: {path}")
        return path

    return find


@pytest.fixture
def recording() -> Callable[[str], bytes]:
    """`recording(name)`: a recorded answer that stands beside these tests."""
    return lambda name: (Path(__file__).parent / "recordings" / name).read_bytes()
