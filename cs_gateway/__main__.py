"""The process cs-http-gateway: wiring only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from codesous.control.v1 import (
    access_service_pb2,
    alias_service_pb2,
    function_service_pb2,
    mutation_service_pb2,
    schedule_service_pb2,
    secret_service_pb2,
    version_service_pb2,
    worker_binding_service_pb2,
)
from codesous.gateway.v1.activation_service_pb2_grpc import add_ActivationServiceServicer_to_server
from codesous.gateway.v1.invocation_service_pb2_grpc import add_InvocationServiceServicer_to_server
from codesous.gateway.v1.web_service_pb2_grpc import add_WebServiceServicer_to_server
from prometheus_client import CollectorRegistry

from cs_core.caches import CacheView
from cs_core.cancellation import Cancellation
from cs_core.clock import Clock, SystemClock
from cs_core.codeq import Queue
from cs_core.codeq.kv import KvResultChannel
from cs_core.codeq.open import open_queue
from cs_core.config import Settings
from cs_core.operations.installation import open_installation
from cs_core.rpc.admin import Process
from cs_core.rpc.process import run_process
from cs_core.rpc.server import RpcServer, Service, stop_on_signals
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.members import MemberStore
from cs_core.store.resolve import Resolver
from cs_core.store.schema import SchemaStore
from cs_core.store.versions import VersionStore
from cs_core.telemetry.log_level import LogLevel
from cs_core.telemetry.spans import trace_starter
from cs_core.waiters import Waiters
from cs_gateway.activations import Activations
from cs_gateway.dead_letters import DeadLetters
from cs_gateway.gate import Gate
from cs_gateway.ingress import Ingress
from cs_gateway.invocations import Invocations
from cs_gateway.metrics import Metrics
from cs_gateway.peers import Peers
from cs_gateway.queue_depths import QueueDepths
from cs_gateway.rate_limits import RateLimits
from cs_gateway.servicers.activation import ActivationServicer
from cs_gateway.servicers.invocation import InvocationServicer
from cs_gateway.servicers.web import WebServicer
from cs_gateway.watching import Watching
from cs_gateway.web import Web

SERVICE = "cs-http-gateway"
# The public port sends reflection here, and its clients look for what is behind the whole port.
CONTROL_SERVICES = tuple(
    service.full_name
    for module in (
        function_service_pb2,
        version_service_pb2,
        alias_service_pb2,
        schedule_service_pb2,
        worker_binding_service_pb2,
        mutation_service_pb2,
        access_service_pb2,
        secret_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the process is made of; `waiters` and `loops` must be running while `services` are served."""

    services: list[Service]
    waiters: Waiters
    loops: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    dead_letters: DeadLetters
    caches: Sequence[CacheView]


def assemble(
    settings: Settings, client: KvClient, queue: Queue, clock: Clock, instance: str, metrics: Metrics | None = None
) -> Parts:
    """Put the services together over a store and a queue."""
    limits = settings.limits
    channel = KvResultChannel(client)
    store = ActivationStore(client, settings.store.partitions, clock, timedelta(seconds=limits.activation_ttl))
    waiters = Waiters(store, channel, instance)
    resolver = Resolver(client)
    ingress = Ingress(resolver, store, queue, limits, clock, instance)
    peers = Peers(MemberStore(client, SERVICE), instance)
    depths = QueueDepths(queue, settings.store.partitions, limits.queue_depth)
    gate = Gate(
        RateLimits(limits.tenant_rps, clock, peers.count),
        depths,
        tenant_waiting=limits.tenant_waiting,
        waiting=limits.gateway_waiting,
        gateways=peers.count,
        metrics=metrics,
    )
    invocations = Invocations(ingress, waiters, store, timedelta(seconds=limits.correlation_slack), gate)
    activations = Activations(store, waiters, Cancellation(store, channel, clock))
    services = [
        Service(
            "codesous.gateway.v1.InvocationService",
            add_InvocationServiceServicer_to_server,
            InvocationServicer(invocations, activations, limits),
        ),
        Service(
            "codesous.gateway.v1.ActivationService",
            add_ActivationServiceServicer_to_server,
            ActivationServicer(activations, Watching(store), limits),
        ),
        Service(
            "codesous.gateway.v1.WebService",
            add_WebServiceServicer_to_server,
            WebServicer(Web(invocations, limits, clock)),
        ),
    ]
    return Parts(
        services,
        waiters,
        (peers.run, depths.run),
        DeadLetters(queue, store, VersionStore(client), limits, clock, trace_starter(settings.telemetry)),
        (resolver.cache,),
    )


async def run(settings: Settings, instance: str, registry: CollectorRegistry, log_level: LogLevel) -> None:
    """Serve until told to stop."""
    stopping = stop_on_signals()
    clock = SystemClock()
    client = KvClient(settings.store.url, settings.store.timeout)
    queue = open_queue(settings, client)
    metrics = Metrics(registry)
    parts = assemble(settings, client, queue, clock, instance, metrics)
    metrics.watch_waiting(lambda: parts.waiters.count)
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
            caches=parts.caches,
            inflight=lambda: parts.waiters.count,
            dead_letters=parts.dead_letters,
        ),
        parts.services,
        port=settings.gateway.port,
        probes={"store": SchemaStore(client, clock).probe, "codeq": queue.ping},
        clock=clock,
        registry=registry,
        also_reflected=CONTROL_SERVICES,
    )
    try:
        async with parts.waiters.running(), asyncio.TaskGroup() as group:
            loops = [group.create_task(loop()) for loop in parts.loops]
            await server.serve_until(stopping)
            for running in loops:
                running.cancel()
    finally:
        await queue.close()
        await client.close()


def main() -> int:
    """Run the process; returns its exit code."""
    return run_process(SERVICE, lambda settings: settings.gateway, run)


if __name__ == "__main__":
    sys.exit(main())
