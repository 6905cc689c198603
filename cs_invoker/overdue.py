"""Ends activations to which no message leads any more.

Theory of operation. Record and message are written in one pipeline, but a process or a store that dies in between may
keep the record alone; nobody was told that it was accepted, and nobody will run it. What has not ended a minute after
its deadline is ended here as TIMEOUT: a message, if there is one after all, finds it done. Every invoker looks, at
random distances; each step is a compare-and-set, so it does not matter how many of them do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog
from codesous.queue.v1.invocation_pb2 import InvocationRequest

from cs_core.clock import Clock
from cs_core.errors import UnavailableError
from cs_core.ids import message_id
from cs_core.store.activations import ActivationStore
from cs_core.store.overdue import OverdueStore

from . import results
from .metrics import Metrics

_log = structlog.get_logger(__name__)

INTERVAL = timedelta(seconds=30)
"""Longest time between two looks at all partitions."""
_PAGE = 100
_MESSAGE = "the deadline passed, and nothing had led to a run"


@dataclass(frozen=True, slots=True)
class Overdue:
    """Looks for overdue activations and ends them."""

    store: OverdueStore
    activations: ActivationStore
    metrics: Metrics
    clock: Clock
    partitions: int
    lease: timedelta
    instance: str
    source: random.Random
    interval: timedelta = INTERVAL

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look again and again for the length of the block."""
        looking = asyncio.create_task(self._look(), name="overdue")
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self.interval.total_seconds() * self.source.uniform(0.5, 1.0))
            try:
                await self.sweep()
            except UnavailableError as error:
                _log.debug("overdue activations wait for the store", reason=error.reason)
            except Exception:  # noqa: BLE001 - the next look may do better
                _log.exception("overdue activations could not be looked for")

    async def sweep(self) -> int:
        """End what is overdue in all partitions; returns how many. Raises UnavailableError."""
        ended = 0
        for partition in range(self.partitions):
            for request in await self.store.find(partition, self.clock.now(), _PAGE):
                ended += await self._end(request)
        return ended

    async def _end(self, request: InvocationRequest) -> bool:
        """End one, unless a living owner runs it."""
        result = results.of_failure(request, results.REASON_TIMEOUT, _MESSAGE, now=self.clock.now())
        finished = await self.activations.finish(result, "")
        if not finished.accepted and finished.result is None:
            owner = f"{self.instance}/{message_id()}"
            begun = await self.activations.begin(result.tenant, result.activation_id, owner, self.lease)
            if begun.kind != "run":
                return False
            result.attempt = begun.attempt - 1
            finished = await self.activations.finish(result, owner)
        if finished.accepted:
            self.metrics.observe_result(result)
            _log.warning("ended an overdue activation", tenant=result.tenant, activation_id=result.activation_id)
        return finished.accepted
