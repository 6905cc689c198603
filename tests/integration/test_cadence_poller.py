"""The poller: tasks of Cadence become activations, and each is answered once, as it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from cs_core.store.client import KvClient
from cs_poller.intake import activation_id_of
from tests.support.cadence import TENANT, CadenceMesh, Call, FunctionError, cadence_mesh, codec
from tests.support.waiting import wait_until

LONG = timedelta(seconds=60)


async def echo(call: Call) -> Any:
    return {"event": call.event, "trigger": call.request.trigger.cadence.activity_type}


async def fail(call: Call) -> Any:
    raise FunctionError(call.event, "as you wish")


async def text(call: Call) -> Any:
    return "plain text"


async def until_cancelled(call: Call) -> Any:
    """Beats fast until somebody cancels it."""
    for number in range(10_000):
        if call.cancelled.is_set():
            raise FunctionError("CS_RUNTIME_CANCELLED", "stopped")
        await call.heartbeat({"number": number})
        await asyncio.sleep(0.005)
    raise AssertionError("never cancelled")


class Gate:
    """A function that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = 0
        self.open = asyncio.Event()

    async def __call__(self, call: Call) -> Any:
        self.entered += 1
        await self.open.wait()
        return "through"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def mesh(kv: KvClient, gate: Gate) -> AsyncIterator[CadenceMesh]:
    handlers = {"echo": echo, "fail": fail, "text": text, "until_cancelled": until_cancelled, "gate": gate}
    async with cadence_mesh(kv, handlers) as mesh:
        yield mesh


async def test_a_task_is_run_and_answered_with_the_functions_body(mesh: CadenceMesh) -> None:
    await mesh.bind("jobs", {"Echo": "echo", "Text": "text"})
    async with mesh.poller() as (_, registry):
        end = await mesh.run("jobs", "Echo", {"a": 1})
        assert (end.how, json.loads(end.data)) == ("completed", {"event": {"a": 1}, "trigger": "Echo"})
        assert json.loads((await mesh.run("jobs", "Echo", b'1 "two"\n[3]')).data)["event"] == [1, "two", [3]]
        assert (await mesh.run("jobs", "Text")).data == b'"plain text"'
        assert registry.get_sample_value("cs_cadence_answers_total", {"outcome": "completed"}) == 3
    (record, *_) = [a for a in await _activations(mesh) if a.trigger.cadence.activity_type == "Echo"]
    assert (record.principal.subject, record.trigger.cadence.domain) == ("tester", "demo")
    assert await mesh.tasks.count() == 0


async def test_raw_bytes_go_in_as_base64_and_come_out_as_they_are(mesh: CadenceMesh) -> None:
    await mesh.bind("raw", {"Echo": "echo", "Text": "text"}, codec=codec("raw"))
    async with mesh.poller():
        assert json.loads((await mesh.run("raw", "Echo", b"\x00\xff")).data)["event"] == {
            "body": "AP8=",
            "isBase64Encoded": True,
        }
        assert (await mesh.run("raw", "Text", b"")).data == b"plain text"


async def test_each_failure_is_answered_with_its_reason(mesh: CadenceMesh) -> None:
    await mesh.bind("jobs", {"Fail": "fail", "Echo": "echo"})
    async with mesh.poller():
        failed = await mesh.run("jobs", "Fail", "CS_RUNTIME_EXCEPTION")
        details = json.loads(failed.data)
        assert (failed.how, failed.reason) == ("failed", "CS_RUNTIME_EXCEPTION")
        assert (details["reason"], details["message"]) == ("CS_RUNTIME_EXCEPTION", "as you wish")
        assert (await mesh.run("jobs", "Fail", "CS_RUNTIME_TIMEOUT")).reason == "timeout"
        # Nobody asked Cadence to cancel it.
        assert (await mesh.run("jobs", "Fail", "CS_RUNTIME_CANCELLED")).reason == "CS_RUNTIME_CANCELLED"
        unmapped = await mesh.run("jobs", "Unmapped")
        assert unmapped.reason == "CS_CADENCE_ACTIVITY_UNMAPPED"
        assert "it maps Echo, Fail" in json.loads(unmapped.data)["message"]
        assert (await mesh.run("jobs", "Echo", b"{")).reason == "CS_CADENCE_BAD_INPUT"
        assert (await mesh.run("jobs", "Echo", b'"' + b"x" * (2 * 2**20) + b'"')).reason == "CS_VALIDATION_TOO_LARGE"
    assert (mesh.accepted(), mesh.refused()) == (6, 0)


async def test_cadences_retry_policy_gets_a_run_of_its_own_for_each_attempt(mesh: CadenceMesh) -> None:
    from cadence.api.v1.common_pb2 import RetryPolicy

    policy = RetryPolicy(maximum_attempts=3, backoff_coefficient=1.0)
    policy.initial_interval.FromTimedelta(timedelta(milliseconds=50))
    policy.expiration_interval.FromTimedelta(LONG)
    await mesh.bind("jobs", {"Fail": "fail"})
    async with mesh.poller():
        end = await mesh.run("jobs", "Fail", "CS_RUNTIME_EXCEPTION", retry=policy)
        assert (end.how, end.attempt, mesh.accepted()) == ("failed", 2, 3)
    assert sorted(mesh.invoker.runs.values()) == [1, 1, 1]


async def test_heartbeats_are_forwarded_at_a_limited_rate_and_a_cancel_stops_the_run(mesh: CadenceMesh) -> None:
    await mesh.bind("jobs", {"Long": "until_cancelled"})
    async with mesh.poller(heartbeat_interval=0.2) as (_, registry):

        def sent() -> float:
            return registry.get_sample_value("cs_cadence_heartbeats_total", {"outcome": "sent"}) or 0

        loop = asyncio.get_running_loop()
        run = await mesh.start("jobs", "Long", heartbeat_timeout=timedelta(seconds=20))
        finishing = asyncio.create_task(run.finish())
        began = loop.time()
        await wait_until(lambda: sent() >= 3)
        await run.cancel()
        end = await finishing
        assert (end.how, json.loads(end.data)["reason"]) == ("canceled", "CS_RUNTIME_CANCELLED")
        assert sent() <= (loop.time() - began) / 0.2 + 2
        assert (registry.get_sample_value("cs_cadence_heartbeats_total", {"outcome": "replaced"}) or 0) > sent()
        assert list(mesh.answers.values()) == [[("canceled", True)]]


async def test_a_task_that_cadence_gave_up_is_cancelled_and_not_answered(mesh: CadenceMesh) -> None:
    await mesh.bind("jobs", {"Long": "until_cancelled"})
    async with mesh.poller() as (_, registry):
        end = await mesh.run("jobs", "Long", timeout=timedelta(seconds=1))
        assert (end.how, end.reason) == ("timed_out", "start_to_close")
        await wait_until(lambda: registry.get_sample_value("cs_cadence_answers_total", {"outcome": "gone"}) == 1)
    assert not mesh.answers
    assert await mesh.tasks.count() == 0


async def test_a_late_answer_is_refused_once_and_not_repeated(mesh: CadenceMesh, gate: Gate) -> None:
    """Control: with `_FINAL` of cs_core.rpc.cadence empty, the refused answer is sent again and again."""
    await mesh.bind("jobs", {"Gate": "gate"})
    async with mesh.poller() as (_, registry):
        end = await mesh.run("jobs", "Gate", timeout=timedelta(seconds=1))
        assert end.how == "timed_out"
        gate.open.set()
        await wait_until(lambda: registry.get_sample_value("cs_cadence_answers_total", {"outcome": "refused"}) == 1)
        # A neighbour goes through meanwhile: time passes by what happens, not by the clock.
        assert (await mesh.run("jobs", "Gate")).how == "completed"
    late = [answers for answers in mesh.answers.values() if answers == [("completed", False)]]
    assert (len(late), len(mesh.answers)) == (1, 2)
    assert await mesh.tasks.count() == 0


async def test_a_task_that_is_delivered_again_meets_its_own_activation(mesh: CadenceMesh, gate: Gate) -> None:
    await mesh.bind("jobs", {"Gate": "gate"})
    async with mesh.poller(polls=1):
        run = await mesh.start("jobs", "Gate")
        finishing = asyncio.create_task(run.finish())
        await wait_until(lambda: gate.entered == 1)
        domain = mesh.engine.domain("demo")
        (activity,) = domain.runs[run.workflow_id][0].activities.values()
        token = activity.token
        domain.activities["jobs"].put(activity)
        await wait_until(lambda: len(domain.activities["jobs"]) == 0)
        gate.open.set()
        assert (await finishing).how == "completed"
    assert mesh.invoker.runs == {activation_id_of(TENANT, token): 1}
    assert [taken for _, taken in mesh.answers[token]].count(True) == 1


async def _activations(mesh: CadenceMesh) -> list[Any]:
    found, _ = await mesh.activations.list_by_function(TENANT, "default", "echo", before=None, limit=50)
    return found
