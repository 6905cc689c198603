"""Bounds how many activations of a version run at once: each takes a slot before it runs, or its message waits."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.errors import UnavailableError
from cs_core.store.slots import SlotStore

from .persistence import persist

_log = structlog.get_logger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = timedelta(milliseconds=25), timedelta(milliseconds=500)


class Slots:
    """The slots of all versions, for this process. What is held is renewed with the activation's other leases."""

    def __init__(self, store: SlotStore, lease: timedelta, source: random.Random) -> None:
        self._store = store
        self._lease = lease
        self._source = source

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
                await self._give_back(ref, owner)

    def wait_after(self, deliveries: int) -> timedelta:
        """How long a message waits that found no slot at this delivery: longer each time, so that many cost little."""
        step: timedelta = min(_FIRST_WAIT * float(2 ** min(deliveries - 1, 10)), _LONGEST_WAIT)
        return step * self._source.uniform(0.5, 1.0)

    async def _give_back(self, ref: FunctionRef, owner: str) -> None:
        try:
            await self._store.give_back(ref, owner)
        except UnavailableError as error:
            _log.warning("a slot was not given back; it is free when its lease has ended", reason=error.reason)
