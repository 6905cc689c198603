"""The pool of cells: runs jobs, each in a cell of its tenant.

Theory of operation: a cell is jailed before it belongs to anybody, and belongs to one tenant from its first run to
its end. `Grants` decides in which cell a run begins; `CellSupply` makes cells; a run that was granted the right to a
new cell waits for its fork itself, in the slot that is held for it. Versions that kept the processor of their cell
for long are remembered for a while: their runs begin in cells of their own, because they would hold up whoever waits
beside them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Self

from cs_sandbox.cell_process import CellProcess, CellState
from cs_sandbox.cell_supply import CellSupply
from cs_sandbox.grants import Grants, Waiter
from cs_sandbox.job import Diagnostic, HostCalls, Job, LogEntry, Outcome, SandboxError
from cs_sandbox.settings import PoolSettings

_SWEEP_INTERVAL: Final = 1.0
_HOG_MEMORY: Final = 60.0
"""Seconds for which a version that kept the processor runs without neighbours."""
_HOGS_MAX: Final = 1000
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
    bystanders: int
    """Runs that ended because of another run in their cell."""
    kills: Mapping[str, int]
    """Cells that we killed, by reason."""
    zygote_starts: int
    layers: tuple[str, ...]
    missing_layers: tuple[str, ...]


class CellPool:
    """Runs jobs in jailed cells.

    Args:
        settings: sizes and rules; the defaults suit a small machine.
    """

    def __init__(self, settings: PoolSettings | None = None) -> None:
        self._settings = settings or PoolSettings()
        self._tasks: set[asyncio.Task[None]] = set()
        self._supply = CellSupply(self._settings, self._changed, self._spawn)
        self._grants = Grants(self._settings, self._supply.cells)
        self._hogs: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._kills: Counter[str] = Counter()
        self._runs = self._cold_starts = self._bystanders = 0
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
            await self._supply.start()
        except BaseException:
            await self.close()
            raise
        self._spawn(self._sweep())

    async def close(self) -> None:
        """Kill every cell and the zygote. Runs in progress end as crashed."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        self._supply.kill_all()
        self._grants.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._supply.close()

    async def run(
        self,
        job: Job,
        host: HostCalls,
        on_log: Callable[[LogEntry], None] | None = None,
        cancel: asyncio.Event | None = None,
    ) -> Outcome:
        """Run a job in a cell of its tenant.

        The wall clock begins when a cell is at hand: the time spent waiting for one is the caller's to bound. Setting
        `cancel` ends the run as CANCELLED; cancelling the task ends it too. `on_log` gets each line as it comes.

        Raises:
            SandboxError: no cell could be had; the job was not started. `JailError` when the jail is the cause.
        """
        if self._closed:
            raise SandboxError("the pool is not running")
        if job.limits.memory_bytes > self._settings.memory_max_bytes:
            raise SandboxError("the memory limit is over the pool's largest")
        if not job.alone and self._is_hog(job):
            job = replace(job, alone=True)
        while not (cell := await self._acquire(job)).reserved:
            pass  # It died in the turn between the grant and now.
        self._runs += 1
        outcome = await cell.run(job, host, on_log, cancel, self._settings.kill_grace)
        self._cold_starts += outcome.cold
        self._bystanders += outcome.bystander
        if outcome.hogged:
            self._note_hog(job)
        return outcome

    async def check_syntax(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        """Look for syntax errors in the modules of a bundle, in a cell that is used for nothing else.

        A check that does not end within 5 s or kills its cell gives one diagnostic that says so.
        Raises `SandboxError` when no cell could be had.
        """
        async with self._checks:
            cell = await self._supply.take_blank()
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
        states = Counter(cell.state.value if cell.tenant else "spare" for cell in self.cells())
        return PoolStats(
            cells=dict(states),
            waiting=self._grants.waiting,
            runs=self._runs,
            cold_starts=self._cold_starts,
            bystanders=self._bystanders,
            kills=dict(self._kills),
            zygote_starts=self._supply.zygote_starts,
            layers=self._supply.layers,
            missing_layers=self._supply.missing_layers,
        )

    async def probe(self) -> None:
        """Make sure that the zygote lives; a dead one is replaced. Raises `SandboxError` when it cannot be."""
        await self._supply.living_zygote()

    @property
    def zygote_pid(self) -> int:
        """Process id of the zygote; 0 when there is none."""
        return self._supply.zygote_pid

    def cells(self) -> Sequence[CellProcess]:
        """The cells that live now, to look at."""
        return tuple(self._supply.cells.values())

    async def _acquire(self, job: Job) -> CellProcess:
        waiter = Waiter(job)
        self._grants.add(waiter)
        try:
            cell = await waiter.granted
        except asyncio.CancelledError:
            self._grants.abandon(waiter)
            raise
        if cell is not None:
            return cell
        try:
            cell = await self._supply.take_blank()
        except BaseException:
            self._grants.release_slot(job.tenant)
            raise
        self._grants.fill_slot(job.tenant, cell)
        return cell

    def _changed(self, cell: CellProcess) -> None:
        if cell.state is CellState.GONE and cell.kill_reason:
            self._kills[cell.kill_reason] += 1
        if not self._closed:
            self._grants.grant()

    def _is_hog(self, job: Job) -> bool:
        until = self._hogs.get((job.tenant, job.bundle.sha256), 0.0)
        return until > asyncio.get_running_loop().time()

    def _note_hog(self, job: Job) -> None:
        key = (job.tenant, job.bundle.sha256)
        self._hogs[key] = asyncio.get_running_loop().time() + _HOG_MEMORY
        self._hogs.move_to_end(key)
        if len(self._hogs) > _HOGS_MAX:
            self._hogs.popitem(last=False)

    async def _sweep(self) -> None:
        """End cells that have been idle for too long."""
        ttl = self._settings.idle_ttl.total_seconds()
        while True:
            await asyncio.sleep(min(_SWEEP_INTERVAL, ttl))
            oldest = asyncio.get_running_loop().time() - ttl
            for cell in self.cells():
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
