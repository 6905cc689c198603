"""Where the time of an activation went: its record as steps, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from codesous.gateway.v1.activation_pb2 import Activation
from google.protobuf.timestamp_pb2 import Timestamp


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `at_ms` counts from when the activation was accepted; `ms` is None while it goes on."""

    step: str
    at_ms: float
    ms: float | None
    detail: str = ""


def timeline(activation: Activation) -> dict[str, Any]:
    """The steps of an activation, with what identifies it."""
    steps = list(_steps(activation))
    ends = [step.at_ms + step.ms for step in steps if step.ms is not None]
    return {
        "activation_id": activation.activation_id,
        "trace_id": activation.trace_id,
        "request_id": activation.request_id,
        "attempt": activation.attempt,
        "total_ms": round(max(ends, default=0.0), 3) if activation.HasField("end_time") else None,
        "steps": [asdict(step) for step in steps],
    }


def _steps(activation: Activation) -> Iterator[Step]:
    since = _ms(activation.accept_time)

    claimed, started, ended, delivered = (
        # The moments come from the clocks of several processes: none of them is shown before the first.
        max(_ms(moment) - since, 0.0) if moment.ByteSize() else None
        for moment in (activation.claim_time, activation.start_time, activation.end_time, activation.deliver_time)
    )
    waits_from = 0.0
    for failed in activation.failed_attempts:
        begun, failed_at = _ms(failed.start_time) - since, _ms(failed.end_time) - since
        if not failed.HasField("start_time"):
            begun = failed_at
        yield _step("queued", waits_from, begun)
        yield _step(f"attempt {failed.attempt}", begun, failed_at, failed.error.reason)
        waits_from = failed_at
    if claimed is None or claimed < waits_from:
        # No run was begun since: it waits, or it ended without one.
        yield _step("queued", waits_from, ended)
    else:
        yield _step("queued", waits_from, claimed)
        if started is not None:
            yield _step("claimed", claimed, started, "waits for a cell and its code")
            yield _step("run", started, ended, f"attempt {activation.attempt}, version {activation.function.version}")
            yield from _host_calls(activation, started)
    if ended is not None:
        outcome = activation.error.reason or (
            str(activation.response.status_code) if activation.HasField("response") else ""
        )
        yield Step("finished", round(ended, 3), 0.0, outcome)
        if delivered is not None:
            yield _step("delivered", ended, delivered)


def _host_calls(activation: Activation, started: float) -> Iterator[Step]:
    for call in activation.host_calls:
        begun = started + call.offset.ToNanoseconds() / 1e6
        took = round(call.duration.ToNanoseconds() / 1e6, 3) if call.HasField("duration") else None
        yield Step(f"cs.{call.method}", round(begun, 3), took, call.reason)
    if activation.host_calls_left_out:
        yield Step("host calls", round(started, 3), None, f"{activation.host_calls_left_out} more")


def _step(name: str, begun: float, ended: float | None, detail: str = "") -> Step:
    return Step(name, round(begun, 3), None if ended is None else round(max(ended - begun, 0.0), 3), detail)


def _ms(moment: Timestamp) -> float:
    return moment.ToNanoseconds() / 1e6
