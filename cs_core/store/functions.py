"""Functions: read, list, create, delete, undelete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from codesous.control.v1.function_pb2 import Function, FunctionState
from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.storage.v1.records_pb2 import FunctionRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import append_mutation
from cs_core.store.transaction import Transaction, retry_when_stale

Change = Callable[[Function | None], tuple[Function, LifecycleMutation] | None]


class FunctionStore:
    """The records of functions."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def get(self, tenant: str, namespace: str, name: str) -> Function | None:
        """Read a function, a deleted one too; None when there is none."""
        stored = await self._client.call("GET", keys.function(tenant, namespace, name))
        return None if stored is None else FunctionRecord.FromString(stored).function

    async def read(self, tenant: str, namespace: str, name: str) -> tuple[Function, bytes] | None:
        """Read a function and its record as it is stored, for a change that depends on it; None when there is none."""
        stored = await self._client.call("GET", keys.function(tenant, namespace, name))
        return None if stored is None else (FunctionRecord.FromString(stored).function, stored)

    async def list_by_name(
        self, tenant: str, namespace: str, *, after: str, limit: int, show_deleted: bool
    ) -> tuple[list[Function], str | None]:
        """List functions by name after `after` (empty: all), and the name to go on after (None: all read)."""
        found: list[Function] = []
        position = after
        while len(found) <= limit:
            lowest = f"({position}" if position else "-"
            names = await self._client.call(
                "ZRANGEBYLEX", keys.functions(tenant, namespace), lowest, "+", "LIMIT", 0, limit + 1
            )
            stored = await asyncio.gather(*(self.get(tenant, namespace, name.decode()) for name in names))
            found += [
                function
                for function in stored
                if function is not None and (show_deleted or function.state == FunctionState.FUNCTION_STATE_ACTIVE)
            ]
            if len(names) <= limit:
                break
            position = names[-1].decode()
        chosen = found[:limit]
        return chosen, (chosen[-1].function if len(found) > limit else None)

    async def change(self, tenant: str, namespace: str, name: str, change: Change) -> Function | None:
        """Apply `change` to what is stored, with its mutation, in one step.

        `change` is given the present function (None: there is none) and returns what to store and the mutation, or None
        to leave all as it is; it may be called several times and may raise. Returns the function as it is afterwards.
        """
        key = keys.function(tenant, namespace, name)

        async def step() -> Function | None:
            stored = await self._client.call("GET", key)
            present = None if stored is None else FunctionRecord.FromString(stored).function
            outcome = change(present)
            if outcome is None:
                return present
            function, mutation = outcome
            record = FunctionRecord(function=function).SerializeToString(deterministic=True)
            transaction = Transaction()
            transaction.expect(key, stored)
            transaction.write("SET", key, record)
            transaction.write("ZADD", keys.functions(tenant, namespace), 0, name)
            append_mutation(transaction, mutation, before=stored, after=record)
            await transaction.commit(self._client)
            return function

        return await retry_when_stale(step, f"function {name}")
