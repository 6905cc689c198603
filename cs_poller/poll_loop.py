"""One loop of long polls: takes a permit, polls, hands the task on with its permit, backs off after a failure.

It knows nothing of Cadence. Cancelling it cancels the poll that is under way and gives its permit back; a task that was
handed on keeps its permit until whoever has it gives it back. A server may have given a task to a poll in the moment in
which it is cancelled, and such a task is lost until the server's own timeout; so `finish` lets a poll end by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from cs_core.backoff import Backoff
from cs_core.errors import CodeSousError

from .permits import Permits

_log = structlog.get_logger(__name__)
QUICK = 0.5
"""Seconds. A poll that brings nothing sooner than this did not wait: the next one must not follow at once."""
_Task = TypeVar("_Task")


class PollLoop(Generic[_Task]):
    """Polls until it is cancelled.

    Args:
        poll: one poll; told whether the one before failed (or there was none). Answers None when there is no task.
        accept: is given each task, and with it the permit.
        permits: what a poll must hold.
        gate: waits until polling is allowed.
        on_outcome: told after each poll: an error, or None for one that succeeded.
        backoff: the waits after failures.
    """

    def __init__(
        self,
        poll: Callable[[bool], Awaitable[_Task | None]],
        accept: Callable[[_Task], None],
        permits: Permits,
        gate: Callable[[], Awaitable[None]],
        on_outcome: Callable[[CodeSousError | None], None],
        backoff: Backoff,
    ) -> None:
        self._poll = poll
        self._accept = accept
        self._permits = permits
        self._gate = gate
        self._on_outcome = on_outcome
        self._backoff = backoff
        self._unsure = True
        self._finishing = False
        self.polling = False
        """Whether a poll is under way: the only moment in which cancelling can lose something."""

    def finish(self) -> None:
        """Let `run` return after the poll that is under way."""
        self._finishing = True

    async def run(self) -> None:
        """Poll until told to finish."""
        while not self._finishing:
            await self._gate()
            await self._permits.acquire()
            handed_on = False
            try:
                handed_on, wait = await self._once()
            finally:
                if not handed_on:
                    self._permits.release()
            if wait and not self._finishing:
                await asyncio.sleep(wait)

    async def _once(self) -> tuple[bool, float]:
        """One poll: whether a task was handed on, and the wait until the next poll in seconds."""
        began = asyncio.get_running_loop().time()
        self.polling = True
        try:
            task = await self._poll(self._unsure)
        except CodeSousError as error:
            return self._failed(error)
        except Exception:  # noqa: BLE001 - a fault of ours must not end the loop, nor be silent
            _log.exception("a poll failed by a fault of the poller")
            return self._failed(CodeSousError("CS_INTERNAL", "a fault of the poller; its log says more"))
        finally:
            self.polling = False
        self._unsure = False
        self._on_outcome(None)
        if task is not None:
            self._backoff.reset()
            self._accept(task)
            return True, 0.0
        if asyncio.get_running_loop().time() - began < QUICK:
            return False, self._backoff.next()
        self._backoff.reset()
        return False, 0.0

    def _failed(self, error: CodeSousError) -> tuple[bool, float]:
        self._unsure = True
        self._on_outcome(error)
        return False, self._backoff.next()
