"""The allowlists of a version: which roles may invoke it by which trigger."""

from __future__ import annotations

from typing import Literal

from codesous.runtime.v1.version_config_pb2 import VersionConfig
from codesous.type.v1.principal_pb2 import Principal

from cs_core.errors import AuthorizationError

TriggerKind = Literal["http", "schedule", "cadence"]


def check_allowlist(config: VersionConfig, kind: TriggerKind, principal: Principal) -> None:
    """Raise AuthorizationError unless a role of the principal is on the version's list. HTTP and API share `http`.

    An empty list denies everybody, an admin too: who may run a version is the publisher's word, not the platform's.
    """
    match kind:
        case "http":
            allowed = config.invoke_http_roles
        case "schedule":
            allowed = config.invoke_schedule_roles
        case "cadence":
            allowed = config.invoke_cadence_roles
    if not set(allowed) & set(principal.roles):
        raise AuthorizationError(
            "CS_AUTHZ_ROLE_MISSING", f"no role of the caller is on the version's invoke_{kind}_roles"
        )
