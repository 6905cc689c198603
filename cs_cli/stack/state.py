"""What runs, as a file that other commands read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cs_cli.stack.ports import Ports


@dataclass(slots=True)
class ProcessState:
    """One process: `started` is its start in clock ticks since boot, so that a reused pid is not taken for it."""

    name: str
    pid: int = 0
    started: int = 0
    port: int = 0
    restarts: int = 0

    @property
    def alive(self) -> bool:
        """Whether that very process is there."""
        return self.pid > 0 and start_of(self.pid) == self.started


@dataclass(slots=True)
class StackState:
    """The supervisor and its children."""

    supervisor: ProcessState
    ports: Ports
    ready: bool = False
    children: list[ProcessState] = field(default_factory=list)
    migrated_from: int | None = None
    """Schema that the store had, if it was migrated at the start."""

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        draft = path.with_suffix(f".{os.getpid()}")
        data = {**asdict(self), "ports": asdict(self.ports)}
        draft.write_text(json.dumps(data, indent=2), encoding="utf-8")
        draft.replace(path)


def read_state(path: Path) -> StackState | None:
    """Read the file; None when there is none, or it is no state."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return StackState(
            supervisor=ProcessState(**data["supervisor"]),
            ports=Ports(**data["ports"]),
            ready=bool(data["ready"]),
            children=[ProcessState(**child) for child in data["children"]],
            migrated_from=data.get("migrated_from"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def start_of(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def kill_leftovers(state: StackState) -> list[str]:
    """Kill children whose supervisor died without them; returns their names."""
    killed = []
    for child in state.children:
        if child.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
                killed.append(child.name)
    return killed
