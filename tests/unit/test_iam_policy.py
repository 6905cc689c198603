"""Roles, actions, resources, and why a decision came out as it did."""

from __future__ import annotations

import pytest
from codesous.control.v1 import schedule_service_pb2, version_service_pb2
from codesous.type.v1.principal_pb2 import Principal
from hypothesis import given
from hypothesis import strategies as st

from cs_control.access import explain_access
from cs_core.config import IamSettings, SettingsError, load_settings
from cs_core.errors import AuthorizationError, ValidationError
from cs_core.iam.access import rule_of
from cs_core.iam.grants import Grant, parse_grant
from cs_core.iam.policy import Policy

TENANT = "t_alpha0"
POLICY = Policy(
    {
        "admin": ["cs:*"],
        "payments": ["cs:function:* on cs:{tenant}:payments:function/*", "cs:*:read"],
        "nightly": ["cs:schedule:update on cs:*:*:schedule/night*"],
        "*": ["cs:function:invoke"],
    }
)


def caller(*roles: str, scopes: tuple[str, ...] = ()) -> Principal:
    return Principal(subject="ada", tenant=TENANT, roles=roles, scopes=scopes)


def allowed(principal: Principal, action: str, resource: str) -> bool:
    try:
        POLICY.check(principal, action, f"cs:{TENANT}:{resource}")
    except AuthorizationError as error:
        assert error.metadata == {"action": action}
        assert action in error.message
        return False
    return True


@pytest.mark.parametrize(
    ("role", "action", "resource", "expected"),
    [
        ("payments", "cs:function:publish", "payments:function/charge", True),
        ("payments", "cs:function:publish", "default:function/charge", False),
        ("payments", "cs:function:read", "default:function/charge", True),
        ("payments", "cs:alias:set", "payments:function/charge", False),
        ("nightly", "cs:schedule:update", "default:schedule/nightly", True),
        ("nightly", "cs:schedule:update", "default:schedule/daily", False),
        ("nightly", "cs:schedule:update", "default:function/nightly", False),
        ("nightly", "cs:function:invoke", "default:function/any", True),
        ("admin", "cs:function:publish", "default:function/any", True),
    ],
)
def test_an_entry_holds_for_its_resources(role: str, action: str, resource: str, expected: bool) -> None:
    assert allowed(caller(role), action, resource) is expected


def test_an_entry_with_the_tenant_holds_for_the_callers_own() -> None:
    grant = parse_grant("cs:function:read on cs:{tenant}:default:function/*")
    assert grant.allows_resource("cs:t_alpha0:default:function/a", "t_alpha0")
    assert not grant.allows_resource("cs:t_alpha0:default:function/a", "t_beta00")


def test_no_request_can_name_itself_into_another_resource() -> None:
    """The names of a request are not checked yet when its resource is built."""
    method = version_service_pb2.DESCRIPTOR.services_by_name["VersionService"].methods_by_name["PublishVersion"]
    rule = rule_of(method)
    for namespace, function in (
        ("secret", "x:payments:function/y"),
        ("payments:function/x", "y"),
        ("secret:payments", "y"),
        ("*", "*"),
        ("secret\n", "payments"),
    ):
        request = version_service_pb2.PublishVersionRequest(tenant=TENANT, namespace=namespace, function=function)
        resource = rule.resource_of(request, TENANT)
        assert resource.count(":") == 3, resource
        assert not allowed(caller("payments"), "cs:function:publish", resource.removeprefix(f"cs:{TENANT}:")), resource


@given(namespace=st.text(max_size=12), function=st.text(max_size=12))
def test_a_resource_always_has_four_parts(namespace: str, function: str) -> None:
    method = version_service_pb2.DESCRIPTOR.services_by_name["VersionService"].methods_by_name["PublishVersion"]
    request = version_service_pb2.PublishVersionRequest(tenant=TENANT, namespace=namespace, function=function)
    assert rule_of(method).resource_of(request, TENANT).split(":")[:2] == ["cs", TENANT]
    assert rule_of(method).resource_of(request, TENANT).count(":") == 3


def test_a_list_is_a_resource_of_its_own() -> None:
    """Who may see one schedule only does not see them all by listing."""
    method = schedule_service_pb2.DESCRIPTOR.services_by_name["ScheduleService"].methods_by_name["ListSchedules"]
    request = schedule_service_pb2.ListSchedulesRequest(tenant=TENANT, namespace="default")
    resource = rule_of(method).resource_of(request, TENANT)
    assert resource == f"cs:{TENANT}:default:schedule/*"
    assert not Grant("cs:*", "cs:*:*:schedule/night*").allows_resource(resource, TENANT)
    assert Grant("cs:*", "cs:*:default:schedule/*").allows_resource(resource, TENANT)


@pytest.mark.parametrize(
    "entry",
    ["", "function:read", "cs:Function:read", "cs:function:read on", "cs:* on function/x", "cs:* on cs:a:b", " "],
)
def test_an_entry_that_is_none_stops_the_start(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="pattern"):
        parse_grant(entry)
    with pytest.raises(SettingsError, match="role_actions"):
        load_settings(None, {"CS_IAM__ROLE_ACTIONS": f'{{ some = ["{entry}"] }}'})


def test_the_roles_of_the_default_do_not_grant_capabilities_but_for_the_admin() -> None:
    policy = Policy(IamSettings().role_actions)
    resource = f"cs:{TENANT}:default:function/a"
    policy.check(caller("admin"), "cs:function:grant", resource)
    for role in ("developer", "viewer"):
        with pytest.raises(AuthorizationError):
            policy.check(caller(role), "cs:function:grant", resource)


@pytest.mark.parametrize("roles", [("payments",), ("nightly", "unheard"), ("admin",), ()])
@pytest.mark.parametrize("scopes", [(), ("cs:function:read",), ("cs:*",)])
@pytest.mark.parametrize("action", ["cs:function:read", "cs:function:publish", "cs:function:invoke"])
@pytest.mark.parametrize("resource", ["payments:function/a", "default:function/a", "*:*"])
def test_an_explanation_says_what_the_door_does(
    roles: tuple[str, ...], scopes: tuple[str, ...], action: str, resource: str
) -> None:
    principal = caller(*roles, scopes=scopes)
    decision = explain_access(POLICY, principal, action, resource, ())
    assert decision.allowed is allowed(principal, action, resource)
    assert decision.resource == f"cs:{TENANT}:{resource}"
    assert bool(decision.entry) is decision.allowed
    assert decision.reason


def test_an_explanation_names_the_entry_or_what_is_missing() -> None:
    told = explain_access(POLICY, caller("payments"), "cs:function:publish", "payments:function/a", ())
    assert (told.role, told.entry) == ("payments", "cs:function:* on cs:{tenant}:payments:function/*")
    elsewhere = explain_access(POLICY, caller("payments"), "cs:function:publish", "default:function/a", ())
    assert "other resources only" in elsewhere.reason
    assert [(entry.role, entry.action_fits, entry.resource_fits) for entry in elsewhere.entries] == [
        ("payments", True, False),
        ("payments", False, True),
        ("*", False, True),
    ]
    narrowed = explain_access(POLICY, caller("admin", scopes=("cs:function:read",)), "cs:alias:set", "", ())
    assert "no scope of the token" in narrowed.reason
    nobody = explain_access(POLICY, caller("admin"), "cs:alias:set", "", ("unheard",))
    assert (nobody.allowed, list(nobody.unknown_roles)) == (False, ["unheard"])
    assert "unheard" in nobody.reason


@pytest.mark.parametrize(
    ("action", "resource", "roles", "field"),
    [
        ("", "", (), "action"),
        ("publish", "", (), "action"),
        ("cs:function:*", "", (), "action"),
        ("cs:function:read", "cs:t_beta00:default:function/a", (), "resource"),
        ("cs:function:read", "function", (), "resource"),
        ("cs:function:read", "a:b\n", (), "resource"),
        ("cs:function:read", "a:" + "b" * 600, (), "resource"),
        ("cs:function:read", "", ("",), "roles[0]"),
        ("cs:function:read", "", ("x",) * 65, "roles"),
    ],
)
def test_what_cannot_be_explained_is_refused(action: str, resource: str, roles: tuple[str, ...], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        explain_access(POLICY, caller("admin"), action, resource, roles)
    assert [violation.field for violation in caught.value.violations] == [field]
