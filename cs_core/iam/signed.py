"""Signed tokens: RS256 by a key of the issuer, and nothing else, whatever a token says of itself."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any, Final

import jwt

from cs_core.clock import Clock
from cs_core.config import IamSettings
from cs_core.iam.claims import check_claims, invalid, principal_of
from cs_core.iam.jwks import KeySet
from cs_core.iam.strict_json import parse_object
from cs_core.iam.tokens import Verified

ALGORITHM: Final = "RS256"
MAX_KEY_ID_CHARS: Final = 256
# A thumbprint names a key and brings none. All else that a header may hold would have us believe a key, an address of a
# key, or an extension that is not understood.
HEADER_NAMES: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
# Exactly as signed: readers of base64 that skip what is no digit would take many texts for one token.
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class SignedTokens:
    """Verifies tokens against the issuer's keys."""

    def __init__(self, settings: IamSettings, keys: KeySet, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock

    @property
    def due(self) -> bool:
        """Whether the keys have come to an age at which they are fetched again."""
        return self._keys.due

    @property
    def generation(self) -> int:
        """Changes with the keys; what an older one verified must be verified again."""
        return self._keys.generation

    async def refresh(self) -> None:
        """Fetch the keys if that is due."""
        await self._keys.refresh()

    async def verify(self, token: str) -> Verified:
        """Verify a token.

        Raises:
            AuthenticationError: malformed, wrongly signed, of another issuer or audience, odd or expired.
            UnavailableError: no keys can be had (`CS_AUTHN_UNAVAILABLE`).
        """
        key_id = key_id_of(header_of(token))
        key = await self._keys.get(key_id)
        if key is None:
            raise invalid("its key is unknown")
        try:
            claims = parse_object(signed_payload(token, key))
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise invalid("its signature or its content is wrong") from error
        now = self._clock.now()
        check_claims(claims, self._settings, now)
        return Verified(principal_of(claims, self._settings), float(claims["exp"]) + self._settings.leeway)

    async def close(self) -> None:
        """Let go of what is held: nothing."""


def header_of(token: str) -> Mapping[str, Any]:
    """Read the header of a token and refuse what it must not say. Nothing of it is believed but the name of the key."""
    if not _SHAPE.fullmatch(token):
        raise invalid("it is malformed")
    first = token.split(".", 1)[0]
    try:
        header = parse_object(urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except ValueError as error:
        raise invalid("it is malformed") from error
    check_header(header)
    return header


def check_header(header: Mapping[str, Any]) -> None:
    """Raise AuthenticationError unless the header is one of ours."""
    if header.get("alg") != ALGORITHM:
        raise invalid(f"its algorithm is not {ALGORITHM}")
    if not HEADER_NAMES.issuperset(header):
        raise invalid("its header says more than it may")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise invalid("its type is not that of an access token")


def key_id_of(header: Mapping[str, Any]) -> str:
    """Tell which key a token names."""
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not 1 <= len(key_id) <= MAX_KEY_ID_CHARS:
        raise invalid("it names no key")
    if not key_id.isascii() or not key_id.isprintable():
        raise invalid("it names no key")
    return key_id


def signed_payload(token: str, key: jwt.PyJWK) -> bytes:
    """Verify the signature and return what is signed. Raises jwt.PyJWTError."""
    return bytes(jwt.PyJWS().decode(token, key, algorithms=[ALGORITHM]))
