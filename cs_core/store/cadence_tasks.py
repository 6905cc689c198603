"""Cadence tasks that were received and are not answered yet, each with the one instance that answers it.

A task stands in the slot of its activation's partition. Its owner is the last instance that received it; an instance
that is gone loses its tasks to whoever adopts them first, and no instance answers a task that is not its own.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from codesous.storage.v1.worker_binding_pb2 import CadenceTaskRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_TAKE, _UPDATE, _ADOPT, _FORGET = (
    load_script("cs_core.store", f"{name}_cadence_task") for name in ("take", "update", "adopt", "forget")
)


class CadenceTaskStore:
    """The unanswered tasks. Methods raise UnavailableError."""

    def __init__(self, client: KvClient, partitions: int, instance: str) -> None:
        self._client = client
        self._partitions = partitions
        self._instance = instance

    def _place(self, tenant: str, activation_id: str) -> tuple[list[str], str]:
        partition = keys.partition_of(tenant, activation_id, self._partitions)
        return [keys.cadence_tasks(partition), keys.cadence_owners(partition)], f"{tenant}/{activation_id}"

    async def take(self, record: CadenceTaskRecord) -> None:
        """Record a task that this instance received; it is this instance's to answer."""
        places, task = self._place(record.tenant, record.activation_id)
        await self._client.script(_TAKE, places, [task, record.SerializeToString(), self._instance])

    async def update(self, record: CadenceTaskRecord) -> bool:
        """Change the record of a task; False when it is not this instance's."""
        places, task = self._place(record.tenant, record.activation_id)
        return bool(await self._client.script(_UPDATE, places, [task, record.SerializeToString(), self._instance]))

    async def owns(self, record: CadenceTaskRecord) -> bool:
        """Whether the task is this instance's to answer."""
        places, task = self._place(record.tenant, record.activation_id)
        owner = await self._client.call("HGET", places[1], task)
        return bool(owner == self._instance.encode())

    async def forget(self, record: CadenceTaskRecord) -> bool:
        """Remove a task that was answered; False when it is another instance's."""
        places, task = self._place(record.tenant, record.activation_id)
        return bool(await self._client.script(_FORGET, places, [task, self._instance]))

    async def owners(self) -> dict[str, list[str]]:
        """All unanswered tasks by the instance that answers them; each task as `tenant/activation`."""
        replies = await asyncio.gather(
            *(self._client.call("HGETALL", keys.cadence_owners(number)) for number in range(self._partitions))
        )
        found: dict[str, list[str]] = defaultdict(list)
        for reply in replies:
            for task, owner in zip(reply[::2], reply[1::2], strict=True):
                found[owner.decode()].append(task.decode())
        return dict(found)

    async def adopt(self, task: str, gone: str) -> CadenceTaskRecord | None:
        """Take a task over from an instance that is gone; None when another did, or it is answered."""
        tenant, _, activation_id = task.partition("/")
        places, _ = self._place(tenant, activation_id)
        record = await self._client.script(_ADOPT, places, [task, gone, self._instance])
        return None if record is None else CadenceTaskRecord.FromString(record)

    async def count(self) -> int:
        """Count the unanswered tasks of all instances."""
        counts = await asyncio.gather(
            *(self._client.call("HLEN", keys.cadence_tasks(number)) for number in range(self._partitions))
        )
        return sum(counts)
