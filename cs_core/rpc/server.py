"""A gRPC server as every process runs it: interceptors, health, reflection, channelz, admin, limits, drain."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import structlog
from codesous.admin.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from cs_core.clock import Clock
from cs_core.config import RpcSettings, Settings
from cs_core.iam.access import rules_of
from cs_core.iam.interceptors import Authentication, Authorization
from cs_core.iam.open import open_verifier
from cs_core.iam.policy import Policy
from cs_core.rpc import admin
from cs_core.rpc.chain import CallChain
from cs_core.rpc.interceptors.access_log import AccessLog
from cs_core.rpc.interceptors.intake import Intake
from cs_core.rpc.interceptors.metrics import ApiMetrics
from cs_core.rpc.interceptors.request_id import RequestId
from cs_core.rpc.interceptors.trace import Trace
from cs_core.rpc.readiness import Probe, Readiness
from cs_core.rpc.tls import server_credentials
from cs_core.telemetry.process_series import ProcessSeries
from cs_core.telemetry.spans import Spans, open_spans

CHANNELZ = "grpc.channelz.v1.Channelz"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A service to serve: its full name, the generated function that adds it, and who serves it."""

    name: str
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: Any
    foreign: bool = False
    """Whether its contract is another project's: it has no access rules, and answers without a token."""


def server_options(settings: RpcSettings) -> list[tuple[str, int]]:
    """Limits and keepalive of a server. gRPC's own defaults are below our body and header limits."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        # Between the soft limit above and the hard one gRPC refuses at random: make them one.
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_concurrent_streams", 4096),
    ]


class RpcServer:
    """The gRPC server of one process."""

    def __init__(
        self,
        settings: Settings,
        process: admin.Process,
        services: Sequence[Service],
        *,
        port: int,
        probes: Mapping[str, Probe],
        clock: Clock,
        registry: CollectorRegistry,
        also_reflected: Sequence[str] = (),
        spans: Spans | None = None,
    ) -> None:
        """Wire the server; nothing listens yet.

        `also_reflected` names services of other processes that reflection lists too. `spans` is the process's own, when
        it has more than calls to tell; it closes them itself.

        Raises:
            AccessRuleError: an RPC declares no access rule.
        """
        names = [service.name for service in services]
        iam = settings.iam
        self._verifier = open_verifier(iam, clock)
        self._closes_spans = spans is None
        self._spans = spans or open_spans(settings.telemetry, process.service, process.instance)
        intake, api_metrics = Intake(), ApiMetrics(registry)
        chain = CallChain(
            (
                RequestId(),
                Trace(self._spans),
                api_metrics,
                AccessLog(),
                Authentication(self._verifier),
                Authorization(Policy(iam.role_actions)),
                intake,
            ),
            rules_of([*(service.name for service in services if not service.foreign), admin.SERVICE]),
        )
        self.readiness = Readiness(probes, [*names, admin.SERVICE], settings.rpc.readiness_interval, clock)
        self._settings = settings.rpc
        self._server = grpc.aio.server(interceptors=[chain], options=server_options(settings.rpc))
        for service in services:
            service.add(service.servicer, self._server)
        process = replace(process, caches=[*process.caches, self._verifier.cache])
        ProcessSeries(
            registry,
            lambda: self.readiness.ready,
            lambda: {check.name: check.ready for check in self.readiness.checks},
            process.caches,
        )
        servicer = admin.AdminServicer(process, self.readiness, intake, api_metrics.loads, clock)
        add_AdminServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.readiness.health, self._server)
        channelz.add_channelz_servicer(self._server)
        listed = [*names, *also_reflected, admin.SERVICE, health.SERVICE_NAME, CHANNELZ]
        reflection.enable_server_reflection([*dict.fromkeys(listed), reflection.SERVICE_NAME], self._server)
        self._address = f"{settings.rpc.host}:{port}"
        self.port = 0
        self.listening = False

    async def start(self) -> None:
        """Listen, and probe once so that health is true from the first answer on.

        Raises:
            RuntimeError: the port is taken.
            SettingsError: a file of TLS cannot be read.
        """
        credentials = server_credentials(self._settings)
        if credentials is None:
            self.port = self._server.add_insecure_port(self._address)
        else:
            self.port = self._server.add_secure_port(self._address, credentials)
        await self.readiness.probe()
        await self._server.start()
        self.listening = True
        _log.info("listening", address=self._address, port=self.port, tls=credentials is not None)

    async def stop(self) -> None:
        """Turn NOT_SERVING, refuse new calls, and give those in flight the grace to end."""
        self.readiness.draining = True
        await self.readiness.tell()
        await self._server.stop(self._settings.drain_grace)
        await self._verifier.close()
        if self._closes_spans:
            await asyncio.to_thread(self._spans.close)

    async def serve_until(self, stopping: asyncio.Event) -> None:
        """Start, keep readiness in step until `stopping` is set, then stop."""
        await self.start()
        watching = asyncio.create_task(self.readiness.watch(), name="readiness")
        try:
            await stopping.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self.stop()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets. Call it in the main thread, within the loop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping
