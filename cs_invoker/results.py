"""From how a run ended to the one InvocationResult of its activation, within the limits of what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.type.v1.activation_status_pb2 import (
    ACTIVATION_STATUS_CANCELLED,
    ACTIVATION_STATUS_ERROR,
    ACTIVATION_STATUS_SUCCESS,
    ACTIVATION_STATUS_TIMEOUT,
    ActivationStatus,
)
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.invocation_error_pb2 import InvocationError

from cs_core.clock import to_timestamp
from cs_sandbox.job import Outcome

REASON_TIMEOUT = "CS_RUNTIME_TIMEOUT"
REASON_CRASH = "CS_RUNTIME_CRASH"
REASON_TOO_LARGE = "CS_RUNTIME_RESULT_TOO_LARGE"
REASON_CANCELLED = "CS_RUNTIME_CANCELLED"
REASON_INTERNAL = "CS_INTERNAL"
REASON_MALFORMED = "CS_VALIDATION_MALFORMED"
REASON_MISSING = "CS_NOT_FOUND_ACTIVATION"

_STATUS_OF_REASON = {REASON_TIMEOUT: ACTIVATION_STATUS_TIMEOUT, REASON_CANCELLED: ACTIVATION_STATUS_CANCELLED}
_CUT = " [cut]"
_REASON_BYTES = 128
_TYPE_BYTES = 256
_ENVELOPE_BYTES = 64
"""Room for the tags and lengths of an error's fields."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of a result is kept, in bytes."""

    result: int
    error: int
    stack: int
    log: int


def cut_text(text: str, limit: int) -> str:
    """The text, or its beginning and a mark, in at most `limit` bytes of UTF-8; no character is cut in half."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: max(limit - len(_CUT), 0)].decode("utf-8", "ignore") + _CUT[:limit]


def fit_error(error: InvocationError, sizes: Sizes) -> InvocationError:
    """The error with its stack and then its message cut to their limits."""
    stack = cut_text(error.stack, sizes.stack)
    kind = cut_text(error.type, _TYPE_BYTES)
    reason = cut_text(error.reason, _REASON_BYTES)
    rest = len(stack.encode()) + len(kind.encode()) + len(reason.encode()) + _ENVELOPE_BYTES
    message = cut_text(error.message, max(sizes.error - rest, 0))
    return InvocationError(reason=reason, message=message, type=kind, stack=stack, retryable=error.retryable)


def of_outcome(request: InvocationRequest, outcome: Outcome, attempt: int, sizes: Sizes) -> InvocationResult:
    """The result of a run that the sandbox brought to an end."""
    status, response, error = outcome.status, outcome.response, outcome.error
    if status == ACTIVATION_STATUS_SUCCESS and response is None:
        status, error = (
            ACTIVATION_STATUS_ERROR,
            InvocationError(reason=REASON_INTERNAL, message="the run gave no response"),
        )
    if response is not None and response.ByteSize() > sizes.result:
        message = f"what the function returned is {response.ByteSize()} bytes; the limit is {sizes.result}"
        status, response, error = (
            ACTIVATION_STATUS_ERROR,
            None,
            InvocationError(reason=REASON_TOO_LARGE, message=message),
        )
    return _result(
        request,
        status,
        response if status == ACTIVATION_STATUS_SUCCESS else None,
        None if status == ACTIVATION_STATUS_SUCCESS else fit_error(error or InvocationError(), sizes),
        start=outcome.start,
        end=outcome.end,
        attempt=attempt,
    )


def of_failure(
    request: InvocationRequest, reason: str, message: str, *, now: datetime, attempt: int = 0
) -> InvocationResult:
    """The result of an activation that no cell ran to an end; the reason gives the status."""
    status = _STATUS_OF_REASON.get(reason, ACTIVATION_STATUS_ERROR)
    error = InvocationError(reason=reason, message=message)
    return _result(request, status, None, error, start=None, end=now, attempt=attempt)


def _result(
    request: InvocationRequest,
    status: ActivationStatus.ValueType,
    response: FunctionResponse | None,
    error: InvocationError | None,
    *,
    start: datetime | None,
    end: datetime,
    attempt: int,
) -> InvocationResult:
    return InvocationResult(
        request_id=request.request_id,
        activation_id=request.activation_id,
        tenant=request.function.tenant,
        status=status,
        response=response,
        error=error,
        start_time=None if start is None else to_timestamp(start),
        end_time=to_timestamp(end),
        attempt=attempt,
    )
