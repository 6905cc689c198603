"""The supervisor's handle of the zygote: start it, ask it for cells, hear how cells ended."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cs_sandbox.job import SandboxError
from cs_sandbox.settings import PoolSettings

_MESSAGE_MAX: Final = 65536
_DESCRIPTORS: Final = 2


@dataclass(frozen=True, slots=True)
class ForkedCell:
    """A cell that was forked. The receiver owns both descriptors."""

    pid: int
    pidfd: int
    connection: socket.socket


@dataclass(frozen=True, slots=True)
class CellEnd:
    """How a cell ended: its exit code, negative for a signal, and how much it had resident beyond the zygote's own."""

    code: int
    peak_bytes: int


class ZygoteProcess:
    """One zygote. When it dies it stays dead; its owner makes another.

    Args:
        settings: of the pool.
        on_end: called with the pid of each cell that ended, and how.
    """

    def __init__(self, settings: PoolSettings, on_end: Callable[[int, CellEnd], None]) -> None:
        self._settings = settings
        self._on_end = on_end
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._forks: deque[asyncio.Future[ForkedCell]] = deque()
        self.pid = 0
        self._resident = 0

    @property
    def alive(self) -> bool:
        """Whether cells can be asked for."""
        return self._control is not None

    async def start(self) -> None:
        """Start the process and wait until it can fork. Raises `SandboxError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                "cs_sandbox.zygote",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={"LC_ALL": "C.UTF-8"},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        loop = asyncio.get_running_loop()
        self._control, self._ready = ours, loop.create_future()
        loop.add_reader(ours, self._receive)
        ours.send(json.dumps(self._parameters()).encode())
        try:
            async with asyncio.timeout(self._settings.start_timeout.total_seconds()):
                await self._ready
        except TimeoutError:
            await self.close()
            raise SandboxError("the sandbox's zygote did not start in time") from None
        except SandboxError:
            await self.close()
            raise

    def _parameters(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "memory_max_bytes": settings.memory_max_bytes,
            "require_jail": settings.require_jail,
            "skip_layers": sorted(settings.skip_layers),
        }

    async def fork(self) -> ForkedCell:
        """A new cell. Raises `SandboxError` when the zygote is gone or could not fork."""
        if self._control is None:
            raise SandboxError("the sandbox's zygote is gone")
        answer: asyncio.Future[ForkedCell] = asyncio.get_running_loop().create_future()
        self._forks.append(answer)
        try:
            self._control.send(b"fork")
        except OSError:
            self._lost()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                _let_go(answer.result())
            raise

    async def close(self) -> None:
        """End the process, and with it every cell."""
        self._lost()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    def _receive(self) -> None:
        while self._control is not None:
            try:
                data, passed, _, _ = self._control.recvmsg(
                    _MESSAGE_MAX, socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, passed = b"", []
            if not data:
                self._lost()
                return
            self._handle(json.loads(data), _descriptors(passed))

    def _handle(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "ready" in message:
            self.pid, self._resident = int(message["ready"]), int(message["resident"])
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "broken" in message:
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(SandboxError(f"the sandbox's zygote cannot start: {message['broken']}"))
        elif "ended" in message:
            self._on_end(int(message["ended"]), CellEnd(int(message["code"]), int(message["peak"]) - self._resident))
        elif "forked" in message:
            self._hand_over(int(message["forked"]), descriptors)
        elif self._forks:
            waiting = self._forks.popleft()
            if not waiting.done():
                waiting.set_exception(SandboxError(f"the zygote could not fork: {message.get('failed')}"))

    def _hand_over(self, pid: int, descriptors: list[int]) -> None:
        forked = ForkedCell(pid, descriptors[1], socket.socket(fileno=descriptors[0]))
        forked.connection.setblocking(False)
        waiting = self._forks.popleft() if self._forks else None
        if waiting is None or waiting.done():
            _let_go(forked)
        else:
            waiting.set_result(forked)

    def _lost(self) -> None:
        if self._control is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None
        gone = SandboxError("the sandbox's zygote died")
        for waiting in [self._ready, *self._forks]:
            if waiting is not None and not waiting.done():
                waiting.set_exception(gone)
        self._forks.clear()


def _let_go(forked: ForkedCell) -> None:
    """Whoever asked for the cell has gone: the closed connection ends it."""
    forked.connection.close()
    os.close(forked.pidfd)


def _descriptors(passed: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in passed:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
