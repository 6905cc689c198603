"""Tells the store that this invoker lives and how much it takes, so that whoever looks knows who consumes what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final

import structlog
from codesous.storage.v1.consumer_pb2 import ConsumerReport

from cs_core.errors import UnavailableError
from cs_core.store.consumers import ConsumerStore

_log = structlog.get_logger(__name__)
REPORT_EVERY: Final = 1.0
LIFE: Final = timedelta(seconds=5)


class Reporting:
    """Reports every second; an invoker that does not for five is taken for gone."""

    def __init__(self, store: ConsumerStore, instance: str, report: Callable[[], ConsumerReport]) -> None:
        self._store = store
        self._instance = instance
        self._report = report

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report for the length of the block, then leave."""
        task = asyncio.get_running_loop().create_task(self._run(), name="reporting")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # With the store away the report ends by itself.
            with suppress(UnavailableError):
                await self._store.leave(self._instance)

    async def tell(self) -> None:
        """Report now. With the store away there is nobody to tell."""
        try:
            await self._store.report(self._instance, self._report(), LIFE)
        except UnavailableError as error:
            _log.debug("could not report", reason=error.reason)

    async def _run(self) -> None:
        while True:
            await self.tell()
            await asyncio.sleep(REPORT_EVERY)
