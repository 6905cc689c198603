"""Aliases: read, list, set, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.function_pb2 import Function
from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.storage.v1.records_pb2 import AliasRecord, FunctionRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import append_mutation
from cs_core.store.transaction import Transaction, retry_when_stale

# Given the function and the alias as they are (None: not there), what to store (None: remove it) and the mutation; or
# None to leave all as it is. It may be called several times and may raise.
Change = Callable[[Function | None, Alias | None], Awaitable[tuple[Alias | None, LifecycleMutation] | None]]


class AliasStore:
    """The records of aliases."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def get(self, tenant: str, namespace: str, name: str, alias: str) -> Alias | None:
        """Read an alias; None when there is none."""
        stored = await self._client.call("HGET", keys.aliases(tenant, namespace, name), alias)
        return None if stored is None else AliasRecord.FromString(stored).alias

    async def list_by_name(self, tenant: str, namespace: str, name: str) -> list[Alias]:
        """List all aliases of a function by name."""
        stored = await self._client.call("HGETALL", keys.aliases(tenant, namespace, name))
        found = [AliasRecord.FromString(record).alias for record in stored[1::2]]
        return sorted(found, key=lambda alias: alias.alias)

    async def change(self, tenant: str, namespace: str, name: str, alias: str, change: Change) -> Alias | None:
        """Apply `change` with its mutation in one step; returns the alias as it is afterwards."""
        function_key = keys.function(tenant, namespace, name)
        key = keys.aliases(tenant, namespace, name)

        async def step() -> Alias | None:
            function_bytes, stored = await asyncio.gather(
                self._client.call("GET", function_key), self._client.call("HGET", key, alias)
            )
            function = None if function_bytes is None else FunctionRecord.FromString(function_bytes).function
            present = None if stored is None else AliasRecord.FromString(stored).alias
            outcome = await change(function, present)
            if outcome is None:
                return present
            target, mutation = outcome
            transaction = Transaction()
            transaction.expect(function_key, function_bytes)
            transaction.expect(key, stored, field=alias)
            record = None
            if target is None:
                transaction.write("HDEL", key, alias)
            else:
                record = AliasRecord(alias=target).SerializeToString(deterministic=True)
                transaction.write("HSET", key, alias, record)
            append_mutation(transaction, mutation, before=stored, after=record)
            await transaction.commit(self._client)
            return target

        return await retry_when_stale(step, f"alias {alias}")
