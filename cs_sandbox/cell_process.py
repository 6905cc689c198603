"""The supervisor's handle of one cell: its process, its state, the work it is given, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Final

from codesous.cell.v1 import frames_pb2

from cs_sandbox.burial import bury
from cs_sandbox.cell import BUNDLES_MAX
from cs_sandbox.cell_link import CellLink
from cs_sandbox.cell_runs import CellRuns
from cs_sandbox.frames import FrameError
from cs_sandbox.job import Diagnostic, HostCalls, JailError, Job, LogEntry, Outcome, SandboxError
from cs_sandbox.meter import Meter
from cs_sandbox.result import cut
from cs_sandbox.run import Run
from cs_sandbox.shelf import CONTEXTS_MAX
from cs_sandbox.zygote_process import CellEnd, ForkedCell

FAULTS_MAX: Final = 100
FAULT_TEXT_MAX: Final = 1000


class CellState(Enum):
    """What a cell is doing."""

    STARTING = "starting"
    IDLE = "idle"
    RESERVED = "reserved"
    RUNNING = "running"
    RECYCLING = "recycling"
    GONE = "gone"


class CellProcess:
    """One cell. It serves one tenant at most in its life.

    Args:
        forked: what the zygote handed over. Owned from now on.
        on_change: called with the cell after each change of what it can be used for.

    Attributes:
        born: when it was forked, by the event loop's clock.
        draining: whether it is to be given no more runs, so that it becomes idle.
        retiring: whether it said that it takes no more.
    """

    def __init__(self, forked: ForkedCell, on_change: Callable[[CellProcess], None]) -> None:
        self.pid = forked.pid
        self.tenant: str | None = None
        self.layers: tuple[str, ...] = ()
        self.missing_layers: tuple[str, ...] = ()
        self.idle_since = 0.0
        self.kill_reason = ""
        self.draining = False
        self.retiring = False
        loop = asyncio.get_running_loop()
        self.born = loop.time()
        self._pidfd = forked.pidfd
        self._connection = forked.connection
        self._on_change = on_change
        self._link = CellLink(self, Meter())
        self._ready: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[CellEnd] = loop.create_future()
        self._checked: asyncio.Future[list[Diagnostic]] | None = None
        self._bundles: dict[str, None] = {}
        self._recent: dict[str, None] = {}
        self._runs = CellRuns(self._send, self.kill)
        self._started = self._reserved = self._gone = self._changed = False
        self._grave: asyncio.Task[None] | None = None

    # Life.

    async def connect(self, patience: timedelta) -> None:
        """Wait until the cell has proven its jail. Raises `JailError` or `SandboxError`; the cell is gone then."""
        try:
            await self._link.open(self._connection)
            async with asyncio.timeout(patience.total_seconds()):
                await self._ready
        except TimeoutError:
            self.kill("start")
            raise SandboxError("a cell did not start in time") from None
        except BaseException:
            self.kill("start")
            raise

    @property
    def state(self) -> CellState:
        """What the cell is doing."""
        if self._gone:
            return CellState.GONE
        if not self._started:
            return CellState.STARTING
        if self._runs.live:
            return CellState.RUNNING
        if self._runs.number:
            return CellState.RECYCLING
        return CellState.RESERVED if self._reserved else CellState.IDLE

    @property
    def runs(self) -> int:
        """Runs that it was given so far."""
        return self._runs.count

    @property
    def load(self) -> int:
        """Runs whose contexts are in it now."""
        return self._runs.number

    @property
    def ends(self) -> float:
        """When the last of its runs must have ended, by the event loop's clock."""
        return max((run.ends for run in self._runs.live), default=0.0)

    def knows(self, job: Job) -> bool:
        """Whether the cell ran that bundle lately, or that version, when its contexts are kept."""
        return (job.warm_key or job.bundle.sha256) in self._recent

    def takes_beside(self, job: Job, most_runs: int, most_memory: int) -> bool:
        """Whether another run may begin beside those that are live: they all wait, and there is room for it."""
        if self._reserved or self.draining or self.retiring or self._gone or not self._runs.waits(self.knows(job)):
            return False
        return self.load < most_runs and self._runs.memory_bytes + job.limits.memory_bytes <= most_memory

    @property
    def reserved(self) -> bool:
        """Whether the cell waits for the run that it was promised to."""
        return self._reserved and not self._gone

    def reserve(self) -> None:
        """Promise the cell to one run."""
        self._reserved = True

    def unreserve(self) -> None:
        """Take the promise back."""
        self._reserved = False

    @property
    def burying(self) -> bool:
        """Whether somebody waits to be told how the process ended."""
        return self._grave is not None and not self._grave.done()

    def kill(self, reason: str) -> None:
        """Kill the process at once. What runs in it ends as a crash, unless its outcome was fixed before."""
        self.kill_reason = self.kill_reason or reason
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._link.abort()
        self.lose()

    def ended(self, end: CellEnd) -> None:
        """The zygote says how the process ended."""
        if not self._ended.done():
            self._ended.set_result(end)

    def lose(self) -> None:
        """The process is gone, or we let it go."""
        if self._gone:
            return
        if not self._ready.done():
            self._ready.set_exception(SandboxError("a cell died while it started"))
            self._ready.exception()
        if self._checked is not None and not self._checked.done():
            self._checked.set_exception(SandboxError("the cell died"))
        self._end_runs()
        # A cell that lets go of its connection is of no more use, whatever it does.
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1
        self._gone = True
        self._on_change(self)

    def _end_runs(self) -> None:
        """The cell dies: the run that is to blame is told why; the others are bystanders."""
        own_fault = not self.retiring and self.kill_reason in ("", "breach")
        blamed = self._runs.turns.computing if own_fault else None
        memory = self._runs.memory_bytes
        for run in self._runs.close():
            if self.kill_reason == "close":
                run.crash("the pool was closed")
            elif run is blamed:
                self._grave = asyncio.get_running_loop().create_task(bury(run, self.kill_reason, memory, self._ended))
            else:
                run.stand_by("the cell died of another run")

    # Work.

    async def run(
        self,
        job: Job,
        host: HostCalls,
        on_log: Callable[[LogEntry], None] | None,
        cancel: asyncio.Event | None,
        grace: timedelta,
    ) -> Outcome:
        """Run a job to its outcome. The cell must be reserved; a run whose task is cancelled is ended."""
        if not self.reserved or self.tenant != job.tenant or (job.alone and self.load):
            raise SandboxError("the cell is not free for this run")
        self._reserved = False
        cold = self._runs.count == 0
        self._load(job)
        run = Run(job, self._runs.count + 1, host, self._send, on_log, self._link.unread)
        self._runs.begin(run, grace)
        self._on_change(self)
        watch = None
        if cancel is not None:
            watch = asyncio.get_running_loop().create_task(self._cancel_on(cancel, run, grace))
        try:
            outcome = await asyncio.shield(run.outcome)
        except asyncio.CancelledError:
            self._runs.cancel(run, grace)
            raise
        finally:
            if watch is not None:
                watch.cancel()
        return replace(outcome, cold=cold)

    async def _cancel_on(self, cancel: asyncio.Event, run: Run, grace: timedelta) -> None:
        await cancel.wait()
        self._runs.cancel(run, grace)

    async def check_syntax(self, files: dict[str, bytes], patience: timedelta) -> list[Diagnostic]:
        """Compile modules without running them. Raises `SandboxError` or `TimeoutError`; then the cell is of no use."""
        self._checked = asyncio.get_running_loop().create_future()
        self._send(frames_pb2.ToCell(check=frames_pb2.CheckSyntax(files=files)))
        async with asyncio.timeout(patience.total_seconds()):
            return [told for told in await self._checked if told.file in files or not told.file][:FAULTS_MAX]

    def _load(self, job: Job) -> None:
        """See that the cell has the code. It has room for so many bundles; the least recently used goes."""
        bundle = job.bundle
        if bundle.sha256 not in self._bundles:
            load = frames_pb2.LoadBundle(bundle_sha256=bundle.sha256, entry=bundle.entry, files=dict(bundle.files))
            self._send(frames_pb2.ToCell(load=load))
        for oldest in _use(self._bundles, bundle.sha256, BUNDLES_MAX):
            self._send(frames_pb2.ToCell(unload=frames_pb2.UnloadBundle(bundle_sha256=oldest)))
        _use(self._recent, job.warm_key or bundle.sha256, CONTEXTS_MAX)

    def _send(self, frame: frames_pb2.ToCell) -> None:
        if self._link.writable:
            self._runs.turns.note_sent(frame)
            self._link.send(frame)

    # Frames.

    def take_frame(self, frame: frames_pb2.FromCell) -> None:
        """Take a frame. Raises `FrameError` when it is not one that may come now."""
        self._changed |= self._dispatch(frame)

    def end_read(self) -> None:
        """All frames that came at once have been taken: see what the cell can be used for now."""
        if self._changed:
            self._changed = False
            self._on_change(self)

    def _dispatch(self, frame: frames_pb2.FromCell) -> bool:
        """Take a frame; whether the cell can be used for something else now."""
        kind = frame.WhichOneof("frame")
        if self._runs.take(kind, frame):
            if kind in ("host_call", "turn"):
                self._link.charge(len(frame.host_call.arguments))
            if self._runs.number == 0:
                self.idle_since = asyncio.get_running_loop().time()
            return kind in ("result", "idle") or (kind == "turn" and frame.turn.run_id == 0)
        if kind == "ready" and not self._ready.done():
            self.layers, self.missing_layers = tuple(frame.ready.layers), tuple(frame.ready.missing_layers)
            self._ready.set_result(None)
            self._started = True
            self.idle_since = asyncio.get_running_loop().time()
            return True
        if kind == "retiring" and self._runs.number:
            self._link.charge(0)
            self.retiring = True
        elif kind == "jail_failure" and not self._ready.done():
            self._ready.set_exception(JailError(frame.jail_failure.layer, frame.jail_failure.message))
        elif kind == "check_result" and self._checked is not None and not self._checked.done():
            self._checked.set_result(
                [
                    Diagnostic(f.file, f.line, f.column, cut(f.message, FAULT_TEXT_MAX))
                    for f in frame.check_result.faults
                ]
            )
        else:
            raise FrameError(f"an unexpected frame: {kind}")
        return False


def _use(recent: dict[str, None], key: str, most: int) -> list[str]:
    """Make a key the most recently used one; the keys that are dropped for it."""
    recent.pop(key, None)
    recent[key] = None
    dropped = list(recent)[: max(0, len(recent) - most)]
    for old in dropped:
        del recent[old]
    return dropped
