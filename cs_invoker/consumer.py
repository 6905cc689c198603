"""Receives deliveries of one topic while permits are free, and gives each to a handler of its own.

Theory of operation: one loop receives at most as many messages as there are free permits, so whatever this process
cannot start stays in the queue for others. One partition takes a share of the permits at most: a tenant that floods
fills its own partitions, and there are permits left for the messages of all others. A receive is never cancelled,
because messages that it has just leased would be lost until their leases end: stopping waits for it (at most `wait`),
and what it brings after that is handed back at once. A failing receive is tried again with jittered backoff: the loop
recovers by itself when the store comes back. After an outage that leases may not have outlived, nothing is received
until whoever runs something has had the time to renew: else it would be taken for dead, and run twice.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from codesous.storage.v1.consumer_pb2 import ConsumerReport

from cs_core.backoff import Backoff
from cs_core.codeq import Delivery, Queue
from cs_core.errors import UnavailableError

from .permits import Permits

_log = structlog.get_logger(__name__)

FULL_WAIT = timedelta(milliseconds=10)
Handler = Callable[[Delivery], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Intake:
    """What is received, how much at once, and how long a receive waits for the first message."""

    topic: str
    batch: int
    wait: timedelta
    share: float
    """Part of the permits that the messages of one partition may hold."""
    grace: timedelta
    """How long handlers may go on after a stop before they are cancelled."""
    outage: timedelta
    """An outage of the queue that is longer than this may have ended leases of what runs."""
    settle: timedelta
    """After such an outage, time for renewals before anything is received."""


class Consumer:
    """The receive loop of one topic."""

    def __init__(self, queue: Queue, permits: Permits, intake: Intake, process: Handler, hand_back: Handler) -> None:
        """`process` handles a delivery and never fails; `hand_back` returns one that was not looked at."""
        self._queue = queue
        self._permits = permits
        self._intake = intake
        self._process = process
        self._hand_back = hand_back
        self._stopped = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self._work: set[asyncio.Task[None]] = set()
        self._most = max(1, int(permits.total * intake.share))
        self._held: Counter[int] = Counter()

    @property
    def inflight(self) -> int:
        """Deliveries that are being processed."""
        return len(self._work)

    def report(self) -> ConsumerReport:
        """How much is taken, and how much may be."""
        return ConsumerReport(
            draining=self._stopped.is_set() or not self._going.is_set(),
            permits=self._permits.total,
            permits_taken=self._permits.taken,
            partition_permits=self._most,
            partition_permits_taken={number: held for number, held in self._held.items() if held},
        )

    def pause(self, paused: bool) -> None:
        """Receive no more until told to go on; what was received is processed."""
        if paused:
            self._going.clear()
        else:
            self._going.set()

    def stop(self) -> None:
        """Receive no more. `run` returns when what was received has been processed or handed back."""
        self._stopped.set()
        self._going.set()
        self._permits.close()

    async def run(self) -> None:
        """Receive until `stop`, then drain."""
        async with asyncio.TaskGroup() as group:
            await self._receive(group)
            await self._drain()

    async def _receive(self, group: asyncio.TaskGroup) -> None:
        backoff, away = Backoff(), _Outage()
        while not self._stopped.is_set():
            await self._going.wait()
            free = await self._permits.wait_free()
            if self._stopped.is_set():
                return
            limit = min(free, self._intake.batch)
            # No bell tells that a partition has room again, so while one is full the wait is short.
            wait = FULL_WAIT if self._any_full() else self._intake.wait
            try:
                if away.seconds > self._intake.outage.total_seconds():
                    await self._queue.ping()
                    _log.info("the queue is back; leases are renewed first")
                    away.end()
                    await self._pause(self._intake.settle.total_seconds())
                    continue
                deliveries = await self._queue.receive(self._intake.topic, limit=limit, wait=wait, room=self._room)
            except UnavailableError as error:
                away.begin()
                pause = backoff.next()
                _log.warning("nothing can be received, trying again", reason=error.reason, wait_seconds=round(pause, 3))
                await self._pause(pause)
                continue
            away.end()
            backoff.reset()
            for delivery in deliveries:
                self._start(group, delivery)

    def _start(self, group: asyncio.TaskGroup, delivery: Delivery) -> None:
        if self._stopped.is_set():
            group.create_task(self._hand_back(delivery))
            return
        self._permits.take()
        self._held[delivery.partition] += 1
        task = group.create_task(self._process(delivery))
        self._work.add(task)
        task.add_done_callback(functools.partial(self._done, delivery.partition))

    def _done(self, partition: int, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._held[partition] -= 1
        self._permits.release()

    def _room(self, partition: int) -> int:
        return self._most - self._held[partition]

    def _any_full(self) -> bool:
        return any(held >= self._most for held in self._held.values())

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return

    async def _drain(self) -> None:
        """Wait for the handlers; cancel those that outlast the grace. They hand their leases back."""
        if not self._work:
            return
        _log.info("draining", inflight=len(self._work), grace_seconds=self._intake.grace.total_seconds())
        _, late = await asyncio.wait(self._work, timeout=self._intake.grace.total_seconds())
        for task in late:
            task.cancel()


class _Outage:
    """How long the queue has been away."""

    def __init__(self) -> None:
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

    def begin(self) -> None:
        """It did not answer; it may have been away before."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()

    def end(self) -> None:
        """It answers."""
        self._since = None
