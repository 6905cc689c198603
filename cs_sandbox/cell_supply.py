"""Where cells come from: a zygote that is kept alive, and spare cells that are jailed and belong to nobody yet."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from cs_sandbox.cell_process import CellProcess, CellState
from cs_sandbox.job import SandboxError
from cs_sandbox.settings import PoolSettings
from cs_sandbox.zygote_process import CellEnd, ZygoteProcess

_logger = logging.getLogger(__name__)
_SPARE_RETRY: Final = 0.5


class CellSupply:
    """Makes cells.

    Args:
        settings: of the pool.
        on_change: called with a cell after each change of what it can be used for.
        spawn: runs work in the background for as long as the pool is open.

    Attributes:
        cells: the cells that live, by process id.
    """

    def __init__(
        self,
        settings: PoolSettings,
        on_change: Callable[[CellProcess], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._settings = settings
        self._on_change = on_change
        self._spawn = spawn
        self._zygote: ZygoteProcess | None = None
        self._zygote_lock = asyncio.Lock()
        self._dying: dict[int, CellProcess] = {}
        self._spares: deque[CellProcess] = deque()
        self._filling = False
        self._closed = False
        self.cells: dict[int, CellProcess] = {}
        self.zygote_starts = 0
        self.layers: tuple[str, ...] = ()
        self.missing_layers: tuple[str, ...] = ()

    @property
    def zygote_pid(self) -> int:
        """Process id of the zygote; 0 when there is none."""
        return self._zygote.pid if self._zygote is not None else 0

    async def start(self) -> None:
        """Start the zygote and a first cell, to prove the jail. Raises `JailError` or `SandboxError`."""
        self._spares.append(await self._fork())
        self._fill_spares()

    async def close(self) -> None:
        """End the zygote. The cells were killed before."""
        if self._zygote is not None:
            await self._zygote.close()
            self._zygote = None

    def kill_all(self) -> None:
        """Kill every cell, and make none any more."""
        self._closed = True
        for cell in list(self.cells.values()):
            cell.kill("close")

    async def take_blank(self) -> CellProcess:
        """A jailed cell without a tenant: a spare, or a new one. Raises `SandboxError`."""
        while self._spares:
            cell = self._spares.popleft()
            if cell.state is CellState.IDLE:
                self._fill_spares()
                return cell
        return await self._fork()

    async def _fork(self) -> CellProcess:
        zygote = await self.living_zygote()
        forked = await zygote.fork()
        cell = CellProcess(forked, self._changed)
        self.cells[cell.pid] = cell
        await cell.connect(self._settings.start_timeout)
        self.layers, self.missing_layers = cell.layers, cell.missing_layers
        return cell

    async def living_zygote(self) -> ZygoteProcess:
        """The zygote; a dead one is replaced. Raises `SandboxError` when it cannot be."""
        async with self._zygote_lock:
            if self._closed:
                raise SandboxError("the pool is closed")
            if self._zygote is None or not self._zygote.alive:
                if self._zygote is not None:
                    _logger.warning("the sandbox's zygote died; starting another")
                    await self._zygote.close()
                self._zygote = ZygoteProcess(self._settings, self._ended)
                self.zygote_starts += 1
                await self._zygote.start()
            return self._zygote

    def _ended(self, pid: int, end: CellEnd) -> None:
        if (ending := self._dying.pop(pid, None) or self.cells.get(pid)) is not None:
            ending.ended(end)

    def _changed(self, cell: CellProcess) -> None:
        """A cell can be used for something else: forget it when it is gone."""
        if cell.state is CellState.GONE:
            self.cells.pop(cell.pid, None)
            if cell.burying:
                self._dying[cell.pid] = cell
            if cell in self._spares:
                self._spares.remove(cell)
                self._fill_spares()
        self._on_change(cell)

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
