"""Listening on channels of the store, across breaks of the connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import redis.exceptions
import structlog

from cs_core.store.wire import Dialler, Wire

_log = structlog.get_logger(__name__)
_CONNECT_SECONDS = 5.0
_RETRY_FIRST = 0.05
_RETRY_LAST = 1.0
_CANCEL_AGAIN = 0.1


class Listener:
    """Hands every message on some channels to a callback; tells when messages may have been missed.

    Args:
        url: address of the server.
        channels: what to listen on.
        on_message: called with channel and payload, in the event loop. What it raises is logged and goes no further.
        on_gap: called after each (re)subscription: what was sent before it is lost.
    """

    def __init__(
        self,
        url: str,
        channels: Sequence[str],
        on_message: Callable[[str, bytes], None],
        on_gap: Callable[[], None],
    ) -> None:
        self._url = url
        self._channels = tuple(channels)
        self._on_message = on_message
        self._on_gap = on_gap
        self._task: asyncio.Task[None] | None = None
        self._wire: Wire | None = None
        # Channels whose subscription is not confirmed yet.
        self._left = 0
        self.subscribed = asyncio.Event()

    async def __aenter__(self) -> Listener:
        self._task = asyncio.create_task(self._run(), name="pubsub-listener")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # More than once: a connect that ends in the same turn of the loop swallows the cancellation (wait_for of
        # Python 3.11 does), and the listener would go on for ever.
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CANCEL_AGAIN)

    async def _run(self) -> None:
        dialler, wait = Dialler(self._url, _CONNECT_SECONDS), _RETRY_FIRST
        while True:
            lost = asyncio.Event()
            try:
                wire = await dialler.open(self._take, lost.set)
            except (redis.exceptions.RedisError, OSError, TimeoutError):
                pass
            else:
                wait = await self._listen(wire, lost, wait)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            wait = min(wait * 2, _RETRY_LAST)

    async def _listen(self, wire: Wire, lost: asyncio.Event, wait: float) -> float:
        """Listen until the connection is lost. Answers how long to wait before the next one."""
        self._wire, self._left = wire, len(self._channels)
        try:
            wire.send([("SUBSCRIBE", *self._channels)])
            await lost.wait()
            return _RETRY_FIRST if self.subscribed.is_set() else wait
        finally:
            wire.close()
            self.subscribed.clear()

    def _take(self, reply: Any) -> None:
        match reply:
            case [b"message", channel, payload]:
                self._give(channel.decode(), payload)
            case [b"subscribe", *_]:
                self._left -= 1
                if self._left == 0:
                    self.subscribed.set()
                    self._on_gap()
            case _ if self._wire is not None:
                # A refusal, of a server that is not ready.
                self._wire.close()

    def _give(self, channel: str, payload: bytes) -> None:
        """Hand a message on. Anyone who reaches the server can send one: a bad one must not end the listening."""
        try:
            self._on_message(channel, payload)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("a message could not be taken", channel=channel)
