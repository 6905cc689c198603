"""Who gets which cell: the runs that wait, served tenant by tenant in turn.

Theory of operation: a run takes an idle cell of its tenant; or waits for one that is about to be idle; or, below the
limits, may start a new one; or, when there is no room for a new one, begins beside other runs of its tenant in a cell
where all of them wait; or ends the cell that has been idle longest and starts one in its place; or waits. A run that
is to be alone never begins beside others. Tenants are served in turn, so that one tenant's backlog costs another one
turn. Cells in which runs overlap may never become idle by themselves: a tenant that waits for its share has a cell of
the tenant with the most of them drained, which is given no more runs and ended when it is idle. All decisions are
made in one event-loop turn, without awaiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from cs_sandbox.cell_process import CellProcess, CellState
from cs_sandbox.job import Job, SandboxError
from cs_sandbox.settings import PoolSettings


@dataclass(eq=False, slots=True)
class Waiter:
    """A run that waits. Its future gets a reserved cell, or None: then it may start one, and a slot is held for it."""

    job: Job
    granted: asyncio.Future[CellProcess | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Grants:
    """Gives cells to the runs that wait.

    Args:
        settings: of the pool.
        cells: the cells that live, by process id; kept by the owner.
    """

    def __init__(self, settings: PoolSettings, cells: Mapping[int, CellProcess]) -> None:
        self._settings = settings
        self._cells = cells
        self._slots: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[Waiter]] = OrderedDict()
        self._drains: dict[str, CellProcess] = {}
        self._granting = False

    @property
    def waiting(self) -> int:
        """Runs that wait."""
        return sum(len(queue) for queue in self._waiting.values())

    def add(self, waiter: Waiter) -> None:
        """A run begins to wait."""
        self._waiting.setdefault(waiter.job.tenant, deque()).append(waiter)
        self.grant()

    def abandon(self, waiter: Waiter) -> None:
        """A run gives up waiting, perhaps in the very turn in which it was granted something."""
        queue = self._waiting.get(waiter.job.tenant)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
        if waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.exception() is None:
            cell = waiter.granted.result()
            if cell is None:
                self._slots[waiter.job.tenant] -= 1
            else:
                cell.unreserve()
        self.grant()

    def fill_slot(self, tenant: str, cell: CellProcess) -> None:
        """The cell that a slot was held for is there: it is the tenant's, for the run that started it."""
        cell.tenant = tenant
        cell.reserve()
        self._slots[tenant] -= 1

    def release_slot(self, tenant: str) -> None:
        """The cell that a slot was held for could not be had."""
        self._slots[tenant] -= 1
        self.grant()

    def close(self) -> None:
        """Nobody is served any more."""
        for queue in self._waiting.values():
            for waiter in queue:
                if not waiter.granted.done():
                    waiter.granted.set_exception(SandboxError("the pool is closed"))
        self._waiting.clear()

    def grant(self) -> None:
        """Give what there is to those who wait, one tenant after the other, until nobody can be served."""
        if self._granting or not self._waiting:
            # Ending a cell to make room calls back here: the loop that ended it goes on by itself.
            return
        self._granting = True
        try:
            self._grant_in_turn()
            for tenant in [tenant for tenant in self._drains if tenant not in self._waiting]:
                self._undrain(tenant)
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
                self._undrain(tenant)
                queue.popleft()
                blocked = 0
                if not queue:
                    del self._waiting[tenant]
            else:
                blocked += 1

    def _serve(self, waiter: Waiter, waiting: int) -> bool:
        """Grant a cell or a slot to one run, if that can be done now."""
        own = [cell for cell in self._cells.values() if cell.tenant == waiter.job.tenant and not cell.draining]
        idle = [cell for cell in own if cell.state is CellState.IDLE]
        if idle:
            return self._promise(waiter, max(idle, key=lambda cell: (cell.knows(waiter.job), cell.idle_since)))
        if sum(cell.state is CellState.RECYCLING for cell in own) >= waiting:
            return False
        entitled = len(own) + self._slots[waiter.job.tenant] < self._settings.cells_per_tenant
        if entitled and self._held() < self._settings.cells_max:
            return self._hold_slot(waiter)
        if not waiter.job.alone and (open_to := [cell for cell in own if self._takes_beside(cell, waiter)]):
            return self._promise(waiter, min(open_to, key=lambda cell: (not cell.knows(waiter.job), cell.load)))
        return entitled and self._replace_cell(waiter, len(own))

    def _replace_cell(self, waiter: Waiter, own: int) -> bool:
        """Start a cell in place of an idle one; where there is none, see that there will be."""
        idle = [c for c in self._cells.values() if c.tenant and c.state is CellState.IDLE]
        if not idle:
            self._drain_for(waiter.job.tenant, own)
            return False
        # One that was drained first, then the one that has been idle longest.
        min(idle, key=lambda cell: (not cell.draining, cell.idle_since)).kill("evict")
        return self._hold_slot(waiter)

    def _promise(self, waiter: Waiter, cell: CellProcess) -> bool:
        cell.reserve()
        waiter.granted.set_result(cell)
        return True

    def _hold_slot(self, waiter: Waiter) -> bool:
        self._slots[waiter.job.tenant] += 1
        waiter.granted.set_result(None)
        return True

    def _held(self) -> int:
        return sum(cell.tenant is not None for cell in self._cells.values()) + self._slots.total()

    def _takes_beside(self, cell: CellProcess, waiter: Waiter) -> bool:
        settings = self._settings
        return cell.takes_beside(waiter.job, settings.runs_per_cell, settings.memory_max_bytes)

    def _drain_for(self, tenant: str, own: int) -> None:
        """Have a cell of the tenant that has the most of them become idle: for one that has none, or two less."""
        if (drained := self._drains.get(tenant)) is not None and drained.state is not CellState.GONE:
            return
        held = Counter(cell.tenant for cell in self._cells.values())
        most = max((count for name, count in held.items() if name not in (None, tenant)), default=0)
        candidates = [
            cell
            for cell in self._cells.values()
            if cell.tenant != tenant and held[cell.tenant] == most and cell.load and not cell.draining
        ]
        if candidates and (own == 0 or most > own + 1):
            chosen = min(candidates, key=lambda cell: cell.ends)
            chosen.draining = True
            self._drains[tenant] = chosen

    def _undrain(self, tenant: str) -> None:
        if (drained := self._drains.pop(tenant, None)) is not None:
            drained.draining = False
