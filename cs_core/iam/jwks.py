"""The issuer's keys: fetched when first needed, and again on an unknown key id, at most once per interval."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import jwt
import structlog

from cs_core.clock import Clock
from cs_core.errors import UnavailableError

_log = structlog.get_logger(__name__)
_TIMEOUT = 5.0
_MAX_BYTES = 256 * 1024


class KeySet:
    """Keys by id. An outage of the source keeps the keys that are known."""

    def __init__(self, url: str, refresh: float, clock: Clock) -> None:
        """`url` is file://, http:// or https://; `refresh` is the shortest time between fetches, in seconds."""
        self._url = url
        self._refresh = refresh
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] | None = None
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """The key of an id; None when the issuer has none of that id.

        Raises:
            UnavailableError: no keys are known and the source does not answer.
        """
        if self._keys is None or key_id not in self._keys:
            async with self._lock:
                known = self._keys is not None and key_id in self._keys
                if not known and self._clock.monotonic() - self._fetched >= self._refresh:
                    self._fetched = self._clock.monotonic()
                    await self._fetch()
        if self._keys is None:
            raise UnavailableError("CS_AUTHN_UNAVAILABLE", "the issuer's keys cannot be had")
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        try:
            self._keys = _parse(await self._read())
        except (OSError, ValueError, httpx.HTTPError, jwt.PyJWTError) as error:
            _log.warning("the issuer's keys cannot be fetched", url=self._url, error=str(error))
            if self._keys is None:
                # Nothing to fall back on: the next caller may try at once.
                self._fetched = float("-inf")

    async def _read(self) -> bytes:
        parts = urlsplit(self._url)
        if parts.scheme == "file":
            return await asyncio.to_thread(Path(unquote(parts.path)).read_bytes)
        async with httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False) as client:
            response = await client.get(self._url)
            response.raise_for_status()
            if len(response.content) > _MAX_BYTES:
                raise ValueError("the key set is too large")
            return response.content


def _parse(data: bytes) -> dict[str, jwt.PyJWK]:
    document: Any = json.loads(data)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the key set has no keys")  # noqa: TRY004 - it is the document that is wrong
    keys: dict[str, jwt.PyJWK] = {}
    for entry in entries:
        usable = isinstance(entry, dict) and entry.get("kty") == "RSA" and entry.get("use", "sig") == "sig"
        if usable and isinstance(entry.get("kid"), str) and entry.get("alg", "RS256") == "RS256":
            keys[entry["kid"]] = jwt.PyJWK(entry, algorithm="RS256")
    return keys
