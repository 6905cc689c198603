"""Ending a block of a task from outside of it: when a run is cancelled, its time is up, or its lease is lost.

A task of its own for what is waited for, and one for each reason to end it, cost more than all else that is done around
a run. So the block runs in the task that waits, and whoever has a reason cancels it, as `asyncio.timeout` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class Interruption:
    """A block that may be interrupted: it is cancelled, and the cancellation ends with it.

    Attributes:
        interrupted: whether it was cut short.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._task: asyncio.Task[object] | None = None
        self._asked = False
        self._cancelling = 0

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None  # noqa: S101 - entered by a coroutine
        self._cancelling = self._task.cancelling()
        return self

    def interrupt(self) -> None:
        """End the block at what it waits for. Before it, after it, and once more: nothing happens."""
        if self._task is not None and not self._asked:
            self._asked = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if not self._asked or task is None:
            return False
        # Somebody else may have cancelled the task too: that cancellation goes on.
        if task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
            self.interrupted = True
            return True
        return False


class Cancellation:
    """Whether a run was asked to stop, and whom to tell at once."""

    def __init__(self) -> None:
        self._asked = False
        self._told: list[Callable[[], None]] = []

    def set(self) -> None:
        """Ask it to stop."""
        self._asked = True
        for tell in self._told:
            tell()

    def is_set(self) -> bool:
        """Whether it was asked."""
        return self._asked

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Tell of it for the length of the block; at once, if it was asked before."""
        self._told.append(tell)
        try:
            if self._asked:
                tell()
            yield
        finally:
            self._told.remove(tell)
