"""The embedded stack as its operator sees it: what dies comes back, what is stopped is gone, what is wrong is told."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cs_cli.stack.folders import Folders
from cs_cli.stack.state import read_state
from tests.support.waiting import wait_until

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(120)]


class Stack:
    """A stack on a data directory of its own."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root / "data")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CS_", "CODE_SOUS_"))},
            "XDG_CONFIG_HOME": str(root / "config"),
            "CODE_SOUS_DATA_DIR": str(self.folders.root),
        }

    def cs(self, *arguments: str, expect: int = 0, **environment: str) -> Any:
        """Run a command; answers its JSON, or its error's."""
        done = subprocess.run(
            [BIN / "cs", *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == expect, done.stderr + done.stdout
        return json.loads(done.stdout if expect == 0 or not done.stderr else done.stderr)

    def pids(self) -> dict[str, int]:
        """The processes that run now, by part."""
        state = read_state(self.folders.state)
        return {} if state is None else {child.name: child.pid for child in state.children if child.alive}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Nothing runs yet; whatever runs at the end is stopped."""
    made = Stack(tmp_path)
    yield made
    made.cs("down")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _tree(pid: int) -> set[int]:
    """A process and all that it started, directly or not."""
    found = {pid}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found |= _tree(int(child))
    return found


async def _until(condition: Any, within: float = 30.0) -> None:
    async def met() -> bool:
        return bool(condition())

    await wait_until(met, within=within)


async def test_what_dies_comes_back_and_what_is_killed_at_the_top_leaves_nothing(stack: Stack) -> None:
    stack.cs("up", "--detach", "--port", "0")
    before = stack.pids()
    assert len(before) == 7
    for name in ("cs-invoker-pool", "envoy", "redis"):
        os.kill(before[name], signal.SIGKILL)
    await _until(lambda: all(stack.pids().get(name, before[name]) != before[name] for name in before if name in KILLED))

    def ready() -> bool:
        status = subprocess.run([BIN / "cs", "status"], env=stack.environment, capture_output=True, check=False)
        return status.returncode == 0

    await _until(ready)
    restarts = {part["name"]: part["restarts"] for part in stack.cs("status")["parts"]}
    assert {name for name, count in restarts.items() if count} == KILLED

    state = read_state(stack.folders.state)
    assert state is not None
    processes = _tree(state.supervisor.pid)
    assert len(processes) > 8  # the zygote and its cells too
    os.kill(state.supervisor.pid, signal.SIGKILL)
    await _until(lambda: not any(_alive(pid) for pid in processes))

    # What a dead supervisor left on disk is known for what it is.
    assert stack.cs("status", expect=2)["ready"] is False
    assert stack.cs("down")["stopped"] is False
    stack.cs("up", "--detach", "--port", "0")
    assert stack.cs("status")["ready"] is True
    assert stack.cs("up", "--detach", "--port", "0", expect=2)["error"]["reason"] == "CS_CLI_RUNNING"
    assert stack.cs("down")["stopped"] is True
    assert stack.pids() == {}
    assert (stack.folders.root / "store").is_dir()


KILLED = {"cs-invoker-pool", "envoy", "redis"}


def test_a_part_that_cannot_start_is_named_with_the_end_of_its_log(stack: Stack) -> None:
    error = stack.cs("up", "--detach", "--port", "0", expect=2, CS_INVOKER__CONCURRENCY="none")["error"]
    assert error["reason"] == "CS_CLI_START"
    assert "CS_INVOKER__CONCURRENCY: invoker.concurrency: Input should be a valid integer" in error["message"]
    assert not error["message"].startswith("{")
    assert stack.pids() == {}


async def test_ctrl_c_at_a_terminal_stops_everything(stack: Stack) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(str(BIN / "cs"), ["cs", "up", "--port", "0"], stack.environment)
    output = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(terminal, 65_536):
                output.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    await _until(lambda: b"Ctrl-C" in output, within=60)
    processes = _tree(pid)
    os.write(terminal, b"\x03")
    reader.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"Traceback" not in output
    await _until(lambda: not any(_alive(process) for process in processes))


async def test_a_log_is_followed_over_its_rotation(stack: Stack) -> None:
    log = stack.folders.log("cs-control")
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\n")
    follow = subprocess.Popen(
        [BIN / "cs", "logs", "-f", "-n", "1", "cs-control"],
        env=stack.environment,
        stdout=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores the interrupt, and what it starts would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads at this point
    )
    assert follow.stdout is not None
    try:
        assert follow.stdout.readline() == "two\n"
        with log.open("a") as file:
            file.write("three\n")
        assert follow.stdout.readline() == "three\n"
        log.replace(log.with_suffix(".log.1"))
        log.write_text("four\n")
        assert follow.stdout.readline() == "four\n"
        follow.send_signal(signal.SIGINT)
        assert follow.wait(60) == 130
    finally:
        follow.kill()
        follow.communicate()
