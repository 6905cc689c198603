"""Watching an activation over a real store: each state, line and result once, in order, across breaks."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.attempt_pb2 import Attempt
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.log_entry_pb2 import LogEntry

from cs_core.clock import SystemClock, to_timestamp
from cs_core.errors import NotFoundError, ValidationError
from cs_core.ids import activation_id
from cs_core.rpc.event_stream import event_bytes
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.run_logs import RunLogs
from cs_gateway.watching import Cursor, Watched, Watching
from tests.support.invocations import Ingress, status_of

TENANT = "t_alpha0"
LEASE = timedelta(seconds=5)


@pytest.fixture
async def ingress(kv: KvClient) -> Ingress:
    """What a gateway does before the queue."""
    return Ingress(kv, TENANT)


@pytest.fixture
async def queued(ingress: Ingress) -> str:
    """A queued activation."""
    request = ingress.make_request(FunctionRef(tenant=TENANT, namespace="default", function="hello", version=1))
    await ingress.activations.submit(request, hashlib.sha256(request.event).digest())
    return request.activation_id


def told(watched: Watched) -> str:
    """One word for what was told."""
    if isinstance(watched.what, Activation):
        return f"{status_of(watched.what)}{watched.what.attempt}"
    return watched.what.message


async def _next(watched: AsyncIterator[Watched]) -> str:
    async with asyncio.timeout(5):
        return told(await anext(watched))


async def _end(store: ActivationStore, activation: str, logs: RunLogs) -> None:
    ended = InvocationResult(
        tenant=TENANT,
        activation_id=activation,
        status=ActivationStatus.ACTIVATION_STATUS_SUCCESS,
        end_time=to_timestamp(SystemClock().now()),
    )
    assert (await store.finish(ended, "a/1", logs)).accepted


async def test_states_and_lines_are_told_as_they_come_and_the_end_comes_last(ingress: Ingress, queued: str) -> None:
    store = ingress.activations
    watched = Watching(store, 0.01).watch(TENANT, queued, "")
    assert await _next(watched) == "QUEUED0"
    await store.begin(TENANT, queued, "a/1", LEASE)
    assert await _next(watched) == "RUNNING1"
    await store.append_logs(TENANT, queued, "a/1", RunLogs(0, [LogEntry(message="one")]))
    assert await _next(watched) == "one"
    failed = Attempt(attempt=1)
    await store.retry(TENANT, queued, "a/1", failed, timedelta(0), RunLogs(1, [LogEntry(message="two")]))
    assert [await _next(watched) for _ in range(2)] == ["QUEUED1", "two"]
    await store.begin(TENANT, queued, "a/1", LEASE)
    assert await _next(watched) == "RUNNING2"
    await _end(store, queued, RunLogs(0, [LogEntry(message="three"), LogEntry(message="four")]))
    assert [await _next(watched) for _ in range(3)] == ["three", "four", "SUCCESS2"]
    with pytest.raises(StopAsyncIteration):
        await anext(watched)


async def test_every_cursor_goes_on_behind_what_it_stands_for(ingress: Ingress, queued: str) -> None:
    store = ingress.activations
    await store.begin(TENANT, queued, "a/1", LEASE)
    await _end(store, queued, RunLogs(0, [LogEntry(message=str(number)) for number in range(1203)]))
    watching = Watching(store, 0.01)
    whole = [watched async for watched in watching.watch(TENANT, queued, "")]
    assert [told(watched) for watched in whole] == [*(str(number) for number in range(1203)), "SUCCESS1"]
    for index in (0, 498, 499, 500, 1201):
        rest = [watched async for watched in watching.watch(TENANT, queued, str(whole[index].cursor))]
        assert rest == whole[index + 1 :]


async def test_the_cursor_of_the_end_tells_the_end_again(ingress: Ingress, queued: str) -> None:
    await ingress.activations.begin(TENANT, queued, "a/1", LEASE)
    await _end(ingress.activations, queued, RunLogs())
    watching = Watching(ingress.activations, 0.01)
    (end,) = [watched async for watched in watching.watch(TENANT, queued, "")]
    assert [told(w) async for w in watching.watch(TENANT, queued, str(end.cursor))] == ["SUCCESS1"]


@pytest.mark.parametrize("cursor", ["x", "1.2", "1.2.3.4", "-1.0.0", "1.1.9999999999", "1.2.3\n", "１.２.３"])
async def test_a_foreign_cursor_is_refused(ingress: Ingress, queued: str, cursor: str) -> None:
    with pytest.raises(ValidationError):
        await anext(Watching(ingress.activations).watch(TENANT, queued, cursor))


async def test_nothing_there_and_another_tenant_are_not_found(ingress: Ingress, queued: str) -> None:
    watching = Watching(ingress.activations)
    with pytest.raises(NotFoundError):
        await anext(watching.watch(TENANT, activation_id(), ""))
    with pytest.raises(NotFoundError):
        await anext(watching.watch("t_other00", queued, ""))


def test_an_event_is_one_line_of_json_whatever_was_logged() -> None:
    line = LogEntry(message='two\nlines\r and \u2028 "quotes"')
    event = event_bytes(str(Cursor(2, 1, 7)), Watched(Cursor(2, 1, 7), line).kind, line).decode()
    head, kind, data, *rest = event.split("\n")
    assert (head, kind, rest) == ("id: 2.1.7", "event: log", ["", ""])
    assert json.loads(data.removeprefix("data: "))["message"] == line.message
