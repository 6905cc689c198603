"""What each part of a running stack is doing."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final

from cs_cli.output import size
from cs_cli.stack.folders import Folders
from cs_cli.stack.plan import REDIS
from cs_cli.stack.ports import HOST
from cs_cli.stack.readiness import grpc_ready, redis_ready
from cs_cli.stack.state import ProcessState, read_state

_TICKS: Final = os.sysconf("SC_CLK_TCK")


async def look(folders: Folders) -> list[dict[str, Any]]:
    """Describe every part; an empty list when no stack runs."""
    state = read_state(folders.state)
    if state is None or not state.supervisor.alive:
        return []
    return list(await asyncio.gather(*(_part(child, folders) for child in state.children)))


async def _part(child: ProcessState, folders: Folders) -> dict[str, Any]:
    alive = child.alive
    if not alive:
        state = "restarting" if child.restarts else "starting"
    elif child.name == REDIS:
        state = "ready" if await redis_ready(folders.sockets / "redis.sock") else "not_serving"
    else:
        state = "ready" if await grpc_ready(HOST, child.port) else "not_serving"
    return {
        "name": child.name,
        "state": state,
        "pid": child.pid if alive else 0,
        "port": child.port,
        "restarts": child.restarts,
        "memory": _memory(child.pid) if alive else "",
        "uptime": _uptime(child) if alive else "",
    }


def _memory(pid: int) -> str:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError, ValueError):
        return ""
    return size(pages * os.sysconf("SC_PAGE_SIZE"))


def _uptime(child: ProcessState) -> str:
    seconds = int(time.clock_gettime(time.CLOCK_BOOTTIME) - child.started / _TICKS)
    minutes, seconds = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
