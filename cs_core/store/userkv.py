"""The values that functions of a tenant keep: `cs.kv`.

Theory of operation: a value is a string of its own, so that it is read in one command and the server expires it.
Beside the values stand an index of the keys, the size of each, the sum of the sizes, and the keys that expire, by
time. Every change is one script that keeps all of them right and refuses what is over the quotas. A value that the
server expired is still counted until the next changes take it out of the books; until then a list leaves it out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cs_core.errors import QuotaError, TooLargeError, ValidationError
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

MAX_KEY_BYTES = 512
_MAX_LIST = 1000
_CHANGE = load_script("cs_core.store", "user_kv")
_FULL = "the tenant's key-value store is full"
_DONE, _TOO_MANY_KEYS, _TOO_MANY_BYTES = range(3)


@dataclass(frozen=True, slots=True)
class KvQuota:
    """What a tenant may keep: keys, and bytes of keys and values together."""

    keys: int = 100_000
    bytes: int = 64 * 1024 * 1024


NO_QUOTA: Final = KvQuota(2**53, 2**53)


class UserKvStore:
    """Values by key, within a tenant. Values are opaque bytes; a counter is its decimal digits."""

    def __init__(self, client: KvClient, max_value_bytes: int, quota: KvQuota = NO_QUOTA) -> None:
        self._client = client
        self._max_value_bytes = max_value_bytes
        self._quota = quota

    async def get(self, tenant: str, key: str) -> bytes | None:
        """Read a value; None when there is none."""
        stored: bytes | None = await self._client.call("GET", keys.user_value(tenant, _checked(key)))
        return stored

    async def set(self, tenant: str, key: str, value: bytes, ttl: timedelta | None = None) -> None:
        """Store a value, for good or for `ttl`.

        Raises:
            TooLargeError: the value is over its limit.
            QuotaError: the tenant has no room for it.
            ValidationError: the key is empty or over 512 bytes, or `ttl` is under a millisecond.
        """
        if len(value) > self._max_value_bytes:
            raise TooLargeError(f"a value may be {self._max_value_bytes} bytes, this one is {len(value)}")
        milliseconds = 0
        if ttl is not None:
            milliseconds = int(ttl.total_seconds() * 1000)
            if milliseconds < 1:
                raise ValidationError.field("ttl", "must be 1 ms or more")
        await self._change("set", tenant, key, value, milliseconds)

    async def delete(self, tenant: str, key: str) -> bool:
        """Remove a value; False when there was none."""
        return bool(await self._change("del", tenant, key, b""))

    async def incr(self, tenant: str, key: str, by: int) -> int:
        """Add to a counter, which starts at 0; returns the new value. Its time to live stays.

        Raises:
            QuotaError: the tenant has no room for it.
            ValidationError: the value is no integer within ±(2^53 - 1), or would not be.
        """
        return await self._change("incr", tenant, key, str(by).encode())

    async def list_keys(self, tenant: str, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        """List keys with a prefix, in order of their bytes, after `after`; at most 1,000."""
        found: list[str] = []
        limit = min(limit, _MAX_LIST)
        position = after if after > prefix else ""
        while len(found) < limit:
            lowest = f"({position}" if position else f"[{prefix}"
            names = await self._client.call(
                "ZRANGEBYLEX", keys.user_keys(tenant), lowest, f"[{prefix}\U0010ffff", "LIMIT", 0, limit
            )
            if not names:
                break
            position = names[-1].decode()
            # The index may name keys whose time has passed.
            there = await asyncio.gather(
                *(self._client.call("EXISTS", keys.user_value(tenant, name.decode())) for name in names)
            )
            found += [name.decode() for name, exists in zip(names, there, strict=True) if exists]
        return found[:limit]

    async def usage(self, tenant: str) -> KvQuota:
        """What the tenant's quotas are charged with now, values included that have expired since the last change."""
        count, size = await asyncio.gather(
            self._client.call("ZCARD", keys.user_keys(tenant)), self._client.call("GET", keys.user_bytes(tenant))
        )
        return KvQuota(int(count), int(size or 0))

    async def _change(self, operation: str, tenant: str, key: str, value: bytes, ttl_ms: int = 0) -> int:
        outcome, number = await self._client.script(
            _CHANGE,
            [
                keys.user_value(tenant, _checked(key)),
                keys.user_keys(tenant),
                keys.user_sizes(tenant),
                keys.user_expiries(tenant),
                keys.user_bytes(tenant),
            ],
            [operation, key, self._quota.keys, self._quota.bytes, value, ttl_ms],
        )
        if outcome == _DONE:
            return int(number)
        if outcome == _TOO_MANY_KEYS:
            raise QuotaError(f"{_FULL}: it holds {self._quota.keys} keys, as many as it may")
        if outcome == _TOO_MANY_BYTES:
            raise QuotaError(f"{_FULL}: its keys and values would be over {self._quota.bytes} bytes")
        raise ValidationError.field("key", "its value is no integer within ±(2^53 - 1), or would not be")


def _checked(key: str) -> str:
    if not key or len(key.encode()) > MAX_KEY_BYTES:
        raise ValidationError.field("key", f"must be 1 to {MAX_KEY_BYTES} bytes of UTF-8")
    return key
