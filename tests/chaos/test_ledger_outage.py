"""The ledger goes away under load and cs-control is killed twice: every mutation arrives, once and in order.

Short here; CODE_SOUS_TEST_SCALE=full is 60 s without the ledger under 500 mutations.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from codesous.control.v1 import function_service_pb2, function_service_pb2_grpc

from cs_core.audit.contract import NOTHING
from cs_core.iam.dev_issuer import DevIssuer
from cs_core.store.client import KvClient
from cs_core.store.mutations import MutationLog
from cs_core.store.relay import RelayStore
from tests.support.ledgers import KeptInFiles
from tests.support.redis_server import RedisServer
from tests.support.services import free_ports
from tests.support.waiting import wait_until

FULL = os.environ.get("CODE_SOUS_TEST_SCALE") == "full"
TENANTS = ("t_audit01", "t_audit02", "t_audit03", "t_audit04", "t_audit05")
MUTATIONS = 500 if FULL else 60
OUTAGE = 60.0 if FULL else 3.0


@dataclass
class Control:
    """cs-control as a process that can be killed and started again."""

    folder: Path
    store_url: str
    module: str

    def __post_init__(self) -> None:
        self.issuer = DevIssuer(self.folder / "identity")
        self.issuer.ensure()
        self.port = free_ports({"control": "cs_control"})["control"]
        self.kept = KeptInFiles(self.folder / "ledger", 64 * 1024)
        self.settings = self.folder / "control.toml"
        self.settings.write_text(
            f'[store]\nurl = "{self.store_url}"\npartitions = 4\n'
            f'[iam]\njwks_url = "{self.issuer.jwks_path.as_uri()}"\n'
            f'[audit]\npath = "{self.kept.folder}"\nfile_bytes = 65536\nlease = 1.0\npoll_interval = 0.2\nbatch = 5\n'
            f"[control]\nport = {self.port}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "control.log").open("ab") as log:
            command = [sys.executable, "-m", self.module, "--config", str(self.settings)]
            # A variable that begins with CS_ is a setting to it, or refused.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("CS_")}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@dataclass
class Load:
    """Each tenant makes its functions one after the other, and again until each is made."""

    control: Control
    each: int
    pause: float
    made: int = 0

    async def run(self, tenant: str) -> None:
        metadata = (("authorization", f"Bearer {self.control.issuer.mint(tenant, ['admin'])}"),)
        options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.control.port}", options=options) as channel:
            stub: Any = function_service_pb2_grpc.FunctionServiceStub(channel)
            for number in range(self.each):
                await self._make(stub, tenant, f"fn-{number:03}", metadata)
                self.made += 1
                await asyncio.sleep(self.pause)

    async def _make(self, stub: Any, tenant: str, name: str, metadata: Any) -> None:
        request = function_service_pb2.CreateFunctionRequest(tenant=tenant, namespace="default", function=name)
        while True:
            try:
                await stub.CreateFunction(request, metadata=metadata, timeout=5)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                await asyncio.sleep(0.05)
            else:
                return


@pytest.fixture
def store() -> Iterator[RedisServer]:
    server = RedisServer(durable=True)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def client(store: RedisServer) -> AsyncIterator[KvClient]:
    client = KvClient(store.url)
    yield client
    await client.close()


def arrived(kept: KeptInFiles) -> dict[str, list[str]]:
    """The names that the ledger has of each tenant, in its order."""
    found: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
    for entry in kept.entries():
        found[entry.mutation.tenant].append(entry.mutation.function_created.function.function)
    return found


async def storm(control: Control, client: KvClient) -> float:
    """Take the ledger away under load and kill cs-control twice; returns the seconds until all was relayed."""
    each = MUTATIONS // len(TENANTS)
    load = Load(control, each, OUTAGE / each * 0.8)
    relay = RelayStore(client)
    control.start()
    running = [asyncio.create_task(load.run(tenant)) for tenant in TENANTS]
    try:
        # It relays before the ledger goes away, so that it has it open.
        await wait_until(lambda: control.kept.folder.exists() and control.kept.entries(), within=60)
        folder = control.kept.folder
        folder.rename(folder.with_name("away"))
        away = time.monotonic()
        made = load.made
        await wait_until(lambda: load.made > made + len(TENANTS), within=60)
        control.kill()
        control.start()
        await asyncio.sleep(max(0.0, away + OUTAGE - time.monotonic()))
        assert not folder.exists()
        folder.with_name("away").rename(folder)
        back = time.monotonic()
        entries = len(control.kept.entries())
        await wait_until(lambda: len(control.kept.entries()) > entries, within=60)
        control.kill()
        control.start()
        await asyncio.gather(*running)

        async def relayed() -> bool:
            return await relay.listed() == []

        await wait_until(relayed, within=60)
        return time.monotonic() - back
    finally:
        control.kill()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.mark.timeout(300)
async def test_nothing_is_missing_nothing_is_doubled_and_the_order_is_kept(
    store: RedisServer, client: KvClient, tmp_path: Path
) -> None:
    control = Control(tmp_path, store.url, "cs_control")
    seconds = await storm(control, client)
    expected = [f"fn-{number:03}" for number in range(MUTATIONS // len(TENANTS))]
    assert arrived(control.kept) == dict.fromkeys(TENANTS, expected)
    log = MutationLog(client)
    for tenant in TENANTS:
        logged = [mutation.mutation_id for _, mutation in await log.read(tenant, after="", limit=1000)]
        held = [e.mutation.mutation_id for e in control.kept.entries() if e.mutation.tenant == tenant]
        assert held == logged
    head = await RelayStore(client).head("main") or NOTHING
    ledger = control.kept.ledger()
    found = await ledger.verify(head)
    assert (found.entries, found.faults) == (MUTATIONS, ())
    print(f"{MUTATIONS} mutations, {OUTAGE:g} s without the ledger: all relayed {seconds:.1f} s after it was back")
    # One flipped bit anywhere is found.
    path = sorted(control.kept.folder.glob("*.jsonl"))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not (await ledger.verify(head)).sound


@pytest.mark.timeout(300)
async def test_with_the_guard_off_it_would_be_noticed(store: RedisServer, client: KvClient, tmp_path: Path) -> None:
    control = Control(tmp_path, store.url, "tests.support.careless_control")
    await storm(control, client)
    assert sum(len(names) for names in arrived(control.kept).values()) < MUTATIONS
