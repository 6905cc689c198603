"""From the fields of an activation's record to the Activation that callers see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.storage.v1.records_pb2 import AttemptHistory
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from google.protobuf.timestamp_pb2 import Timestamp

from cs_core.clock import to_timestamp
from cs_core.trace_context import trace_id_of

FIELDS = ("state", "attempt", "request", "result", "start_ms", "end_ms", "next_ms", "history", "deliver_ms")
_PREFIX = "ACTIVATION_STATUS_"
_QUEUED = b"QUEUED"


def state_of(status: ActivationStatus.ValueType) -> str:
    """The state as the record writes it."""
    return ActivationStatus.Name(status).removeprefix(_PREFIX)


def read_activation(fields: Sequence[bytes | None]) -> Activation | None:
    """The activation of the values of `FIELDS`, in their order; None when there is no record."""
    state, attempt, request_bytes, result_bytes, start_ms, end_ms, next_ms, history, deliver_ms = fields
    if state is None or request_bytes is None:
        return None
    request = InvocationRequest.FromString(request_bytes)
    activation = Activation(
        activation_id=request.activation_id,
        function=request.function,
        status=ActivationStatus.Value(_PREFIX + state.decode()),
        trigger=request.trigger,
        principal=request.principal,
        request_id=request.request_id,
        accept_time=request.accept_time,
        attempt=int(attempt or 0),
        trace_id=trace_id_of(request.traceparent),
    )
    if request.HasField("redrive_of"):
        activation.redrive_of.CopyFrom(request.redrive_of)
    if history:
        activation.failed_attempts.extend(AttemptHistory.FromString(history).attempts)
    if next_ms and state == _QUEUED:
        activation.next_time.CopyFrom(_from_ms(next_ms))
    if start_ms:
        activation.claim_time.CopyFrom(_from_ms(start_ms))
        activation.start_time.CopyFrom(activation.claim_time)
    if end_ms:
        activation.end_time.CopyFrom(_from_ms(end_ms))
    if deliver_ms:
        activation.deliver_time.CopyFrom(_from_ms(deliver_ms))
    if result_bytes is not None:
        _add_result(activation, InvocationResult.FromString(result_bytes))
    return activation


def _add_result(activation: Activation, result: InvocationResult) -> None:
    # The result tells the moments of the run itself, as the caller that waited was told them.
    if result.HasField("start_time"):
        activation.start_time.CopyFrom(result.start_time)
    if result.HasField("end_time"):
        activation.end_time.CopyFrom(result.end_time)
    if result.HasField("response"):
        activation.response.CopyFrom(result.response)
    if result.HasField("error"):
        activation.error.CopyFrom(result.error)
    activation.host_calls.extend(result.host_calls)
    activation.host_calls_left_out = result.host_calls_left_out


def _from_ms(value: bytes) -> Timestamp:
    return to_timestamp(datetime.fromtimestamp(int(value) / 1000, UTC))
