"""What a run is told when its cell died under it."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from cs_sandbox.run import Run
from cs_sandbox.zygote_process import CellEnd

END_WAIT: Final = 0.5
"""Seconds that we wait to be told how a cell ended before we say that we do not know."""
MEMORY_SUSPICION: Final = 0.5
"""A crash with this share of the memory limits resident is taken for exhausted memory."""


async def bury(run: Run, kill_reason: str, memory: int, ended: asyncio.Future[CellEnd]) -> None:
    """Give a run its outcome by how its cell ended.

    Args:
        run: the one to blame.
        kill_reason: why we killed the cell; empty: we did not.
        memory: bytes that the runs of the cell might use together.
        ended: gets how the process ended.
    """
    late = asyncio.get_running_loop().time() > run.ends
    try:
        async with asyncio.timeout(END_WAIT):
            end = await asyncio.shield(ended)
    except TimeoutError:
        run.crash("the cell died")
        return
    if kill_reason == "breach":
        run.crash("the cell broke its protocol", retryable=False)
    elif late and end.code == 0:
        # It saw the deadline pass and left. An answer that we sent then broke the connection, its last word on it.
        run.time_out()
    elif not kill_reason and end.peak_bytes >= MEMORY_SUSPICION * memory and end.code != -signal.SIGSYS:
        run.exhaust_memory()
    elif end.code == -signal.SIGSYS:
        run.crash("the cell made a system call that its jail forbids", retryable=False)
    elif end.code < 0:
        run.crash(f"the cell was ended by signal {-end.code}")
    else:
        run.crash("the cell ended")
