"""Where the time of an activation went, as `cs trace` tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from codesous.gateway.v1.activation_pb2 import Activation
from codesous.type.v1.attempt_pb2 import Attempt
from codesous.type.v1.host_call_pb2 import HostCall
from codesous.type.v1.invocation_error_pb2 import InvocationError
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cs_cli.timeline import timeline

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(ms: float) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(START + timedelta(milliseconds=ms))
    return moment


def lasting(ms: float) -> Duration:
    length = Duration()
    length.FromTimedelta(timedelta(milliseconds=ms))
    return length


def steps(**fields: Any) -> list[tuple[str, float, float | None, str]]:
    found = timeline(Activation(accept_time=at(0), **fields))
    return [(step["step"], step["at_ms"], step["ms"], step["detail"]) for step in found["steps"]]


def test_one_run_from_acceptance_to_delivery() -> None:
    activation = Activation(
        accept_time=at(0),
        claim_time=at(10),
        start_time=at(25),
        end_time=at(65),
        deliver_time=at(70),
        attempt=1,
        host_calls=[HostCall(method="kv.get", offset=lasting(5), duration=lasting(2))],
    )
    activation.response.status_code = 200
    found = timeline(activation)
    assert found["total_ms"] == 70
    assert [(step["step"], step["at_ms"], step["ms"]) for step in found["steps"]] == [
        ("queued", 0, 10),
        ("claimed", 10, 15),
        ("run", 25, 40),
        ("cs.kv.get", 30, 2),
        ("finished", 65, 0),
        ("delivered", 65, 5),
    ]
    assert found["steps"][4]["detail"] == "200"


def test_what_waits_or_runs_has_no_end_yet() -> None:
    assert steps() == [("queued", 0, None, "")]
    running = steps(claim_time=at(10), start_time=at(10), host_calls=[HostCall(method="http.fetch", offset=lasting(1))])
    assert [(name, begun, took) for name, begun, took, _ in running] == [
        ("queued", 0, 10),
        ("claimed", 10, 0),
        ("run", 10, None),
        ("cs.http.fetch", 11, None),
    ]


def test_failed_attempts_and_the_waits_between_them() -> None:
    failed = Attempt(
        attempt=1, error=InvocationError(reason="CS_X"), start_time=at(5), end_time=at(8), next_time=at(50)
    )
    told = steps(failed_attempts=[failed], claim_time=at(52), start_time=at(53), end_time=at(60), attempt=2)
    assert [(name, begun, took) for name, begun, took, _ in told] == [
        ("queued", 0, 5),
        ("attempt 1", 5, 3),
        ("queued", 8, 44),
        ("claimed", 52, 1),
        ("run", 53, 7),
        ("finished", 60, 0),
    ]
    # The claim of the failed run is not taken for one of the next.
    assert steps(failed_attempts=[failed], claim_time=at(4))[-1] == ("queued", 8, None, "")


def test_one_that_never_ran_waited_until_its_end() -> None:
    ended = steps(end_time=at(30), error=InvocationError(reason="CS_RUNTIME_CANCELLED"))
    assert ended == [("queued", 0, 30, ""), ("finished", 30, 0, "CS_RUNTIME_CANCELLED")]


def test_clocks_that_differ_make_no_negative_times() -> None:
    told = steps(claim_time=at(-5), start_time=at(-3), end_time=at(-1))
    assert all(begun >= 0 and (took is None or took >= 0) for _, begun, took, _ in told)


def test_what_is_left_out_is_told() -> None:
    assert steps(claim_time=at(0), start_time=at(0), host_calls_left_out=7)[-1] == ("host calls", 0, None, "7 more")
