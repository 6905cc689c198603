"""The process cs-scheduler: wiring only."""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import CollectorRegistry

from cs_core.clock import SystemClock
from cs_core.codeq.open import open_queue
from cs_core.config import Settings
from cs_core.operations.installation import open_installation
from cs_core.rpc.admin import Process
from cs_core.rpc.process import run_process
from cs_core.rpc.server import RpcServer, stop_on_signals
from cs_core.store.client import KvClient
from cs_core.store.schema import SchemaStore
from cs_core.telemetry.log_level import LogLevel
from cs_scheduler.assembly import assemble
from cs_scheduler.metrics import Metrics

SERVICE = "cs-scheduler"


async def run(settings: Settings, instance: str, registry: CollectorRegistry, log_level: LogLevel) -> None:
    """Serve until told to stop."""
    stopping = stop_on_signals()
    clock = SystemClock()
    client = KvClient(settings.store.url, settings.store.timeout)
    queue = open_queue(settings, client)
    scheduler = assemble(settings, client, queue, Metrics(registry), clock, instance)
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
            leases=scheduler.leading.leases,
            on_drain=scheduler.leading.drain,
        ),
        [],
        port=settings.scheduler.port,
        probes={"store": SchemaStore(client, clock).probe, "codeq": queue.ping},
        clock=clock,
        registry=registry,
    )
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(scheduler.run(stopping), name="scheduler")
            await server.serve_until(stopping)
    finally:
        await queue.close()
        await client.close()


def main() -> int:
    """Run the process; returns its exit code."""
    return run_process(SERVICE, lambda settings: settings.scheduler, run)


if __name__ == "__main__":
    sys.exit(main())
