"""The supervisor's handle of one cell: its process, its connection, its state, and how it ended."""

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
from google.protobuf.message import DecodeError

from cs_sandbox import frames
from cs_sandbox.cell import BUNDLES_MAX
from cs_sandbox.cell_runs import CellRuns
from cs_sandbox.job import Diagnostic, HostCalls, JailError, Job, LogEntry, Outcome, SandboxError
from cs_sandbox.meter import Meter
from cs_sandbox.result import cut
from cs_sandbox.run import Run
from cs_sandbox.shelf import CONTEXTS_MAX
from cs_sandbox.zygote_process import CellEnd, ForkedCell

END_WAIT: Final = 0.5
"""Seconds that we wait to be told how a cell ended before we say that we do not know."""
FAULTS_MAX: Final = 100
FAULT_TEXT_MAX: Final = 1000
MEMORY_SUSPICION: Final = 0.5
"""A crash with this share of the memory limits resident is taken for exhausted memory."""


class CellState(Enum):
    """What a cell is doing."""

    STARTING = "starting"
    IDLE = "idle"
    RESERVED = "reserved"
    RUNNING = "running"
    RECYCLING = "recycling"
    GONE = "gone"


class CellProcess(asyncio.Protocol):
    """One cell. It serves one tenant at most in its life.

    Args:
        forked: what the zygote handed over. Owned from now on.
        on_change: called with the cell after each change of what it can be used for.

    Attributes:
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
        self._pidfd = forked.pidfd
        self._connection = forked.connection
        self._on_change = on_change
        self._transport: asyncio.Transport | None = None
        self._buffer = frames.FrameBuffer(frames.FROM_CELL_MAX)
        self._ready: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[CellEnd] = loop.create_future()
        self._checked: asyncio.Future[list[Diagnostic]] | None = None
        self._bundles: dict[str, None] = {}
        self._recent: dict[str, None] = {}
        self._meter = Meter()
        self._pause: asyncio.TimerHandle | None = None
        self._runs = CellRuns(self._send, self.kill)
        self._started = self._reserved = self._gone = False
        self._grave: asyncio.Task[None] | None = None

    # Life.

    async def connect(self, patience: timedelta) -> None:
        """Wait until the cell has proven its jail. Raises `JailError` or `SandboxError`; the cell is gone then."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self, self._connection)
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is ours."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream socket has no other
        self._transport = transport

    def kill(self, reason: str) -> None:
        """Kill the process at once. What runs in it ends as a crash, unless its outcome was fixed before."""
        self.kill_reason = self.kill_reason or reason
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self._transport is not None:
            self._transport.abort()
        self._close()

    def ended(self, end: CellEnd) -> None:
        """The zygote says how the process ended."""
        if not self._ended.done():
            self._ended.set_result(end)

    def connection_lost(self, _error: Exception | None) -> None:
        """The process is gone, or we let it go."""
        self._close()

    def _close(self) -> None:
        if self._gone:
            return
        if self._pause is not None:
            self._pause.cancel()
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
                self._grave = asyncio.get_running_loop().create_task(self._bury(run, memory))
            else:
                run.stand_by("the cell died of another run")

    async def _bury(self, run: Run, memory: int) -> None:
        """Tell why the cell died under a run. `memory`: what its runs might use together."""
        late = asyncio.get_running_loop().time() > run.ends
        try:
            async with asyncio.timeout(END_WAIT):
                end = await asyncio.shield(self._ended)
        except TimeoutError:
            run.crash("the cell died")
            return
        if self.kill_reason == "breach":
            run.crash("the cell broke its protocol", retryable=False)
        elif late and end.code == 0:
            # It saw the deadline pass and left. An answer that we sent then broke the connection, its last word on it.
            run.time_out()
        elif not self.kill_reason and end.peak_bytes >= MEMORY_SUSPICION * memory and end.code != -signal.SIGSYS:
            run.exhaust_memory()
        elif end.code == -signal.SIGSYS:
            run.crash("the cell made a system call that its jail forbids", retryable=False)
        elif end.code < 0:
            run.crash(f"the cell was ended by signal {-end.code}")
        else:
            run.crash("the cell ended")

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
        run = Run(job, self._runs.count + 1, host, self._send, on_log, self._unread)
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
        if self._transport is not None and not self._transport.is_closing():
            self._runs.turns.note_sent(frame)
            self._transport.write(frames.encode(frame))

    def _unread(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    # Frames.

    def data_received(self, data: bytes) -> None:
        """Take the cell's frames, those of a cell in debt later; any breach of the protocol kills it."""
        changed = False
        try:
            for body in self._buffer.feed(data):
                frame = frames_pb2.FromCell.FromString(body)
                frame.DiscardUnknownFields()
                changed |= self._dispatch(frame)
                if self._gone or self._pause is not None:
                    break
            if changed:
                self._on_change(self)
        except (frames.FrameError, DecodeError):
            self.kill("breach")

    def _dispatch(self, frame: frames_pb2.FromCell) -> bool:
        """Take a frame; whether the cell can be used for something else now."""
        kind = frame.WhichOneof("frame")
        if self._runs.take(kind, frame):
            if kind in ("host_call", "turn"):
                self._charge(len(frame.host_call.arguments))
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
            self._charge(0)
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
            raise frames.FrameError(f"an unexpected frame: {kind}")
        return False

    def _charge(self, size: int) -> None:
        """Count a frame that it is the cell's to send or not; one that makes too much work is not read for a while."""
        loop = asyncio.get_running_loop()
        debt = self._meter.spend(size + self._meter.call_cost, loop.time())
        if debt > 0 and self._pause is None and self._transport is not None:
            self._transport.pause_reading()
            self._pause = loop.call_later(debt, self._read_on)

    def _read_on(self) -> None:
        self._pause = None
        self.data_received(b"")
        if self._pause is None and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _use(recent: dict[str, None], key: str, most: int) -> list[str]:
    """Make a key the most recently used one; the keys that are dropped for it."""
    recent.pop(key, None)
    recent[key] = None
    dropped = list(recent)[: max(0, len(recent) - most)]
    for old in dropped:
        del recent[old]
    return dropped
