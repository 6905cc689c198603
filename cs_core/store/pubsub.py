"""Listening on channels of the store, across breaks of the connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from types import TracebackType

import redis.asyncio
import redis.exceptions
import structlog

_log = structlog.get_logger(__name__)
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
        wait = _RETRY_FIRST
        while True:
            try:
                async with redis.asyncio.Redis.from_url(self._url, protocol=2) as client, client.pubsub() as pubsub:
                    await pubsub.subscribe(*self._channels)
                    left = len(self._channels)
                    while True:
                        message = await pubsub.get_message(timeout=None)
                        if message is None:
                            continue
                        if message["type"] == "message":
                            self._give(message["channel"].decode(), message["data"])
                        elif message["type"] == "subscribe":
                            left -= 1
                            if left == 0:
                                wait = _RETRY_FIRST
                                self.subscribed.set()
                                self._on_gap()
            except (redis.exceptions.RedisError, OSError):
                self.subscribed.clear()
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                wait = min(wait * 2, _RETRY_LAST)

    def _give(self, channel: str, payload: bytes) -> None:
        """Hand a message on. Anyone who reaches the server can send one: a bad one must not end the listening."""
        try:
            self._on_message(channel, payload)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("a message could not be taken", channel=channel)
