"""Takes the log lines of one run as they come, and stores them while it goes on.

Theory of operation: a run that ends soon never stores anything here: its lines go with its result, in one step. The
lines of one that goes on are stored by portions, so that whoever watches sees them. A portion whose fate is unknown is
sent again with the number of its first line; the store drops what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from codesous.type.v1.log_entry_pb2 import LOG_LEVEL_WARN, LogEntry

from cs_core.errors import UnavailableError
from cs_core.store.run_logs import RunLogs

_log = structlog.get_logger(__name__)

PORTION_AFTER = 0.1
"""Seconds for which lines are collected before they are stored."""
_CUT = "[log cut: the lines of one activation are over their limit]"

Append = Callable[[RunLogs], Awaitable[bool]]


class LogSink:
    """The log of one run."""

    def __init__(self, attempt: int, limit: int, append: Append, portion_after: float = PORTION_AFTER) -> None:
        """`limit` is in bytes of text; `append` stores lines, and answers False when the run is not its owner's."""
        self._attempt = attempt
        self._left = limit
        self._append = append
        self._portion_after = portion_after
        self._stored = 0
        self._lines: list[LogEntry] = []
        self._task: asyncio.Task[None] | None = None

    def __call__(self, line: LogEntry) -> None:
        """Take a line. The first one over the limit is replaced by one that says so; the rest is dropped."""
        if self._left < 0:
            return
        self._left -= len(line.message.encode())
        if self._left < 0:
            line = LogEntry(time=line.time, level=LOG_LEVEL_WARN, message=_CUT)
        self._lines.append(LogEntry(time=line.time, level=line.level, message=line.message, attempt=self._attempt))
        if self._task is None:
            self._task = asyncio.create_task(self._store(), name="log-sink")

    async def close(self) -> RunLogs:
        """Stop storing; answers the lines that are to go with the result. May be called again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        return RunLogs(self._stored, tuple(self._lines))

    async def _store(self) -> None:
        while True:
            await asyncio.sleep(self._portion_after)
            if not self._lines:
                continue
            portion = tuple(self._lines)
            try:
                owned = await self._append(RunLogs(self._stored, portion))
            except UnavailableError as error:
                _log.debug("log lines wait for the store", reason=error.reason)
                continue
            if not owned:
                return
            self._stored += len(portion)
            del self._lines[: len(portion)]
