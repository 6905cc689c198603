"""`cs.kv.*` on the tenant's key-value store.

What the calls take and give is what `cs_sandbox.local` says; a value is stored as its JSON text, so that a counter is a
number to the store too.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeGuard

from cs_core.errors import CodeSousError, UnavailableError
from cs_core.store.userkv import UserKvStore
from cs_sandbox.job import HostCallError
from cs_sandbox.local import LIST_DEFAULT, LIST_MAX

REASON_FIELD = "CS_VALIDATION_FIELD"
_SAFE_INTEGER = 2**53 - 1
_TTL_MAX = timedelta(days=366 * 10).total_seconds()


class StoredKv:
    """The key-value store of one tenant."""

    def __init__(self, store: UserKvStore, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._operations: Mapping[str, Callable[[str, list[Any]], Awaitable[Any]]] = {
            "get": self._get,
            "set": self._set,
            "del": self._delete,
            "incr": self._incr,
            "list": self._list,
        }

    async def call(self, operation: str, arguments: list[Any]) -> Any:
        """Perform the operation on the key in the first argument. Raises HostCallError."""
        key, rest = arguments[0], arguments[1:]
        if not _is_unicode(key):
            raise _refused("key: must be text without lone surrogates")
        try:
            return await self._operations[operation](key, rest)
        except UnavailableError as error:
            raise HostCallError(error.reason, "the key-value store does not answer") from error
        except CodeSousError as error:
            raise HostCallError(error.reason, error.message) from error

    async def _get(self, key: str, _rest: list[Any]) -> Any:
        stored = await self._store.get(self._tenant, key)
        return None if stored is None else json.loads(stored)

    async def _set(self, key: str, rest: list[Any]) -> None:
        try:
            text = json.dumps(rest[0] if rest else None, allow_nan=False, separators=(",", ":")).encode()
        except ValueError as error:
            raise _refused("value: must be JSON") from error
        await self._store.set(self._tenant, key, text, _ttl(rest[1] if len(rest) > 1 else None))

    async def _delete(self, key: str, _rest: list[Any]) -> bool:
        return await self._store.delete(self._tenant, key)

    async def _incr(self, key: str, rest: list[Any]) -> int:
        by = rest[0] if rest else 1
        if not _is_integer(by) or abs(by) > _SAFE_INTEGER:
            raise _refused("by: must be an integer")
        return await self._store.incr(self._tenant, key, by)

    async def _list(self, prefix: str, rest: list[Any]) -> list[str]:
        options = rest[0] if rest and isinstance(rest[0], dict) else {}
        limit = options.get("limit", LIST_DEFAULT)
        if not _is_integer(limit) or not 1 <= limit <= LIST_MAX:
            raise _refused(f"limit: must be an integer from 1 to {LIST_MAX}")
        return await self._store.list_keys(self._tenant, prefix, limit=limit)


def _refused(message: str) -> HostCallError:
    return HostCallError(REASON_FIELD, message)


def _is_unicode(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ttl(options: object) -> timedelta | None:
    ttl = options.get("ttl") if isinstance(options, dict) else None
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= _TTL_MAX:
        raise _refused(f"ttl: must be a positive number of seconds, at most {_TTL_MAX:.0f}")
    return timedelta(seconds=ttl)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
