"""The records of schedules, in their tenant's slot: what is wanted. The truth, of which a shard has a copy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.storage.v1.records_pb2 import ScheduleRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import append_mutation
from cs_core.store.transaction import Transaction, retry_when_stale

# Given the record as it is (None: there is none), what to store (None: remove it) and the mutation; or None to leave
# all as it is. It may be called several times and may raise.
Change = Callable[[ScheduleRecord | None], tuple[ScheduleRecord | None, LifecycleMutation] | None]


class ScheduleStore:
    """The records of schedules."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def get(self, tenant: str, namespace: str, name: str) -> ScheduleRecord | None:
        """Read a schedule; None when there is none."""
        stored = await self._client.call("GET", keys.schedule(tenant, namespace, name))
        return None if stored is None else ScheduleRecord.FromString(stored)

    async def list_by_name(
        self, tenant: str, namespace: str, *, after: str, limit: int
    ) -> tuple[list[ScheduleRecord], str | None]:
        """List schedules by name after `after` (empty: all), and the name to go on after (None: that was all)."""
        lowest = f"({after}" if after else "-"
        names = await self._client.call(
            "ZRANGEBYLEX", keys.schedules(tenant, namespace), lowest, "+", "LIMIT", 0, limit + 1
        )
        stored = await asyncio.gather(*(self.get(tenant, namespace, name.decode()) for name in names[:limit]))
        found = [record for record in stored if record is not None]
        return found, (names[limit - 1].decode() if len(names) > limit else None)

    async def change(self, tenant: str, namespace: str, name: str, change: Change) -> ScheduleRecord | None:
        """Apply `change` with its mutation in one step; returns the record as it is afterwards."""
        key = keys.schedule(tenant, namespace, name)

        async def step() -> ScheduleRecord | None:
            stored = await self._client.call("GET", key)
            present = None if stored is None else ScheduleRecord.FromString(stored)
            outcome = change(present)
            if outcome is None:
                return present
            target, mutation = outcome
            transaction = Transaction()
            transaction.expect(key, stored)
            after = None
            if target is None:
                transaction.write("DEL", key)
                transaction.write("ZREM", keys.schedules(tenant, namespace), name)
            else:
                after = target.SerializeToString(deterministic=True)
                transaction.write("SET", key, after)
                transaction.write("ZADD", keys.schedules(tenant, namespace), 0, name)
            append_mutation(transaction, mutation, before=stored, after=after)
            await transaction.commit(self._client)
            return target

        return await retry_when_stale(step, f"schedule {name}")
