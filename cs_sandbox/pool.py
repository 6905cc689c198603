"""The pool of cells: gives each run a cell of its tenant, starts and ends cells, and keeps the zygote alive.

Theory of operation: a cell is jailed before it belongs to anybody, belongs to one tenant from its first run to its
end, and is idle, running or recycling. A run takes an idle cell of its tenant; or waits for one that is about to be
idle; or, below the limits, gets a new cell (a spare if there is one); or ends the cell that has been idle longest and
gets a new one in its place; or waits. Runs that wait are served tenant by tenant in turn, so that one
tenant's backlog costs another one turn. All decisions are made in one event-loop turn without awaiting (`_grant`); what
takes time, a fork, is done by the waiting run itself in the slot that it was granted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Self

from cs_sandbox.cell_process import CellProcess, CellState
from cs_sandbox.job import Diagnostic, HostCalls, Job, LogEntry, Outcome, SandboxError
from cs_sandbox.settings import PoolSettings
from cs_sandbox.zygote_process import CellEnd, ZygoteProcess

_logger = logging.getLogger(__name__)
_SWEEP_INTERVAL: Final = 1.0
_SPARE_RETRY: Final = 0.5
CHECK_TIMEOUT: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Numbers for metrics. Counts since the pool was made, unless said otherwise."""

    cells: Mapping[str, int]
    """Cells now, by state; `spare` for those without a tenant."""
    waiting: int
    """Runs that wait for a cell now."""
    runs: int
    cold_starts: int
    """Runs that were the first of their cell."""
    kills: Mapping[str, int]
    """Cells that we killed, by reason."""
    zygote_starts: int
    layers: tuple[str, ...]
    missing_layers: tuple[str, ...]


@dataclass(eq=False, slots=True)
class _Waiter:
    """A run that waits. Its future gets an idle cell, or None: then it may start one, and a slot is held for it."""

    tenant: str
    bundle: str
    granted: asyncio.Future[CellProcess | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class CellPool:
    """Runs jobs in jailed cells.

    Args:
        settings: sizes and rules; the defaults suit a small machine.
    """

    def __init__(self, settings: PoolSettings | None = None) -> None:
        self._settings = settings or PoolSettings()
        self._zygote: ZygoteProcess | None = None
        self._zygote_lock = asyncio.Lock()
        self._cells: dict[int, CellProcess] = {}
        self._dying: dict[int, CellProcess] = {}
        self._spares: deque[CellProcess] = deque()
        self._slots: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._kills: Counter[str] = Counter()
        self._runs = self._cold_starts = self._zygote_starts = 0
        self._layers: tuple[str, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._filling = self._granting = False
        self._closed = True
        self._checks = asyncio.Semaphore(2)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the zygote and a first cell, to prove the jail. Raises `JailError` or `SandboxError`."""
        self._closed = False
        try:
            self._spares.append(await self._fork())
        except BaseException:
            await self.close()
            raise
        self._spawn(self._sweep())
        self._fill_spares()

    async def close(self) -> None:
        """Kill every cell and the zygote. Runs in progress end as crashed."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        for cell in list(self._cells.values()):
            cell.kill("close")
        for queue in self._waiting.values():
            for waiter in queue:
                if not waiter.granted.done():
                    waiter.granted.set_exception(SandboxError("the pool is closed"))
        self._waiting.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._zygote is not None:
            await self._zygote.close()
            self._zygote = None

    # Work.

    async def run(
        self,
        job: Job,
        host: HostCalls,
        on_log: Callable[[LogEntry], None] | None = None,
        cancel: asyncio.Event | None = None,
    ) -> Outcome:
        """Run a job in a cell of its tenant.

        The wall clock begins when a cell is at hand: the time spent waiting for one is the caller's to bound. Setting
        `cancel` ends the run as CANCELLED; cancelling the task kills the cell too. `on_log` gets each line as it comes.

        Raises:
            SandboxError: no cell could be had; the job was not started. `JailError` when the jail is the cause.
        """
        if self._closed:
            raise SandboxError("the pool is not running")
        if job.limits.memory_bytes > self._settings.memory_max_bytes:
            raise SandboxError("the memory limit is over the pool's largest")
        while not (cell := await self._acquire(job)).reserved:
            pass  # It died in the turn between the grant and now.
        self._runs += 1
        outcome = await cell.run(job, host, on_log, cancel, self._settings.kill_grace)
        self._cold_starts += outcome.cold
        return outcome

    async def check_syntax(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        """Look for syntax errors in the modules of a bundle, in a cell that is used for nothing else.

        A check that does not end within 5 s or kills its cell gives one diagnostic that says so.
        Raises `SandboxError` when no cell could be had.
        """
        async with self._checks:
            cell = await self._take_blank()
            try:
                return await cell.check_syntax(dict(files), CHECK_TIMEOUT)
            except (SandboxError, TimeoutError):
                return [
                    Diagnostic(min(files, default=""), 0, 0, "the module could not be checked: it is too much work")
                ]
            finally:
                cell.kill("check")

    def stats(self) -> PoolStats:
        """What the pool is doing now and has done."""
        states = Counter(cell.state.value if cell.tenant else "spare" for cell in self._cells.values())
        waiting = sum(len(queue) for queue in self._waiting.values())
        return PoolStats(
            dict(states), waiting, self._runs, self._cold_starts, dict(self._kills), self._zygote_starts, self._layers,
            self._missing,
        )  # fmt: skip

    async def probe(self) -> None:
        """Make sure that the zygote lives; a dead one is replaced. Raises `SandboxError` when it cannot be."""
        await self._living_zygote()

    def cells(self) -> Sequence[CellProcess]:
        """The cells that live now, to look at."""
        return tuple(self._cells.values())

    # Giving cells to runs.

    async def _acquire(self, job: Job) -> CellProcess:
        waiter = _Waiter(job.tenant, job.bundle.sha256)
        self._waiting.setdefault(job.tenant, deque()).append(waiter)
        self._grant()
        try:
            cell = await waiter.granted
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        if cell is not None:
            return cell
        try:
            cell = await self._take_blank()
        except BaseException:
            self._release_slot(job.tenant)
            raise
        cell.tenant = job.tenant
        cell.reserve()
        self._slots[job.tenant] -= 1
        return cell

    def _abandon(self, waiter: _Waiter) -> None:
        """A run gives up waiting, perhaps in the very turn in which it was granted something."""
        queue = self._waiting.get(waiter.tenant)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
        if waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.exception() is None:
            cell = waiter.granted.result()
            if cell is None:
                self._slots[waiter.tenant] -= 1
            else:
                cell.unreserve()
        self._grant()

    def _release_slot(self, tenant: str) -> None:
        self._slots[tenant] -= 1
        self._grant()

    def _grant(self) -> None:
        """Give what there is to those who wait, one tenant after the other, until nobody can be served."""
        if self._granting:
            # Ending a cell to make room calls back here: the loop that ended it goes on by itself.
            return
        self._granting = True
        try:
            self._grant_in_turn()
        finally:
            self._granting = False

    def _grant_in_turn(self) -> None:
        blocked = 0
        while self._waiting and blocked < len(self._waiting):
            tenant, queue = next(iter(self._waiting.items()))
            while queue and queue[0].granted.done():
                queue.popleft()
            if not queue:
                del self._waiting[tenant]
                continue
            self._waiting.move_to_end(tenant)
            if self._serve(queue[0], len(queue)):
                queue.popleft()
                blocked = 0
                if not queue:
                    del self._waiting[tenant]
            else:
                blocked += 1

    def _serve(self, waiter: _Waiter, waiting: int) -> bool:
        """Grant a cell or a slot to one run, if that can be done now."""
        own = [cell for cell in self._cells.values() if cell.tenant == waiter.tenant]
        idle = [cell for cell in own if cell.state is CellState.IDLE]
        if idle:
            chosen = max(idle, key=lambda cell: (cell.last_bundle == waiter.bundle, cell.idle_since))
            chosen.reserve()
            waiter.granted.set_result(chosen)
            return True
        recycling = sum(cell.state is CellState.RECYCLING for cell in own)
        if recycling >= waiting:
            return False
        if len(own) + self._slots[waiter.tenant] >= self._settings.cells_per_tenant:
            return False
        held = sum(cell.tenant is not None for cell in self._cells.values()) + self._slots.total()
        if held >= self._settings.cells_max and not self._evict():
            return False
        self._slots[waiter.tenant] += 1
        waiter.granted.set_result(None)
        return True

    def _evict(self) -> bool:
        """End the cell that has been idle longest."""
        idle = [c for c in self._cells.values() if c.tenant and c.state is CellState.IDLE]
        if not idle:
            return False
        min(idle, key=lambda cell: cell.idle_since).kill("evict")
        return True

    # Starting and ending cells.

    async def _take_blank(self) -> CellProcess:
        """A jailed cell without a tenant: a spare, or a new one. Raises `SandboxError`."""
        while self._spares:
            cell = self._spares.popleft()
            if cell.state is CellState.IDLE:
                self._fill_spares()
                return cell
        return await self._fork()

    async def _fork(self) -> CellProcess:
        zygote = await self._living_zygote()
        forked = await zygote.fork()
        cell = CellProcess(forked, self._changed)
        self._cells[cell.pid] = cell
        await cell.connect(self._settings.start_timeout)
        self._layers, self._missing = cell.layers, cell.missing_layers
        return cell

    async def _living_zygote(self) -> ZygoteProcess:
        async with self._zygote_lock:
            if self._closed:
                raise SandboxError("the pool is closed")
            if self._zygote is None or not self._zygote.alive:
                if self._zygote is not None:
                    _logger.warning("the sandbox's zygote died; starting another")
                    await self._zygote.close()
                self._zygote = ZygoteProcess(self._settings, self._ended)
                self._zygote_starts += 1
                await self._zygote.start()
            return self._zygote

    def _ended(self, pid: int, end: CellEnd) -> None:
        if (ending := self._dying.pop(pid, None) or self._cells.get(pid)) is not None:
            ending.ended(end)

    def _changed(self, cell: CellProcess) -> None:
        """A cell's state changed: forget it when it is gone, and see whom that serves."""
        if cell.state is CellState.GONE:
            self._cells.pop(cell.pid, None)
            if cell.burying:
                self._dying[cell.pid] = cell
            if cell.kill_reason:
                self._kills[cell.kill_reason] += 1
            if cell in self._spares:
                self._spares.remove(cell)
                self._fill_spares()
        if cell.state in (CellState.GONE, CellState.IDLE, CellState.RECYCLING) and not self._closed:
            self._grant()

    def _fill_spares(self) -> None:
        if not self._closed and not self._filling and len(self._spares) < self._settings.spare_cells:
            self._filling = True
            self._spawn(self._make_spares())

    async def _make_spares(self) -> None:
        try:
            while len(self._spares) < self._settings.spare_cells:
                try:
                    self._spares.append(await self._fork())
                except SandboxError as fault:
                    _logger.warning("no spare cell: %s", fault)
                    await asyncio.sleep(_SPARE_RETRY)
        finally:
            self._filling = False

    async def _sweep(self) -> None:
        """End cells that have been idle for too long."""
        ttl = self._settings.idle_ttl.total_seconds()
        while True:
            await asyncio.sleep(min(_SWEEP_INTERVAL, ttl))
            oldest = asyncio.get_running_loop().time() - ttl
            for cell in list(self._cells.values()):
                if cell.tenant and cell.state is CellState.IDLE and cell.idle_since < oldest:
                    cell.kill("idle")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def check_syntax(files: Mapping[str, bytes]) -> list[Diagnostic]:
    """Look for syntax errors with a pool made for this one question. A service asks its own pool instead."""
    pool = CellPool(PoolSettings(cells_max=1, spare_cells=0))
    await pool.start()
    try:
        return await pool.check_syntax(files)
    finally:
        await pool.close()
