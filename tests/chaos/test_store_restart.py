"""The store is killed and comes back: services say so, and nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from codesous.admin.v1 import admin_service_pb2
from codesous.control.v1 import (
    function_service_pb2,
    function_service_pb2_grpc,
    version_service_pb2,
    version_service_pb2_grpc,
)
from codesous.gateway.v1 import (
    activation_service_pb2,
    activation_service_pb2_grpc,
    invocation_service_pb2,
    invocation_service_pb2_grpc,
)
from codesous.type.v1.activation_status_pb2 import ActivationStatus

from tests.support.redis_server import RedisServer
from tests.support.services import NOT_SERVING, SERVING, Services
from tests.support.waiting import wait_until

TENANT = "t_chaos01"
SOURCE = b"""
export default async function handle(event) {
  await new Promise((done) => setTimeout(done, event.sleep));
  return { statusCode: 200, body: String(event.n) };
}
"""
MANIFEST = json.dumps({"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"], "timeout": "20s"}}).encode()


@pytest.fixture
def store() -> Iterator[RedisServer]:
    server = RedisServer(durable=True)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def services(store: RedisServer, tmp_path: Path) -> AsyncIterator[Services]:
    async with Services(tmp_path, store.url) as services:
        yield services


class Caller:
    """The tenant's admin."""

    def __init__(self, services: Services) -> None:
        control, gateway = services.channels["control"], services.channels["gateway"]
        self.functions: Any = function_service_pb2_grpc.FunctionServiceStub(control)
        self.versions: Any = version_service_pb2_grpc.VersionServiceStub(control)
        self.invocations: Any = invocation_service_pb2_grpc.InvocationServiceStub(gateway)
        self.activations: Any = activation_service_pb2_grpc.ActivationServiceStub(gateway)
        self.name = {"tenant": TENANT, "namespace": "default", "function": "sleeper"}
        self.metadata = services.bearer(TENANT, "admin")

    async def deploy(self) -> None:
        create = function_service_pb2.CreateFunctionRequest(**self.name)
        await self.functions.CreateFunction(create, metadata=self.metadata)
        upload = version_service_pb2.UploadDraftRequest(
            **self.name, files={"manifest.json": MANIFEST, "index.js": SOURCE}
        )
        draft = (await self.versions.UploadDraft(upload, metadata=self.metadata)).draft
        publish = version_service_pb2.PublishVersionRequest(**self.name, draft_id=draft.draft_id, alias="live")
        await self.versions.PublishVersion(publish, metadata=self.metadata)

    async def submit(self, n: int, sleep: int = 0) -> str:
        """Invoke without waiting; returns the activation's id."""
        request = invocation_service_pb2.InvokeRequest(
            **self.name,
            ref="live",
            event_json=json.dumps({"n": n, "sleep": sleep}).encode(),
            mode=invocation_service_pb2.InvokeMode.INVOKE_MODE_ASYNC,
        )
        answer = await self.invocations.Invoke(request, metadata=self.metadata)
        activation_id: str = answer.activation.activation_id
        return activation_id

    async def read(self, activation_id: str) -> Any:
        request = activation_service_pb2.GetActivationRequest(tenant=TENANT, activation_id=activation_id)
        return (await self.activations.GetActivation(request, metadata=self.metadata)).activation

    async def wait(self, activation_id: str) -> Any:
        request = activation_service_pb2.WaitActivationRequest(tenant=TENANT, activation_id=activation_id)
        return (await self.activations.WaitActivation(request, metadata=self.metadata)).activation


@pytest.mark.timeout(120)
async def test_services_turn_not_serving_and_back_and_nothing_accepted_is_lost(
    store: RedisServer, services: Services
) -> None:
    caller = Caller(services)
    await caller.deploy()
    done = [await caller.submit(n) for n in range(5)]
    results = {activation_id: (await caller.wait(activation_id)).response.body for activation_id in done}
    running = [await caller.submit(n, sleep=3000) for n in range(100, 103)]

    async def all_run() -> bool:
        states = [(await caller.read(activation_id)).status for activation_id in running]
        return states == [ActivationStatus.ACTIVATION_STATUS_RUNNING] * 3

    await wait_until(all_run)
    # Queued ones: the invoker takes nothing more.
    await services.admin("invoker").Drain(  # type: ignore[attr-defined]
        admin_service_pb2.DrainRequest(timeout={"nanos": 1})
    )
    queued = await asyncio.gather(*(caller.submit(n) for n in range(200, 240)))

    store.kill()
    await services.wait_for(NOT_SERVING)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.submit(999)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = dict(caught.value.trailing_metadata() or ())
    assert b"CS_STORE_UNAVAILABLE" in trailers["grpc-status-details-bin"]
    assert trailers["retry-after"] == "1"

    store.start()
    await services.admin("invoker").Undrain(admin_service_pb2.UndrainRequest())  # type: ignore[attr-defined]
    await services.wait_for(SERVING)

    ended = await asyncio.gather(*(caller.wait(activation_id) for activation_id in [*running, *queued]))
    assert {activation.status for activation in ended} == {ActivationStatus.ACTIVATION_STATUS_SUCCESS}
    assert [activation.response.body for activation in ended] == [str(n) for n in [*range(100, 103), *range(200, 240)]]
    # What ran through the outage ran once.
    assert [activation.attempt for activation in ended[:3]] == [1, 1, 1]
    assert {activation_id: (await caller.read(activation_id)).response.body for activation_id in done} == results
    again = await caller.wait(await caller.submit(1))
    assert again.response.body == "1"
