"""Allowlists, the default policy, and the development issuer."""

from __future__ import annotations

from pathlib import Path

import pytest
from codesous.runtime.v1.version_config_pb2 import VersionConfig
from codesous.type.v1.principal_pb2 import Principal

from cs_core.config import IamSettings
from cs_core.errors import AuthorizationError, ValidationError
from cs_core.iam.allow import TriggerKind, check_allowlist
from cs_core.iam.dev_issuer import DevIssuer
from cs_core.iam.policy import Policy

TENANT = "t_alpha0"


@pytest.fixture
def issuer(tmp_path: Path) -> DevIssuer:
    issuer = DevIssuer(tmp_path)
    issuer.ensure()
    return issuer


def test_the_private_key_is_its_owners(issuer: DevIssuer, tmp_path: Path) -> None:
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


def test_the_issuer_checks_what_it_signs(issuer: DevIssuer) -> None:
    with pytest.raises(ValidationError):
        issuer.mint("nope", ["admin"])
    with pytest.raises(ValidationError):
        issuer.mint(TENANT, [""])


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
