"""The cells of this process as an operator sees them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from codesous.admin.v1 import process_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from cs_sandbox.cell_process import CellState
from cs_sandbox.pool import CellPool

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_IDLE: Final = frozenset({CellState.STARTING, CellState.IDLE})


def list_cells(pool: CellPool) -> list[pb.Cell]:
    """List the cells that live now, by process id."""
    found, now = [], asyncio.get_running_loop().time()
    for cell in sorted(pool.cells(), key=lambda cell: cell.pid):
        if cell.tenant is None:
            state = pb.CellState.CELL_STATE_SPARE
        elif cell.state in _IDLE:
            state = pb.CellState.CELL_STATE_IDLE
        else:
            state = pb.CellState.CELL_STATE_BUSY
        found.append(
            pb.Cell(
                pid=cell.pid,
                state=state,
                tenant=cell.tenant or "",
                runs=cell.runs,
                layers=list(cell.layers),
                live_runs=cell.load,
                age=_age(now - cell.born),
                memory_bytes=_resident(cell.pid),
            )
        )
    return found


def _age(seconds: float) -> Duration:
    age = Duration()
    age.FromMilliseconds(int(seconds * 1000))
    return age


def _resident(pid: int) -> int:
    """Resident memory without that of files, in bytes; 0 when the process is gone."""
    try:
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE
