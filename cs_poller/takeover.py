"""Adopting the tasks of instances that are gone, so that somebody answers them.

Theory of operation. The owners of unanswered tasks are compared with the living instances; a task whose owner is not
among them is adopted by compare-and-set, so by one instance. The owners are read first: each lived when it took its
task, so one that is not among the members read afterwards is gone, and not new. What is still sent to it (heartbeats
of runs that go on) arrives on its channel: whoever holds tasks of it listens there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import structlog
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.storage.v1.worker_binding_pb2 import CadenceTaskRecord

from cs_core.codeq import ResultChannel
from cs_core.errors import UnavailableError
from cs_core.store.cadence_tasks import CadenceTaskStore

from .membership import Membership

_log = structlog.get_logger(__name__)
EVERY = timedelta(seconds=1)


class Takeover:
    """Looks for tasks of instances that are gone.

    Args:
        store: the unanswered tasks.
        membership: who lives.
        channel: where heartbeats arrive.
        adopt: is given each adopted task, and what to call when it is answered.
        on_envelope: is given what arrives for an instance that is gone.
        every: time between two looks.
    """

    def __init__(
        self,
        store: CadenceTaskStore,
        membership: Membership,
        channel: ResultChannel,
        adopt: Callable[[CadenceTaskRecord, Callable[[], None]], None],
        on_envelope: Callable[[Envelope], None],
        every: timedelta = EVERY,
    ) -> None:
        self._store = store
        self._membership = membership
        self._channel = channel
        self._adopt = adopt
        self._on_envelope = on_envelope
        self._every = every.total_seconds()
        self._estates: dict[str, _Estate] = {}

    async def run(self) -> None:
        """Look for ever."""
        try:
            while True:
                await self._membership.wait_living()
                try:
                    await self.look()
                except UnavailableError as error:
                    _log.info("did not look for tasks to adopt", error=error.message)
                except Exception:  # noqa: BLE001 - one task that cannot be read must not end the adopting of others
                    _log.exception("tasks could not be adopted")
                await asyncio.sleep(self._every)
        finally:
            for estate in self._estates.values():
                await estate.close()

    async def look(self) -> int:
        """Adopt what there is; returns how many tasks. Raises UnavailableError."""
        adopted = 0
        held = await self._store.owners()
        if not held.keys() <= {self._membership.instance, *self._membership.members}:
            await self._membership.beat()
        for gone in held.keys() - {self._membership.instance, *self._membership.members}:
            for task in held[gone]:
                record = await self._store.adopt(task, gone)
                if record is not None:
                    adopted += 1
                    await self._take_on(record, gone)
        for gone in [gone for gone, estate in self._estates.items() if estate.open_tasks == 0]:
            await self._estates.pop(gone).close()
        if adopted:
            _log.warning("adopted tasks of pollers that are gone", count=adopted)
        return adopted

    async def _take_on(self, record: CadenceTaskRecord, gone: str) -> None:
        estate = self._estates.get(gone)
        if estate is None:
            estate = self._estates[gone] = _Estate()
            await estate.listening.enter_async_context(self._channel.listen(gone, self._on_envelope, lambda: None))
        estate.open_tasks += 1
        self._adopt(record, estate.settle)


class _Estate:
    """What is left of one instance: its channel, and how many of its tasks are not answered yet."""

    def __init__(self) -> None:
        self.listening = AsyncExitStack()
        self.open_tasks = 0

    def settle(self) -> None:
        self.open_tasks -= 1

    async def close(self) -> None:
        await self.listening.aclose()
