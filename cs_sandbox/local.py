"""Host calls held in memory, for `cs fn test` and for trying a function without a server. The limits are the same.

What the host calls take and give, here and in production:

- `kv.get(key)` gives the value or null; `kv.set(key, value, {ttl})` with `ttl` in seconds or absent gives null;
  `kv.del(key)` gives whether the key was there; `kv.incr(key, by)` gives the new integer, beginning at 0;
  `kv.list(prefix, {limit})` gives the keys in order, 100 unless told, 1,000 at most.
- the other areas belong to the mesh: they fail with CS_UNIMPLEMENTED.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cs_sandbox.job import KIB, HostCallError

KEY_MAX: Final = 512
VALUE_MAX: Final = 256 * KIB
LIST_DEFAULT: Final = 100
LIST_MAX: Final = 1000
KEYS_MAX: Final = 10_000
_SAFE_INTEGER: Final = 2**53 - 1


def _refuse(message: str) -> HostCallError:
    return HostCallError("CS_VALIDATION_FIELD", message)


class LocalHostCalls:
    """A key-value store in this process. Nothing is denied, because there is nothing to protect.

    Args:
        now: seconds of a monotonic clock, for expiry.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._items: dict[str, tuple[str, float]] = {}
        self._methods: Mapping[str, Callable[[list[Any]], Any]] = {
            "kv.get": self._get,
            "kv.set": self._set,
            "kv.del": self._delete,
            "kv.incr": self._incr,
            "kv.list": self._list,
        }

    async def call(self, method: str, arguments: list[Any]) -> Any:
        """Perform a host call. Raises `HostCallError`."""
        perform = self._methods.get(method)
        if perform is None:
            raise HostCallError("CS_UNIMPLEMENTED", f"cs.{method} needs the mesh: it is not there in a local test")
        _key(arguments)
        return perform(arguments)

    def _live(self, key: str) -> str | None:
        found = self._items.get(key)
        if found is not None and found[1] <= self._now():
            del self._items[key]
            return None
        return found[0] if found is not None else None

    def _get(self, arguments: list[Any]) -> Any:
        text = self._live(arguments[0])
        return None if text is None else json.loads(text)

    def _set(self, arguments: list[Any]) -> None:
        key, value = arguments[0], arguments[1] if len(arguments) > 1 else None
        text = json.dumps(value)
        if len(text) > VALUE_MAX:
            raise _refuse(f"value: is larger than {VALUE_MAX} bytes")
        if len(self._items) >= KEYS_MAX and key not in self._items:
            raise _refuse(f"key: a local test keeps at most {KEYS_MAX} keys")
        self._items[key] = (text, self._now() + _ttl(arguments[2] if len(arguments) > 2 else None))

    def _delete(self, arguments: list[Any]) -> bool:
        present = self._live(arguments[0]) is not None
        self._items.pop(arguments[0], None)
        return present

    def _incr(self, arguments: list[Any]) -> int:
        key, by = arguments[0], arguments[1] if len(arguments) > 1 else 1
        text = self._live(key)
        value = 0 if text is None else json.loads(text)
        if not _is_integer(by):
            raise _refuse("by: must be an integer")
        if not _is_integer(value) or abs(value + by) > _SAFE_INTEGER:
            raise _refuse("key: its value is not an integer that can be counted on")
        expiry = self._items[key][1] if text is not None else float("inf")
        self._items[key] = (str(value + by), expiry)
        return int(value + by)

    def _list(self, arguments: list[Any]) -> list[str]:
        options = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], dict) else {}
        limit = options.get("limit", LIST_DEFAULT)
        if not _is_integer(limit) or not 1 <= limit <= LIST_MAX:
            raise _refuse(f"limit: must be an integer from 1 to {LIST_MAX}")
        found = sorted(key for key in self._items if key.startswith(arguments[0]))
        return [key for key in found if self._live(key) is not None][:limit]


def _key(arguments: list[Any]) -> None:
    if not arguments or not isinstance(arguments[0], str) or len(arguments[0].encode()) > KEY_MAX:
        raise _refuse(f"key: must be text of at most {KEY_MAX} bytes")


def _ttl(options: Any) -> float:
    ttl = options.get("ttl") if isinstance(options, dict) else None
    if ttl is None:
        return float("inf")
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or ttl <= 0:
        raise _refuse("ttl: must be a positive number of seconds")
    return float(ttl)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
