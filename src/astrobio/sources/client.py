"""The only function that touches the network is `Session.exchange`; everything that connectors send goes through it.

Layers, outermost first: disk cache (requests-cache) → redirects → offline check, rate limit, retry → secret → wire.
The secret is attached below the cache, so that neither the cache nor a caller ever sees it.
"""

from __future__ import annotations

import html
import io
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import platformdirs
import requests
import tenacity
from pydantic import SecretStr
from pyrate_limiter import Limiter, Rate
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar, get_cookie_header
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies
from requests_cache import CacheMixin
from requests_cache.cache_keys import create_key
from urllib3.response import HTTPResponse

from astrobio import __version__
from astrobio.sources.auth import Credential, Secret, find_secret
from astrobio.sources.errors import CredentialError, LicenceError, OfflineError, PayloadError, SourceError
from astrobio.sources.payload import guard_xml
from astrobio.sources.placements import Grant
from astrobio.sources.record import Licence
from astrobio.sources.redact import leaks, redact, redact_bytes

RETRIED = frozenset({429, 500, 502, 503, 504})
RETRIED_POST = frozenset({429, 503})  # the server says it did not take the request
LONGEST_WAIT = 120.0  # s; a longer Retry-After is reported instead of waited for
KEPT_HEADERS = (
    "Retry-After",
    "Content-Type",
    "Link",
    "ETag",
    "Last-Modified",
    "Location",
    "CMR-Search-After",
    "CMR-Hits",
    "X-Total-Results",
)


@dataclass(frozen=True)
class Settings:
    """How to use the network.

    Args:
        cache_dir: answers and files are kept here. offline: serve from there only.
        secrets: credential name → secret, the explicit ones ("user:password" where a user name belongs to it).
        accepted: names of databases whose licence the user has accepted.
        timeout: s to connect and between two reads. deadline: s for one whole answer.
        max_bytes: largest answer held in memory. max_file_bytes: largest file downloaded.
        attempts: of one request. expire_after: s until a cached answer is asked for again.
    """

    cache_dir: Path = field(default_factory=lambda: Path(platformdirs.user_cache_dir("astrobio")) / "sources")
    offline: bool = False
    secrets: Mapping[str, str | SecretStr] = field(default_factory=dict, repr=False)
    accepted: frozenset[str] = frozenset()
    timeout: float = 60.0
    deadline: float = 600.0
    max_bytes: int = 256 * 2**20
    max_file_bytes: int = 64 * 2**30
    attempts: int = 5
    expire_after: float = 7 * 86_400.0
    longest_backoff: float = 30.0

    @classmethod
    def from_environment(cls, **changes: Any) -> Settings:
        """`ASTROBIO_OFFLINE`, `ASTROBIO_CACHE`, `ASTROBIO_ACCEPT_LICENCES` (names, comma-separated), then `changes`."""
        env: dict[str, Any] = {"offline": os.environ.get("ASTROBIO_OFFLINE", "") not in ("", "0")}
        if os.environ.get("ASTROBIO_CACHE"):
            env["cache_dir"] = Path(os.environ["ASTROBIO_CACHE"]) / "sources"
        names = os.environ.get("ASTROBIO_ACCEPT_LICENCES", "").split(",")
        env["accepted"] = frozenset(n.strip() for n in names if n.strip())
        return cls(**{**env, **changes})


@dataclass(frozen=True)
class Request:
    """A request before it is sent, without any secret; `data` is a form, `json` a JSON body."""

    method: str
    url: str
    params: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] | bytes | None = None
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def plain(self) -> requests.Request:
        """The same as a `requests.Request`."""
        return requests.Request(
            self.method, self.url, params=self.params, data=self.data, json=self.json, headers=self.headers
        )


class _Again(Exception):
    """This attempt failed in a way that another may mend."""

    def __init__(self, reason: str, response: requests.Response | None = None, wait: float | None = None) -> None:
        super().__init__(reason)
        self.response, self.wait = response, wait


@cache
def _limiter(host: str, limit: int, per_ms: int) -> Limiter:
    """One limiter a host and rate for the whole process."""
    return Limiter(Rate(limit, per_ms))


class _Wire(requests.Session):
    """`requests.Session` below the cache: sends, follows redirects, retries, attaches the secret to its own hosts."""

    source: str
    settings_: Settings
    credential: Credential | None
    hosts: frozenset[str]
    rate: tuple[int, float]
    licence: Licence
    grant: Grant | None = None
    grant_sought: bool = False
    _jar: RequestsCookieJar

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send with retries and follow redirects; each hop decides anew whether the secret belongs to its host."""
        follow = kwargs.pop("allow_redirects", True)
        response = self._retried(request)
        return self._followed(request, response) if follow and response.is_redirect else response

    def _followed(self, request: requests.PreparedRequest, response: requests.Response) -> requests.Response:
        problem = ""
        try:
            *before, last = self.resolve_redirects(response, request)
            last.history = [response, *before]
            return last
        except requests.RequestException as error:
            problem = redact(f"{type(error).__name__}: {error}")
        raise SourceError(f"{self.source}: {_shown(request)} redirects without end or nowhere ({problem})")

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Refuse redirects that would carry a secret away or drop encryption."""
        old, new = urlsplit(response.request.url or ""), urlsplit(prepared_request.url or "")
        if leaks(prepared_request.url or ""):
            raise SourceError(
                f"{self.source}: {old.hostname} redirects to an address that contains the secret; refused"
            )
        if old.scheme == "https" and new.scheme != "https":
            raise SourceError(f"{self.source}: {old.hostname} redirects from https to {new.scheme}; refused")
        if old.netloc != new.netloc:
            prepared_request.headers.pop("Authorization", None)

    def _retried(self, request: requests.PreparedRequest, *, stream: bool = False) -> requests.Response:
        limit, per = self.rate
        limiter = _limiter(urlsplit(request.url or "").netloc, limit, round(per * 1000))

        def attempt() -> requests.Response:
            limiter.try_acquire(self.source)
            return self._once(request, stream=stream)

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.settings_.attempts), wait=self._wait, sleep=time.sleep, reraise=True,
            retry=tenacity.retry_if_exception_type(_Again),
        )  # fmt: skip
        problem = ""
        try:
            return self._judged(retrying(attempt))
        except _Again as error:
            problem = redact(str(error))
        raise SourceError(
            f"{self.source}: {_shown(request)} failed after {self.settings_.attempts} attempts: {problem}"
        )

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Retry-After where given, else exponential back-off; both with jitter so that clients spread out."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Again) and error.wait is not None:
            return error.wait * random.uniform(1.0, 1.1)
        return min(self.settings_.longest_backoff, 0.5 * 2**state.attempt_number) * random.uniform(0.5, 1.0)

    def _once(self, request: requests.PreparedRequest, *, stream: bool) -> requests.Response:
        """One attempt with the secret; a login that ran out is renewed once."""
        wire, grant = self._with_secret(request)
        response = self.exchange(wire, stream=stream)
        if response.status_code == 401 and grant is not None and grant.logged_in:
            grant.logged_in = False
            wire, _ = self._with_secret(request)
            response = self.exchange(wire, stream=stream)
        response.request = request  # what callers and the cache see is the request without its secret
        response.url = redact(response.url)
        retried = RETRIED if request.method in ("GET", "HEAD", "OPTIONS") else RETRIED_POST
        if response.status_code in retried:
            wait = _retry_after(response)
            if wait is not None and wait > LONGEST_WAIT:
                raise SourceError(f"{self.source}: {_shown(request)} asks to come back in {wait:.0f} s; try again then")
            raise _Again(f"HTTP {response.status_code} {_excerpt(response, stream)}", response, wait)
        return response

    def exchange(
        self, request: requests.PreparedRequest, *, stream: bool = False, masked: bool = True
    ) -> requests.Response:
        """The one function that touches the network: one request, one answer, read whole unless `stream`.

        Secrets that a server echoes are `masked`, but for logins, whose answer is the secret.
        """
        if self.settings_.offline:
            raise OfflineError(
                f"{self.source}: ASTROBIO_OFFLINE is on and the cache lacks {_shown(request)}; "
                "run the same command online once"
            )
        url = request.url or ""
        cookies = get_cookie_header(self._jar, request)
        if cookies:
            own = request.headers.get("Cookie")
            request.headers["Cookie"] = f"{own}; {cookies}" if own else cookies
        verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or self.verify
        problem = ""
        try:
            response = self.get_adapter(url).send(
                request, stream=True, timeout=self.settings_.timeout, verify=verify, proxies=get_environ_proxies(url)
            )
            extract_cookies_to_jar(self._jar, request, response.raw)
            return response if stream and response.ok else self._read_whole(response, request, masked)
        except requests.RequestException as error:
            problem = redact(_unreachable(error))
        raise _Again(problem)  # outside the handler: the original error, which holds the URL, is not chained

    def _read_whole(
        self, response: requests.Response, request: requests.PreparedRequest, masked: bool
    ) -> requests.Response:
        """Read the body within bounds of size and time; refuse entity declarations in XML, mask echoed secrets."""
        pieces, size, end = [], 0, time.monotonic() + self.settings_.deadline
        for piece in response.iter_content(64 * 1024):
            size += len(piece)
            if size > self.settings_.max_bytes or time.monotonic() > end:
                response.close()
                limit = (
                    f"{self.settings_.max_bytes} bytes"
                    if size > self.settings_.max_bytes
                    else f"{self.settings_.deadline} s"
                )
                raise PayloadError(f"{self.source}: answer to {_shown(request)} exceeds {limit}; narrow the query")
            pieces.append(piece)
        content = redact_bytes(b"".join(pieces)) if masked else b"".join(pieces)
        response.close()
        guard_xml(content, self.source)
        headers = {k: redact(response.headers[k]) for k in KEPT_HEADERS if k in response.headers}
        response.headers = CaseInsensitiveDict({**headers, "Content-Length": str(len(content))})
        response._content, response._content_consumed = content, True  # type: ignore[attr-defined]
        response.raw = HTTPResponse(
            body=io.BytesIO(content), headers=dict(response.headers), status=response.status_code,
            reason=response.reason, preload_content=False, request_url=redact(request.url or ""),
        )  # fmt: skip
        response.cookies = RequestsCookieJar()
        return response

    def _judged(self, response: requests.Response) -> requests.Response:
        """Refusals become errors that name credential or licence; other client errors are left to the connector."""
        if response.status_code not in (401, 403):
            return response
        text = response.text if response._content_consumed else ""  # type: ignore[attr-defined]
        where = f"{self.source}: HTTP {response.status_code} from {urlsplit(response.url).netloc}"
        if "licen" in text.lower() or "terms of use" in text.lower():
            page = self.licence.accept or self.licence.url
            raise LicenceError(f"{where}: a licence must be accepted at {page} first ({redact(_brief(text))})")
        if self.credential is None:
            raise SourceError(f"{where}: access refused ({redact(_brief(text))})")
        if self.grant is None:
            raise CredentialError(f"{where}: {self.credential.missing()}")
        origin = self.grant.secret.origin
        raise CredentialError(
            f"{where}: credential {self.credential.name!r} from {origin} was refused; "
            f"get a valid one at {self.credential.how}"
        )

    def _with_secret(self, request: requests.PreparedRequest) -> tuple[requests.PreparedRequest, Grant | None]:
        """A copy of the request with its secret, where the request goes to a host that the secret is for."""
        wire = request.copy()
        wire.headers.setdefault("User-Agent", f"astrobio/{__version__}")
        if self.credential is None or urlsplit(request.url or "").netloc not in self.hosts:
            return wire, None
        grant = self._grant()
        if grant is None:
            return wire, None
        problem = ""
        try:
            self.credential.placement.apply(wire, grant, self.exchange_login)
            return wire, grant
        except CredentialError as error:
            problem = redact(str(error))  # the answers of logins are not masked
        raise CredentialError(
            f"{self.source}: credential {self.credential.name!r} from {grant.secret.origin}: {problem}; "
            f"get a valid one at {self.credential.how}"
        )

    def exchange_login(self, request: requests.PreparedRequest) -> requests.Response:
        """One round trip of a login: not cached, its answer not masked."""
        problem = ""
        try:
            return self.exchange(request, masked=False)
        except _Again as error:
            problem = str(error)
        raise SourceError(f"{self.source}: login at {_shown(request)} failed: {problem}")

    def _grant(self) -> Grant | None:
        assert self.credential is not None
        if not self.grant_sought:
            secret: Secret | None = find_secret(self.credential, self.settings_.secrets)
            self.grant, self.grant_sought = (Grant(secret) if secret else None), True
        if self.grant is None and self.credential.required and not self.settings_.offline:
            raise CredentialError(f"{self.source}: {self.credential.missing()}")
        return self.grant


class Session(CacheMixin, _Wire):
    """What connectors hold, and what pyvo, pystac-client and the OAI-PMH client are given: a cached session."""

    def __init__(
        self, source: str, settings: Settings, *, hosts: frozenset[str] = frozenset(), licence: Licence,
        credential: Credential | None = None, rate: tuple[int, float] = (5, 1.0),
    ) -> None:  # fmt: skip
        suffix = f"-{credential.name}" if credential else ""
        super().__init__(
            settings.cache_dir / source / "answers", backend="filesystem", serializer="json", decode_content=False,
            stale_if_error=settings.offline, expire_after=settings.expire_after,
            allowable_methods=("GET", "HEAD", "POST"), allowable_codes=(200, 206),
            match_headers=("Accept", "CMR-Search-After", "Range"),
            key_fn=lambda *args, **kwargs: create_key(*args, **kwargs) + suffix,
        )  # fmt: skip
        self.source, self.settings_, self.hosts = source, settings, hosts
        self.credential, self.rate, self.licence = credential, rate, licence
        self.trust_env = False  # requests would put a netrc entry in the place of an explicit header
        self._jar = RequestsCookieJar()
        self.max_redirects = 10
        self.last_from_cache = False

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send through the cache, and remember whether the answer came from it."""
        response = super().send(request, **kwargs)
        self.last_from_cache = bool(getattr(response, "from_cache", False))
        return response

    def fetch(self, request: Request, *, fresh: bool = False, absent: bool = False) -> requests.Response:
        """Send one request; from the cache where it holds the answer, unless `fresh`. With `absent`, "not found" is an
        answer like others.

        Raises:
            SourceError: the database cannot be reached, or answers with an error.
        """
        prepared = self.prepare_request(request.plain())
        response = _Wire.send(self, prepared) if fresh else self.send(prepared)
        if response.status_code >= 400 and not (absent and response.status_code == 404):
            brief = redact(_brief(response.text))
            raise SourceError(f"{self.source}: HTTP {response.status_code} to {_shown(prepared)}: {brief}")
        return response

    def open_stream(self, request: Request) -> requests.Response:
        """Send one request past the cache and leave the body unread, for downloads; redirects are followed."""
        prepared = self.prepare_request(request.plain())
        for _ in range(self.max_redirects):
            response = self._retried(prepared, stream=True)
            if not response.is_redirect:
                return response
            target = prepared.copy()
            target.url = requests.utils.requote_uri(urljoin(prepared.url or "", response.headers["Location"]))
            response.close()
            self.rebuild_auth(target, response)
            prepared = target
        raise SourceError(f"{self.source}: more than {self.max_redirects} redirects from {_shown(prepared)}")


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that a server asks to wait, given as a number or as a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _excerpt(response: requests.Response, stream: bool) -> str:
    return "" if stream else redact(_brief(response.text))


def _unreachable(error: requests.RequestException) -> str:
    """What went wrong below HTTP, without the objects that urllib3 names and without the URL, which is named anyway."""
    inner = getattr(error.args[0], "reason", error) if error.args else error
    text = re.sub(r"^\(?<?[\w.]*Connection\w*[(\s].*?[)>][,:] ", "", str(inner))
    return f"{type(error).__name__}: {text}"


def _brief(text: str) -> str:
    """The first 200 characters of an answer, on one line; of a page or an XML document, what a person would read."""
    if text.lstrip()[:1] == "<":
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text[:20_000])
    return " ".join(html.unescape(text).split())[:200]


def _shown(request: requests.PreparedRequest) -> str:
    return redact(f"{request.method} {request.url}")
