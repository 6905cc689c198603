"""Secrets of a namespace, encrypted: read, list, set, delete."""

from __future__ import annotations

from collections.abc import Callable

from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.control.v1.secret_pb2 import Secret
from codesous.storage.v1.records_pb2 import SecretRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import append_mutation
from cs_core.store.transaction import Transaction, retry_when_stale

# Given the record as it is (None: not there) and how many secrets the namespace has, what to store (None: remove it)
# and the mutation. It may be called several times and may raise.
Change = Callable[[SecretRecord | None, int], tuple[SecretRecord | None, LifecycleMutation]]


class SecretStore:
    """The records of secrets. What is sealed in them is not known here."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def get(self, tenant: str, namespace: str, name: str) -> SecretRecord | None:
        """Read a secret; None when there is none."""
        stored = await self._client.call("HGET", keys.secrets(tenant, namespace), name)
        return None if stored is None else SecretRecord.FromString(stored)

    async def list_by_name(self, tenant: str, namespace: str) -> list[Secret]:
        """List the secrets of a namespace by name."""
        stored = await self._client.call("HGETALL", keys.secrets(tenant, namespace))
        return sorted((SecretRecord.FromString(record).secret for record in stored[1::2]), key=lambda one: one.secret)

    async def change(self, tenant: str, namespace: str, name: str, change: Change) -> None:
        """Apply `change` with its mutation in one step."""
        key = keys.secrets(tenant, namespace)

        async def step() -> None:
            stored = await self._client.call("HGET", key, name)
            count = await self._client.call("HLEN", key)
            record, mutation = change(None if stored is None else SecretRecord.FromString(stored), count)
            transaction = Transaction()
            transaction.expect(key, stored, field=name)
            written = None
            if record is None:
                transaction.write("HDEL", key, name)
            else:
                written = record.SerializeToString(deterministic=True)
                transaction.write("HSET", key, name, written)
            append_mutation(transaction, mutation, before=stored, after=written)
            await transaction.commit(self._client)

        await retry_when_stale(step, f"secret {name}")
