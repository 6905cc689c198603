"""The consumer across an outage of the queue: leases are renewed before anything is received."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest

from cs_core.codeq import Delivery, Queue
from cs_core.errors import UnavailableError
from cs_invoker.consumer import Consumer, Intake
from cs_invoker.permits import Permits
from tests.support.waiting import wait_until

SETTLE = timedelta(milliseconds=300)


class OutageQueue:
    """A queue that is away when told, and notes when it was asked."""

    def __init__(self) -> None:
        self.away = True
        self.received: list[float] = []
        self.pinged: list[float] = []

    async def receive(self, *_: Any, **__: Any) -> list[Delivery]:
        self._check()
        self.received.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        return []

    async def ping(self) -> None:
        self._check()
        self.pinged.append(asyncio.get_running_loop().time())

    def _check(self) -> None:
        if self.away:
            raise UnavailableError("CS_STORE_UNAVAILABLE", "away")


async def nothing(_delivery: Delivery) -> None:
    return


@pytest.mark.parametrize(("outage", "settles"), [(timedelta(0), True), (timedelta(minutes=1), False)])
async def test_only_after_an_outage_longer_than_leases_receiving_waits_for_renewals(
    outage: timedelta, settles: bool
) -> None:
    queue = OutageQueue()
    intake = Intake("cs.test", 4, timedelta(seconds=1), 1.0, grace=timedelta(0), outage=outage, settle=SETTLE)
    consumer = Consumer(cast(Queue, queue), Permits(4), intake, nothing, nothing)
    running = asyncio.create_task(consumer.run())
    await asyncio.sleep(0.1)
    assert queue.received == []
    queue.away = False
    await wait_until(lambda: queue.received)
    consumer.stop()
    await running
    assert bool(queue.pinged) is settles
    if settles:
        assert queue.received[0] - queue.pinged[0] >= SETTLE.total_seconds() * 0.9
