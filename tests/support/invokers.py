"""Real invokers: in this process, or in one of their own that can be killed at a chosen step."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from cs_core.clock import SystemClock
from cs_core.codeq.kv import KvQueue, KvResultChannel
from cs_core.config import Settings
from cs_core.ids import instance_id
from cs_core.store.activations import ActivationStore
from cs_core.store.bundles import BundleStore
from cs_core.store.client import KvClient
from cs_core.store.overdue import OverdueStore
from cs_core.store.slots import SlotStore
from cs_core.store.userkv import KvQuota, UserKvStore
from cs_core.store.versions import VersionStore
from cs_core.telemetry.spans import NoSpans
from cs_invoker.assembly import Backends, Invoker, assemble
from cs_invoker.bundle_cache import BundleCache
from cs_invoker.code import StoredCode
from cs_invoker.gaps import AtGap, Gap, pass_gap
from cs_invoker.host_secrets import open_secrets
from cs_invoker.metrics import Metrics
from cs_invoker.renewal import Lessors
from cs_sandbox import CellPool, PoolSettings
from cs_sandbox.host.fetch import open_fetcher
from tests.support.invocations import PARTITIONS


def make_settings(url: str, **invoker: Any) -> Settings:
    """Settings with leases short enough for a test."""
    return Settings.model_validate(
        {
            "store": {"url": url, "partitions": PARTITIONS},
            "codeq": {"lease": 2.0, "poll_interval": 0.05},
            "rpc": {"drain_grace": 0.5},
            "invoker": {"activation_lease": 1.0, "concurrency": 16, **invoker},
        }
    )


@asynccontextmanager
async def running_invoker(
    settings: Settings,
    *,
    registry: CollectorRegistry | None = None,
    at_gap: AtGap = pass_gap,
    pool: CellPool | None = None,
) -> AsyncIterator[Invoker]:
    """An invoker over the store of the settings; stopped and drained at the end of the block."""
    client = KvClient(settings.store.url)
    cells = pool or CellPool(PoolSettings(cells_max=2, cells_per_tenant=2))
    clock = SystemClock()
    fetcher = open_fetcher(**settings.egress.model_dump())
    metrics = Metrics(registry or CollectorRegistry())
    cache = BundleCache(16, 2**26, metrics.count_bundle_lookup)
    queue = KvQueue(
        client,
        settings.store.partitions,
        timedelta(seconds=settings.codeq.lease),
        timedelta(seconds=settings.codeq.poll_interval),
    )

    @asynccontextmanager
    async def open_lessors() -> AsyncIterator[Lessors]:
        renewing = KvClient(settings.store.url)
        store = ActivationStore(renewing, settings.store.partitions, clock, timedelta(days=7))
        lease, poll = (timedelta(seconds=length) for length in (settings.codeq.lease, settings.codeq.poll_interval))
        yield Lessors(store, KvQueue(renewing, settings.store.partitions, lease, poll), SlotStore(renewing))
        await renewing.close()

    backends = Backends(
        activations=ActivationStore(client, settings.store.partitions, clock, timedelta(days=7)),
        overdue=OverdueStore(client),
        slots=SlotStore(client),
        queue=queue,
        channel=KvResultChannel(client),
        code=StoredCode(VersionStore(client), BundleStore(client), cache, settings.limits),
        cells=cells,
        user_kv=UserKvStore(
            client,
            settings.limits.kv_value_bytes,
            KvQuota(settings.limits.kv_tenant_keys, settings.limits.kv_tenant_bytes),
        ),
        fetcher=fetcher,
        secrets=open_secrets(settings.secrets),
        metrics=metrics,
        clock=clock,
        spans=NoSpans(),
        open_lessors=open_lessors,
    )
    if pool is None:
        await cells.start()
    invoker = assemble(settings, backends, instance_id("invoker"), at_gap=at_gap)
    running = asyncio.create_task(invoker.run())
    try:
        yield invoker
    finally:
        invoker.stop()
        await running
        if pool is None:
            await cells.close()
        await fetcher.close()
        await queue.close()
        await client.close()


class InvokerProcess:
    """An invoker in a process of its own, which kills itself when it stands in the gap `die_at`."""

    def __init__(self, url: str, *, die_at: Gap | None = None) -> None:
        self._url = url
        self._die_at = die_at
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> InvokerProcess:
        arguments = ["-m", "tests.support.invokers", "--url", self._url, "--die-at", self._die_at or ""]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        assert await self.process.stdout.readline() == b"ready\n"
        return self

    async def died(self) -> int:
        """Wait for its end; returns its exit status."""
        assert self.process is not None
        async with asyncio.timeout(20):
            return await self.process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()

    async def __aexit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def _serve(url: str, die_at: str) -> None:
    async def at_gap(gap: Gap, _activation_id: str) -> None:
        if gap == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with running_invoker(make_settings(url), at_gap=at_gap):
        print("ready", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--die-at", default="")
    options = parser.parse_args()
    asyncio.run(_serve(options.url, options.die_at))
