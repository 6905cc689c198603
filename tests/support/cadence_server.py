"""A real Cadence server: installed through Go's module client, on files of SQLite, one process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cadence.api.v1.service_domain_pb2 import DescribeDomainRequest, RegisterDomainRequest

from cs_core.errors import CodeSousError
from cs_core.rpc.cadence import CadenceConnection

SOURCE = Path(__file__).parents[1] / "interop" / "cadence_server"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "code-sous" / "interop"
BUILD = "CODE_SOUS_TEST_CADENCE"
_BUILD_WITHIN = 1_800
_READY_WITHIN = 60.0


class NotHereError(Exception):
    """There is no Cadence server on this machine; the message says why, and what would bring it."""


def find_server() -> Path:
    """The server's executable: from the cache, or built now when `CODE_SOUS_TEST_CADENCE` asks for it.

    Raises:
        NotHereError: Go is not here, or nobody asked for the build, which takes minutes where it was not done yet.
        subprocess.CalledProcessError: the build failed; its output says why.
    """
    if shutil.which("go") is None:
        raise NotHereError("go is not on this machine, and nothing else brings a Cadence server")
    digest = hashlib.sha256()
    for name in ("main.go", "go.mod", "go.sum"):
        digest.update((SOURCE / name).read_bytes())
    executable = CACHE / f"cadence-server-{digest.hexdigest()[:16]}"
    if not executable.exists():
        if not os.environ.get(BUILD):
            message = f"no Cadence server is built yet, which takes minutes; {BUILD}=1 builds it, once, into {CACHE}"
            raise NotHereError(message)
        CACHE.mkdir(parents=True, exist_ok=True)
        draft = executable.with_suffix(f".{os.getpid()}")
        command = ["go", "build", "-o", str(draft), "."]
        subprocess.run(command, cwd=SOURCE, check=True, timeout=_BUILD_WITHIN, capture_output=True, text=True)
        draft.replace(executable)
    return executable


@asynccontextmanager
async def running_server(executable: Path, folder: Path, domain: str) -> AsyncIterator[str]:
    """A server that has the domain, and its address."""
    ports = _free_ports(6)
    (folder / "base.yaml").write_text(json.dumps(_settings(folder, ports)))
    with (folder / "cadence.log").open("wb") as log:
        process = subprocess.Popen([executable, folder], stdout=log, stderr=log)
    target = f"127.0.0.1:{ports[3]}"
    try:
        async with CadenceConnection(target, "tests") as cadence:
            async with asyncio.timeout(_READY_WITHIN):
                await _register(cadence, domain)
        yield target
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _register(cadence: CadenceConnection, domain: str) -> None:
    wanted = RegisterDomainRequest(name=domain)
    wanted.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
    calls: list[tuple[Any, Any]] = [
        (cadence.domains.RegisterDomain, wanted),
        (cadence.domains.DescribeDomain, DescribeDomainRequest(name=domain)),
    ]
    for method, request in calls:
        while True:
            try:
                await cadence.call(method, request, 5)
                break
            except CodeSousError as error:
                if "already exists" in error.message:
                    break
                await asyncio.sleep(0.2)


def _settings(folder: Path, ports: list[int]) -> dict[str, Any]:
    names = ("frontend", "history", "matching")

    def store(name: str) -> dict[str, Any]:
        return {
            "sql": {
                "pluginName": "sqlite",
                "databaseName": str(folder / f"{name}.db"),
                "connectProtocol": "tcp",
                "connectAddr": "none",
                "encodingType": "thriftrw",
                "decodingTypes": ["thriftrw"],
            }
        }

    frontend = f"127.0.0.1:{ports[3]}"
    cluster = {"enabled": True, "initialFailoverVersion": 0, "rpcAddress": frontend, "rpcTransport": "grpc"}
    return {
        "log": {"stdout": True, "level": "warn"},
        "persistence": {
            "defaultStore": "main",
            "visibilityStore": "visibility",
            "numHistoryShards": 4,
            "datastores": {name: store(name) for name in ("main", "visibility")},
        },
        "ringpop": {
            "name": "cadence",
            "bootstrapMode": "hosts",
            "bootstrapHosts": [f"127.0.0.1:{port}" for port in ports[:3]],
            "maxJoinDuration": "30s",
        },
        "services": {
            name: {"rpc": {"port": ports[number], "grpcPort": ports[number + 3], "bindOnLocalHost": True}}
            for number, name in enumerate(names)
        },
        "clusterGroupMetadata": {
            "failoverVersionIncrement": 10,
            "primaryClusterName": "one",
            "currentClusterName": "one",
            "clusterRedirectionPolicy": {"policy": "noop"},
            "clusterGroup": {"one": cluster},
        },
        "publicClient": {"hostPort": frontend},
    }


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
