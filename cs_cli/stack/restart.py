"""Restarting parts of a stack in turn: drain, end, and wait until the supervisor has a ready one in its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import Final

from codesous.admin.v1 import admin_service_pb2 as pb

from cs_cli.failure import SERVER, CommandError
from cs_cli.processes import Target, ask
from cs_cli.stack.child import GRACE
from cs_cli.stack.folders import Folders
from cs_cli.stack.ports import HOST
from cs_cli.stack.readiness import grpc_ready
from cs_cli.stack.state import ProcessState, read_state

ORDER: Final = ("cs-invoker-pool", "cs-scheduler", "cs-cadence-poller", "cs-control", "cs-http-gateway")
"""Who consumes goes before who publishes: a new invoker understands what an old gateway sends."""
_READY_WITHIN: Final = 60.0
_LOOK_EVERY: Final = 0.05
# A drain answers when its own time is up; this much more is for the answer to arrive.
_ANSWER: Final = 5.0


@dataclass(frozen=True, slots=True)
class Restarted:
    """What a restart did. `inflight` is what the drain left to the process to finish within its grace; `killed` tells
    that it did not end by then; `seconds` run from the drain until the new process was ready."""

    name: str
    inflight: int
    killed: bool
    seconds: float


def restart(folders: Folders, name: str, drain: float) -> Restarted:
    """Restart one service, waiting at most `drain` seconds for what it does.

    Raises:
        CommandError: no stack runs, the service does not answer, or the new process is not ready within 60 s.
    """
    began = time.monotonic()
    old = _child(folders, name)
    request = pb.DrainRequest()
    request.timeout.FromMilliseconds(int(drain * 1000))
    inflight = ask(Target(name, f"{HOST}:{old.port}"), lambda stub: stub.Drain, request, drain + _ANSWER).inflight
    killed = _end(old)
    _wait_ready(folders, old)
    return Restarted(name, int(inflight), killed, time.monotonic() - began)


def _end(process: ProcessState) -> bool:
    """End the process; True when it had to be killed, with all that it started."""
    if not process.alive:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while process.alive and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
    if not process.alive:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return True


def _wait_ready(folders: Folders, old: ProcessState) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        new = _child(folders, old.name)
        other = (new.pid, new.started) != (old.pid, old.started)
        if other and new.alive and asyncio.run(grpc_ready(HOST, new.port)):
            return
        time.sleep(_LOOK_EVERY)
    message = f"{old.name} is not ready within {_READY_WITHIN:.0f} s; its log is {folders.log(old.name)}"
    raise CommandError("CS_CLI_START", message, SERVER)


def _child(folders: Folders, name: str) -> ProcessState:
    state = read_state(folders.state)
    if state is None or not state.supervisor.alive:
        raise CommandError("CS_CLI_NO_STACK", f"no mesh runs on {folders.root}", SERVER)
    return next(child for child in state.children if child.name == name)
