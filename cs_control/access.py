"""Explaining what the policy decides, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence

from codesous.control.v1.access_pb2 import AccessDecision, AccessEntry
from codesous.type.v1.principal_pb2 import Principal

from cs_core.iam.policy import Decision, Policy
from cs_core.names import Violations, check_role

_ACTION = re.compile(r"cs:[a-z]+:[a-z]+")
_RESOURCE_CHARS = 512
_MAX_ROLES = 64


def explain_access(
    policy: Policy, caller: Principal, action: str, resource: str, roles: Sequence[str]
) -> AccessDecision:
    """Explain a decision about the caller, or about a caller of its tenant with other roles.

    Raises:
        ValidationError: the action, the resource or a role breaks its rule.
    """
    whole = _whole(resource, caller.tenant)
    _check(action, whole, caller.tenant, roles)
    asked = Principal(subject=caller.subject, tenant=caller.tenant, roles=roles) if roles else caller
    decision = policy.explain(asked, action, whole)
    by = decision.by if decision.allowed else None
    return AccessDecision(
        allowed=decision.allowed,
        action=action,
        resource=whole,
        role=by.role if by is not None else "",
        entry=str(by.grant) if by is not None else "",
        scope=decision.scope or "",
        reason=_reason(decision, asked, action, whole),
        entries=[
            AccessEntry(
                role=entry.role,
                entry=str(entry.grant),
                action_fits=entry.action,
                resource_fits=entry.resource,
            )
            for entry in decision.considered
        ],
        unknown_roles=decision.unknown_roles,
    )


def _whole(resource: str, tenant: str) -> str:
    if not resource:
        return f"cs:{tenant}:*:*"
    return resource if resource.startswith("cs:") else f"cs:{tenant}:{resource}"


def _check(action: str, resource: str, tenant: str, roles: Sequence[str]) -> None:
    violations = Violations()
    if not _ACTION.fullmatch(action):
        violations.add("action", "must be cs: and two words in lower case, for example cs:function:publish")
    if len(resource) > _RESOURCE_CHARS or not resource.isprintable():
        violations.add("resource", f"must be at most {_RESOURCE_CHARS} printable characters")
    elif not resource.startswith(f"cs:{tenant}:") or resource.count(":") < 3:
        violations.add("resource", f"must be NAMESPACE:KIND/NAME of tenant {tenant}")
    if len(roles) > _MAX_ROLES:
        violations.add("roles", f"must be at most {_MAX_ROLES}")
    for index, role in enumerate(roles[:_MAX_ROLES]):
        violations.check(check_role, role, f"roles[{index}]")
    violations.raise_if_any()


def _reason(decision: Decision, asked: Principal, action: str, resource: str) -> str:
    by = decision.by
    if decision.allowed and by is not None:
        who = "every authenticated principal has" if by.role == "*" else f"role {by.role} has"
        return f"{who} {by.grant}"
    if by is not None:
        return f"role {by.role} has {by.grant}, but no scope of the token fits {action}"
    elsewhere = [entry for entry in decision.considered if entry.action]
    if elsewhere:
        return f"{action} is allowed on other resources only, not on {resource}"
    roles = ", ".join(asked.roles) or "no role at all"
    return f"no role of the caller ({roles}) allows {action}"
