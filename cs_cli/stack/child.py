"""One child process: started, watched, started again when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cs_cli.stack.state import ProcessState, start_of

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LOG_MAX: Final = 10 * 1024 * 1024
_BACKOFF_FIRST, _BACKOFF_LAST = 0.2, 5.0
# A child that lived this long died of something new: begin with the shortest wait again.
_STEADY: Final = 30.0
GRACE: Final = 15.0
"""Time to end by itself after SIGTERM, in seconds, unless a part has its own."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run. `grace` is the time to end by itself after SIGTERM, in seconds; `port` is told to people only."""

    name: str
    command: Sequence[str]
    log: Path
    port: int = 0
    grace: float = GRACE


class Child:
    """Keeps one process running until it is stopped."""

    def __init__(self, spec: ChildSpec, on_change: Callable[[], None]) -> None:
        self.spec = spec
        self.state = ProcessState(spec.name, port=spec.port)
        self.deaths = 0
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def keep(self) -> None:
        """Run the process, again and again, until `stop`."""
        wait = _BACKOFF_FIRST
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            await self._run()
            if self._stopping.is_set():
                return
            self.deaths += 1
            self.state.restarts += 1
            wait = _BACKOFF_FIRST if loop.time() - began > _STEADY else min(wait * 2, _BACKOFF_LAST)
            try:
                async with asyncio.timeout(wait * random.uniform(0.5, 1.0)):  # noqa: S311 - jitter
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def stop(self) -> None:
        """Ask the process to end; kill it, and whatever it started, when it does not in time."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.spec.grace):
                await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End the process and its session at once."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def last_lines(self, count: int = 12) -> list[str]:
        """The end of its log."""
        try:
            with self.spec.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
                return file.read().decode("utf-8", "replace").splitlines()[-count:]
        except OSError:
            return []

    async def _run(self) -> None:
        _rotate(self.spec.log)
        with self.spec.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: Ctrl-C at the terminal is for the supervisor, which stops its children in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.state.pid = self._process.pid
        self.state.started = start_of(self._process.pid)
        self._on_change()
        try:
            await self._process.wait()
        finally:
            self.state.pid = self.state.started = 0
            self._on_change()


def _die_with_parent() -> None:
    """In the child, before exec: a supervisor that is killed leaves nothing behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _rotate(log: Path) -> None:
    try:
        if log.stat().st_size > _LOG_MAX:
            log.replace(log.with_suffix(".log.1"))
    except FileNotFoundError:
        pass
