"""AdminService on the five processes: what each tells, drains under traffic, log levels in real logs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.explanation_pb2 import Verdict
from codesous.admin.v1.process_pb2 import CellState, LogLevel
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
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.support.services import NOT_SERVING, PACKAGES, SERVING, Services
from tests.support.waiting import wait_until

TENANT = "t_admin01"
SOURCE = b"""
export default async function handle(event) {
  await new Promise((done) => setTimeout(done, event.sleep));
  return { statusCode: 200, body: String(event.n) };
}
"""
INVOKE = "cs.invoke"
_ASYNC = invocation_service_pb2.InvokeMode.INVOKE_MODE_ASYNC


@pytest.fixture
async def services(redis_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    environment = {"CS_INVOKER__CONCURRENCY": "4", "CS_INVOKER__PARTITION_SHARE": "0.5"}
    async with Services(tmp_path, redis_url, environment) as services:
        yield services


class Caller:
    """The tenant's admin."""

    def __init__(self, services: Services) -> None:
        control, gateway = services.channels["control"], services.channels["gateway"]
        self.functions: Any = function_service_pb2_grpc.FunctionServiceStub(control)
        self.versions: Any = version_service_pb2_grpc.VersionServiceStub(control)
        self.invocations: Any = invocation_service_pb2_grpc.InvocationServiceStub(gateway)
        self.activations: Any = activation_service_pb2_grpc.ActivationServiceStub(gateway)
        self.metadata = services.bearer(TENANT, "admin")

    async def deploy(self, function: str, **config: Any) -> None:
        name = {"tenant": TENANT, "namespace": "default", "function": function}
        manifest = {"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"], "timeout": "20s", **config}}
        create = function_service_pb2.CreateFunctionRequest(**name)
        await self.functions.CreateFunction(create, metadata=self.metadata)
        files = {"manifest.json": json.dumps(manifest).encode(), "index.js": SOURCE}
        upload = version_service_pb2.UploadDraftRequest(**name, files=files)
        draft = (await self.versions.UploadDraft(upload, metadata=self.metadata)).draft
        publish = version_service_pb2.PublishVersionRequest(**name, draft_id=draft.draft_id, alias="live")
        await self.versions.PublishVersion(publish, metadata=self.metadata)

    async def invoke(self, function: str, n: int, sleep: int = 0, mode: Any = 0) -> Any:
        request = invocation_service_pb2.InvokeRequest(
            tenant=TENANT,
            namespace="default",
            function=function,
            ref="live",
            event_json=json.dumps({"n": n, "sleep": sleep}).encode(),
            mode=mode,
        )
        return (await self.invocations.Invoke(request, metadata=self.metadata)).activation

    async def submit(self, function: str, n: int, sleep: int = 0) -> str:
        activation_id: str = (await self.invoke(function, n, sleep, _ASYNC)).activation_id
        return activation_id

    async def cancel(self, activation_id: str) -> None:
        request = invocation_service_pb2.CancelActivationRequest(tenant=TENANT, activation_id=activation_id)
        await self.invocations.CancelActivation(request, metadata=self.metadata)

    async def wait(self, activation_id: str) -> Any:
        request = activation_service_pb2.WaitActivationRequest(tenant=TENANT, activation_id=activation_id)
        return (await self.activations.WaitActivation(request, metadata=self.metadata)).activation


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    """The reason of a refusal, and whether it says when to come back."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    reasons = [info.reason for detail in status.details if detail.Unpack(info)]
    return reasons[0], any(detail.Unpack(retry) and retry.retry_delay.seconds > 0 for detail in status.details)


@pytest.mark.timeout(120)
async def test_every_process_tells_of_itself_and_of_the_installation(services: Services) -> None:
    caller = Caller(services)
    await caller.deploy("first")
    assert (await caller.invoke("first", 7)).response.body == "7"
    for section in PACKAGES:
        admin: Any = services.admin(section)
        info = (await admin.GetInfo(pb.GetInfoRequest())).info
        assert info.service.startswith("cs-")
        assert json.loads(info.config_json)["store"]["partitions"] == 4
        readiness = await admin.GetReadiness(pb.GetReadinessRequest())
        assert readiness.ready
        assert readiness.since_time.seconds >= info.start_time.seconds
        assert {check.name for check in readiness.checks} >= {"store"}
        assert all(check.since_time.seconds for check in readiness.checks)
        shards = (await admin.ListShards(pb.ListShardsRequest())).shards
        assert all(shard.owner.startswith("scheduler-") for shard in shards)
        assert [shard.shard for shard in shards] == list(range(len(shards)))
        depth = await admin.GetQueueDepth(pb.GetQueueDepthRequest(topic=INVOKE))
        assert [consumer.permits for consumer in depth.consumers] == [4]
        methods = {load.method: load for load in (await admin.GetLoad(pb.GetLoadRequest())).load.methods}
        own = methods["/codesous.admin.v1.AdminService/GetInfo"]
        assert (own.calls, own.failed_calls) == (1, 0)
        assert own.buckets[-1].calls == 1
        assert not own.buckets[-1].HasField("upper")

    invoker: Any = services.admin("invoker")
    (cell, *_) = (await invoker.ListCells(pb.ListCellsRequest())).cells
    cells = (await invoker.ListCells(pb.ListCellsRequest())).cells
    assert all(each.memory_bytes > 0 and each.age.ToMilliseconds() >= 0 for each in cells)
    (cell,) = [each for each in cells if each.tenant == TENANT]
    assert (cell.runs, cell.state) == (1, CellState.CELL_STATE_IDLE)
    (load,) = (await invoker.GetLoad(pb.GetLoadRequest())).load.functions
    assert (load.tenant, load.function, load.runs, load.live_runs) == (TENANT, "first", 1, 0)
    assert load.duration.ToMicroseconds() > 0


@pytest.mark.timeout(120)
async def test_what_a_process_does_not_own_it_refuses_and_says_who_does(services: Services) -> None:
    expected = {
        "ListCells": (pb.ListCellsRequest(), {"invoker"}),
        "ListLeases": (pb.ListLeasesRequest(), {"invoker", "scheduler"}),
        "ListDeadLetters": (pb.ListDeadLettersRequest(), {"gateway"}),
        "PurgeDeadLetters": (pb.PurgeDeadLettersRequest(dead_letter_ids=["x"], dry_run=True), {"gateway"}),
    }
    for method, (request, owners) in expected.items():
        served = set()
        for section in PACKAGES:
            try:
                await getattr(services.admin(section), method)(request)
            except grpc.aio.AioRpcError as error:
                if reason_of(error)[0] == "CS_NOT_FOUND_DEAD_LETTER":
                    served.add(section)
                    continue
                assert reason_of(error)[0] == "CS_UNIMPLEMENTED"
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED
                assert "ask cs-" in (error.details() or "")
            else:
                served.add(section)
        assert served == owners, method


@pytest.mark.timeout(120)
async def test_caches_are_counted_and_flushed(services: Services) -> None:
    caller = Caller(services)
    await caller.deploy("first")
    for n in range(3):
        await caller.invoke("first", n)

    async def caches(section: str) -> dict[str, Any]:
        admin: Any = services.admin(section)
        return {cache.name: cache for cache in (await admin.ListCaches(pb.ListCachesRequest())).caches}

    for section, names in {"gateway": {"tokens", "versions"}, "invoker": {"bundles", "tokens", "versions"}}.items():
        found = await caches(section)
        assert set(found) == names
        for name in names - ({"tokens"} if section == "invoker" else set()):
            assert (found[name].entries, found[name].misses) == (1, 1)
            assert found[name].hits >= 2
    assert (await caches("invoker"))["bundles"].bytes > len(SOURCE)
    admin: Any = services.admin("invoker")
    assert (await admin.FlushCache(pb.FlushCacheRequest(name="bundles"))).dropped == 1
    assert (await caches("invoker"))["bundles"].entries == 0
    assert (await caller.invoke("first", 9)).response.body == "9"
    assert (await caches("invoker"))["bundles"].misses == 2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.FlushCache(pb.FlushCacheRequest(name="nothing"))
    assert reason_of(caught.value)[0] == "CS_VALIDATION_FIELD"
    assert "bundles" in (caught.value.details() or "")


@pytest.mark.timeout(120)
async def test_the_log_level_shows_in_the_log(services: Services) -> None:
    admin: Any = services.admin("scheduler")

    async def logs_a_call() -> bool:
        before = len(services.log_lines("scheduler"))
        await admin.GetInfo(pb.GetInfoRequest())
        path = "/codesous.admin.v1.AdminService/GetInfo"
        return any(line.get("method") == path for line in services.log_lines("scheduler")[before:])

    assert await logs_a_call()
    state = (await admin.SetLogLevel(pb.SetLogLevelRequest(level=LogLevel.LOG_LEVEL_ERROR))).state
    assert (state.level, state.configured) == (LogLevel.LOG_LEVEL_ERROR, LogLevel.LOG_LEVEL_INFO)
    assert not await logs_a_call()
    request = pb.SetLogLevelRequest(level=LogLevel.LOG_LEVEL_WARNING, duration={"seconds": 1})
    assert (await admin.SetLogLevel(request)).state.HasField("revert_time")
    await wait_until(logs_a_call)
    state = (await admin.GetLogLevel(pb.GetLogLevelRequest())).state
    assert state.level == LogLevel.LOG_LEVEL_INFO
    assert not state.HasField("revert_time")
    for bad in (
        pb.SetLogLevelRequest(level=99),  # type: ignore[arg-type]
        pb.SetLogLevelRequest(duration={"nanos": 1}),
        pb.SetLogLevelRequest(duration={"seconds": 86_401}),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin.SetLogLevel(bad)
        assert reason_of(caught.value)[0] == "CS_VALIDATION_FIELD"


@pytest.mark.timeout(120)
async def test_an_invoker_drained_under_traffic_loses_nothing(services: Services) -> None:
    caller = Caller(services)
    await caller.deploy("first")
    invoker: Any = services.admin("invoker")
    ids: list[str] = []
    stop = asyncio.Event()

    async def traffic() -> None:
        while not stop.is_set():
            ids.append(await caller.submit("first", len(ids), sleep=20))

    async with asyncio.TaskGroup() as group:
        group.create_task(traffic())
        await wait_until(lambda: len(ids) > 20, within=60)
        assert (await invoker.Drain(pb.DrainRequest())).inflight == 0
        assert (await invoker.Drain(pb.DrainRequest())).inflight == 0
        assert await services.health("invoker") == NOT_SERVING
        at_drain = len(ids)
        await wait_until(lambda: len(ids) > at_drain + 20, within=60)
        assert (await invoker.GetReadiness(pb.GetReadinessRequest())).draining
        assert len((await invoker.ListLeases(pb.ListLeasesRequest())).leases) == 0
        why = (await invoker.ExplainActivation(pb.ExplainActivationRequest(activation_id=ids[-1]))).explanation
        assert why.verdict == Verdict.VERDICT_NO_CONSUMER
        assert [consumer.draining for consumer in why.consumers] == [True]
        depth = await invoker.GetQueueDepth(pb.GetQueueDepthRequest(topic=INVOKE))
        # One that runs may have been received and put back; the others are all in line.
        assert sum(lane.ready for part in depth.partitions for lane in part.lanes) >= 20
        assert all(lane.oldest_age.ToMilliseconds() > 0 for part in depth.partitions for lane in part.lanes)
        assert {tenant.tenant for part in depth.partitions for tenant in part.tenants} == {TENANT}
        stop.set()
    for _ in range(2):
        await invoker.Undrain(pb.UndrainRequest())
    assert await services.health("invoker") == SERVING
    ended = await asyncio.gather(*(caller.wait(activation_id) for activation_id in ids))
    assert [activation.response.body for activation in ended] == [str(n) for n in range(len(ids))]
    assert Counter(activation.attempt for activation in ended) == {1: len(ids)}


@pytest.mark.timeout(120)
async def test_a_gateway_drained_under_traffic_answers_what_it_took_and_refuses_the_rest_as_typed(
    services: Services,
) -> None:
    caller = Caller(services)
    await caller.deploy("first")
    gateway: Any = services.admin("gateway")
    waiting = [asyncio.create_task(caller.invoke("first", n, sleep=2000)) for n in range(3)]

    async def all_wait() -> bool:
        return (await gateway.GetLoad(pb.GetLoadRequest())).load.inflight == 3

    await wait_until(all_wait)
    drain = gateway.Drain(pb.DrainRequest())

    async def refused() -> tuple[str, bool] | None:
        try:
            await caller.submit("first", 1)
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        return None

    assert await wait_until(refused) == ("CS_SERVICE_UNAVAILABLE", True)
    assert await services.health("gateway") == NOT_SERVING
    assert [(await each).response.body for each in waiting] == ["0", "1", "2"]
    assert (await drain).inflight == 0
    await gateway.Undrain(pb.UndrainRequest())
    assert await services.health("gateway") == SERVING
    assert (await caller.invoke("first", 5)).response.body == "5"


@pytest.mark.timeout(120)
async def test_a_drained_control_plane_takes_no_changes_and_a_drained_scheduler_leads_nothing(
    services: Services,
) -> None:
    caller = Caller(services)
    control, scheduler = services.admin("control"), services.admin("scheduler")
    await control.Drain(pb.DrainRequest())  # type: ignore[attr-defined]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.deploy("late")
    assert reason_of(caught.value) == ("CS_SERVICE_UNAVAILABLE", True)
    await control.Undrain(pb.UndrainRequest())  # type: ignore[attr-defined]
    await caller.deploy("late")

    async def led() -> int:
        shards = (await services.admin("poller").ListShards(pb.ListShardsRequest())).shards  # type: ignore[attr-defined]
        return sum(bool(shard.owner) for shard in shards)

    assert await led() > 0
    await scheduler.Drain(pb.DrainRequest())  # type: ignore[attr-defined]
    assert await led() == 0
    await scheduler.Undrain(pb.UndrainRequest())  # type: ignore[attr-defined]
    await wait_until(led)


@pytest.mark.timeout(120)
async def test_why_activations_wait_in_a_busy_invoker(services: Services) -> None:
    """Four permits, two of each partition; one function runs once at a time, the other as often as it may."""
    caller = Caller(services)
    await caller.deploy("few", maxConcurrency=1)
    invoker: Any = services.admin("invoker")

    async def verdict(activation_id: str) -> str:
        request = pb.ExplainActivationRequest(activation_id=activation_id, tenant=TENANT)
        found = (await invoker.ExplainActivation(request)).explanation
        return Verdict.Name(found.verdict).removeprefix("VERDICT_")

    async def is_told(expected: str, activation_id: str) -> bool:
        return await verdict(activation_id) == expected

    first = await caller.submit("few", 1, sleep=15_000)
    await wait_until(lambda: is_told("RUNNING", first))
    second = await caller.submit("few", 2)
    await wait_until(lambda: is_told("SLOTS_TAKEN", second))
    await caller.cancel(first)
    await caller.wait(second)
    assert await verdict(second) == "DONE"

    await caller.deploy("many")
    ids = [await caller.submit("many", n, sleep=15_000) for n in range(24)]

    async def told() -> bool:
        seen = {await verdict(activation_id) for activation_id in ids}
        return seen >= {"RUNNING"} and bool(seen & {"SHARE_TAKEN", "PERMITS_TAKEN"})

    await wait_until(told)
    await asyncio.gather(*(caller.cancel(activation_id) for activation_id in ids))
    ended = await asyncio.gather(*(caller.wait(activation_id) for activation_id in ids))
    assert {each.status for each in ended} == {ActivationStatus.ACTIVATION_STATUS_CANCELLED}
