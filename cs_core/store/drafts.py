"""Drafts: files that wait to be published, and the record of what became of them."""

from __future__ import annotations

from datetime import timedelta

from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.control.v1.version_pb2 import Draft
from codesous.storage.v1.records_pb2 import DraftRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import append_mutation
from cs_core.store.transaction import StaleError, Transaction

# An expired draft is told from one that never was for this long.
REMEMBERED = timedelta(days=7)


class DraftStore:
    """The records of drafts, and their bundles until they are published."""

    def __init__(self, client: KvClient, ttl: timedelta) -> None:
        self._client = client
        self._ttl = ttl

    async def get(self, tenant: str, draft_id: str) -> DraftRecord | None:
        """Read a draft's record; None when there is none, or it expired more than a week ago."""
        stored = await self._client.call("GET", keys.draft(tenant, draft_id))
        return None if stored is None else DraftRecord.FromString(stored)

    async def put(self, draft: Draft, bundle: bytes, function_record: bytes, mutation: LifecycleMutation) -> None:
        """Store a draft and its bundle while the function's record is still `function_record`.

        Raises:
            StaleError: the function has changed.
        """
        key = keys.draft(draft.tenant, draft.draft_id)
        bundle_key = keys.bundle(draft.tenant, draft.bundle_sha256)
        life = int(self._ttl.total_seconds())
        present_life = await self._client.call("TTL", bundle_key)
        record = DraftRecord(draft=draft).SerializeToString(deterministic=True)
        transaction = Transaction()
        transaction.expect(keys.function(draft.tenant, draft.namespace, draft.function), function_record)
        transaction.expect(key, None)
        transaction.write("SET", key, record, "EX", life + int(REMEMBERED.total_seconds()))
        if present_life == -1:
            # A version holds the same bundle: it stays for good. It cannot vanish, versions are never removed.
            transaction.write("EXISTS", bundle_key)
        else:
            # An hour longer than the draft: a publish in its last second still finds the bundle.
            transaction.write("SET", bundle_key, bundle, "EX", life + 3600)
        append_mutation(transaction, mutation, before=None, after=record)
        await transaction.commit(self._client)


__all__ = ["REMEMBERED", "DraftStore", "StaleError"]
