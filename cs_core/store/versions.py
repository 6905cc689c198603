"""Versions: read, list, publish."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.function_pb2 import Function
from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.control.v1.version_pb2 import Version
from codesous.storage.v1.records_pb2 import AliasRecord, DraftRecord, FunctionRecord, VersionRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import append_mutation
from cs_core.store.transaction import Transaction, retry_when_stale


@dataclass(frozen=True, slots=True)
class Present:
    """What a publish starts from."""

    function: Function | None
    draft: DraftRecord | None
    alias: Alias | None


@dataclass(frozen=True, slots=True)
class Publication:
    """What a publish stores, all in one step."""

    function: Function
    version: Version
    draft: DraftRecord
    alias: Alias | None
    mutation: LifecycleMutation


class VersionStore:
    """The records of versions."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def get(self, tenant: str, namespace: str, name: str, number: int) -> Version | None:
        """Read a version; None when there is none."""
        stored = await self._client.call("GET", keys.version(tenant, namespace, name, number))
        return None if stored is None else VersionRecord.FromString(stored).version

    async def list_newest_first(
        self, tenant: str, namespace: str, name: str, *, below: int, limit: int
    ) -> list[Version]:
        """List versions with numbers below `below`, newest first."""
        numbers = range(below - 1, max(0, below - 1 - limit), -1)
        stored = await asyncio.gather(*(self.get(tenant, namespace, name, number) for number in numbers))
        return [version for version in stored if version is not None]

    async def publish(
        self,
        tenant: str,
        namespace: str,
        name: str,
        draft_id: str,
        alias: str,
        compute: Callable[[Present], Awaitable[Publication | None]],
    ) -> Publication | None:
        """Publish a draft in one step: version, function, bundle kept, draft consumed, optional alias, mutation.

        `compute` is given what is stored and returns what to store, or None to leave all as it is; it may be called
        several times and may raise. Returns what it returned last.
        """
        function_key = keys.function(tenant, namespace, name)
        draft_key = keys.draft(tenant, draft_id)
        aliases_key = keys.aliases(tenant, namespace, name)

        async def step() -> Publication | None:
            calls = [self._client.call("GET", function_key), self._client.call("GET", draft_key)]
            if alias:
                calls.append(self._client.call("HGET", aliases_key, alias))
            stored = [*await asyncio.gather(*calls), None]
            publication = await compute(
                Present(
                    None if stored[0] is None else FunctionRecord.FromString(stored[0]).function,
                    None if stored[1] is None else DraftRecord.FromString(stored[1]),
                    None if stored[2] is None else AliasRecord.FromString(stored[2]).alias,
                )
            )
            if publication is None:
                return None
            version = publication.version
            version_key = keys.version(tenant, namespace, name, version.version)
            record = VersionRecord(version=version).SerializeToString(deterministic=True)
            transaction = Transaction()
            transaction.expect(function_key, stored[0])
            transaction.expect(draft_key, stored[1])
            transaction.expect(version_key, None)
            transaction.write(
                "SET", function_key, FunctionRecord(function=publication.function).SerializeToString(deterministic=True)
            )
            transaction.write("SET", version_key, record)
            transaction.write("PERSIST", keys.bundle(tenant, version.bundle_sha256))
            # A consumed draft answers a repeat of its publish for as long as it would have lived.
            transaction.write("SET", draft_key, publication.draft.SerializeToString(deterministic=True), "KEEPTTL")
            if publication.alias is not None:
                transaction.expect(aliases_key, stored[2], field=alias)
                moved = AliasRecord(alias=publication.alias).SerializeToString(deterministic=True)
                transaction.write("HSET", aliases_key, alias, moved)
            append_mutation(transaction, publication.mutation, before=None, after=record)
            await transaction.commit(self._client)
            return publication

        return await retry_when_stale(step, f"function {name}")
