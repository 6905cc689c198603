"""Tokens, policy and allowlists."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from codesous.runtime.v1.version_config_pb2 import VersionConfig
from codesous.type.v1.principal_pb2 import Principal
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cs_core.clock import ManualClock
from cs_core.config import IamSettings
from cs_core.errors import AuthenticationError, AuthorizationError, UnavailableError, ValidationError
from cs_core.iam.allow import TriggerKind, check_allowlist
from cs_core.iam.dev_issuer import DevIssuer
from cs_core.iam.jwks import KeySet
from cs_core.iam.policy import Policy
from cs_core.iam.tokens import TokenVerifier

TENANT = "t_alpha0"


class Identity:
    """An issuer, and a verifier of its tokens."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(datetime.now(UTC))
        self.issuer = DevIssuer(folder)
        self.issuer.ensure()
        self.settings = IamSettings(jwks_url=self.issuer.jwks_path.as_uri())
        keys = KeySet(self.settings.jwks_url, self.settings.jwks_refresh, self.clock)
        self.verifier = TokenVerifier(self.settings, keys, self.clock)
        self.folder = folder

    def sign(self, claims: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> str:
        """A token with these claims over good ones; None takes a claim away."""
        now = datetime.now(UTC)
        good = {
            "iss": self.settings.issuer,
            "aud": self.settings.audience,
            "sub": "ada",
            "tid": TENANT,
            "roles": ["admin"],
            "exp": now + timedelta(hours=1),
        }
        merged = {name: value for name, value in {**good, **claims}.items() if value is not None}
        key = load_pem_private_key((self.folder / "key.pem").read_bytes(), None)
        kid = json.loads(self.issuer.jwks_path.read_text())["keys"][0]["kid"]
        return jwt.encode(merged, key, algorithm="RS256", headers={"kid": kid, **(headers or {})})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("identity")


@pytest.fixture
def identity(folder: Path) -> Identity:
    return Identity(folder)


async def test_a_good_token_becomes_a_principal(identity: Identity) -> None:
    token = identity.sign({"role": "caller", "roles": ["admin", "caller"], "scope": "cs:function:* cs:alias:*"})
    principal = await identity.verifier.verify(token)
    assert principal == Principal(
        subject="ada", tenant=TENANT, roles=["caller", "admin"], scopes=["cs:function:*", "cs:alias:*"]
    )


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "other"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"tid": None},
        {"tid": "alpha"},
        {"tid": ["t_alpha0"]},
        {"roles": {"a": 1}},
        {"roles": [1]},
        {"roles": ["x" * 257]},
        {"roles": [f"r{n}" for n in range(65)]},
        {"scope": ["a"]},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 99_999_999_999},
    ],
    ids=str,
)
async def test_odd_claims_are_refused(identity: Identity, claims: dict[str, Any]) -> None:
    # Signed by hand: the library refuses to write some of these.
    with pytest.raises(AuthenticationError) as caught:
        await identity.verifier.verify(identity.sign(claims))
    assert caught.value.reason == "CS_AUTHN_TOKEN_INVALID"


async def test_an_expired_token_says_so(identity: Identity) -> None:
    with pytest.raises(AuthenticationError) as caught:
        await identity.verifier.verify(identity.sign({"exp": datetime.now(UTC) - timedelta(minutes=1)}))
    assert caught.value.reason == "CS_AUTHN_TOKEN_EXPIRED"


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_only_rs256_is_believed(identity: Identity, algorithm: str) -> None:
    """The public key as the secret of an HMAC is the old trick; made by hand, since the library refuses to."""
    kid = json.loads(identity.issuer.jwks_path.read_text())["keys"][0]["kid"]
    claims = {"iss": identity.settings.issuer, "aud": identity.settings.audience, "sub": "a", "tid": TENANT}
    parts = [{"alg": algorithm, "typ": "JWT", "kid": kid}, {**claims, "exp": 9_999_999_999}]
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    secret = identity.issuer.jwks_path.read_bytes()
    signature = hmac.digest(secret, signed, "sha256") if algorithm == "HS256" else b""
    token = (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()
    with pytest.raises(AuthenticationError, match="algorithm is not RS256"):
        await identity.verifier.verify(token)


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "x" * 20_000, "é.é.é", "\0"])
async def test_what_is_no_token_is_refused(identity: Identity, token: str) -> None:
    with pytest.raises(AuthenticationError):
        await identity.verifier.verify(token)


async def test_an_unknown_key_is_refused_and_fetches_at_most_once_per_interval(identity: Identity) -> None:
    reads = 0
    keys = KeySet(identity.settings.jwks_url, 60.0, identity.clock)
    read = keys._read

    async def counted() -> bytes:
        nonlocal reads
        reads += 1
        return await read()

    keys._read = counted  # type: ignore[method-assign]
    verifier = TokenVerifier(identity.settings, keys, identity.clock)
    for number in range(5):
        with pytest.raises(AuthenticationError):
            await verifier.verify(identity.sign({}, {"kid": f"unknown{number}"}))
    assert reads == 1
    identity.clock.advance(timedelta(seconds=61))
    with pytest.raises(AuthenticationError):
        await verifier.verify(identity.sign({}, {"kid": "unknown"}))
    assert reads == 2


async def test_a_remembered_token_is_forgotten_when_it_expires(identity: Identity) -> None:
    token = identity.sign({"exp": datetime.now(UTC) + timedelta(minutes=1)})
    await identity.verifier.verify(token)
    assert identity.verifier.remembered(token) is not None
    identity.clock.advance(timedelta(minutes=2))
    assert identity.verifier.remembered(token) is None


async def test_without_keys_the_caller_may_try_again(tmp_path: Path, identity: Identity) -> None:
    settings = IamSettings(jwks_url=(tmp_path / "nowhere.json").as_uri())
    verifier = TokenVerifier(settings, KeySet(settings.jwks_url, 60.0, identity.clock), identity.clock)
    with pytest.raises(UnavailableError) as caught:
        await verifier.verify(identity.sign({}))
    assert caught.value.reason == "CS_AUTHN_UNAVAILABLE"


def test_the_private_key_is_its_owners(identity: Identity) -> None:
    assert (identity.folder / "key.pem").stat().st_mode & 0o777 == 0o600


def test_the_issuer_checks_what_it_signs(identity: Identity) -> None:
    with pytest.raises(ValidationError):
        identity.issuer.mint("nope", ["admin"])
    with pytest.raises(ValidationError):
        identity.issuer.mint(TENANT, [""])


@pytest.mark.parametrize(
    ("roles", "scopes", "action", "allowed"),
    [
        (["admin"], [], "cs:function:publish", True),
        (["admin"], [], "cs:alias:set", True),
        (["viewer"], [], "cs:function:read", True),
        (["viewer"], [], "cs:function:publish", False),
        (["developer"], [], "cs:function:publish", True),
        (["developer"], [], "cs:mutation:read", False),
        ([], [], "cs:function:invoke", True),
        ([], [], "cs:function:read", False),
        (["unheard-of"], [], "cs:function:read", False),
        (["admin"], ["cs:function:read"], "cs:function:read", True),
        (["admin"], ["cs:function:read"], "cs:function:publish", False),
        (["viewer"], ["cs:*"], "cs:function:publish", False),
    ],
)
def test_policy(roles: list[str], scopes: list[str], action: str, allowed: bool) -> None:
    policy = Policy(IamSettings().role_actions)
    principal = Principal(subject="a", tenant=TENANT, roles=roles, scopes=scopes)
    if allowed:
        policy.check(principal, action, "cs:x")
        return
    with pytest.raises(AuthorizationError) as caught:
        policy.check(principal, action, "cs:x")
    assert caught.value.metadata == {"action": action}


@pytest.mark.parametrize("kind", ["http", "schedule", "cadence"])
def test_a_list_lets_in_its_roles_and_an_empty_one_nobody(kind: TriggerKind) -> None:
    config = VersionConfig(**{f"invoke_{kind}_roles": ["billing", "ops"]})  # type: ignore[arg-type]
    check_allowlist(config, kind, Principal(roles=["ops"]))
    with pytest.raises(AuthorizationError) as caught:
        check_allowlist(config, kind, Principal(roles=["admin"]))
    assert caught.value.reason == "CS_AUTHZ_ROLE_MISSING"
    with pytest.raises(AuthorizationError):
        check_allowlist(VersionConfig(), kind, Principal(roles=["admin", ""]))
