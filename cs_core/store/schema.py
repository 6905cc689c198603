"""The schema of the store: which form its data has, and whether this release works on it.

Theory of operation. One record tells the version. A store without any data gets this release's version from whoever
opens it first. A store with data and no record was made by a release that knew no versions: version 0. Everything else
is brought from version to version by `cs_core.store.migrations`, one after the other, and never back.

A newer version need not shut this release out: each migration says from which version on processes may go on working
on what it leaves, and the record carries that. So an upgrade that only adds migrates first, under the processes of the
release before, and then replaces them in turn.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from codesous.storage.v1.schema_pb2 import SchemaRecord

from cs_core.clock import Clock, to_timestamp
from cs_core.errors import StoreSchemaError
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

VERSION: Final = 3
"""The schema of this release: the version of its last migration."""
READABLE_FROM: Final = 0
"""What a store of this release says of who else may work on it."""
_PREFIX: Final = "cs:"
_ADVANCE = load_script("cs_core.store", "advance_schema")


def judge(record: SchemaRecord, known: int = VERSION) -> None:
    """Return when a process that knows `known` may work on a store of this record.

    Raises:
        StoreSchemaError: it may not; the message says what to do.
    """
    if record.version < known:
        raise StoreSchemaError(
            f"the store has schema {record.version} and this release needs {known}; `cs store migrate` brings it there"
        )
    if record.version > known and record.readable_from > known:
        raise StoreSchemaError(
            f"the store has schema {record.version}, by release {record.release or 'unknown'}, and this release works"
            f" on {known} at most; run one that knows schema {record.readable_from}"
        )


class SchemaStore:
    """The record. Every method raises UnavailableError when the store does not answer."""

    def __init__(self, client: KvClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def read(self) -> SchemaRecord | None:
        """The record; one of version 0 where there is data and no record; None where there is nothing at all."""
        if (stored := await self._stored()) is not None:
            return stored
        async for found in self._client.scan(_PREFIX):
            if found:
                # Whoever wrote it may have written the record first, after we looked for that.
                return await self._stored() or SchemaRecord()
        return None

    async def open(self) -> SchemaRecord:
        """Read the record, and make it where there is nothing at all.

        Raises:
            StoreSchemaError: this release does not work on such a store.
        """
        record = await self.read()
        if record is None:
            record = await self._make()
        judge(record)
        return record

    async def probe(self) -> None:
        """Return when the store answers and is one that a process which has opened it may go on with.

        A store that was emptied meanwhile, as one in memory is by its restart, gets its record again: what else it
        holds was written since, by processes that knew the schema.

        Raises:
            StoreSchemaError: it was migrated, under this process, to what this release does not work on.
        """
        judge(await self._stored() or await self._make())

    async def advance(self, to: int, readable_from: int) -> bool:
        """Note that the store has reached a version; False when it is not of the version before."""
        before = await self._stored()
        if (before.version if before is not None else 0) != to - 1:
            return False
        after = self._stamped(to, readable_from)
        expected = b"" if before is None else before.SerializeToString()
        return bool(await self._client.script(_ADVANCE, [keys.schema()], [expected, after.SerializeToString()]))

    async def _make(self) -> SchemaRecord:
        fresh = self._stamped(VERSION, READABLE_FROM)
        await self._client.call("SET", keys.schema(), fresh.SerializeToString(), "NX")
        return await self._stored() or fresh

    async def _stored(self) -> SchemaRecord | None:
        stored = await self._client.call("GET", keys.schema())
        return None if stored is None else SchemaRecord.FromString(stored)

    def _stamped(self, number: int, readable_from: int) -> SchemaRecord:
        return SchemaRecord(
            version=number,
            readable_from=readable_from,
            update_time=to_timestamp(self._clock.now()),
            release=version("code-sous"),
        )
