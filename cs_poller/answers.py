"""From the result of an activation to the answer that Cadence gets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.storage.v1.worker_binding_pb2 import CadenceTaskRecord
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.invocation_error_pb2 import InvocationError

from .codec import BodyError, encode_result

TIMEOUT: Final = "timeout"
_SUCCESS = ActivationStatus.ACTIVATION_STATUS_SUCCESS
_TIMEOUT = ActivationStatus.ACTIVATION_STATUS_TIMEOUT
_CANCELLED = ActivationStatus.ACTIVATION_STATUS_CANCELLED


@dataclass(frozen=True, slots=True)
class Completed:
    """The function's body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """A reason that retry policies can name, and details for people: UTF-8 JSON."""

    reason: str
    details: bytes


@dataclass(frozen=True, slots=True)
class Canceled:
    """Cancelled as Cadence asked."""

    details: bytes


Answer = Completed | Failed | Canceled


def answer_of(record: CadenceTaskRecord, result: InvocationResult) -> Answer:
    """The answer to a task whose activation ended with this result."""
    if result.status == _SUCCESS:
        try:
            return Completed(encode_result(result.response, record.codec))
        except BodyError as error:
            failure = InvocationError(reason="CS_RUNTIME_BAD_RESPONSE", message=str(error))
            return Failed(failure.reason, _details(failure, record.activation_id))
    details = _details(result.error, record.activation_id)
    if result.status == _CANCELLED and record.cancel_requested:
        return Canceled(details)
    return Failed(TIMEOUT if result.status == _TIMEOUT else result.error.reason, details)


def refuse(error: InvocationError) -> Failed:
    """The answer to a task that no function ran."""
    return Failed(error.reason, _details(error, ""))


def _details(error: InvocationError, activation_id: str) -> bytes:
    found = {
        "reason": error.reason,
        "message": error.message,
        "type": error.type,
        "stack": error.stack,
        "activation_id": activation_id,
    }
    return json.dumps({name: value for name, value in found.items() if value}, ensure_ascii=False).encode()
