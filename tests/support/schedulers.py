"""Real schedulers in processes of their own, which can be killed."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from prometheus_client import CollectorRegistry

from cs_core.clock import SystemClock
from cs_core.codeq.open import open_queue
from cs_core.store.client import KvClient
from cs_scheduler.assembly import assemble
from cs_scheduler.metrics import Metrics
from tests.support.schedules import make_settings


class SchedulerProcess:
    """A scheduler in a process of its own."""

    def __init__(self, url: str, instance: str, *, shards: int, lease: float) -> None:
        self._arguments = ["--url", url, "--instance", instance, "--shards", str(shards), "--lease", str(lease)]
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> SchedulerProcess:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.schedulers", *self._arguments), stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert await self.process.stdout.readline() == b"ready\n"
        return self

    async def end(self, number: signal.Signals) -> None:
        """Send a signal, and wait for the end."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self.process.wait()

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGKILL)


async def _serve(url: str, instance: str, shards: int, lease: float) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    settings = make_settings(url, shards=shards, lease=lease, poll_interval=0.1)
    settings = settings.model_copy(
        update={"limits": settings.limits.model_copy(update={"tenant_inflight": 1_000_000_000})}
    )
    client = KvClient(url)
    queue = open_queue(settings, client)
    scheduler = assemble(settings, client, queue, Metrics(CollectorRegistry()), SystemClock(), instance)
    print("ready", flush=True)
    await scheduler.run(stopping)
    await queue.close()
    await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--lease", type=float, required=True)
    options = parser.parse_args()
    asyncio.run(_serve(options.url, options.instance, options.shards, options.lease))
