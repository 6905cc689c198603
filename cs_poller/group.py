"""One worker binding in this process: its permits, its poll loops, and how they fare."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from cadence.api.v1.service_worker_pb2 import PollForActivityTaskResponse
from codesous.control.v1.worker_binding_pb2 import WorkerBinding

from cs_core.backoff import Backoff
from cs_core.errors import CodeSousError

from .frontend import Frontend
from .metrics import Metrics
from .permits import Permits
from .poll_loop import PollLoop

FIRST_WAIT = timedelta(milliseconds=200)
LONGEST_WAIT = timedelta(seconds=10)
LAST_POLL = 0.5
"""Seconds that a poll may take to end when no more are wanted: enough for a task that is on its way."""
# Given the binding as it is now, a task, and what gives its permit back.
Accept = Callable[[WorkerBinding, PollForActivityTaskResponse, Callable[[], None]], None]


class Group:
    """The loop group of one binding. `failure` is a sentence on the last failed poll, empty when it succeeded."""

    def __init__(
        self,
        binding: WorkerBinding,
        share: int,
        *,
        frontend: Frontend,
        accept: Accept,
        gate: Callable[[], Awaitable[None]],
        on_turn: Callable[[], None],
        metrics: Metrics,
        polls: int,
    ) -> None:
        """`on_turn` is called when polls begin to fail, or to succeed again; `polls` is how many go on at once."""
        self.binding = binding
        self.permits = Permits(share)
        self.failure = ""
        self.known = False
        self._frontend = frontend
        self._accept = accept
        self._gate = gate
        self._on_turn = on_turn
        self._metrics = metrics
        self._polls = polls
        self._loops: dict[PollLoop[PollForActivityTaskResponse], asyncio.Task[None]] = {}

    @property
    def serving(self) -> bool:
        """Whether this process has a part of the binding's tasks."""
        return self.permits.total > 0

    def start(self) -> None:
        """Begin to poll."""
        for _ in range(self._polls):
            loop = PollLoop(
                self._poll,
                self._hand_on,
                self.permits,
                self._gate,
                self._note,
                Backoff(first=FIRST_WAIT, longest=LONGEST_WAIT),
            )
            self._loops[loop] = asyncio.create_task(loop.run(), name=f"poll {self.binding.worker}")

    async def stop(self) -> None:
        """Poll no more. Polls that are under way have a moment to end, then they are cancelled; no permit is lost."""
        loops, self._loops = self._loops, {}
        for loop, task in loops.items():
            if loop.polling:
                loop.finish()
            else:
                task.cancel()
        if loops:
            _, left = await asyncio.wait(loops.values(), timeout=LAST_POLL)
            for task in left:
                task.cancel()
        await asyncio.gather(*loops.values(), return_exceptions=True)

    async def update(self, binding: WorkerBinding, share: int) -> None:
        """Go on with the binding as it is now. Tasks in flight are not touched."""
        moved = _place(binding) != _place(self.binding)
        self.binding = binding
        self.permits.resize(share)
        if moved:
            self.failure, self.known = "", False
        if moved or (self.permits.taken > share and any(loop.polling for loop in self._loops)):
            # Idle polls hold permits too, and a poll that goes on could bring a task too many.
            await self.stop()
            self.start()

    async def _poll(self, unsure: bool) -> PollForActivityTaskResponse | None:
        task = await self._frontend.poll(*_place(self.binding), unsure=unsure)
        self._metrics.count_poll("empty" if task is None else "task")
        return task

    def _hand_on(self, task: PollForActivityTaskResponse) -> None:
        self._accept(self.binding, task, self.permits.release)

    def _note(self, error: CodeSousError | None) -> None:
        if error is not None:
            self._metrics.count_poll("failed")
        failure = "" if error is None else error.message
        if failure != self.failure or not self.known:
            self.failure, self.known = failure, True
            self._on_turn()


def _place(binding: WorkerBinding) -> tuple[str, str, str]:
    return binding.spec.domain, binding.spec.task_list, binding.spec.worker_id
