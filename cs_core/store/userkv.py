"""The values that functions of a tenant keep: `cs.kv`."""

from __future__ import annotations

from datetime import timedelta

import redis.exceptions

from cs_core.errors import TooLargeError, ValidationError
from cs_core.store import keys
from cs_core.store.client import KvClient

MAX_KEY_BYTES = 512
_MAX_LIST = 1000


class UserKvStore:
    """Values by key, within a tenant. Values are opaque bytes; a counter is its decimal digits."""

    def __init__(self, client: KvClient, max_value_bytes: int) -> None:
        self._client = client
        self._max_value_bytes = max_value_bytes

    async def get(self, tenant: str, key: str) -> bytes | None:
        """Read a value; None when there is none."""
        stored: bytes | None = await self._client.call("GET", keys.user_value(tenant, _checked(key)))
        return stored

    async def set(self, tenant: str, key: str, value: bytes, ttl: timedelta | None = None) -> None:
        """Store a value, for good or for `ttl`.

        Raises:
            TooLargeError: the value is over its limit.
            ValidationError: the key is empty or over 512 bytes, or `ttl` is under a millisecond.
        """
        if len(value) > self._max_value_bytes:
            raise TooLargeError(f"a value may be {self._max_value_bytes} bytes, this one is {len(value)}")
        expiry: tuple[str | int, ...] = ()
        if ttl is not None:
            milliseconds = int(ttl.total_seconds() * 1000)
            if milliseconds < 1:
                raise ValidationError.field("ttl", "must be 1 ms or more")
            expiry = ("PX", milliseconds)
        await self._client.call("SET", keys.user_value(tenant, _checked(key)), value, *expiry)
        await self._client.call("ZADD", keys.user_keys(tenant), 0, key)

    async def delete(self, tenant: str, key: str) -> bool:
        """Remove a value; False when there was none."""
        removed = self._client.call("DEL", keys.user_value(tenant, _checked(key)))
        await self._client.call("ZREM", keys.user_keys(tenant), key)
        return bool(await removed)

    async def incr(self, tenant: str, key: str, by: int) -> int:
        """Add to a counter, which starts at 0; returns the new value.

        Raises:
            ValidationError: the value is no integer of 64 bits, or would not be.
        """
        try:
            value: int = await self._client.call("INCRBY", keys.user_value(tenant, _checked(key)), by)
        except redis.exceptions.ResponseError as error:
            raise ValidationError.field("key", "its value is no integer of 64 bits, or would not be") from error
        await self._client.call("ZADD", keys.user_keys(tenant), 0, key)
        return value

    async def list_keys(self, tenant: str, prefix: str, *, after: str = "", limit: int = 100) -> list[str]:
        """List keys with a prefix, in order of their bytes, after `after`; at most 1,000."""
        found: list[str] = []
        position = after if after > prefix else ""
        while len(found) < min(limit, _MAX_LIST):
            lowest = f"({position}" if position else f"[{prefix}"
            names = await self._client.call(
                "ZRANGEBYLEX", keys.user_keys(tenant), lowest, f"[{prefix}\U0010ffff", "LIMIT", 0, limit
            )
            if not names:
                break
            position = names[-1].decode()
            # The index may name keys whose time has passed; they are dropped from it here.
            for raw in names:
                name = raw.decode()
                if await self._client.call("EXISTS", keys.user_value(tenant, name)):
                    found.append(name)
                else:
                    await self._client.call("ZREM", keys.user_keys(tenant), name)
        return found[:limit]


def _checked(key: str) -> str:
    if not key or len(key.encode()) > MAX_KEY_BYTES:
        raise ValidationError.field("key", f"must be 1 to {MAX_KEY_BYTES} bytes of UTF-8")
    return key
