"""`cs.kv` in the mesh: the tenant's values in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from cs_core.errors import CodeSousError, UnavailableError
from cs_core.store.userkv import UserKvStore
from cs_sandbox.job import HostCallError


class StoredKeyValues:
    """Implements the sandbox's KeyValues for one tenant."""

    def __init__(self, store: UserKvStore, tenant: str) -> None:
        self._store = store
        self._tenant = tenant

    async def get(self, key: str) -> bytes | None:
        """See KeyValues.get."""
        with _told():
            return await self._store.get(self._tenant, key)

    async def set(self, key: str, value: bytes, ttl: timedelta | None) -> None:
        """See KeyValues.set."""
        with _told():
            await self._store.set(self._tenant, key, value, ttl)

    async def delete(self, key: str) -> bool:
        """See KeyValues.delete."""
        with _told():
            return await self._store.delete(self._tenant, key)

    async def incr(self, key: str, by: int) -> int:
        """See KeyValues.incr."""
        with _told():
            return await self._store.incr(self._tenant, key, by)

    async def list_keys(self, prefix: str, *, after: str, limit: int) -> list[str]:
        """See KeyValues.list_keys."""
        with _told():
            return await self._store.list_keys(self._tenant, prefix, after=after, limit=limit)


@contextmanager
def _told() -> Iterator[None]:
    """Turn errors of the store into what user code may learn."""
    try:
        yield
    except UnavailableError as error:
        raise HostCallError(error.reason, "the key-value store does not answer") from error
    except CodeSousError as error:
        raise HostCallError(error.reason, error.message) from error
