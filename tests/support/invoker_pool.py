"""Invokers as they are deployed: `cs-invoker-pool` processes with settings of their own, to be killed and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.invocations import PARTITIONS
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


class PoolProcess:
    """One `cs-invoker-pool`. With guards off it runs `tests.support.unguarded` in front of the same main."""

    def __init__(self, url: str, settings: Mapping[str, Mapping[str, Any]], off: tuple[str, ...] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cs-pool-")
        self.log = Path(self._folder.name) / "log"
        config = Path(self._folder.name) / "settings.toml"
        tree: dict[str, dict[str, Any]] = {
            "store": {"url": url, "partitions": PARTITIONS},
            "rpc": {"drain_grace": 1.0},
            **{name: dict(values) for name, values in settings.items()},
        }
        config.write_text("\n".join(f"[{name}]\n{_toml(values)}" for name, values in tree.items()))
        module = ["tests.support.unguarded", *off, "--"] if off else ["cs_invoker"]
        self._command = [sys.executable, "-m", *module, "--config", str(config)]
        self._process: subprocess.Popen[bytes] | None = None
        self.instance = ""

    async def __aenter__(self) -> PoolProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    async def start(self) -> None:
        """Start the process; return when it serves."""
        self.spawn()
        await self.ready()

    def spawn(self) -> None:
        """Start the process."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=ROOT)

    async def ready(self) -> None:
        """Return when the process serves."""

        def serves() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            return any(line.get("event") == "ready" for line in self.lines())

        await wait_until(serves, within=60)
        self.instance = next(str(line["instance"]) for line in self.lines() if "instance" in line)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    def lines(self) -> list[dict[str, Any]]:
        """What it logged since it was started."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return [line for line in found if isinstance(line, dict)]

    def logged(self, event: str) -> int:
        """How many lines of this event it logged."""
        return sum(line.get("event") == event for line in self.lines())

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def cells(self) -> list[int]:
        """Process ids of its cells: the children of its zygote."""
        return [cell for zygote in _children(self.pid) for cell in _children(zygote)]

    def close(self) -> None:
        """Stop it in good order; kill it when that takes long."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._folder.cleanup()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _toml(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
