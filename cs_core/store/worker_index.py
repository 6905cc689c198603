"""Which tenants have worker bindings: an index that pollers read, since bindings are stored with their tenants.

Theory of operation. A tenant and the index are in different slots, so no step can change both. Before a binding is
changed, its tenant is noted in the index with the server's time. Whatever dies in between leaves a note without a
change, which costs a look, never a change without a note. A poller looks at tenants whose mutation bell rang, again and
again at tenants noted lately (a note may be older than its change by as long as a change takes), and rarely at all. A
tenant without bindings leaves the index when its note is old.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_NOTE, _CHANGED, _FORGET = (
    load_script("cs_core.store", name) for name in ("note_worker_change", "changed_workers", "forget_workers")
)
LATELY = timedelta(seconds=30)
"""A change is made, or given up, within this time of its note."""
_KEPT = timedelta(hours=1)


class WorkerIndex:
    """The index of tenants, spread over the partitions of the installation. Methods raise UnavailableError."""

    def __init__(self, client: KvClient, partitions: int) -> None:
        self._client = client
        self._partitions = partitions

    def _key(self, tenant: str) -> str:
        return keys.worker_index(keys.tenant_partitions(tenant, self._partitions)[0])

    async def note(self, tenant: str) -> None:
        """Note that a binding of the tenant is about to change. Call it before the change."""
        await self._client.script(_NOTE, [self._key(tenant)], [tenant])

    async def changed(self, within: timedelta = LATELY) -> set[str]:
        """Tenants whose bindings may have changed within this time."""
        ms = int(within.total_seconds() * 1000)
        replies = await asyncio.gather(
            *(self._client.script(_CHANGED, [keys.worker_index(number)], [ms]) for number in range(self._partitions))
        )
        return {tenant.decode() for reply in replies for tenant in reply}

    async def all(self) -> set[str]:
        """Tenants that have bindings, and some that had."""
        replies = await asyncio.gather(
            *(self._client.call("ZRANGE", keys.worker_index(number), 0, -1) for number in range(self._partitions))
        )
        return {tenant.decode() for reply in replies for tenant in reply}

    async def forget(self, tenant: str, kept: timedelta = _KEPT) -> bool:
        """Remove a tenant that was seen without bindings, unless it was noted within `kept`."""
        arguments: list[str | int] = [tenant, int(kept.total_seconds() * 1000)]
        return bool(await self._client.script(_FORGET, [self._key(tenant)], arguments))
