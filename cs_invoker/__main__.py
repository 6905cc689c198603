"""The process cs-invoker-pool: wiring only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from prometheus_client import CollectorRegistry

from cs_core.clock import SystemClock
from cs_core.codeq.kv import KvResultChannel
from cs_core.codeq.open import open_queue
from cs_core.config import MIB, Settings
from cs_core.operations.installation import open_installation
from cs_core.rpc.admin import Process
from cs_core.rpc.process import run_process
from cs_core.rpc.server import RpcServer, stop_on_signals
from cs_core.store.activations import ActivationStore
from cs_core.store.bundles import BundleStore
from cs_core.store.client import KvClient
from cs_core.store.consumers import ConsumerStore
from cs_core.store.overdue import OverdueStore
from cs_core.store.schema import SchemaStore
from cs_core.store.secrets import SecretStore
from cs_core.store.slots import SlotStore
from cs_core.store.userkv import KvQuota, UserKvStore
from cs_core.store.versions import VersionStore
from cs_core.telemetry.log_level import LogLevel
from cs_core.telemetry.spans import open_spans
from cs_invoker.assembly import Backends, assemble
from cs_invoker.bundle_cache import BundleCache
from cs_invoker.cells import list_cells
from cs_invoker.code import StoredCode
from cs_invoker.host_secrets import open_secrets
from cs_invoker.metrics import Metrics
from cs_invoker.pool_series import PoolSeries
from cs_invoker.renewal import Lessors
from cs_invoker.reporting import Reporting
from cs_sandbox import CellPool, PoolSettings
from cs_sandbox.host.fetch import open_fetcher

SERVICE = "cs-invoker-pool"


async def run(settings: Settings, instance: str, registry: CollectorRegistry, log_level: LogLevel) -> None:
    """Serve until told to stop."""
    stopping = stop_on_signals()
    clock, limits, sandbox = SystemClock(), settings.limits, settings.sandbox

    def open_activations(client: KvClient) -> ActivationStore:
        ttl = timedelta(seconds=limits.activation_ttl)
        return ActivationStore(client, settings.store.partitions, clock, ttl)

    client = KvClient(settings.store.url, settings.store.timeout)
    queue = open_queue(settings, client)
    fetcher = open_fetcher(**settings.egress.model_dump())
    metrics, spans = Metrics(registry), open_spans(settings.telemetry, SERVICE, instance)
    pool = CellPool(
        PoolSettings(
            cells_max=sandbox.cells,
            cells_per_tenant=sandbox.cells_per_tenant,
            runs_per_cell=sandbox.runs_per_cell,
            spare_cells=sandbox.spares,
            idle_ttl=timedelta(seconds=sandbox.idle_ttl),
            memory_max_bytes=limits.memory_mb_max * MIB,
            require_jail=sandbox.require_jail,
        )
    )
    PoolSeries(registry, pool.stats)
    await pool.start()
    cache = BundleCache(
        settings.invoker.bundle_cache_count, settings.invoker.bundle_cache_bytes, metrics.count_bundle_lookup
    )

    code = StoredCode(VersionStore(client), BundleStore(client), cache, limits)

    @asynccontextmanager
    async def open_lessors() -> AsyncIterator[Lessors]:
        renewing = KvClient(settings.store.url, settings.store.timeout)
        renewing_queue = open_queue(settings, renewing)
        try:
            yield Lessors(open_activations(renewing), renewing_queue, SlotStore(renewing))
        finally:
            await renewing_queue.close()
            await renewing.close()

    invoker = assemble(
        settings,
        Backends(
            activations=open_activations(client),
            overdue=OverdueStore(client),
            slots=SlotStore(client),
            queue=queue,
            channel=KvResultChannel(client),
            code=code,
            cells=pool,
            user_kv=UserKvStore(client, limits.kv_value_bytes, KvQuota(limits.kv_tenant_keys, limits.kv_tenant_bytes)),
            fetcher=fetcher,
            secrets=open_secrets(settings.secrets, SecretStore(client)),
            metrics=metrics,
            clock=clock,
            spans=spans,
            open_lessors=open_lessors,
        ),
        instance,
    )

    reporting = Reporting(ConsumerStore(client), instance, invoker.consumer.report)

    async def on_drain(draining: bool) -> None:
        invoker.consumer.pause(draining)
        await reporting.tell()

    server = RpcServer(
        settings,
        Process(
            SERVICE,
            instance,
            clock.now(),
            settings,
            queue=queue,
            installation=open_installation(settings, client, queue, clock),
            log_level=log_level,
            caches=(code.cache, cache.view),
            functions=invoker.inflight.functions.loads,
            cells=lambda: list_cells(pool),
            leases=invoker.inflight.leases,
            inflight=lambda: len(invoker.inflight),
            on_drain=on_drain,
        ),
        [],
        port=settings.invoker.port,
        probes={"store": SchemaStore(client, clock).probe, "codeq": queue.ping, "sandbox": pool.probe},
        clock=clock,
        registry=registry,
        spans=spans,
    )
    try:
        async with reporting.running(), asyncio.TaskGroup() as group:
            group.create_task(invoker.run(), name="invoker")
            await server.serve_until(stopping)
            invoker.stop()
    finally:
        await asyncio.to_thread(spans.close)
        await pool.close()
        await fetcher.close()
        await queue.close()
        await client.close()


def main() -> int:
    """Run the process; returns its exit code."""
    return run_process(SERVICE, lambda settings: settings.invoker, run)


if __name__ == "__main__":
    sys.exit(main())
