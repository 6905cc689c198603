"""The rules of the poller that need no server: codecs, answers, shares, poll loops, heartbeats, permits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from cadence.api.v1.service_worker_pb2 import PollForActivityTaskResponse
from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.storage.v1.worker_binding_pb2 import CadenceTaskRecord
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.invocation_error_pb2 import InvocationError
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from cs_core.backoff import Backoff
from cs_core.errors import CadenceRefusedError, CodeSousError, UnavailableError
from cs_poller.answers import Canceled, Completed, Failed, answer_of
from cs_poller.codec import BodyError, decode_input, encode_result
from cs_poller.heartbeats import Pulse
from cs_poller.intake import trace_of
from cs_poller.metrics import Metrics
from cs_poller.permits import Permits
from cs_poller.poll_loop import PollLoop
from cs_poller.shares import share_of
from tests.support.cadence import codec
from tests.support.waiting import wait_until

JSON, RAW = codec("json"), codec("raw")
AWAY = UnavailableError("CS_CADENCE_UNAVAILABLE", "away")


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b"", None),
        (b" \n", None),
        (b'{"a": 1}\n', {"a": 1}),
        (b'1 "two"\n{"three": 3}', [1, "two", {"three": 3}]),
        (b"[1]", [1]),
        ('"\u00e9"'.encode(), "\u00e9"),
    ],
)
def test_json_input_becomes_the_event(data: bytes, event: object) -> None:
    assert json.loads(decode_input(data, JSON)) == event


@pytest.mark.parametrize("data", [b"{", b"nothing", b"\xff", b"NaN", b"1 Infinity", b"[" * 100_000])
def test_input_that_is_no_json_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(CodeSousError) as refused:
        decode_input(data, JSON)
    assert refused.value.reason == "CS_CADENCE_BAD_INPUT"


@given(st.binary())
def test_raw_bytes_come_back_as_they_went_in(data: bytes) -> None:
    event = json.loads(decode_input(data, RAW))
    response = FunctionResponse(body=event["body"], is_base64_encoded=event["isBase64Encoded"])
    assert encode_result(response, RAW) == data


@pytest.mark.parametrize(
    ("body", "data"), [('{"a":1}', b'{"a":1}'), ("text", b'"text"'), ("", b'""'), ("NaN", b'"NaN"')]
)
def test_a_json_result_is_always_json(body: str, data: bytes) -> None:
    assert encode_result(FunctionResponse(body=body), JSON) == data


def test_a_json_result_that_is_not_text_is_refused() -> None:
    with pytest.raises(BodyError):
        encode_result(FunctionResponse(body="AP8=", is_base64_encoded=True), JSON)


def result(status: str, reason: str = "", body: str = "", *, base64: bool = False) -> InvocationResult:
    made = InvocationResult(status=ActivationStatus.Value(f"ACTIVATION_STATUS_{status}"))
    if status == "SUCCESS":
        made.response.CopyFrom(FunctionResponse(body=body, is_base64_encoded=base64))
    else:
        made.error.CopyFrom(InvocationError(reason=reason, message="m", type="T", stack="s"))
    return made


def test_each_end_has_its_answer() -> None:
    record = CadenceTaskRecord(activation_id="id-1")
    asked = CadenceTaskRecord(activation_id="id-1", cancel_requested=True)
    details = json.dumps(
        {"reason": "CS_RUNTIME_EXCEPTION", "message": "m", "type": "T", "stack": "s", "activation_id": "id-1"}
    ).encode()
    assert answer_of(record, result("SUCCESS", body="1")) == Completed(b"1")
    assert answer_of(asked, result("SUCCESS", body="1")) == Completed(b"1")
    assert answer_of(record, result("ERROR", "CS_RUNTIME_EXCEPTION")) == Failed("CS_RUNTIME_EXCEPTION", details)
    timeout = answer_of(record, result("TIMEOUT", "CS_RUNTIME_TIMEOUT"))
    assert isinstance(timeout, Failed)
    assert timeout.reason == "timeout"
    assert isinstance(answer_of(asked, result("CANCELLED", "CS_RUNTIME_CANCELLED")), Canceled)
    nobody_asked = answer_of(record, result("CANCELLED", "CS_RUNTIME_CANCELLED"))
    assert isinstance(nobody_asked, Failed)
    assert nobody_asked.reason == "CS_RUNTIME_CANCELLED"
    not_text = answer_of(record, result("SUCCESS", body="AP8=", base64=True))
    assert isinstance(not_text, Failed)
    assert not_text.reason == "CS_RUNTIME_BAD_RESPONSE"


@given(st.integers(1, 256), st.sets(st.text("abcdef", min_size=1, max_size=8), min_size=1, max_size=12), st.text())
def test_shares_add_up_to_the_whole(most: int, members: set[str], uid: str) -> None:
    order = sorted(members)
    shares = [share_of(uid, most, member, order) for member in order]
    assert sum(shares) == most
    assert max(shares) - min(shares) <= 1
    assert share_of(uid, most, "stranger", order) == 0


def test_small_bindings_spread_over_the_pollers() -> None:
    members = [f"poller-{number}" for number in range(4)]
    held = [sum(share_of(f"uid-{n}", 1, member, members) for n in range(400)) for member in members]
    assert sum(held) == 400
    assert min(held) > 50


class Script:
    """A poll that does what it is told, one step after another, then waits for ever."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.unsure: list[bool] = []
        self.cancelled = 0

    async def __call__(self, unsure: bool) -> object:
        self.unsure.append(unsure)
        if not self.steps:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def loop_over(script: Script, permits: Permits, accept: Callable[[object], None]) -> PollLoop[object]:
    async def gate() -> None:
        """Always open."""

    from datetime import timedelta

    quick = Backoff(first=timedelta(milliseconds=1), longest=timedelta(milliseconds=2))
    return PollLoop(script, accept, permits, gate, lambda _error: None, quick)


async def test_a_loop_goes_on_after_failures_and_hands_each_task_on_with_its_permit() -> None:
    permits, taken = Permits(3), []
    script = Script(AWAY, None, "one", CadenceRefusedError("no"), ValueError("a fault"), "two")
    running = asyncio.create_task(loop_over(script, permits, taken.append).run())
    await wait_until(lambda: len(script.unsure) == 7)
    assert taken == ["one", "two"]
    # Two tasks and the poll that goes on.
    assert permits.taken == 3
    # The first poll, and each after a failure, is a short one.
    assert script.unsure == [True, True, False, False, True, True, False]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (permits.taken, script.cancelled) == (2, 1)


async def test_a_loop_does_not_poll_without_a_permit() -> None:
    permits = Permits(1)
    permits.occupy()
    script = Script("one")
    running = asyncio.create_task(loop_over(script, permits, lambda _task: None).run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert script.unsure == []
    permits.release()
    await wait_until(lambda: script.unsure == [True])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_loop_that_is_told_to_finish_takes_what_its_poll_brings() -> None:
    permits, taken, answer = Permits(1), [], asyncio.get_running_loop().create_future()

    async def poll(_unsure: bool) -> object:
        return await answer

    loop = loop_over(Script(), permits, taken.append)
    loop._poll = poll
    running = asyncio.create_task(loop.run())
    await wait_until(lambda: loop.polling)
    loop.finish()
    answer.set_result("last")
    await running
    assert taken == ["last"]


async def test_permits_wake_who_waits_when_there_are_more_and_hold_when_there_are_fewer() -> None:
    permits = Permits(0)
    waiting = asyncio.create_task(permits.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    permits.resize(1)
    await waiting
    permits.resize(0)
    assert permits.taken == 1
    permits.release()
    with pytest.raises(RuntimeError):
        permits.release()


async def test_the_latest_heartbeat_is_sent_when_the_interval_allows() -> None:
    sent: list[bytes] = []
    first, asked, gone = asyncio.Event(), 0, 0

    async def send(details: bytes) -> bool:
        sent.append(details)
        first.set()
        if details == b"last":
            raise CadenceRefusedError("not there", missing=True)
        return True

    async def on_cancel() -> None:
        nonlocal asked
        asked += 1

    async def on_gone() -> None:
        nonlocal gone
        gone += 1

    pulse = Pulse(send, 0.05, on_cancel, on_gone, Metrics(CollectorRegistry()))
    running = asyncio.create_task(pulse.run())
    pulse.give(b"1")
    await first.wait()
    for number in range(2, 50):
        pulse.give(str(number).encode())
    await wait_until(lambda: len(sent) == 2)
    pulse.give(b"last")
    await running
    assert sent == [b"1", b"49", b"last"]
    # A cancel is passed on once, however often Cadence says it.
    assert (asked, gone) == (1, 1)


def test_a_workflow_hands_its_trace_on_in_the_activitys_header() -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    header = f"00-{trace_id}-00f067aa0ba902b7-01".encode()
    for data in (header, b'"' + header + b'"'):
        task = PollForActivityTaskResponse()
        task.header.fields["traceparent"].data = data
        task.header.fields["tracestate"].data = b"a=1"
        trace = trace_of(task)
        assert trace is not None
        assert (trace.trace_id, trace.state) == (trace_id, "a=1")
    task.header.fields["traceparent"].data = b"\xff"
    assert trace_of(task) is None
    assert trace_of(PollForActivityTaskResponse()) is None
