"""The client of the store: commands and scripts, coalesced into one pipeline per turn of the event loop.

Theory of operation: `call` and `script` append to a batch and return a future. The first command of a loop turn
schedules a flush for the end of that turn, so whatever a turn issues travels as one write, without MULTI and without
waiting for the replies to what went before it. A connection answers in order, so a reply is the one of the command that
waits longest there. A connection that cannot be made, breaks, or leaves a command without its answer for too long fails
each command that waits on it with UnavailableError and is dropped: a reply can never be taken for another's.

Nothing is sent twice: a command whose answer was lost may have been executed, and only its caller knows whether a
repeat is safe.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import redis.exceptions

from cs_core.errors import UnavailableError
from cs_core.store.scripts import Script
from cs_core.store.wire import Argument, Command, Dialler, Wire

# One connection is enough; the others spare what is small from waiting behind replies of megabytes.
_CONNECTIONS = 4
_BUSY = 64


class _Issued(NamedTuple):
    """A command, and who waits for its reply; `text` is what to send when the server does not know the digest in it."""

    command: Command
    text: Command | None
    future: asyncio.Future[Any]


class KvClient:
    """A coalescing client of one server.

    Args:
        url: `redis://`, `rediss://` or `unix://` address.
        timeout: longest wait for a connection, and for a reply, in seconds.
    """

    def __init__(self, url: str, timeout: float = 2.0) -> None:
        self.url = url
        self._timeout = timeout
        self._dialler = Dialler(url, timeout)
        self._lines: list[_Line] = []
        self._batch: list[_Issued] = []
        # What waits for the first connection.
        self._held: list[_Issued] = []
        self._dialling: asyncio.Task[None] | None = None
        self._closed = False

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """Issue one command in this loop turn's batch; await the result for the reply (bytes, int, list or None).

        Raises (when awaited):
            UnavailableError: the server does not answer.
            redis.exceptions.ResponseError: the server refused the command.
        """
        return self._issue(command, None)

    def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> asyncio.Future[Any]:
        """Issue a script by its digest, and by its text when the server does not know it; await the reply as of `call`.

        All keys must share one hash tag.
        """
        rest = (len(keys), *keys, *arguments)
        return self._issue(("EVALSHA", script.sha, *rest), ("EVAL", script.text, *rest))

    def _issue(self, command: Command, text: Command | None) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            future.set_exception(UnavailableError("CS_STORE_UNAVAILABLE", "the store client is closed"))
            return future
        if not self._batch:
            loop.call_soon(self._flush)
        self._batch.append(_Issued(command, text, future))
        return future

    def _issue_text(self, issued: _Issued) -> None:
        """Issue a script again that the server did not know by its digest: it did nothing yet."""
        if not self._batch:
            asyncio.get_running_loop().call_soon(self._flush)
        self._batch.append(_Issued(issued.text or (), None, issued.future))

    async def scan(self, prefix: str, count: int = 500) -> AsyncIterator[list[bytes]]:
        """Every key that begins so, some at a time; a key that is written meanwhile may be missed, or told twice.

        Raises:
            UnavailableError: the server does not answer.
        """
        cursor: bytes = b"0"
        while True:
            cursor, found = await self.call("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", count)
            yield found
            if cursor == b"0":
                return

    async def ping(self) -> None:
        """Return when the server answers; raise UnavailableError when it does not."""
        await self.call("PING")

    async def close(self) -> None:
        """Let what is under way finish, then close the connections."""
        self._closed = True
        self._flush()
        if self._dialling is not None:
            await asyncio.wait([self._dialling])
        waiting = [issued.future for line in self._lines for _, issued in line.waiting]
        await asyncio.gather(*waiting, return_exceptions=True)
        for line in self._lines:
            line.close()

    def _flush(self) -> None:
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        line = self._free_line()
        if line is None:
            self._held += batch
        else:
            line.send(batch)
        if (line is None or line.busy) and len(self._lines) < _CONNECTIONS and self._dialling is None:
            self._dialling = asyncio.get_running_loop().create_task(self._dial(), name="store-dial")

    def _free_line(self) -> _Line | None:
        """The first that is not busy: the fewer are in use, the more travels together."""
        for line in self._lines:
            if not line.busy:
                return line
        return min(self._lines, key=lambda line: len(line.waiting), default=None)

    async def _dial(self) -> None:
        line = _Line(self._timeout, self._lose, self._issue_text)
        try:
            line.wire = await self._dialler.open(line.take, line.lost)
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            for issued in self._held:
                if not issued.future.done():
                    issued.future.set_exception(_unavailable(error))
        except asyncio.CancelledError:
            for issued in self._held:
                issued.future.cancel()
            raise
        else:
            self._lines.append(line)
            line.send(self._held)
        finally:
            self._held, self._dialling = [], None

    def _lose(self, lost: _Line) -> None:
        """Forget a line. What broke it broke the idle ones too, and each would fail a batch to find that out."""
        gone = [line for line in self._lines if line is lost or not line.waiting]
        self._lines = [line for line in self._lines if line not in gone]
        for line in gone:
            line.close()


def drop(reply: asyncio.Future[Any]) -> None:
    """Let a reply go: nobody is told of it, not even of its failure."""
    if not reply.cancel() and not reply.cancelled():
        reply.exception()


async def replies(calls: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """The replies of calls that are under way. When one fails, that is raised and the others are let go.

    It costs a part of what `asyncio.gather` does, which makes a future and a callback for each.
    """
    got: list[Any] = []
    try:
        for call in calls:
            got.append(await call)
    except BaseException:
        for call in calls[len(got) + 1 :]:
            drop(call)
        raise
    return got


class _Line:
    """A connection, and who waits for its replies, in order."""

    def __init__(self, timeout: float, on_lost: Callable[[_Line], None], on_unknown: Callable[[_Issued], None]) -> None:
        self.wire: Wire | None = None
        self.waiting: deque[tuple[float, _Issued]] = deque()
        self._on_unknown = on_unknown
        self._timeout = timeout
        self._on_lost = on_lost
        self._alarm: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def busy(self) -> bool:
        """Whether much waits here."""
        return len(self.waiting) > _BUSY

    def send(self, batch: list[_Issued]) -> None:
        """Write a batch."""
        if not batch or self.wire is None:
            return
        late = self._loop.time() + self._timeout
        self.waiting.extend([(late, issued) for issued in batch])
        self.wire.send([issued.command for issued in batch])
        if self._alarm is None:
            self._alarm = self._loop.call_at(late, self._look)

    def take(self, reply: Any) -> None:
        """Give a reply to whom it is for."""
        if not self.waiting:
            self.close()
            return
        _, issued = self.waiting.popleft()
        future = issued.future
        if future.done():
            return  # its caller gave up
        if isinstance(reply, redis.exceptions.NoScriptError) and issued.text is not None:
            self._on_unknown(issued)
        elif isinstance(reply, redis.exceptions.ResponseError):
            future.set_exception(_refusal(reply))
        else:
            future.set_result(reply)

    def lost(self) -> None:
        """Fail who waits."""
        waiting, self.waiting = self.waiting, deque()
        if self._alarm is not None:
            self._alarm.cancel()
        for _, issued in waiting:
            if not issued.future.done():
                issued.future.set_exception(_unavailable(None))
        self._on_lost(self)

    def close(self) -> None:
        """Drop the connection."""
        if self.wire is not None:
            self.wire.close()

    def _look(self) -> None:
        """Drop the connection when the reply that is due first is late; else look again when it would be."""
        self._alarm = None
        if not self.waiting:
            return
        late = self.waiting[0][0]
        if late <= self._loop.time():
            self.close()
        else:
            self._alarm = self._loop.call_at(late, self._look)


def _unavailable(error: BaseException | None) -> UnavailableError:
    detail = UnavailableError("CS_STORE_UNAVAILABLE", "the store does not answer")
    detail.__cause__ = error
    return detail


def _refusal(error: redis.exceptions.ResponseError) -> Exception:
    """Tell a server that is not ready apart from a command that is wrong."""
    text = str(error)
    if text.startswith(("LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "OOM")):
        return _unavailable(error)
    return error
