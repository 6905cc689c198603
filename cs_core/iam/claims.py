"""What the claims of a token must say, and the principal that they make, however the token was verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from codesous.type.v1.principal_pb2 import Principal

from cs_core import names
from cs_core.config import IamSettings
from cs_core.errors import AuthenticationError, ValidationError

Claims = Mapping[str, Any]
Check = Callable[[Claims, IamSettings, datetime], None]
MAX_ROLES: Final = 64
_MAX_SCOPES: Final = 256
# The last second of the year 9999. What is later is a slip or an attack, and more than a datetime holds.
_LAST_MOMENT: Final = 253_402_300_799


def invalid(why: str) -> AuthenticationError:
    """Build the refusal of a token that is not valid."""
    return AuthenticationError("CS_AUTHN_TOKEN_INVALID", f"the access token is not valid: {why}")


def expired() -> AuthenticationError:
    """Build the refusal of a token whose time has passed."""
    return AuthenticationError("CS_AUTHN_TOKEN_EXPIRED", "the access token is past its expiry")


def check_claims(claims: Claims, settings: IamSettings, now: datetime) -> None:
    """Check every claim that matters. Raises AuthenticationError on the first that is wrong."""
    for check in CHECKS.values():
        check(claims, settings, now)


def principal_of(claims: Claims, settings: IamSettings) -> Principal:
    """Make the principal of claims that were checked."""
    tenant = str(claims.get("tid"))
    roles, scopes = _roles_and_scopes(claims, settings)
    return Principal(
        subject=str(claims.get("sub")), tenant=settings.tenants.get(tenant, tenant), roles=roles, scopes=scopes
    )


def _moment(claims: Claims, name: str) -> int | None:
    """A claim that is a time, in seconds since 1970."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    # A bool is an int in Python, and not in JSON.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LAST_MOMENT:
        raise invalid(f"its {name} is no moment")
    return value


def _check_issuer(claims: Claims, settings: IamSettings, _now: datetime) -> None:
    if claims.get("iss") != settings.issuer:
        raise invalid("it is of another issuer")


def _check_audience(claims: Claims, settings: IamSettings, _now: datetime) -> None:
    # A token for several audiences can be replayed here by each of the others, so it must be for us alone.
    if claims.get("aud") not in (settings.audience, [settings.audience]):
        raise invalid("it is not for this audience alone")


def _check_not_before(claims: Claims, settings: IamSettings, now: datetime) -> None:
    begins = _moment(claims, "nbf")
    if begins is not None and begins - settings.leeway > now.timestamp():
        raise invalid("its time has not come")


def _check_issued(claims: Claims, settings: IamSettings, now: datetime) -> None:
    issued = _moment(claims, "iat")
    if issued is not None and issued - settings.leeway > now.timestamp():
        raise invalid("it was issued in the future")


def _check_expiry(claims: Claims, settings: IamSettings, now: datetime) -> None:
    ends = _moment(claims, "exp")
    if ends is None:
        raise invalid("it has no expiry")
    if ends + settings.leeway <= now.timestamp():
        raise expired()


def _check_subject(claims: Claims, _settings: IamSettings, _now: datetime) -> None:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= names.MAX_ROLE_CHARS or not subject.isprintable():
        raise invalid("its subject is missing or odd")


def _check_tenant(claims: Claims, settings: IamSettings, _now: datetime) -> None:
    tenant = claims.get("tid")
    if not isinstance(tenant, str):
        raise invalid("its tid is missing or odd")
    if tenant not in settings.tenants and tenant in settings.tenants.values():
        # Else two tenants of the issuer would be one here.
        raise invalid("its tid is a name that stands for another")
    try:
        names.check_tenant(settings.tenants.get(tenant, tenant), "tid")
    except ValidationError as error:
        raise invalid("its tid is no tenant") from error


def _check_roles(claims: Claims, settings: IamSettings, _now: datetime) -> None:
    for name in ("role", "roles"):
        value = claims.get(name, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(role, str) for role in values):
            raise invalid(f"its {name} is odd")
    roles, _ = _roles_and_scopes(claims, settings)
    if len(roles) > MAX_ROLES:
        raise invalid(f"it has more than {MAX_ROLES} roles")
    try:
        for role in roles:
            names.check_role(role)
    except ValidationError as error:
        raise invalid("a role of it is odd") from error


def _check_scope(claims: Claims, _settings: IamSettings, _now: datetime) -> None:
    scope = claims.get("scope", "")
    if not isinstance(scope, str) or not scope.isprintable() or len(scope.split()) > _MAX_SCOPES:
        raise invalid("its scope is odd")


CHECKS: Final[dict[str, Check]] = {
    "issuer": _check_issuer,
    "audience": _check_audience,
    "subject": _check_subject,
    "tenant": _check_tenant,
    "scope": _check_scope,
    "roles": _check_roles,
    "not_before": _check_not_before,
    "issued": _check_issued,
    "expiry": _check_expiry,
}


def _roles_and_scopes(claims: Claims, settings: IamSettings) -> tuple[list[str], list[str]]:
    """Roles of the claims `role` and `roles`, and of scopes that are roles by their prefix; the other scopes."""
    found: list[str] = []
    for name in ("role", "roles"):
        value = claims.get(name, [])
        found += [value] if isinstance(value, str) else [str(role) for role in value or ()]
    scopes = str(claims.get("scope", "")).split()
    if prefix := settings.role_scope_prefix:
        found += [scope.removeprefix(prefix) for scope in scopes if scope.startswith(prefix)]
        scopes = [scope for scope in scopes if not scope.startswith(prefix)]
    return list(dict.fromkeys(found)), scopes
