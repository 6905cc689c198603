"""The process cs-cadence-poller: wiring only."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from cs_core.clock import SystemClock
from cs_core.codeq.open import open_queue
from cs_core.config import Settings
from cs_core.operations.installation import open_installation
from cs_core.rpc.admin import Process
from cs_core.rpc.cadence import CadenceConnection
from cs_core.rpc.process import run_process
from cs_core.rpc.server import RpcServer, stop_on_signals
from cs_core.store.client import KvClient
from cs_core.store.schema import SchemaStore
from cs_core.telemetry.log_level import LogLevel
from cs_poller.assembly import assemble

SERVICE = "cs-cadence-poller"


async def run(settings: Settings, instance: str, registry: CollectorRegistry, log_level: LogLevel) -> None:
    """Serve until told to stop."""
    stopping = stop_on_signals()
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        client = KvClient(settings.store.url, settings.store.timeout)
        stack.push_async_callback(client.close)
        queue = open_queue(settings, client)
        stack.push_async_callback(queue.close)
        cadence = settings.cadence
        connection = (
            await stack.enter_async_context(CadenceConnection(cadence.target, cadence.caller, tls=cadence.tls))
            if cadence.target
            else None
        )
        poller = assemble(settings, client, queue, connection, clock, instance, registry)
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
                inflight=lambda: poller.inflight,
                on_drain=poller.drain,
            ),
            [],
            port=settings.poller.port,
            probes={"store": SchemaStore(client, clock).probe, "codeq": queue.ping},
            clock=clock,
            registry=registry,
        )
        async with poller.running():
            await server.serve_until(stopping)


def main() -> int:
    """Run the process; returns its exit code."""
    return run_process(SERVICE, lambda settings: settings.poller, run)


if __name__ == "__main__":
    sys.exit(main())
