"""Introspection: the issuer is asked about each token, and believed for a short while.

Two kinds of issuers are understood. RFC 7662: the token is posted as a form, and the answer is `{"active": ...}` with
the claims beside it. Lookup, as Tikti does it: the token is posted as JSON with an API key, and the answer is
`{"users": [...]}` with the one user that it belongs to. Either answer is understood from either kind of issuer.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import httpx
import structlog

from cs_core.clock import Clock
from cs_core.config import IamSettings
from cs_core.errors import AuthenticationError, UnavailableError
from cs_core.iam.claims import CHECKS, Claims, expired, invalid, principal_of
from cs_core.iam.strict_json import parse_object
from cs_core.iam.tokens import Verified

_log = structlog.get_logger(__name__)
_TIMEOUT: Final = 5.0
_MAX_BYTES: Final = 64 * 1024
# How long a refusal is remembered, in seconds.
_REFUSAL_TTL: Final = 5.0
# Checks whose claim an issuer may leave out: it is asked with our own credentials, and answers us.
_MAY_LACK: Final = {"issuer": "iss", "audience": "aud", "expiry": "exp"}
# Of RFC 7662 an answer of this kind says that our own credentials are wrong; of a lookup, that the token is.
_REFUSED: Final = frozenset({400, 401, 403, 404, 428})


class Introspection:
    """Asks the issuer about tokens."""

    generation = 0
    due = False

    def __init__(self, settings: IamSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lookup = settings.introspection_style == "lookup"
        # Without a bound a flood of made-up tokens would become a flood at the issuer.
        self._turns = asyncio.Semaphore(settings.introspection_concurrency)
        self._refused: OrderedDict[bytes, tuple[float, str, str]] = OrderedDict()
        secret = settings.introspection_secret.get_secret_value()
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT,
            follow_redirects=False,
            headers={"accept": "application/json", **_credentials(self._lookup, settings, secret)},
            auth=(settings.introspection_client, secret) if settings.introspection_client else None,
        )

    async def refresh(self) -> None:
        """Nothing is kept here."""

    async def verify(self, token: str) -> Verified:
        """Ask about a token.

        Raises:
            AuthenticationError: the issuer does not vouch for it, or what it says of it is odd.
            UnavailableError: the issuer does not answer (`CS_AUTHN_UNAVAILABLE`).
        """
        digest = hashlib.sha256(token.encode()).digest()
        self._raise_if_refused(digest)
        try:
            return self._verified(await self._ask(token), token)
        except AuthenticationError as error:
            self._refused[digest] = (self._clock.monotonic() + _REFUSAL_TTL, error.reason, error.message)
            if len(self._refused) > self._settings.token_cache:
                self._refused.popitem(last=False)
            raise

    def _raise_if_refused(self, digest: bytes) -> None:
        """Refuse as a moment ago: who tries again and again costs the issuer one question in a while."""
        until, reason, message = self._refused.get(digest, (0.0, "", ""))
        if reason and self._clock.monotonic() < until:
            raise AuthenticationError(reason, message)

    def _verified(self, answer: Mapping[str, Any], token: str) -> Verified:
        now = self._clock.now()
        claims = _claims_of(answer, token, now)
        for name, check in CHECKS.items():
            claim = _MAY_LACK.get(name)
            if claim is None or claim in claims:
                check(claims, self._settings, now)
        until = now.timestamp() + self._settings.introspection_ttl
        if "exp" in claims:
            until = min(until, float(claims["exp"]) + self._settings.leeway)
        return Verified(principal_of(claims, self._settings), until)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _ask(self, token: str) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(_TIMEOUT), self._turns:
                status, data = await self._post(token)
        except (OSError, TimeoutError, httpx.HTTPError) as error:
            _log.warning("the issuer cannot be asked about a token", error=str(error) or type(error).__name__)
            raise _unavailable() from error
        if status in _REFUSED and self._lookup:
            raise invalid("the issuer does not know it")
        if status != httpx.codes.OK:
            _log.error("the issuer refuses to tell about a token", status=status)
            raise _unavailable()
        try:
            return parse_object(data)
        except ValueError as error:
            _log.error("the issuer's answer about a token is none", error=str(error))
            raise _unavailable() from error

    async def _post(self, token: str) -> tuple[int, bytes]:
        body: dict[str, Any] = (
            {"json": {"idToken": token}}
            if self._lookup
            else {"data": {"token": token, "token_type_hint": "access_token"}}
        )
        async with self._client.stream("POST", self._settings.introspection_url, **body) as response:
            data = bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise httpx.DecodingError("the answer is too large")
            return response.status_code, bytes(data)


def _credentials(lookup: bool, settings: IamSettings, secret: str) -> dict[str, str]:
    if not secret or settings.introspection_client:
        return {}
    return {"x-api-key": secret} if lookup else {"authorization": f"Bearer {secret}"}


def _claims_of(answer: Mapping[str, Any], token: str, now: datetime) -> Claims:
    """Read either kind of answer as claims."""
    if "active" in answer:
        if answer["active"] is not True:
            raise _inactive(token, now)
        return {name: value for name, value in answer.items() if name != "active" and value is not None}
    users = answer.get("users")
    if not isinstance(users, list) or len(users) != 1 or not isinstance(users[0], dict):
        raise invalid("the issuer does not know it")
    user = users[0]
    if user.get("status", "ACTIVE") != "ACTIVE":
        raise invalid("its user is not active")
    claims = {"sub": user.get("localId"), "tid": user.get("tenantId")}
    claims |= {name: user[name] for name in ("role", "roles", "scope") if user.get(name) is not None}
    # A lookup does not tell when the token ends. The issuer has just vouched for it, so what it says itself counts.
    if (ends := _own_expiry(token)) is not None:
        claims["exp"] = ends
    return claims


def _inactive(token: str, now: datetime) -> AuthenticationError:
    # Why a token is not active is not told; its own word is good enough for a kinder refusal.
    ends = _own_expiry(token)
    past = isinstance(ends, int) and ends <= now.timestamp()
    return expired() if past else invalid("the issuer does not vouch for it")


def _own_expiry(token: str) -> Any:
    """What a token says of its own end, unverified; None when it says nothing that can be read."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        return parse_object(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))).get("exp")
    except ValueError:
        return None


def _unavailable() -> UnavailableError:
    return UnavailableError("CS_AUTHN_UNAVAILABLE", "the issuer cannot be asked about the access token")
