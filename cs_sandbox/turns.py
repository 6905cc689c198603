"""Whose turn it is in a cell: what the cell tells, set against what was sent to it.

Theory of operation: the runs of a cell share its processor. The cell *waits* when it said so after having taken all
that was sent to it, and no timer of its runs is due since. A few runs of code that it ran lately may be sent to a
waiting cell at once: versions that keep the processor are known by then, and have cells of their own. What it says
may be a lie: it decides which run of the very same tenant is blamed, and whether another run of that tenant is put
into the cell; nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final

from codesous.cell.v1 import frames_pb2

from cs_sandbox.frames import FrameError
from cs_sandbox.run import Run

BATCH: Final = 8
"""Runs that are sent to a waiting cell before it has told anything more."""


class Turns:
    """The turns of one cell.

    Args:
        live: its live runs by id, kept by the owner.
        uncleaned: those that have ended and whose contexts are still there.
    """

    def __init__(self, live: Mapping[int, Run], uncleaned: Mapping[int, Run]) -> None:
        self._live = live
        self._uncleaned = uncleaned
        self._sent = 0
        self._taken = 0
        self._woken = 0
        self._begun: deque[int] = deque()
        self._turn = 0
        self._since = 0.0
        self._quiet_until = 0.0

    def waits(self, known: bool) -> bool:
        """Whether another run may begin: nothing computes. `known`: it is one of code that the cell ran lately."""
        if self._turn != 0 or asyncio.get_running_loop().time() >= self._quiet_until:
            return False
        return len(self._begun) < BATCH if known and self._woken <= self._taken else self._taken == self._sent

    @property
    def computing(self) -> Run | None:
        """The live run that has the turn; one that is alone has it always. None when none has, or it is not known."""
        if len(self._live) == 1 and self._turn not in self._uncleaned:
            return next(iter(self._live.values()))
        return self._live.get(self._turn)

    def has(self, run: Run) -> bool:
        """Whether it is the turn of that run, live or not."""
        return self._turn == run.run_id

    def begin(self, run: Run) -> None:
        """The first run of a cell without runs has the turn."""
        self._turn, self._since = run.run_id, run.began

    def note_sent(self, frame: frames_pb2.ToCell) -> None:
        """A frame goes to the cell: the run that it is for has something to do."""
        self._sent += 1
        kind = frame.WhichOneof("frame")
        run_id = frame.run.run_id if kind == "run" else frame.host_result.run_id if kind == "host_result" else 0
        if kind == "run":
            self._begun.append(self._sent)
        elif kind == "host_result":
            self._woken = self._sent
        if run_id != self._turn and len(self._live) > 1 and (run := self._live.get(run_id)) is not None:
            run.fall_due()

    def take(self, frame: frames_pb2.Turn) -> None:
        """The cell says whose turn it is. Raises `FrameError` when it says that it took more than it was sent."""
        if frame.taken > self._sent:
            raise FrameError("more frames taken than sent")
        self._turn, self._since = frame.run_id, asyncio.get_running_loop().time()
        if frame.run_id == 0:
            self._taken, self._quiet_until = frame.taken, self._since + frame.quiet_ms / 1000
            while self._begun and self._begun[0] <= self._taken:
                self._begun.popleft()
            for run in self._live.values():
                run.take_turn()
        elif (served := self._live.get(frame.run_id)) is not None:
            served.take_turn()

    def charge(self, late: Run) -> None:
        """A run is late: count what it lost by the turn of another."""
        late.wait_for_turn_of(self._since)
