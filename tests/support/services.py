"""The five services as processes of their own, over a store that a test can kill."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from codesous.admin.v1 import admin_service_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cs_core.iam.dev_issuer import DevIssuer
from tests.support.waiting import wait_until

PACKAGES = {
    "control": "cs_control",
    "gateway": "cs_gateway",
    "scheduler": "cs_scheduler",
    "poller": "cs_poller",
    "invoker": "cs_invoker",
}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Services:
    """Start the processes, ask for their health, stop them."""

    folder: Path
    store_url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """Settings of all of them, beside what is written below."""

    def __post_init__(self) -> None:
        self.issuer = DevIssuer(self.folder / "identity")
        self.issuer.ensure()
        self.ports = free_ports(PACKAGES)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.channels: dict[str, grpc.aio.Channel] = {}
        self.settings = self.folder / "services.toml"
        lines = [
            f'[store]\nurl = "{self.store_url}"\npartitions = 4\ntimeout = 1.0',
            f'[iam]\njwks_url = "{self.issuer.jwks_path.as_uri()}"',
            "[rpc]\nreadiness_interval = 0.1",
            f'[audit]\npath = "{self.folder / "ledger"}"',
            *(f"[{section}]\nport = {port}" for section, port in self.ports.items()),
        ]
        self.settings.write_text("\n".join(lines))

    async def __aenter__(self) -> Services:
        for section, package in PACKAGES.items():
            log = (self.folder / f"{section}.log").open("wb")
            self._processes[section] = subprocess.Popen(
                [sys.executable, "-m", package, "--config", str(self.settings)],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
            log.close()
            self.channels[section] = grpc.aio.insecure_channel(f"127.0.0.1:{self.ports[section]}")
        await self.wait_for(SERVING)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for channel in self.channels.values():
            await channel.close()
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    async def health(self, section: str) -> int | None:
        """What the health service says; None when nobody answers."""
        stub = health_pb2_grpc.HealthStub(self.channels[section])
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)  # type: ignore[attr-defined]
        except grpc.aio.AioRpcError:
            return None
        return int(answer.status)

    async def wait_for(self, status: int) -> None:
        """Wait until every service says `status`."""
        for section in PACKAGES:

            async def says(section: str = section) -> bool:
                assert self._processes[section].poll() is None, (self.folder / f"{section}.log").read_text()
                return await self.health(section) == status

            await wait_until(says, within=90)

    def log_lines(self, section: str) -> list[dict[str, Any]]:
        """What a process logged."""
        lines = (self.folder / f"{section}.log").read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def admin(self, section: str) -> admin_service_pb2_grpc.AdminServiceStub:
        """The admin service of a process."""
        return admin_service_pb2_grpc.AdminServiceStub(self.channels[section])

    def bearer(self, tenant: str, *roles: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a caller."""
        return (("authorization", f"Bearer {self.issuer.mint(tenant, roles)}"),)


def free_ports(names: dict[str, str]) -> dict[str, int]:
    """A free port for each name."""
    with ExitStack() as stack:
        probes = {name: stack.enter_context(socket.socket()) for name in names}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in probes.items()}
