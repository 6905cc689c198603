"""The client of the store: commands and scripts, coalesced into one pipeline per turn of the event loop.

Theory of operation: `call` and `script` append to a batch and return a future. The first command of a loop turn
schedules a flush for the end of that turn, so whatever a turn issues travels as one write and one read, without
MULTI. Batches are spread over a few connections, each used by one batch at a time. A batch that fails to connect,
or gets no answer in time, fails each of its commands with UnavailableError and drops its connection: a reply can
never be taken for another's.

Nothing is sent twice: a command whose answer was lost may have been executed, and only its caller knows whether a
repeat is safe.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, cast

import redis.exceptions
from hiredis import pack_command
from redis.asyncio.connection import Connection, ConnectionPool

from cs_core.errors import UnavailableError
from cs_core.store.scripts import Script

Argument = bytes | str | int | float
_CONNECTIONS = 4


class KvClient:
    """A coalescing client of one server.

    Args:
        url: `redis://`, `rediss://` or `unix://` address.
        timeout: longest wait for a batch, in seconds.
    """

    def __init__(self, url: str, timeout: float = 2.0) -> None:
        self.url = url
        self._timeout = timeout
        self._pool = ConnectionPool.from_url(
            url, protocol=2, socket_connect_timeout=timeout, max_connections=64, decode_responses=False
        )
        self._idle: list[Connection] = []
        self._open = 0
        self._freed = asyncio.Condition()
        self._batch: list[tuple[tuple[Argument, ...], asyncio.Future[Any]]] = []
        self._flushes: set[asyncio.Task[None]] = set()
        self._closed = False

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """Issue one command in this loop turn's batch; await the result for the reply (bytes, int, list or None).

        Raises (when awaited):
            UnavailableError: the server does not answer.
            redis.exceptions.ResponseError: the server refused the command.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            future.set_exception(UnavailableError("CS_STORE_UNAVAILABLE", "the store client is closed"))
            return future
        if not self._batch:
            loop.call_soon(self._start_flush)
        self._batch.append((command, future))
        return future

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script by its digest, sending its text when the server does not know it yet.

        All keys must share one hash tag.
        """
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            return await self.call("EVAL", script.text, len(keys), *keys, *arguments)

    async def ping(self) -> None:
        """Return when the server answers; raise UnavailableError when it does not."""
        await self.call("PING")

    async def close(self) -> None:
        """Let what is under way finish, then close the connections."""
        self._closed = True
        if self._flushes:
            await asyncio.gather(*self._flushes, return_exceptions=True)
        for connection in self._idle:
            await connection.disconnect(nowait=True)
        self._idle.clear()
        await self._pool.aclose()

    def _start_flush(self) -> None:
        batch, self._batch = self._batch, []
        task = asyncio.get_running_loop().create_task(self._flush(batch))
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _flush(self, batch: list[tuple[tuple[Argument, ...], asyncio.Future[Any]]]) -> None:
        try:
            connection = await self._acquire()
            healthy = False
            try:
                async with asyncio.timeout(self._timeout):
                    replies = await self._exchange(connection, [command for command, _ in batch])
                healthy = True
            finally:
                await self._release(connection, healthy)
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(_unavailable(error))
            return
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, redis.exceptions.RedisError):
                future.set_exception(_refusal(reply))
            else:
                future.set_result(reply)

    async def _exchange(self, connection: Connection, commands: list[tuple[Argument, ...]]) -> list[Any]:
        if not connection.is_connected:
            await connection.connect()  # type: ignore[no-untyped-call]
        # Packed by hiredis, and under one time limit for the whole exchange, the caller's: done for each command by the
        # connection, either costs more than the command.
        packed = b"".join(pack_command(cast("Any", command)) for command in commands)
        await connection.send_packed_command(packed, check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response(timeout=math.inf))
            except redis.exceptions.ResponseError as error:
                replies.append(error)
        return replies

    async def _acquire(self) -> Connection:
        async with self._freed:
            await self._freed.wait_for(lambda: bool(self._idle) or self._open < _CONNECTIONS)
            if self._idle:
                return self._idle.pop()
            self._open += 1
        connection: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def _release(self, connection: Connection, healthy: bool) -> None:
        if not healthy:
            # Its replies may still be on the way: never reuse it. What took it down took the idle ones down too, and
            # each of them would fail a batch to find that out.
            lost, self._idle = [connection, *self._idle], []
            self._open -= len(lost) - 1
            for each in lost:
                await each.disconnect(nowait=True)
        async with self._freed:
            if healthy and not self._closed:
                self._idle.append(connection)
            else:
                self._open -= 1
                if healthy:
                    await connection.disconnect(nowait=True)
            self._freed.notify()


def _unavailable(error: BaseException) -> UnavailableError:
    detail = UnavailableError("CS_STORE_UNAVAILABLE", "the store does not answer")
    detail.__cause__ = error
    return detail


def _refusal(error: redis.exceptions.RedisError) -> Exception:
    """Tell a server that is not ready apart from a command that is wrong."""
    text = str(error)
    if isinstance(error, redis.exceptions.BusyLoadingError | redis.exceptions.ReadOnlyError) or text.startswith(
        ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "OOM")
    ):
        return _unavailable(error)
    return error
