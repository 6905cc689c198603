"""What roles may do: patterns over actions, from the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from codesous.type.v1.principal_pb2 import Principal

from cs_core.errors import AuthorizationError

# The entry of `role_actions` that holds for every authenticated principal.
EVERYONE = "*"


class Policy:
    """Decides whether a principal may do an action. What no role allows is denied."""

    def __init__(self, role_actions: Mapping[str, Sequence[str]]) -> None:
        self._role_actions = {role: tuple(patterns) for role, patterns in role_actions.items()}
        self._decide = lru_cache(maxsize=4096)(self._allowed)

    def check(self, principal: Principal, action: str, resource: str) -> None:
        """Raise AuthorizationError unless a role of the principal allows the action.

        Scopes narrow: where a token has any, one of them must allow the action too.
        """
        if not self._decide(tuple(principal.roles), tuple(principal.scopes), action):
            raise AuthorizationError(
                "CS_AUTHZ_ACTION_DENIED", f"no role of the caller allows {action} on {resource}", action=action
            )

    def _allowed(self, roles: tuple[str, ...], scopes: tuple[str, ...], action: str) -> bool:
        patterns = [pattern for role in (*roles, EVERYONE) for pattern in self._role_actions.get(role, ())]
        by_role = any(fnmatchcase(action, pattern) for pattern in patterns)
        return by_role and (not scopes or any(fnmatchcase(action, scope) for scope in scopes))
