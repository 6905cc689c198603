"""What roles may do: patterns over actions and resources, from the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from codesous.type.v1.principal_pb2 import Principal

from cs_core.errors import AuthorizationError
from cs_core.iam.grants import Grant, matches_action, parse_grant

# The entry of `role_actions` that holds for every authenticated principal.
EVERYONE = "*"


@dataclass(frozen=True, slots=True)
class Considered:
    """An entry of the policy that a decision looked at, and how it fitted."""

    role: str
    grant: Grant
    action: bool
    resource: bool

    @property
    def fits(self) -> bool:
        """Whether it allows what was asked."""
        return self.action and self.resource


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer and its reasons. `unknown_roles` are those that the policy says nothing of."""

    allowed: bool
    considered: tuple[Considered, ...]
    unknown_roles: tuple[str, ...]
    scopes: tuple[str, ...]
    scope: str | None
    """The scope of the token that allows the action; None: none does, or the token has no scopes."""

    @property
    def by(self) -> Considered | None:
        """The entry that allows it; None when none does."""
        return next((entry for entry in self.considered if entry.fits), None)

    @property
    def narrowed(self) -> bool:
        """Whether the token's scopes leave the action out."""
        return bool(self.scopes) and self.scope is None


class Policy:
    """Decides whether a principal may do an action. What no role allows is denied."""

    def __init__(self, role_actions: Mapping[str, Sequence[str]]) -> None:
        self._grants = {role: tuple(map(parse_grant, entries)) for role, entries in role_actions.items()}
        # Resources are as many as requests, so what is remembered ends before them.
        self._of_action = lru_cache(maxsize=4096)(self._find_grants)

    def check(self, principal: Principal, action: str, resource: str) -> None:
        """Raise AuthorizationError unless a role of the principal allows the action on the resource.

        Scopes narrow: where a token has any, one of them must allow the action too.
        """
        grants = self._of_action(tuple(principal.roles), tuple(principal.scopes), action)
        if not any(grant.allows_resource(resource, principal.tenant) for grant in grants):
            raise AuthorizationError(
                "CS_AUTHZ_ACTION_DENIED", f"no role of the caller allows {action} on {resource}", action=action
            )

    def explain(self, principal: Principal, action: str, resource: str) -> Decision:
        """Decide as `check` does, and tell why."""
        roles = dict.fromkeys((*principal.roles, EVERYONE))
        considered = tuple(
            Considered(role, grant, grant.allows_action(action), grant.allows_resource(resource, principal.tenant))
            for role in roles
            for grant in self._grants.get(role, ())
        )
        scopes = tuple(principal.scopes)
        scope = next((scope for scope in scopes if matches_action(scope, action)), None)
        return Decision(
            allowed=any(entry.fits for entry in considered) and (not scopes or scope is not None),
            considered=considered,
            unknown_roles=tuple(role for role in roles if role not in self._grants and role != EVERYONE),
            scopes=scopes,
            scope=scope,
        )

    def _find_grants(self, roles: tuple[str, ...], scopes: tuple[str, ...], action: str) -> tuple[Grant, ...]:
        """Find the entries that allow an action on something."""
        if scopes and not any(matches_action(scope, action) for scope in scopes):
            return ()
        found = [grant for role in (*roles, EVERYONE) for grant in self._grants.get(role, ())]
        return tuple(grant for grant in found if grant.allows_action(action))
