"""Bounds how many activations of a version run at once: each takes a slot before it runs, or its message waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.store.slots import SlotStore

from .persistence import persist

_log = structlog.get_logger(__name__)

_FIRST_WAIT = timedelta(milliseconds=25)
_LOOKS_PER_SLOT, _FEWEST_LOOKS, _MOST_LOOKS = 50, 100, 2_000
_VERSIONS = 1_000


class Slots:
    """The slots of all versions, for this process. What is held is renewed with the activation's other leases."""

    def __init__(self, store: SlotStore, lease: timedelta, source: random.Random) -> None:
        self._store = store
        self._lease = lease
        self._source = source
        self._turns: dict[tuple[str, str, str, int], float] = {}

    @asynccontextmanager
    async def hold(self, ref: FunctionRef, owner: str, most: int) -> AsyncIterator[bool]:
        """Hold one of `most` slots for the length of the block; gives False when all are taken.

        While the store is away, taking is tried for the length of the lease; then raises UnavailableError.
        """
        taken = await persist("take slot", lambda: self._store.take(ref, owner, most, self._lease), within=self._lease)
        try:
            yield taken
        finally:
            if taken:
                self._give_back(ref, owner)

    def wait(self, ref: FunctionRef, most: int, now: float) -> timedelta:
        """How long a message waits that found none of `most` slots free; `now` is a reading of a monotonic clock.

        Messages of one version come back one after the other, some so many a second, however many wait: a backlog at
        its limit costs this process a bounded part of its time, and a slot that gets free is soon found.
        """
        key = (ref.tenant, ref.namespace, ref.function, ref.version)
        looks = min(max(_LOOKS_PER_SLOT * most, _FEWEST_LOOKS), _MOST_LOOKS)
        earliest = now + _FIRST_WAIT.total_seconds() * self._source.uniform(0.5, 1.0)
        turn = max(earliest, self._turns.pop(key, 0.0) + 1 / looks)
        self._turns[key] = turn
        if len(self._turns) > _VERSIONS:
            self._turns = {name: last for name, last in self._turns.items() if last > now}
        return timedelta(seconds=turn - now)

    def _give_back(self, ref: FunctionRef, owner: str) -> None:
        # Nothing waits for it: it goes out before whatever is sent next.
        self._store.give_back(ref, owner).add_done_callback(_note_failure)


def _note_failure(given_back: asyncio.Future[Any]) -> None:
    error = None if given_back.cancelled() else given_back.exception()
    if error is not None:
        _log.warning("a slot was not given back; it is free when its lease has ended", error=str(error))
