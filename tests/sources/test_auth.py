"""Where secrets are looked for, in which order, and what makes one unusable."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import keyring
import keyring.backend
import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Response as WebResponse

from astrobio.errors import InputError
from astrobio.sources import ALL_SOURCES, CredentialError, fetch
from astrobio.sources.auth import Credential, Secret, credentials_file, find_secret, store_secret
from astrobio.sources.commands import auth_status, set_secret
from astrobio.sources.placements import Basic, Header, Login, OAuth

CREDENTIAL = Credential(
    "planted", Header(), "https://example.org/key", env=("PLANTED_TOKEN",), machine="api.example.org"
)
CDS = ALL_SOURCES["copernicus-cds"].credential


class Drawer(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


@pytest.fixture
def drawer(monkeypatch: pytest.MonkeyPatch) -> Drawer:
    """A working keyring for the test."""
    backend = Drawer()
    monkeypatch.setattr(keyring.core, "_keyring_backend", backend)
    return backend


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_order_is_explicit_environment_keyring_netrc_file(drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
    write(credentials_file(), json.dumps({"planted": {"user": "", "secret": "from-file"}}))
    assert (find_secret(CREDENTIAL) or pytest.fail()).value.get_secret_value() == "from-file"
    write(Path.home() / ".netrc", "machine api.example.org login me password from-netrc\n")
    found = find_secret(CREDENTIAL)
    assert found and found.value.get_secret_value() == "from-netrc" and found.user == "me" and ".netrc" in found.origin
    drawer.set_password("astrobio", "planted", "from-keyring")
    found = find_secret(CREDENTIAL)
    assert found and found.value.get_secret_value() == "from-keyring" and found.origin == "the system keyring"
    monkeypatch.setenv("PLANTED_TOKEN", "from-environment")
    found = find_secret(CREDENTIAL)
    assert found and found.origin == "environment variable PLANTED_TOKEN"
    found = find_secret(CREDENTIAL, {"planted": "from-argument"})
    assert found and found.value.get_secret_value() == "from-argument" and found.origin == "the explicit argument"


def test_nothing_found_is_none_and_says_how_to_get_one() -> None:
    assert find_secret(CREDENTIAL) is None
    assert "get one at https://example.org/key, then set PLANTED_TOKEN" in CREDENTIAL.missing()


@pytest.mark.parametrize("name", [".netrc", "credentials"])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(name: str) -> None:
    path = Path.home() / ".netrc" if name == ".netrc" else credentials_file()
    write(path, "machine api.example.org login me password from-netrc\n" if name == ".netrc" else "{}", 0o644)
    with pytest.raises(CredentialError, match=r"expected mode 0600, found 0644; run `chmod 600"):
        find_secret(CREDENTIAL)


def test_netrc_elsewhere_and_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(write(tmp_path / "my", "machine api.example.org login me password else-where\n")))
    assert (find_secret(CREDENTIAL) or pytest.fail()).value.get_secret_value() == "else-where"
    write(tmp_path / "my", "machine api.example.org colour green\n")
    with pytest.raises(CredentialError, match="expected a netrc file"):
        find_secret(CREDENTIAL)


def test_the_copernicus_file_is_read() -> None:
    assert CDS is not None
    write(Path.home() / ".cdsapirc", "url: https://cds.climate.copernicus.eu/api\nkey: 01234567-89ab\n")
    found = find_secret(CDS)
    assert found and found.value.get_secret_value() == "01234567-89ab" and ".cdsapirc" in found.origin


@pytest.mark.parametrize("text", ["not json", "[1]"])
def test_a_broken_credentials_file_is_named(text: str) -> None:
    write(credentials_file(), text)
    with pytest.raises(CredentialError, match=r"credentials\.json: expected"):
        find_secret(CREDENTIAL)


@pytest.mark.parametrize("value", ["", "abc", "with\nline break", "with\x00nul"])
def test_unusable_secrets_are_refused(value: str) -> None:
    with pytest.raises(CredentialError, match="expected a secret of at least"):
        Secret(SecretStr(value), "a test")


def test_secrets_do_not_show_in_representations() -> None:
    secret = Secret(SecretStr("never-to-be-shown"), "a test", "me")
    assert "never-to-be-shown" not in f"{secret} {secret!r}"


def test_storing_goes_to_the_keyring_else_to_a_private_file(drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_secret("planted", SecretStr("kept-secret"), "me") == "the system keyring"
    found = find_secret(CREDENTIAL)
    assert found and (found.user, found.value.get_secret_value()) == ("me", "kept-secret")
    monkeypatch.setattr(keyring.core, "_keyring_backend", keyring.backends.fail.Keyring())
    assert "credentials.json" in store_secret("planted", SecretStr("filed-secret"))
    store_secret("other", SecretStr("other-secret"))
    assert stat.S_IMODE(credentials_file().stat().st_mode) == 0o600
    assert set(json.loads(credentials_file().read_text())) == {"planted", "other"}
    found = find_secret(CREDENTIAL)
    assert found and found.value.get_secret_value() == "filed-secret"


def test_status_says_where_each_credential_was_found_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADS_API_TOKEN", "token-of-status")
    rows = {row["name"]: row for row in json.loads(auth_status(as_json=True))}
    assert rows["ads"]["state"] == "required, from environment variable ADS_API_TOKEN"
    assert rows["cds"]["state"] == "required, missing" and rows["cds"]["how"].startswith("https://cds.climate")
    assert rows["earthdata"]["for"] == "nasa-cmr, ges-disc"
    assert "token-of-status" not in auth_status(as_json=False) + json.dumps(rows)


def test_set_asks_stores_and_never_repeats_the_secret() -> None:
    said = set_secret("ads", "", lambda text: "typed-secret-1", print)
    assert "stored ads in file" in said and "typed-secret-1" not in said
    assert (find_secret(ALL_SOURCES["ads"].credential) or pytest.fail()).value.get_secret_value() == "typed-secret-1"
    with pytest.raises(InputError, match="pass --user NAME"):
        set_secret("eso", "", lambda text: "typed-secret-1", print)
    with pytest.raises(InputError, match="expected one of"):
        set_secret("nothing", "", lambda text: "typed-secret-1", print)


def test_a_login_is_made_once_and_its_cookie_goes_along(httpserver: HTTPServer, local, settings) -> None:
    inside = b"<common-name>L-tryptophan</common-name>"
    xml = b'<ptools-xml><Compound ID="META:TRP" frameid="TRP">' + inside + b"</Compound></ptools-xml>"
    logins = []

    def login(request):
        logins.append(request.form.to_dict())
        return WebResponse("", 200, {"Set-Cookie": "JSESSIONID=session-secret-5; Path=/"})

    httpserver.expect_request("/login", method="POST").respond_with_handler(login)
    httpserver.expect_request("/getxml", headers={"Cookie": "JSESSIONID=session-secret-5"}).respond_with_data(xml)
    credential = replace(ALL_SOURCES["biocyc"].credential, placement=Login(httpserver.url_for("/login")))
    source = local("biocyc", httpserver.url_for(""), credential=credential)
    known = replace(settings, accepted=frozenset({"biocyc"}), secrets={"biocyc": "a@b.c:pass-word-1"})
    answer = fetch(source, "META:TRP", settings=known)
    assert answer.records[0].payload["name"] == "L-tryptophan"
    assert logins == [{"email": "a@b.c", "password": "pass-word-1"}]


def test_a_login_that_ran_out_is_renewed_once(httpserver: HTTPServer, local, settings) -> None:
    tokens = iter(["first-token", "second-token"])
    httpserver.expect_request("/token").respond_with_handler(
        lambda r: WebResponse(json.dumps({"access_token": next(tokens), "expires_in": 3600}))
    )
    httpserver.expect_oneshot_request("/x", headers={"Authorization": "Bearer first-token"}).respond_with_data(
        "", status=401
    )
    httpserver.expect_request("/x", headers={"Authorization": "Bearer second-token"}).respond_with_data("fine")
    credential = Credential("planted", OAuth(httpserver.url_for("/token"), "client"), "https://example.org/key")
    source = local("arxiv", httpserver.url_for(""), credential=credential)
    with source.session(replace(settings, secrets={"planted": "refresh-token"})) as session:
        assert session.get(source.url("x")).text == "fine"


def test_the_device_flow_waits_for_the_person(httpserver: HTTPServer, local, settings, monkeypatch) -> None:
    answers = iter(
        [
            {"error": "authorization_pending"},
            {"error": "slow_down"},
            {"refresh_token": "granted-refresh", "access_token": "granted"},
        ]
    )
    device = {
        "device_code": "device-code-1",
        "user_code": "AB-CD",
        "verification_uri": "https://example.org/device",
        "interval": 0,
    }
    httpserver.expect_request("/device").respond_with_json(device)
    httpserver.expect_request("/token").respond_with_handler(lambda r: WebResponse(json.dumps(next(answers))))
    monkeypatch.setattr("astrobio.sources.placements.time.sleep", lambda seconds: None)
    placement = OAuth(httpserver.url_for("/token"), "client", device_url=httpserver.url_for("/device"))
    told = []
    with local("arxiv", httpserver.url_for("")).session(settings) as session:
        secret = placement.device_login(session.exchange_login, lambda page, code: told.append((page, code)))
    assert secret.get_secret_value() == "granted-refresh" and told == [("https://example.org/device", "AB-CD")]
    assert placement.interactive and not Basic().interactive


@pytest.mark.parametrize(
    ("answer", "message"),
    [({"error": "access_denied"}, "access_denied"), ({"error": "expired_token"}, "expired_token")],
)
def test_a_refused_device_login_says_so(answer, message, httpserver: HTTPServer, local, settings) -> None:
    httpserver.expect_request("/device").respond_with_json({"device_code": "device-code-1", "interval": 0})
    httpserver.expect_request("/token").respond_with_json(answer, status=400)
    placement = OAuth(httpserver.url_for("/token"), "client", device_url=httpserver.url_for("/device"))
    session = local("arxiv", httpserver.url_for("")).session(settings)
    with session, pytest.raises(CredentialError, match=message):
        placement.device_login(session.exchange_login, lambda page, code: None)


def earthdata(local, server: HTTPServer):
    """NASA's granule search, its login on this machine."""
    source = local("nasa-cmr", server.url_for(""))
    placement = replace(source.credential.placement, token_url=server.url_for("/token"))
    return replace(source, credential=replace(source.credential, placement=placement))


def test_a_password_in_netrc_becomes_a_token_once(httpserver: HTTPServer, local, settings) -> None:
    netrc = Path.home() / ".netrc"
    netrc.write_text("machine urs.earthdata.nasa.gov login someone password pass-word-1\n")
    netrc.chmod(0o600)
    httpserver.expect_request("/token", method="POST").respond_with_json({"access_token": "granted-token-1"})
    httpserver.expect_request("/granules.umm_json").respond_with_json({"items": [{"meta": {}, "umm": {}}]})
    source = earthdata(local, httpserver)
    with source.session(settings) as session:
        for page in ("1", "2"):
            list(source.records(f"page_num={page}", session, 5, lambda *a: None))
    assert [r.path for r, _ in httpserver.log] == ["/token", "/granules.umm_json", "/granules.umm_json"]
    assert httpserver.log[0][0].authorization.password == "pass-word-1"
    assert [r.headers["Authorization"] for r, _ in httpserver.log[1:]] == ["Bearer granted-token-1"] * 2
    with source.session(settings) as session:  # the same token again, by now masked wherever else it shows up
        list(source.records("page_num=4", session, 5, lambda *a: None))
    assert httpserver.log[-1][0].headers["Authorization"] == "Bearer granted-token-1"
    with source.session(replace(settings, secrets={"earthdata": "token-given-itself"})) as session:
        list(source.records("page_num=3", session, 5, lambda *a: None))
    assert httpserver.log[-1][0].headers["Authorization"] == "Bearer token-given-itself"


@pytest.mark.parametrize("name", ["nasa-cmr", "biocyc", "eso"])
def test_a_failing_login_says_which_credential_from_where_and_how_to_get_one(
    name: str, httpserver: HTTPServer, local, settings, monkeypatch
) -> None:
    httpserver.expect_request("/token").respond_with_json({"error": "invalid_credentials"}, status=401)
    source = earthdata(local, httpserver) if name == "nasa-cmr" else local(name, httpserver.url_for(""))
    assert source.credential is not None
    placement = source.credential.placement
    key = "url" if isinstance(placement, Login) else "token_url"
    placement = replace(placement, **{key: httpserver.url_for("/token")})
    source = replace(source, credential=replace(source.credential, placement=placement))
    netrc = Path.home() / ".netrc"
    netrc.write_text(f"machine {source.credential.machine} login someone password wrong-word-1\n")
    netrc.chmod(0o600)
    with pytest.raises(CredentialError) as caught:
        fetch(source, source.example, settings=replace(settings, accepted=frozenset({"biocyc"})))
    said = str(caught.value)
    assert f"credential {source.credential.name!r} from netrc file" in said and "wrong-word-1" not in said
    assert source.credential.how in said and ("invalid_credentials" in said or "HTTP 401" in said)
