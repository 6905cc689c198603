"""Worker bindings: read, list, change, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.control.v1.worker_binding_pb2 import WorkerBinding
from codesous.storage.v1.worker_binding_pb2 import WorkerBindingRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import append_mutation
from cs_core.store.transaction import Transaction, retry_when_stale
from cs_core.store.worker_index import WorkerIndex

# Given the binding as it is (None: there is none), what to store (None: remove it) and the mutation; or None to leave
# all as it is. It may be called several times and may raise.
Change = Callable[[WorkerBinding | None], tuple[WorkerBinding | None, LifecycleMutation] | None]


class WorkerBindingStore:
    """The records of worker bindings. Methods raise UnavailableError."""

    def __init__(self, client: KvClient, index: WorkerIndex) -> None:
        self._client = client
        self._index = index

    async def get(self, tenant: str, namespace: str, name: str) -> WorkerBinding | None:
        """Read a binding; None when there is none."""
        stored = await self._client.call("GET", keys.worker_binding(tenant, namespace, name))
        return None if stored is None else WorkerBindingRecord.FromString(stored).worker_binding

    async def list_by_name(
        self, tenant: str, namespace: str, *, after: str, limit: int
    ) -> tuple[list[WorkerBinding], str | None]:
        """List bindings of a namespace by name after `after` (empty: all), and the name to go on after (None: none)."""
        # "0" follows "/": what lies between are the names of this namespace.
        lowest = f"({namespace}/{after}" if after else f"[{namespace}/"
        members = await self._client.call(
            "ZRANGEBYLEX", keys.worker_bindings(tenant), lowest, f"({namespace}0", "LIMIT", 0, limit + 1
        )
        names = [member.decode().partition("/")[2] for member in members]
        found = await asyncio.gather(*(self.get(tenant, namespace, name) for name in names[:limit]))
        return [binding for binding in found if binding is not None], (names[limit - 1] if len(names) > limit else None)

    async def list_all(self, tenant: str) -> list[WorkerBinding]:
        """List all bindings of a tenant."""
        members = await self._client.call("ZRANGE", keys.worker_bindings(tenant), 0, -1)
        places = [member.decode().partition("/") for member in members]
        found = await asyncio.gather(*(self.get(tenant, namespace, name) for namespace, _, name in places))
        return [binding for binding in found if binding is not None]

    async def change(self, tenant: str, namespace: str, name: str, change: Change) -> WorkerBinding | None:
        """Apply `change` with its mutation in one step; returns the binding as it is afterwards."""
        key = keys.worker_binding(tenant, namespace, name)

        async def step() -> WorkerBinding | None:
            stored = await self._client.call("GET", key)
            present = None if stored is None else WorkerBindingRecord.FromString(stored).worker_binding
            outcome = change(present)
            if outcome is None:
                return present
            binding, mutation = outcome
            transaction = Transaction()
            transaction.expect(key, stored)
            record = None
            if binding is None:
                transaction.write("DEL", key)
                transaction.write("ZREM", keys.worker_bindings(tenant), f"{namespace}/{name}")
                transaction.write("DEL", keys.worker_reports(tenant, namespace, name))
            else:
                record = WorkerBindingRecord(worker_binding=binding).SerializeToString(deterministic=True)
                transaction.write("SET", key, record)
                transaction.write("ZADD", keys.worker_bindings(tenant), 0, f"{namespace}/{name}")
            append_mutation(transaction, mutation, before=stored, after=record)
            await self._index.note(tenant)
            await transaction.commit(self._client)
            return binding

        return await retry_when_stale(step, f"worker binding {name}")
