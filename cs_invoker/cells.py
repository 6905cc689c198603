"""The cells of this process as an operator sees them."""

from __future__ import annotations

from typing import Final

from codesous.admin.v1 import process_pb2 as pb

from cs_sandbox.cell_process import CellState
from cs_sandbox.pool import CellPool

_IDLE: Final = frozenset({CellState.STARTING, CellState.IDLE})


def list_cells(pool: CellPool) -> list[pb.Cell]:
    """List the cells that live now, by process id."""
    found = []
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
            )
        )
    return found
