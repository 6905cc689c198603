"""Access tokens: RS256, verified against the issuer's keys."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jwt
from codesous.type.v1.principal_pb2 import Principal

from cs_core import names
from cs_core.clock import Clock
from cs_core.config import IamSettings
from cs_core.errors import AuthenticationError, ValidationError
from cs_core.iam.jwks import KeySet

_MAX_TOKEN_BYTES = 16 * 1024
_MAX_ROLES = 64


def _invalid(why: str) -> AuthenticationError:
    return AuthenticationError("CS_AUTHN_TOKEN_INVALID", f"the access token is not valid: {why}")


def _digest(token: str) -> bytes:
    # The token itself is not kept: memory that leaks must not hold what lets a thief in.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class TokenVerifier:
    """Turns tokens into principals. A verified token is remembered until it expires."""

    def __init__(self, settings: IamSettings, key_set: KeySet, clock: Clock) -> None:
        self._settings = settings
        self._keys = key_set
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token. Callers must not change it.

        Raises:
            AuthenticationError: malformed, wrongly signed, of another issuer or audience, odd or expired.
            UnavailableError: the keys cannot be had (`CS_AUTHN_UNAVAILABLE`).
        """
        if len(token) > _MAX_TOKEN_BYTES:
            raise _invalid("it is too long")
        if (remembered := self.remembered(token)) is not None:
            return remembered
        claims = await self._claims(token)
        principal = _principal(claims)
        if self._settings.token_cache:
            self._known[_digest(token)] = (float(claims["exp"]), principal)
            if len(self._known) > self._settings.token_cache:
                self._known.popitem(last=False)
        return principal

    def remembered(self, token: str) -> Principal | None:
        """Return the principal of a token that was verified before and has not expired since, without waiting."""
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None:
            return None
        expires, principal = known
        if expires + self._settings.leeway <= self._clock.now().timestamp():
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        return principal

    async def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise _invalid("it is malformed") from error
        if header.get("alg") != "RS256":
            raise _invalid("its algorithm is not RS256")
        key_id = header.get("kid")
        if not isinstance(key_id, str) or not key_id:
            raise _invalid("it names no key")
        key = await self._keys.get(key_id)
        if key is None:
            raise _invalid("its key is unknown")
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=self._settings.leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise AuthenticationError("CS_AUTHN_TOKEN_EXPIRED", "the access token is past its expiry") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise _invalid("its signature or a claim is wrong") from error
        return claims


def _principal(claims: Mapping[str, Any]) -> Principal:
    subject, tenant = claims.get("sub"), claims.get("tid")
    if not isinstance(subject, str) or not 1 <= len(subject) <= names.MAX_ROLE_CHARS:
        raise _invalid("its subject is missing or odd")
    try:
        names.check_tenant(tenant if isinstance(tenant, str) else "", "tid")
        roles = [names.check_role(role, "role") for role in _strings(claims, "role", "roles")]
    except ValidationError as error:
        raise _invalid(error.message) from error
    if len(roles) > _MAX_ROLES:
        raise _invalid(f"it has more than {_MAX_ROLES} roles")
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise _invalid("its scope is odd")
    return Principal(subject=subject, tenant=str(tenant), roles=roles, scopes=scope.split())


def _strings(claims: Mapping[str, Any], *claim_names: str) -> list[str]:
    """Values of claims that are a string or a list of strings."""
    found: list[str] = []
    for name in claim_names:
        value = claims.get(name, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise _invalid(f"its {name} is odd")
        found += values
    return list(dict.fromkeys(found))
