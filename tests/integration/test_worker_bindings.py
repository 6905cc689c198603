"""The life of worker bindings in the control plane, over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from codesous.control.v1.function_pb2 import Function, FunctionState
from codesous.control.v1.version_pb2 import Version
from codesous.control.v1.worker_binding_pb2 import WorkerBinding, WorkerBindingSpec, WorkerBindingState
from codesous.control.v1.worker_binding_service_pb2 import CreateWorkerBindingRequest, UpdateWorkerBindingRequest
from codesous.storage.v1.records_pb2 import FunctionRecord, VersionRecord
from codesous.storage.v1.worker_binding_pb2 import WorkerBindingReport
from google.protobuf.field_mask_pb2 import FieldMask

from cs_control.worker_bindings import WorkerBindings
from cs_core.clock import ManualClock, to_timestamp
from cs_core.errors import CodeSousError, ConflictError, NotFoundError, ValidationError
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutations import MutationLog
from cs_core.store.resolve import Resolver
from cs_core.store.worker_bindings import WorkerBindingStore
from cs_core.store.worker_index import WorkerIndex
from cs_core.store.worker_reports import LIFE, WorkerReportStore
from tests.support.cadence import PARTITIONS, TENANT, actor

ACTIVE = WorkerBindingState.WORKER_BINDING_STATE_ACTIVE
PAUSED = WorkerBindingState.WORKER_BINDING_STATE_PAUSED
FAILING = WorkerBindingState.WORKER_BINDING_STATE_FAILING


class Plane:
    """The core, and what a test puts in and reads beside it."""

    def __init__(self, client: KvClient) -> None:
        self.client = client
        self.clock = ManualClock(datetime.now(UTC))
        self.index = WorkerIndex(client, PARTITIONS)
        self.reports = WorkerReportStore(client, self.clock)
        self.core = WorkerBindings(WorkerBindingStore(client, self.index), self.reports, Resolver(client), self.clock)

    async def create(self, worker: str = "jobs", namespace: str = "default", **spec: Any) -> tuple[WorkerBinding, bool]:
        wanted = WorkerBindingSpec(domain=spec.pop("domain", "demo"), task_list=spec.pop("task_list", "list"), **spec)
        if not wanted.activities:
            wanted.activities["Work"].function, wanted.activities["Work"].ref = "work", "1"
        request = CreateWorkerBindingRequest(tenant=TENANT, namespace=namespace, worker=worker, spec=wanted)
        return await self.core.create(request, actor())

    async def update(self, *paths: str, etag: str = "", **spec: Any) -> WorkerBinding:
        request = UpdateWorkerBindingRequest(
            tenant=TENANT,
            namespace="default",
            worker="jobs",
            spec=WorkerBindingSpec(**spec),
            update_mask=FieldMask(paths=paths),
            etag=etag,
        )
        return await self.core.update(request, actor())

    async def get(self, worker: str = "jobs") -> WorkerBinding:
        return await self.core.get(TENANT, "default", worker)

    async def changes(self) -> list[str | None]:
        entries = await MutationLog(self.client).read(TENANT, after="", limit=100)
        return [mutation.WhichOneof("change") for _, mutation in entries]


@pytest.fixture
async def plane(kv: KvClient) -> AsyncIterator[Plane]:
    for namespace in ("default", "default-x"):
        function = Function(tenant=TENANT, namespace=namespace, function="work", latest_version=1)
        function.state = FunctionState.FUNCTION_STATE_ACTIVE
        record = FunctionRecord(function=function).SerializeToString()
        await kv.call("SET", keys.function(TENANT, namespace, "work"), record)
        version = Version(tenant=TENANT, namespace=namespace, function="work", version=1)
        await kv.call(
            "SET", keys.version(TENANT, namespace, "work", 1), VersionRecord(version=version).SerializeToString()
        )
    yield Plane(kv)


async def test_a_binding_has_its_defaults_and_is_made_once(plane: Plane) -> None:
    made, created = await plane.create()
    assert created
    assert (made.spec.worker_id, made.spec.max_inflight_tasks, made.spec.codec) == ("jobs", 16, 1)
    assert (made.principal.subject, made.state, made.status_message) == ("tester", ACTIVE, "no poller has taken it up")
    again, created = await plane.create()
    assert (again.uid, created) == (made.uid, False)
    with pytest.raises(ConflictError) as conflict:
        await plane.create(max_inflight_tasks=3)
    assert conflict.value.reason == "CS_CONFLICT_EXISTS"
    assert await plane.changes() == ["worker_binding_set"]
    assert await plane.index.all() == {TENANT}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"domain": ""}, "spec.domain"),
        ({"domain": "d\n"}, "spec.domain"),
        ({"task_list": "t" * 257}, "spec.task_list"),
        ({"max_inflight_tasks": 257}, "spec.max_inflight_tasks"),
        ({"codec": 9}, "spec.codec"),
        ({"worker_id": "w" * 257}, "spec.worker_id"),
    ],
)
async def test_a_spec_that_breaks_a_rule_names_the_field(plane: Plane, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        await plane.create(**spec)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert await plane.changes() == []


async def test_an_update_changes_what_its_mask_names_and_nothing_else(plane: Plane) -> None:
    made, _ = await plane.create()
    changed = await plane.update("spec.max_inflight_tasks", max_inflight_tasks=3, domain="other")
    assert (changed.spec.max_inflight_tasks, changed.spec.domain, changed.uid) == (3, "demo", made.uid)
    # What is named and absent is back at its default.
    assert (await plane.update("spec.max_inflight_tasks")).spec.max_inflight_tasks == 16
    assert len(await plane.changes()) == 3
    await plane.update("spec.max_inflight_tasks")
    assert len(await plane.changes()) == 3


@pytest.mark.parametrize("paths", [(), ("domain",), ("spec.nothing",), ("principal",), ("spec.domain",)])
async def test_an_update_that_cannot_be_is_refused(plane: Plane, paths: tuple[str, ...]) -> None:
    """The last one names a field that must not be empty."""
    await plane.create()
    with pytest.raises(ValidationError):
        await plane.update(*paths)


async def test_a_stale_etag_changes_nothing(plane: Plane) -> None:
    made, _ = await plane.create()
    changed = await plane.update("spec.domain", domain="other", etag=made.etag)
    assert changed.etag != made.etag
    with pytest.raises(ConflictError) as stale:
        await plane.update("spec.domain", domain="third", etag=made.etag)
    assert stale.value.reason == "CS_CONFLICT_CONCURRENT"
    assert (await plane.get()).spec.domain == "other"


async def test_a_namespace_lists_its_own_by_name_and_page(plane: Plane) -> None:
    for name in ("ccc", "aaa", "bbb"):
        await plane.create(name)
    await plane.create("other", "default-x")
    first, after = await plane.core.list_by_name(TENANT, "default", after="", limit=2)
    assert ([item.worker for item in first], after) == (["aaa", "bbb"], "bbb")
    rest, after = await plane.core.list_by_name(TENANT, "default", after="bbb", limit=2)
    assert ([item.worker for item in rest], after) == (["ccc"], None)
    only, _ = await plane.core.list_by_name(TENANT, "default-x", after="", limit=2)
    assert [item.worker for item in only] == ["other"]


async def test_what_pollers_report_shows_while_it_is_fresh_and_of_this_binding(plane: Plane) -> None:
    made, _ = await plane.create()

    async def report(instance: str, failure: str, uid: str = made.uid) -> None:
        given = WorkerBindingReport(uid=uid, failure=failure, time=to_timestamp(plane.clock.now()))
        await plane.reports.give(made, instance, given)

    await report("one", "")
    assert (await plane.get()).status_message == ""
    await report("two", "the server does not answer")
    failing = await plane.get()
    assert (failing.state, failing.status_message) == (FAILING, "the server does not answer")
    # What pollers say is no change: the etag is as it was.
    assert failing.etag == made.etag
    await report("two", "of the one before", uid="another")
    assert (await plane.get()).state == ACTIVE
    plane.clock.advance(2 * LIFE)
    assert (await plane.get()).status_message == "no poller has taken it up"


async def test_pausing_resuming_and_deleting_are_changes_once(plane: Plane) -> None:
    await plane.create()
    place = (TENANT, "default", "jobs")
    for _ in range(2):
        assert (await plane.core.pause(*place, actor())).state == PAUSED
    for _ in range(2):
        assert (await plane.core.resume(*place, actor())).state == ACTIVE
    await plane.core.delete(*place, actor())
    assert await plane.changes() == ["worker_binding_set"] * 3 + ["worker_binding_deleted"]
    for call in (plane.core.pause, plane.core.resume, plane.core.delete):
        with pytest.raises(NotFoundError) as gone:
            await call(*place, actor())
        assert gone.value.reason == "CS_NOT_FOUND_WORKER"
    made, created = await plane.create()
    assert created
    assert made.uid
    assert await plane.core.list_by_name(TENANT, "default", after="", limit=5) == ([made], None)


async def test_what_an_activity_is_mapped_to_must_be_there(plane: Plane) -> None:
    await plane.create()
    spec = WorkerBindingSpec()
    for ref, reason in (("2", "CS_NOT_FOUND_VERSION"), ("live", "CS_NOT_FOUND_ALIAS")):
        spec.activities["Work"].function, spec.activities["Work"].ref = "work", ref
        with pytest.raises(CodeSousError) as refused:
            await plane.update("spec.activities", activities=spec.activities)
        assert refused.value.reason == reason
