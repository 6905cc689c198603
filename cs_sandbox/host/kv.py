"""`cs.kv.*`: values by key, which the functions of a tenant share.

A value is stored as its JSON text, so that a counter is a number to the store too.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

from cs_sandbox.host import arguments as given
from cs_sandbox.host.arguments import SAFE_INTEGER, refuse

KEY_MAX: Final = 512
LIST_DEFAULT: Final = 100
LIST_MAX: Final = 1000
TTL_MIN: Final = 0.001
TTL_MAX: Final = timedelta(days=3660).total_seconds()


class KeyValues(Protocol):
    """The values of one tenant. Each method raises HostCallError when it cannot do what is asked."""

    async def get(self, key: str) -> bytes | None:
        """Read a value; None when there is none."""
        ...

    async def set(self, key: str, value: bytes, ttl: timedelta | None) -> None:
        """Store a value, for good or for `ttl`. Refused with CS_RUNTIME_QUOTA_EXCEEDED when there is no room."""
        ...

    async def delete(self, key: str) -> bool:
        """Remove a value; False when there was none."""
        ...

    async def incr(self, key: str, by: int) -> int:
        """Add to a counter, which begins at 0, and return the new value."""
        ...

    async def list_keys(self, prefix: str, *, after: str, limit: int) -> list[str]:
        """List keys with a prefix, in the order of their bytes, behind `after`."""
        ...


class KvCalls:
    """Provides the area `kv`."""

    def __init__(self, values: KeyValues, value_bytes: int) -> None:
        """`value_bytes` is the limit of one value, as JSON."""
        self._values = values
        self._value_bytes = value_bytes
        self._operations: Mapping[str, Callable[[str, list[Any]], Awaitable[Any]]] = {
            "get": self._get,
            "set": self._set,
            "del": self._delete,
            "incr": self._incr,
            "list": self._list,
        }

    async def call(self, operation: str, arguments: list[Any]) -> Any:
        """Perform the operation on the key in the first argument. Raises HostCallError."""
        key = arguments[0]
        size = len(key.encode())
        if size > KEY_MAX or (not size and operation != "list"):
            raise refuse("key", f"must be 1 to {KEY_MAX} bytes of UTF-8")
        return await self._operations[operation](key, arguments)

    async def _get(self, key: str, _arguments: list[Any]) -> Any:
        stored = await self._values.get(key)
        return None if stored is None else json.loads(stored)

    async def _set(self, key: str, arguments: list[Any]) -> None:
        value = given.to_json("value", given.item(arguments, 1), self._value_bytes)
        ttl = given.options(arguments, 2, "ttl").get("ttl")
        seconds = None if ttl is None else given.to_seconds("ttl", ttl, TTL_MIN, TTL_MAX)
        await self._values.set(key, value, None if seconds is None else timedelta(seconds=seconds))

    async def _delete(self, key: str, _arguments: list[Any]) -> bool:
        return await self._values.delete(key)

    async def _incr(self, key: str, arguments: list[Any]) -> int:
        by = given.to_integer("by", given.item(arguments, 1, 1), -SAFE_INTEGER, SAFE_INTEGER)
        return await self._values.incr(key, by)

    async def _list(self, prefix: str, arguments: list[Any]) -> list[str]:
        options = given.options(arguments, 1, "limit", "after")
        limit = given.to_integer("limit", options.get("limit", LIST_DEFAULT), 1, LIST_MAX)
        after = options.get("after") or ""
        if not isinstance(after, str) or len(after.encode()) > KEY_MAX:
            raise refuse("after", f"must be text of at most {KEY_MAX} bytes")
        return await self._values.list_keys(prefix, after=after, limit=limit)
