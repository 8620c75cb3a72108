"""How a secret goes into a request: header, query, form, cookie, basic, login form or OAuth 2.

Placements run below the cache: what the cache, the logs and the callers see is the request without its secret.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr
from requests import PreparedRequest, Request, Response
from requests.auth import HTTPBasicAuth

from astrobio.sources.errors import CredentialError
from astrobio.sources.redact import redact, register

if TYPE_CHECKING:
    from astrobio.sources.auth import Secret


class Exchange(Protocol):
    """One unauthenticated, uncached round trip (`astrobio.sources.client.Session.exchange_login`)."""

    def __call__(self, request: PreparedRequest) -> Response: ...


@dataclass
class Grant:
    """What one session holds after logging in: an access token or cookies, in memory only."""

    secret: Secret
    token: SecretStr | None = None
    expires: float = 0.0
    logged_in: bool = False
    refresh: SecretStr | None = None

    @property
    def valid(self) -> bool:
        """Whether the login still holds (half a minute of margin)."""
        return self.logged_in and (self.expires == 0.0 or time.monotonic() < self.expires - 30)


class Placement(Protocol):
    """Adds the secret to a prepared request."""

    @property
    def interactive(self) -> bool: ...

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None: ...


@dataclass(frozen=True)
class Header:
    """`Authorization: Bearer …`, or any other header and template."""

    name: str = "Authorization"
    template: str = "Bearer {secret}"
    interactive = False

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        request.headers[self.name] = self.template.format(secret=grant.secret.value.get_secret_value())


@dataclass(frozen=True)
class Query:
    """`?name=…` in the URL; `user_name` adds the user name (an e-mail address for NCBI)."""

    name: str
    interactive = False

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        parts = urlsplit(request.url or "")
        pairs = [*parse_qsl(parts.query, keep_blank_values=True), (self.name, grant.secret.value.get_secret_value())]
        request.url = urlunsplit(parts._replace(query=urlencode(pairs)))


@dataclass(frozen=True)
class Path:
    """The secret as a path segment: `{secret}` in the URL (HITRAN's interface)."""

    marker: str = "SECRET-GOES-HERE"
    interactive = False

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        request.url = (request.url or "").replace(self.marker, grant.secret.value.get_secret_value())


@dataclass(frozen=True)
class Form:
    """`name=…` in a URL-encoded form body."""

    name: str
    interactive = False

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body or "")
        pairs = [*parse_qsl(body, keep_blank_values=True), (self.name, grant.secret.value.get_secret_value())]
        request.prepare_body(dict(pairs), None)


@dataclass(frozen=True)
class Cookie:
    """A cookie of the database's own host."""

    name: str
    interactive = False

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        _add_cookie(request, f"{self.name}={grant.secret.value.get_secret_value()}")


@dataclass(frozen=True)
class Basic:
    """User name and password, HTTP Basic."""

    interactive = False

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        HTTPBasicAuth(grant.secret.user, grant.secret.value.get_secret_value())(request)


@dataclass(frozen=True)
class Login:
    """A login form posted once per session; the session's cookies do the rest (BioCyc)."""

    url: str
    user_field: str = "email"
    password_field: str = "password"
    interactive = False

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        if not grant.valid:
            form = {self.user_field: grant.secret.user, self.password_field: grant.secret.value.get_secret_value()}
            response = exchange(Request("POST", self.url, data=form).prepare())
            if response.status_code >= 400:
                raise CredentialError(f"login at {self.url} refused with HTTP {response.status_code}")
            grant.logged_in = True


@dataclass(frozen=True)
class TokenOrPassword:
    """`Authorization: Bearer …`. Where the secret has a user name (it came from netrc), it is a password, for which the
    token is asked at `token_url` once per session (NASA's Earthdata login)."""

    token_url: str
    token_field: str = "access_token"
    interactive = False

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        token = grant.secret.value
        if grant.secret.user:
            if not grant.valid:
                self._log_in(grant, exchange)
            assert grant.token is not None
            token = grant.token
        request.headers["Authorization"] = f"Bearer {token.get_secret_value()}"

    def _log_in(self, grant: Grant, exchange: Exchange) -> None:
        user = (grant.secret.user, grant.secret.value.get_secret_value())
        data = _token_answer(exchange(Request("POST", self.token_url, auth=user).prepare()), self.token_url)
        if not data.get(self.token_field):
            raise CredentialError(redact(f"{self.token_url}: refused ({data.get('error', 'no token in the answer')})"))
        grant.token, grant.logged_in = SecretStr(str(data[self.token_field])), True
        register(grant.token.get_secret_value())


@dataclass(frozen=True)
class OAuth:
    """OAuth 2: `grant` is "refresh_token" (the secret is a refresh token, first got by the device flow) or "password"
    (the secret is user and password, ESO). The access token lives in memory only. `client_secret` is the application's
    own, sent as HTTP Basic (RFC 6749, 2.3.1)."""

    token_url: str
    client_id: str
    grant: str = "refresh_token"
    device_url: str = ""
    scope: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    token_field: str = "access_token"
    client_secret: str = field(default="", repr=False)

    @property
    def interactive(self) -> bool:
        """Whether `auth set` runs the device flow rather than asking for a secret."""
        return bool(self.device_url)

    def apply(self, request: PreparedRequest, grant: Grant, exchange: Exchange) -> None:
        if not grant.valid:
            self._fetch_token(grant, exchange)
        assert grant.token is not None
        request.headers["Authorization"] = f"Bearer {grant.token.get_secret_value()}"

    def _post(self, url: str, form: dict[str, str], exchange: Exchange) -> dict[str, Any]:
        auth = (self.client_id, self.client_secret) if self.client_secret else None
        return _token_answer(exchange(Request("POST", url, data=form, auth=auth).prepare()), url)

    def _fetch_token(self, grant: Grant, exchange: Exchange) -> None:
        plain = (grant.refresh or grant.secret.value).get_secret_value()
        form = {"grant_type": self.grant, "client_id": self.client_id, **self.extra}
        form |= {"scope": self.scope} if self.scope else {}
        form |= (
            {"username": grant.secret.user, "password": plain} if self.grant == "password" else {"refresh_token": plain}
        )
        data = self._post(self.token_url, form, exchange)
        if self.token_field not in data:
            raise CredentialError(redact(f"{self.token_url}: refused ({data.get('error', 'no token in the answer')})"))
        grant.token, grant.logged_in = SecretStr(str(data[self.token_field])), True
        grant.expires = time.monotonic() + float(data["expires_in"]) if "expires_in" in data else 0.0
        register(grant.token.get_secret_value())
        if self.grant == "refresh_token" and data.get("refresh_token"):  # rotated
            grant.refresh = SecretStr(str(data["refresh_token"]))
            register(grant.refresh.get_secret_value())

    def device_login(self, exchange: Exchange, notify: Any, *, patience: float = 900.0) -> SecretStr:
        """Run the device flow (RFC 8628): `notify(page, code)` tells the person; returns the refresh token."""
        form = {"client_id": self.client_id} | ({"scope": self.scope} if self.scope else {})
        data = self._post(self.device_url, form, exchange)
        if "device_code" not in data:
            raise CredentialError(
                redact(f"{self.device_url}: refused ({data.get('error', 'no device code in the answer')})")
            )
        register(str(data["device_code"]))
        notify(data.get("verification_uri_complete") or data.get("verification_uri", ""), data.get("user_code", ""))
        interval, end = (
            float(data.get("interval", 5)),
            time.monotonic() + min(patience, float(data.get("expires_in", 900))),
        )
        poll = {"client_id": self.client_id, "device_code": str(data["device_code"])}
        poll["grant_type"] = "urn:ietf:params:oauth:grant-type:device_code"
        while time.monotonic() < end:
            time.sleep(interval)
            answer = self._post(self.token_url, poll, exchange)
            if "refresh_token" in answer:
                register(str(answer["refresh_token"]), str(answer.get(self.token_field, "")))
                return SecretStr(str(answer["refresh_token"]))
            if answer.get("error") not in ("authorization_pending", "slow_down"):
                reason = redact(str(answer.get("error", "no refresh token")))
                raise CredentialError(f"{self.token_url}: device login refused ({reason})")
            interval += 5.0 if answer["error"] == "slow_down" else 0.0
        raise CredentialError(f"{self.device_url}: the device code ran out before it was confirmed; start again")


def _token_answer(response: Response, url: str) -> dict[str, Any]:
    try:
        data = response.json()
    except ValueError:
        raise CredentialError(f"{url}: expected a JSON token answer, found HTTP {response.status_code}") from None
    if not isinstance(data, dict):
        raise CredentialError(redact(f"{url}: expected a JSON object, found {type(data).__name__}"))
    return data


def _add_cookie(request: PreparedRequest, pair: str) -> None:
    before = request.headers.get("Cookie")
    request.headers["Cookie"] = f"{before}; {pair}" if before else pair
