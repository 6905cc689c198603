"""`cs auth can`: what a caller may do, and the entry of the policy that says so."""

from __future__ import annotations

from tests.acceptance.conftest import OTHER_TENANT, TENANT, Mesh


def test_a_caller_asks_what_it_may_do_and_why(mesh: Mesh) -> None:
    yes = mesh.cs("auth", "can", "cs:function:publish", "default:function/greet").json
    assert (yes["allowed"], yes["role"], yes["entry"]) == (True, "admin", "cs:*")
    no = mesh.cs("auth", "can", "cs:function:publish", "default:function/greet", "--role", "viewer", expect=1).json
    assert (no["allowed"], no["resource"]) == (False, f"cs:{TENANT}:default:function/greet")
    assert no["reason"] == "no role of the caller (viewer) allows cs:function:publish"
    assert {"role": "viewer", "entry": "cs:*:read", "action_fits": False, "resource_fits": True} in no["entries"]
    unheard = mesh.cs("auth", "can", "cs:function:read", "--role", "billing", expect=1).json
    assert unheard["unknown_roles"] == ["billing"]
    everyone = mesh.cs("auth", "can", "cs:function:invoke", "--role", "billing").json
    assert (everyone["role"], everyone["entry"]) == ("*", "cs:function:invoke")


def test_a_token_is_asked_about_with_its_scopes(mesh: Mesh) -> None:
    minted = ("auth", "dev-token", "--tenant", TENANT, "--role", "admin")
    narrow = mesh.cs(*minted, "--scope", "cs:function:read", "--scope", "cs:access:explain").out.strip()
    assert mesh.cs("auth", "can", "cs:function:read", "--token", narrow).json["scope"] == "cs:function:read"
    told = mesh.cs("auth", "can", "cs:function:publish", "--token", narrow, expect=1).json
    assert "no scope of the token fits cs:function:publish" in told["reason"]


def test_a_token_that_is_refused_says_so_itself(mesh: Mesh) -> None:
    stranger = mesh.token(OTHER_TENANT, "admin")
    done = mesh.cs("auth", "can", "cs:function:read", "--token", stranger, expect=1)
    assert done.error["reason"] == "CS_AUTHZ_TENANT_MISMATCH"
    bad = mesh.cs("auth", "can", "cs:function:*", expect=1)
    assert bad.error["violations"][0]["field"] == "action"
