"""What a record tells of the host calls of a run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.type.v1.capabilities_pb2 import Capabilities, KvCapability, KvOperation

from cs_core.clock import ManualClock
from cs_invoker.host_timeline import HOST_CALLS_KEPT, HostTimeline
from cs_sandbox.host.calls import CheckedCalls
from cs_sandbox.host.capability import Grants
from cs_sandbox.job import HostCallError


class Kv:
    """Answers, fails, or waits for ever."""

    async def call(self, operation: str, arguments: list[Any]) -> Any:
        if arguments[0] == "a/bad":
            raise HostCallError("CS_X", "no")
        if arguments[0] == "a/never":
            await asyncio.get_running_loop().create_future()
        return None


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def timeline(clock: ManualClock) -> HostTimeline:
    return HostTimeline(clock)


@pytest.fixture
def calls(timeline: HostTimeline) -> CheckedCalls:
    return CheckedCalls(
        Grants(Capabilities(kv=KvCapability(prefixes=["a/"], operations=[KvOperation.KV_OPERATION_GET]))),
        {"kv": Kv()},
        timeline,
    )


async def test_calls_are_told_in_order_with_how_they_ended(
    clock: ManualClock, timeline: HostTimeline, calls: CheckedCalls
) -> None:
    result = InvocationResult()
    result.start_time.FromDatetime(clock.now())
    clock.advance(timedelta(milliseconds=5))
    await calls.call("kv.get", ["a/good"])
    for key, reason in (("a/bad", "CS_X"), ("b/denied", "CS_RUNTIME_CAPABILITY_DENIED")):
        with pytest.raises(HostCallError) as caught:
            await calls.call("kv.get", [key])
        assert caught.value.reason == reason
    waiting = asyncio.ensure_future(calls.call("kv.get", ["a/never"]))
    await asyncio.sleep(0)
    timeline.write(result)
    assert [(call.method, call.reason) for call in result.host_calls] == [
        ("kv.get", ""),
        ("kv.get", "CS_X"),
        ("kv.get", "CS_RUNTIME_CAPABILITY_DENIED"),
        ("kv.get", ""),
    ]
    assert [call.HasField("duration") for call in result.host_calls] == [True, True, True, False]
    assert result.host_calls[0].offset.ToMilliseconds() == 5
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_run_of_many_calls_keeps_the_first_and_counts_the_rest(
    timeline: HostTimeline, calls: CheckedCalls
) -> None:
    for _ in range(HOST_CALLS_KEPT + 3):
        await calls.call("kv.get", ["a/good"])
    result = InvocationResult()
    timeline.write(result)
    assert (len(result.host_calls), result.host_calls_left_out) == (HOST_CALLS_KEPT, 3)


async def test_what_is_no_host_call_is_not_told(timeline: HostTimeline, calls: CheckedCalls) -> None:
    with pytest.raises(HostCallError):
        await calls.call("kv.nothing", [])
    result = InvocationResult()
    timeline.write(result)
    assert result == InvocationResult()
