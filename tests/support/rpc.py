"""A real gRPC server of ours around a servicer of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from cs_core.clock import SystemClock
from cs_core.config import Settings
from cs_core.iam.dev_issuer import DevIssuer
from cs_core.rpc.admin import Process
from cs_core.rpc.readiness import Probe
from cs_core.rpc.server import RpcServer, Service
from tests.support.waiting import wait_until

TENANT = "t_alpha0"
OPTIONS = [
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_metadata_size", 96 * 1024),
    ("grpc.absolute_max_metadata_size", 96 * 1024),
]


@dataclass(frozen=True, slots=True)
class Served:
    """A running server, a channel to it, and who may call it."""

    server: RpcServer
    channel: grpc.aio.Channel
    issuer: DevIssuer
    registry: CollectorRegistry
    stopping: asyncio.Event

    def bearer(self, *roles: str, tenant: str = TENANT) -> tuple[tuple[str, str], ...]:
        """The metadata of a caller with these roles."""
        return (("authorization", f"Bearer {self.issuer.mint(tenant, roles or ('admin',))}"),)


async def _always() -> None:
    return None


@asynccontextmanager
async def serving(
    folder: Path,
    services: Sequence[Service],
    *,
    probes: Mapping[str, Probe] | None = None,
    settings: Mapping[str, Any] | None = None,
    owns: Mapping[str, Any] | None = None,
) -> AsyncIterator[Served]:
    """Serve on a free port for the length of the block. `owns` is what the process has beside its services."""
    issuer = DevIssuer(folder / "identity")
    issuer.ensure()
    tree = Settings.model_validate(
        {
            "iam": {"jwks_url": issuer.jwks_path.as_uri()},
            "rpc": {"readiness_interval": 0.05, "drain_grace": 5.0},
            **(settings or {}),
        }
    )
    clock, registry, stopping = SystemClock(), CollectorRegistry(), asyncio.Event()
    server = RpcServer(
        tree,
        Process("cs-test", "test-1", clock.now(), tree, **(owns or {})),
        services,
        port=0,
        probes={"store": _always} if probes is None else probes,
        clock=clock,
        registry=registry,
    )
    running = asyncio.create_task(server.serve_until(stopping))
    await wait_until(lambda: server.listening)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OPTIONS) as channel:
        try:
            yield Served(server, channel, issuer, registry, stopping)
        finally:
            stopping.set()
            await running
