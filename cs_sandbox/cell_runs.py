"""The runs of one cell: their frames, their clocks, and who is to blame when the cell dies.

Theory of operation: a run is *live* from its begin until its result or until it is let go, and *uncleaned* from then
until the cell says that its context is freed. Each run has a clock of its own. When it is up and the cell has not
said so, the cell is killed if the late run has the turn. If another run has it, that one may well go on, and if none
has, the machine is slow: the late run is let go alone, and the cell drops it when it comes to. A run that is
cancelled is let go in the same way. When the cell dies, the run that had the turn is to blame, and the others end as
bystanders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from codesous.cell.v1 import frames_pb2

from cs_sandbox.frames import FrameError
from cs_sandbox.run import Run
from cs_sandbox.turns import Turns

RECYCLE_WAIT: Final = 2.0
"""Seconds for a cell to clean up, when it has nothing else to do."""


class CellRuns:
    """The books of one cell.

    Args:
        send: sends a frame to the cell.
        kill: kills the cell, for a reason.
    """

    def __init__(self, send: Callable[[frames_pb2.ToCell], None], kill: Callable[[str], None]) -> None:
        self._send = send
        self._kill = kill
        self._live: dict[int, Run] = {}
        self._uncleaned: dict[int, Run] = {}
        self._alone = False
        self._recycle_clock: asyncio.TimerHandle | None = None
        self.turns = Turns(self._live, self._uncleaned)
        self.count = 0

    @property
    def live(self) -> Sequence[Run]:
        """Runs that have not ended."""
        return tuple(self._live.values())

    @property
    def number(self) -> int:
        """Runs whose contexts are in the cell."""
        return len(self._live) + len(self._uncleaned)

    @property
    def memory_bytes(self) -> int:
        """Memory limits of the runs whose contexts are in the cell, together."""
        return sum(run.job.limits.memory_bytes for run in (*self._live.values(), *self._uncleaned.values()))

    def waits(self, known: bool) -> bool:
        """Whether there are runs, all wait, and none of them is to be alone: for a run of known code, or of any."""
        return bool(self._live) and not self._alone and self.turns.waits(known)

    # Begin and end.

    def begin(self, run: Run, grace: timedelta) -> None:
        """A run becomes live, and its clock begins. The cell gets its request."""
        if not self._live:
            self.turns.begin(run)
        self._live[run.run_id] = run
        self._alone = run.job.alone
        self.count = run.run_id
        run.start_clock(grace.total_seconds(), self._overrun)
        self._send(run.request())

    def cancel(self, run: Run, grace: timedelta) -> None:
        """End a run as CANCELLED. Within `grace` it has lost the processor, too."""
        if run.run_id in self._live and not run.outcome.done():
            run.cancel()
            self._let_go(run, "cancel")
            asyncio.get_running_loop().call_later(grace.total_seconds(), self._insist, run, "cancel")

    def _overrun(self, run: Run) -> None:
        """The clock of a run is up, and its cell has not said so."""
        computing = self.turns.computing
        if computing is run:
            run.time_out(hogged=True)
            self._kill("timeout")
            return
        if computing is not None:
            self.turns.charge(run)
        run.time_out()
        self._let_go(run, "timeout")

    def _let_go(self, run: Run, reason: str) -> None:
        """A run has its outcome from us: the cell drops it. One in which nothing else lives is killed."""
        if len(self._live) == 1:
            self._kill(reason)
            return
        self._end(run)
        self._send(frames_pb2.ToCell(drop=frames_pb2.DropRun(run_id=run.run_id)))
        asyncio.get_running_loop().call_later(RECYCLE_WAIT, self._expect_drop, run)

    def _insist(self, run: Run, reason: str) -> None:
        """A run that was let go and still has the turn: only the death of the cell ends it."""
        if run.run_id in self._uncleaned and self.turns.has(run):
            self._kill(reason)

    def _expect_drop(self, run: Run) -> None:
        """The cell had the time to drop a run, unless a live run has the turn: that one has a clock of its own."""
        if run.run_id in self._uncleaned and not any(self.turns.has(other) for other in self._live.values()):
            self._kill("recycle")

    def _end(self, run: Run) -> None:
        del self._live[run.run_id]
        self._uncleaned[run.run_id] = run
        self._watch_cleaning()

    def _watch_cleaning(self) -> None:
        if self._recycle_clock is not None:
            self._recycle_clock.cancel()
            self._recycle_clock = None
        if self._uncleaned and not self._live:
            self._recycle_clock = asyncio.get_running_loop().call_later(RECYCLE_WAIT, self._kill, "recycle")

    # Frames. What cannot be raises `FrameError`.

    def take(self, kind: str | None, frame: frames_pb2.FromCell) -> bool:
        """Take a frame about a run; False when it is about something else."""
        match kind:
            case "log":
                self._find(frame.log.run_id).log(frame.log)
            case "host_call":
                self._find(frame.host_call.run_id).host_call(frame.host_call)
            case "turn":
                if not self.number:
                    raise FrameError("a turn without runs")
                self.turns.take(frame.turn)
            case "result":
                self._take_result(frame.result)
            case "idle":
                if self._uncleaned.pop(frame.idle.run_id, None) is None:
                    raise FrameError("idle out of turn")
                self._watch_cleaning()
            case _:
                return False
        return True

    def _find(self, run_id: int) -> Run:
        """The run that a frame names. One that was let go may not have heard of it yet."""
        run = self._live.get(run_id) or self._uncleaned.get(run_id)
        if run is None or run.ended_in_cell:
            raise FrameError("a frame for a run that is not live")
        return run

    def _take_result(self, frame: frames_pb2.RunResult) -> None:
        run = self._find(frame.run_id)
        run.ended_in_cell = True
        if frame.run_id in self._live:
            run.finish(frame)
            self._end(run)

    # The death of the cell.

    def close(self) -> list[Run]:
        """The cell is gone: those that were live and have no outcome."""
        if self._recycle_clock is not None:
            self._recycle_clock.cancel()
        for run in self._live.values():
            run.stop_clock()
        gone = [run for run in self._live.values() if not run.outcome.done()]
        self._live.clear()
        self._uncleaned.clear()
        return gone
