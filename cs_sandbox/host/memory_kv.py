"""Values by key held in memory, for `cs fn test`. The limits and quotas are those of the store."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from cs_sandbox.host.arguments import SAFE_INTEGER, refuse
from cs_sandbox.job import HostCallError

_INTEGER: Final = re.compile(rb"-?[0-9]+")
_FOREVER: Final = float("inf")


class MemoryKeyValues:
    """Implements KeyValues."""

    def __init__(self, now: Callable[[], float], keys_max: int, bytes_max: int) -> None:
        """`now` gives seconds of a monotonic clock; the limits are those of a tenant."""
        self._now = now
        self._keys_max = keys_max
        self._bytes_max = bytes_max
        self._items: dict[str, tuple[bytes, float]] = {}

    async def get(self, key: str) -> bytes | None:
        """See KeyValues.get."""
        self._expire()
        return self._items.get(key, (None, 0.0))[0]

    async def set(self, key: str, value: bytes, ttl: timedelta | None) -> None:
        """See KeyValues.set."""
        self._expire()
        self._put(key, value, _FOREVER if ttl is None else self._now() + ttl.total_seconds())

    async def delete(self, key: str) -> bool:
        """See KeyValues.delete."""
        self._expire()
        return self._items.pop(key, None) is not None

    async def incr(self, key: str, by: int) -> int:
        """See KeyValues.incr."""
        self._expire()
        stored, expiry = self._items.get(key, (b"0", _FOREVER))
        if not _INTEGER.fullmatch(stored) or abs(int(stored) + by) > SAFE_INTEGER:
            raise refuse("key", "its value is no integer that can be counted on")
        self._put(key, b"%d" % (int(stored) + by), expiry)
        return int(stored) + by

    async def list_keys(self, prefix: str, *, after: str, limit: int) -> list[str]:
        """See KeyValues.list_keys."""
        self._expire()
        found = sorted((key for key in self._items if key.startswith(prefix)), key=str.encode)
        return [key for key in found if not after or key.encode() > after.encode()][:limit]

    def _put(self, key: str, value: bytes, expiry: float) -> None:
        rest = {name: item for name, item in self._items.items() if name != key}
        used = sum(_size(name, item[0]) for name, item in rest.items())
        old = _size(key, self._items[key][0]) if key in self._items else 0
        if not old and len(rest) >= self._keys_max:
            raise out_of_room(f"it holds {self._keys_max} keys, as many as it may")
        if _size(key, value) > old and used + _size(key, value) > self._bytes_max:
            raise out_of_room(f"its keys and values would be over {self._bytes_max} bytes")
        self._items[key] = (value, expiry)

    def _expire(self) -> None:
        now = self._now()
        for key in [key for key, (_, expiry) in self._items.items() if expiry <= now]:
            del self._items[key]


def _size(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value)


def out_of_room(why: str) -> HostCallError:
    """The error of a tenant whose quota is used up."""
    return HostCallError("CS_RUNTIME_QUOTA_EXCEEDED", f"the tenant's key-value store is full: {why}")
