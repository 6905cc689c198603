"""A stack in the background: started by one command, stopped by another."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from cs_cli.failure import SERVER, CommandError
from cs_cli.output import OUT
from cs_cli.stack.folders import Folders
from cs_cli.stack.log_file import last_lines
from cs_cli.stack.state import StackState, read_state
from cs_cli.stack.supervisor import READY_WITHIN
from cs_core.store.schema import VERSION

_LOOK_EVERY: Final = 0.05
# The supervisor gives up first, and says why.
_READY_WITHIN: Final = READY_WITHIN + 15
_STOPPED_WITHIN: Final = 75.0


def start_detached(folders: Folders, port: int, example: Path | None, *, with_cadence: bool, migrate: bool) -> None:
    """Start a supervisor that outlives this command, and return when its stack is ready.

    Raises:
        CommandError: it did not become ready; the message is the supervisor's own.
    """
    try:
        folders.make()
    except OSError as error:
        raise CommandError("CS_CLI_DATA_DIR", f"{folders.root} cannot be used: {error}", SERVER) from error
    command = [sys.executable, "-m", "cs_cli", "up", "--port", str(port), "--data-dir", str(folders.root)]
    if example is not None:
        command += ["--example", str(example.absolute())]
    if with_cadence:
        command.append("--with-cadence")
    if migrate:
        command.append("--migrate")
    log = folders.log("supervisor")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    state = _wait_ready(folders, process, log)
    url = f"http://127.0.0.1:{state.ports.public}"
    if OUT.json:
        found = {"state": "ready", "api_url": url, "port": state.ports.public, "data_dir": str(folders.root)}
        OUT.data(found if state.migrated_from is None else {**found, "migrated_from": state.migrated_from})
    else:
        if state.migrated_from is not None:
            OUT.line(f"[green]migrated[/green] the store from schema {state.migrated_from} to {VERSION}")
        OUT.line(f"[green]ready[/green] at {url} [dim](cs status, cs logs SERVICE, cs down)[/dim]")


def stop(folders: Folders) -> bool:
    """Stop the stack and wait until it is gone; False when none ran. Raises CommandError when it does not stop."""
    state = read_state(folders.state)
    if state is None or not state.supervisor.alive:
        return False
    os.kill(state.supervisor.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOPPED_WITHIN
    while state.supervisor.alive or _locked(folders):
        if time.monotonic() > deadline:
            raise CommandError("CS_CLI_STOP", f"the mesh on {folders.root} does not stop", SERVER)
        time.sleep(_LOOK_EVERY)
    return True


def _wait_ready(folders: Folders, process: subprocess.Popen[bytes], log: Path) -> StackState:
    deadline = time.monotonic() + _READY_WITHIN
    while True:
        if process.poll() is not None:
            raise _error_of(last_lines(log, 30))
        state = read_state(folders.state)
        if state is not None and state.ready and state.supervisor.pid == process.pid:
            return state
        if time.monotonic() > deadline:
            process.terminate()
            raise CommandError("CS_CLI_START", f"the mesh is not ready within {_READY_WITHIN:.0f} s", SERVER)
        time.sleep(_LOOK_EVERY)


def _error_of(lines: list[str]) -> CommandError:
    """The error that a supervisor ended with: it printed it as JSON, because its output is no terminal."""
    try:
        error = json.loads(lines[-1])["error"]
        return CommandError(str(error["reason"]), str(error["message"]), SERVER)
    except (IndexError, ValueError, KeyError, TypeError):
        return CommandError("CS_CLI_START", "\n".join(lines) or "the supervisor ended", SERVER)


def _locked(folders: Folders) -> bool:
    with folders.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
