"""Logins whose tokens are renewed before they end: by refresh token, by a service's secret, by Tikti."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from cs_cli.__main__ import run
from cs_cli.failure import CommandError
from cs_cli.login import Login, load, login_file, save
from cs_cli.renewal import Renewal, check_renewal_url, ends_at, renew
from tests.support.tikti import API_KEY, Tikti, User

API = "http://127.0.0.1:8080"
TOKEN_PATH, EXCHANGE = "/oauth/token", "/v1/accounts/token/exchange"


@pytest.fixture
def tikti() -> Iterator[Tikti]:
    tikti = Tikti()
    yield tikti
    tikti.close()


@pytest.fixture
def ada(tikti: Tikti) -> User:
    return tikti.add(
        User("ada@example.com", "correct horse", "t_alpha0", scopes=("cs:function:read", "role:developer"))
    )


@pytest.fixture
def refreshing(tikti: Tikti, ada: User, home: Path) -> Login:
    """A login whose token ends in a moment."""
    tikti.refresh_tokens["first"] = ada
    token = tikti.access_token(ada, ada.scopes, exp=int(time.time()) + 5)
    login = Login("t_alpha0", token, API, Renewal("refresh_token", tikti.url + TOKEN_PATH, refresh_token="first"))
    save(login)
    return login


def test_a_token_that_is_about_to_end_is_renewed_and_saved_for_its_owner_alone(tikti: Tikti, refreshing: Login) -> None:
    renewed = load()
    assert renewed.token != refreshing.token
    ends = ends_at(renewed.token)
    assert ends is not None
    assert ends > time.time() + 600
    # The refresh token served once; the one that came with the answer serves next time.
    assert renewed.renewal is not None
    assert renewed.renewal.refresh_token in tikti.refresh_tokens
    for path in login_file().parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert load() == renewed
    assert tikti.asked[TOKEN_PATH] == 1


def test_a_token_with_time_left_is_not_renewed(tikti: Tikti, ada: User, home: Path) -> None:
    renewal = Renewal("refresh_token", tikti.url + TOKEN_PATH, refresh_token="first")
    for token in (tikti.access_token(ada, ()), "opaque"):
        save(Login("t_alpha0", token, API, renewal))
        assert load().token == token
    assert tikti.asked[TOKEN_PATH] == 0


def test_commands_at_once_renew_once(tikti: Tikti, refreshing: Login) -> None:
    tikti.delay = 0.1
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(load().token)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert tikti.asked[TOKEN_PATH] == 1


def test_a_token_from_the_environment_is_used_as_it_is(
    tikti: Tikti, refreshing: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE_SOUS_TOKEN", refreshing.token)
    assert load().token == refreshing.token
    assert tikti.asked[TOKEN_PATH] == 0


def test_the_environment_is_not_saved_with_a_renewed_token(
    tikti: Tikti, refreshing: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE_SOUS_API_URL", "http://127.0.0.1:9999")
    assert load().api_url == "http://127.0.0.1:9999"
    monkeypatch.delenv("CODE_SOUS_API_URL")
    assert load().api_url == API


def test_an_outage_costs_nothing_while_the_token_lasts_and_says_so_when_it_has_ended(
    tikti: Tikti, ada: User, refreshing: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    tikti.fail[TOKEN_PATH] = 503
    assert load().token == refreshing.token
    assert "could not be renewed yet" in capsys.readouterr().err
    ended = tikti.access_token(ada, (), exp=int(time.time()) - 1)
    save(Login("t_alpha0", ended, API, refreshing.renewal))
    with pytest.raises(CommandError) as caught:
        load()
    assert caught.value.reason == "CS_CLI_LOGIN_ENDED"
    assert "log in again" in caught.value.message


def test_a_service_logs_in_with_its_own_secret_and_gets_its_own_scopes(
    tikti: Tikti, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    robot = User("", "", "t_alpha0", scopes=("cs:function:publish", "cs:function:read"), id="svc-deployer")
    tikti.clients["deployer"] = ("the-secret", robot)
    secret = home / "secret"
    secret.write_text("the-secret\n")
    command = [
        "auth",
        "login",
        "--tenant",
        "t_alpha0",
        "--token-url",
        tikti.url + TOKEN_PATH,
        "--client-id",
        "deployer",
    ]
    assert run([*command, "--client-secret-file", str(secret), "--scope", "cs:function:publish"]) == 0
    assert "the-secret" not in capsys.readouterr().out
    claims = jwt.decode(load().token, options={"verify_signature": False})
    assert (claims["sub"], claims["scope"]) == ("svc-deployer", "cs:function:publish")
    # The next token comes by the same way, with the same scope.
    saved = load()
    assert saved.renewal is not None
    token, _ = renew(saved.renewal, "t_alpha0")
    assert jwt.decode(token, options={"verify_signature": False})["scope"] == "cs:function:publish"
    secret.write_text("wrong")
    assert run([*command, "--client-secret-file", str(secret)]) == 1
    assert run([*command, "--client-secret-file", str(secret.with_name("nowhere"))]) == 1
    assert run(command) == 1


def test_somebody_signs_in_at_tikti_and_the_identity_token_is_exchanged_while_it_lasts(
    tikti: Tikti, ada: User, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "key").write_text(API_KEY)
    (home / "password").write_text(ada.password)
    command = ["auth", "login", "--tenant", "t_alpha0", "--tikti-url", tikti.url, "--email", ada.email]
    command += ["--api-key-file", str(home / "key"), "--password-file", str(home / "password")]
    assert run([*command, "--scope", "role:developer"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["renewed_by"] == "tikti"
    assert ada.password not in login_file().read_text()
    saved = load()
    claims = jwt.decode(saved.token, options={"verify_signature": False})
    assert (claims["sub"], claims["tid"], claims["scope"]) == (ada.id, "t_alpha0", "role:developer")
    assert saved.renewal is not None
    save(Login("t_alpha0", tikti.access_token(ada, (), exp=int(time.time()) + 1), API, saved.renewal))
    assert load().token != saved.token
    assert tikti.asked[EXCHANGE] == 2
    (home / "password").write_text("wrong")
    assert run(command) == 1
    assert "invalid credentials" in capsys.readouterr().err


def test_whoami_tells_what_renews_and_shows_no_secret(
    refreshing: Login, tikti: Tikti, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["auth", "whoami", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["renewed_by"] == "refresh_token"
    assert json.loads(out)["token_ends"].endswith("Z")
    for secret in (*tikti.refresh_tokens, load().token):
        assert secret not in out
    assert run(["auth", "logout"]) == 0
    assert not login_file().exists()
    assert run(["auth", "logout"]) == 0


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://issuer.example/oauth/token", True),
        ("http://127.0.0.1:8080/oauth/token", True),
        ("http://localhost/token", True),
        ("http://[::1]:99/token", True),
        ("http://issuer.example/token", False),
        ("http://127.0.0.1.evil.example/token", False),
        ("https://user:pass@issuer.example/", False),
        ("https://issuer.example/?a=b", False),
        ("ftp://issuer.example/", False),
        ("https://", False),
        ("", False),
        ("http://[::1", False),
        ("https://issuer.example:99999/", False),
    ],
)
def test_secrets_go_to_tls_or_to_this_machine(url: str, fine: bool) -> None:
    if fine:
        check_renewal_url(url)
        return
    with pytest.raises(CommandError):
        check_renewal_url(url)


@pytest.mark.parametrize(
    "renewal", [{}, {"kind": "x"}, "x", [], {"kind": "tikti", "url": 7}, {"kind": "tikti", "url": "u", "more": "x"}]
)
def test_a_login_file_with_an_odd_renewal_says_so(home: Path, renewal: Any) -> None:
    save(Login("t_alpha0", "token", API))
    document = json.loads(login_file().read_text())
    login_file().write_text(json.dumps({**document, "renewal": renewal}))
    with pytest.raises(CommandError) as caught:
        load()
    assert caught.value.reason in ("CS_CLI_BAD_LOGIN", "CS_VALIDATION_FIELD")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"not json", "CS_CLI_RENEWAL"),
        ([], "CS_CLI_RENEWAL"),
        ({}, "CS_CLI_RENEWAL"),
        ({"access_token": 7}, "CS_CLI_RENEWAL"),
        ({"access_token": ""}, "CS_CLI_RENEWAL"),
        ({"access_token": "a\nb"}, "CS_VALIDATION_FIELD"),
    ],
    ids=str,
)
def test_an_odd_answer_of_the_issuer_is_told(tikti: Tikti, home: Path, answer: Any, reason: str) -> None:
    tikti.answers[TOKEN_PATH] = answer
    with pytest.raises(CommandError) as caught:
        token, renewal = renew(Renewal("refresh_token", tikti.url + TOKEN_PATH, refresh_token="x"), "t_alpha0")
        save(Login("t_alpha0", token, API, renewal))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "token", ["", "opaque", "a.b.c", "a.e30.c", "a.W10.c", "a.eyJleHAiOiJ4In0.c", "a.eyJleHAiOnRydWV9.c"]
)
def test_a_token_that_does_not_say_when_it_ends(token: str) -> None:
    assert ends_at(token) is None
