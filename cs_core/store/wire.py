"""One connection to the store: commands go out as they come, and each reply is handed on as it arrives.

Theory of operation: redis-py connects (addresses, TLS, authentication) and then this protocol takes its transport over.
Bytes that arrive are parsed where they arrive, in the event loop's own call: a stream reader between them would cost a
future, a task's turn and a time limit for every reply, which is more than the reply itself costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import redis.exceptions
from hiredis import HiredisError, Reader, pack_command
from redis.asyncio.connection import Connection, ConnectionPool

Argument = bytes | str | int | float
Command = tuple[Argument, ...]
_UNFINISHED = object()


class Dialler:
    """Opens connections to one address.

    Args:
        url: `redis://`, `rediss://` or `unix://` address.
        timeout: longest wait for a connection, in seconds.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._timeout = timeout
        # It makes connections from the address; they are not pooled, each belongs to its wire.
        self._factory = ConnectionPool.from_url(url, protocol=2, socket_connect_timeout=timeout, decode_responses=False)

    async def open(self, on_reply: Callable[[Any], None], on_lost: Callable[[], None]) -> Wire:
        """Connect. `on_reply` is given each reply, a refusal as a ResponseError; `on_lost` is told once of the end.

        Raises:
            redis.exceptions.RedisError, OSError, TimeoutError: it cannot be reached, or refuses.
        """
        connection: Connection = self._factory.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return Wire(connection, on_reply, on_lost)


class Wire(asyncio.Protocol):
    """An open connection."""

    def __init__(self, connection: Connection, on_reply: Callable[[Any], None], on_lost: Callable[[], None]) -> None:
        self._on_reply = on_reply
        self._on_lost: Callable[[], None] | None = on_lost
        self._reader = Reader(replyError=refusal, notEnoughData=_UNFINISHED)
        # The writer is kept: it closes its transport when it is collected.
        self._writer = cast("asyncio.StreamWriter", connection._writer)
        connection._reader = connection._writer = None
        self._transport = cast("asyncio.Transport", self._writer.transport)
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            # Lost between its connecting and here, which only the protocol before this one was told.
            asyncio.get_running_loop().call_soon(self.connection_lost, None)

    def send(self, commands: Iterable[Command]) -> None:
        """Write commands; their replies come in the same order. On a lost connection it does nothing."""
        self._transport.write(b"".join([pack_command(cast("Any", command)) for command in commands]))

    def close(self) -> None:
        """Drop the connection. `on_lost` is told, if it was not before."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand on what is complete."""
        reader, on_reply = self._reader, self._on_reply
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _UNFINISHED:
                on_reply(reply)
        except HiredisError:
            # What comes next cannot be told from what came before.
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's shape
        """Tell it, once."""
        told, self._on_lost = self._on_lost, None
        if told is not None:
            told()


def refusal(text: str) -> redis.exceptions.ResponseError:
    """Make the error of a server's refusal."""
    kind = redis.exceptions.NoScriptError if text.startswith("NOSCRIPT") else redis.exceptions.ResponseError
    return kind(text)
