"""Correlation: results that arrive on this instance's channel wake those who wait for them.

Theory of operation. A waiter is registered before its request is published, so its result cannot come too early. The
channel is best effort; the record is the truth. So all records that are waited for are read again after every gap of
the channel and on a slow timer: a lost push costs a delay, never a result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import InvocationResult

from cs_core.codeq import ResultChannel
from cs_core.errors import UnavailableError
from cs_core.store.activations import ActivationStore

_log = structlog.get_logger(__name__)
RECHECK = 0.5
"""Seconds between two looks at the records that are waited for."""

_Key = tuple[str, str]


class Waiters:
    """Everyone in this process who waits for the end of an activation."""

    def __init__(
        self,
        activations: ActivationStore,
        channel: ResultChannel,
        instance: str,
        recheck: float = RECHECK,
        on_other: Callable[[Envelope], None] = lambda _envelope: None,
    ) -> None:
        """`on_other` is given what arrives on this instance's channel and is no result."""
        self._activations = activations
        self._channel = channel
        self._instance = instance
        self._recheck = recheck
        self._on_other = on_other
        self._waiting: dict[_Key, set[asyncio.Future[InvocationResult]]] = {}
        self._gap = asyncio.Event()

    @contextmanager
    def expect(self, tenant: str, activation_id: str) -> Iterator[asyncio.Future[InvocationResult]]:
        """Register for a result; the future is resolved when the activation ends."""
        key = (tenant, activation_id)
        future: asyncio.Future[InvocationResult] = asyncio.get_running_loop().create_future()
        futures = self._waiting.setdefault(key, set())
        futures.add(future)
        try:
            yield future
        finally:
            futures.discard(future)
            if not futures and self._waiting.get(key) is futures:
                del self._waiting[key]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, and look at records, for the length of the block."""
        async with self._channel.listen(self._instance, self.take, self._gap.set):
            looking = asyncio.create_task(self._look(), name="waiters")
            try:
                yield
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)

    @property
    def count(self) -> int:
        """Activations that are waited for."""
        return len(self._waiting)

    def take(self, envelope: Envelope) -> None:
        """Look at what arrived on a channel."""
        if envelope.WhichOneof("body") == "invocation_result":
            self._resolve(envelope.invocation_result)
        else:
            self._on_other(envelope)

    def _resolve(self, result: InvocationResult) -> None:
        waiting = [
            future for future in self._waiting.get((result.tenant, result.activation_id), ()) if not future.done()
        ]
        for future in waiting:
            future.set_result(result)
        if waiting:
            # Best effort: it tells people where the time went, and nothing depends on it.
            self._activations.note_delivery(result.tenant, result.activation_id).add_done_callback(_pass_over)

    async def _look(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._recheck):
                    await self._gap.wait()
            except TimeoutError:
                pass
            self._gap.clear()
            # One pipeline: all of them are issued in this turn of the loop.
            await asyncio.gather(*(self._read(*key) for key in list(self._waiting)))

    async def _read(self, tenant: str, activation_id: str) -> None:
        try:
            result = await self._activations.get_result(tenant, activation_id)
        except UnavailableError as error:
            _log.debug("a record could not be read", activation_id=activation_id, error=error.message)
            return
        if result is not None:
            self._resolve(result)


def _pass_over(noted: asyncio.Future[Any]) -> None:
    """Whether it failed does not matter, and has been looked at."""
    if not noted.cancelled():
        noted.exception()
