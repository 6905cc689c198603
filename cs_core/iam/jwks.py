"""The issuer's keys: fetched when first needed, when they are old, and on an unknown key id, at most once per interval.

Theory of operation. Whoever finds that a fetch is due makes it; the time of the attempt is noted first, so that nobody
else begins another one. Callers with a known key never wait for others. Callers with an unknown one wait for the fetch
that runs, because a key may be new; when the interval has not passed they are answered at once. So a flood of made-up
key ids costs the issuer one fetch per interval, and its own callers nothing.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from cs_core.clock import Clock
from cs_core.errors import UnavailableError

_log = structlog.get_logger(__name__)
_TIMEOUT: Final = 5.0
_MAX_BYTES: Final = 256 * 1024
_MIN_KEY_BITS: Final = 2048
# Between attempts while no key is known at all: nobody can be let in until then.
_FIRST_RETRY: Final = 1.0


class KeySet:
    """Keys by id. An outage of the source keeps the keys that are known."""

    def __init__(self, url: str, refresh: float, clock: Clock, max_age: float = 300.0) -> None:
        """`url` is file://, http:// or https://.

        `refresh` is the shortest time between fetches, `max_age` the age at which keys are fetched again; in seconds.
        """
        self._url = url
        self._refresh = refresh
        self._max_age = max_age
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] | None = None
        self._material: dict[str, Any] = {}
        self._tried = float("-inf")
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()
        self.generation = 0

    @property
    def due(self) -> bool:
        """Whether the keys are known and old, and may be fetched again now."""
        now = self._clock.monotonic()
        return self._keys is not None and now - self._fetched >= self._max_age and self._may_try(now)

    async def refresh(self) -> None:
        """Fetch the keys if they are old. Never raises: what is known stays."""
        if self.due:
            await self._fetch()

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """The key of an id; None when the issuer has none of that id.

        Raises:
            UnavailableError: no keys are known and the source does not answer.
        """
        if self._keys is None or key_id not in self._keys:
            async with self._lock:
                known = self._keys is not None and key_id in self._keys
                if not known and self._may_try(self._clock.monotonic()):
                    await self._fetch()
        if self._keys is None:
            raise UnavailableError("CS_AUTHN_UNAVAILABLE", "the issuer's keys cannot be had")
        return self._keys.get(key_id)

    def _may_try(self, now: float) -> bool:
        interval = self._refresh if self._keys is not None else min(self._refresh, _FIRST_RETRY)
        return now - self._tried >= interval

    async def _fetch(self) -> None:
        self._tried = self._clock.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT):
                material = _parse(await self._read())
            keys = _usable(material)
        except (OSError, TimeoutError, ValueError, httpx.HTTPError) as error:
            _log.warning("the issuer's keys cannot be fetched", url=self._url, error=str(error) or type(error).__name__)
            return
        self._fetched = self._tried
        if material != self._material:
            self.generation += 1
            _log.info("the issuer's keys are fetched", url=self._url, key_ids=sorted(keys))
        self._keys, self._material = keys, material

    async def _read(self) -> bytes:
        parts = urlsplit(self._url)
        if parts.scheme == "file":
            return await asyncio.to_thread(Path(unquote(parts.path)).read_bytes)
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False) as client,
            client.stream("GET", self._url) as response,
        ):
            response.raise_for_status()
            data = bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise ValueError("the key set is too large")
            return bytes(data)


def _parse(data: bytes) -> dict[str, Any]:
    """Read a key set: its entries that are for RS256 signatures, by id."""
    try:
        document: Any = json.loads(data)
    except RecursionError as error:
        raise ValueError("the key set is nested too deeply") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the key set has no keys")  # noqa: TRY004 - it is the document that is wrong
    found: dict[str, Any] = {}
    for entry in entries:
        fits = isinstance(entry, dict) and entry.get("kty") == "RSA" and entry.get("use", "sig") == "sig"
        if fits and isinstance(entry.get("kid"), str) and entry.get("alg", "RS256") == "RS256":
            found[entry["kid"]] = {name: entry.get(name) for name in ("kty", "n", "e")}
    return found


def _usable(material: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    """Make keys; one that is none, or too short, is left out and told of."""
    keys: dict[str, jwt.PyJWK] = {}
    for key_id, entry in material.items():
        try:
            key = jwt.PyJWK(entry, algorithm="RS256")
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            _log.warning("a key of the issuer cannot be read", key_id=key_id, error=str(error))
            continue
        if not isinstance(key.key, RSAPublicKey) or key.key.key_size < _MIN_KEY_BITS:
            _log.warning("a key of the issuer is too short", key_id=key_id, least_bits=_MIN_KEY_BITS)
            continue
        keys[key_id] = key
    if not keys:
        raise ValueError("the key set has no key that can be used")
    return keys
