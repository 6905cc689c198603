"""A task list: tasks wait for polls, polls wait for tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

_Task = TypeVar("_Task")


class TaskList(Generic[_Task]):
    """First come, first served, on both sides."""

    def __init__(self) -> None:
        self._tasks: deque[_Task] = deque()
        self._polls: deque[asyncio.Future[_Task]] = deque()

    def __len__(self) -> int:
        return len(self._tasks)

    def put(self, task: _Task) -> None:
        """Give a task to the longest waiting poll, or keep it for the next."""
        self._tasks.append(task)
        self._serve()

    async def take(self, longest: float) -> _Task | None:
        """Wait for a task for `longest` seconds; None when none came. A task is never lost to a poll that went away."""
        poll: asyncio.Future[_Task] = asyncio.get_running_loop().create_future()
        self._polls.append(poll)
        self._serve()
        try:
            async with asyncio.timeout(max(longest, 0.0)):
                return await asyncio.shield(poll)
        except TimeoutError:
            return poll.result() if poll.done() else None
        except asyncio.CancelledError:
            if poll.done():
                self._tasks.appendleft(poll.result())
                self._serve()
            raise
        finally:
            if not poll.done():
                self._polls.remove(poll)
                poll.cancel()

    def _serve(self) -> None:
        while self._tasks and self._polls:
            poll = self._polls.popleft()
            if not poll.done():
                poll.set_result(self._tasks.popleft())
