"""From the bytes of a queue message to a request that can be processed, or the reason why it cannot."""

from __future__ import annotations

from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from cs_core.clock import from_timestamp
from cs_core.errors import ValidationError
from cs_core.names import check_activation_id, check_function, check_namespace, check_tenant


class BadMessageError(Exception):
    """The message is not an invocation request; the text says why."""


def open_request(body: bytes) -> tuple[Envelope, InvocationRequest]:
    """The envelope and its request. Raises BadMessageError; nothing that a publisher can send raises anything else."""
    envelope = Envelope()
    try:
        envelope.ParseFromString(body)
    except DecodeError as error:
        raise BadMessageError("the message is not a serialized Envelope") from error
    if envelope.WhichOneof("body") != "invocation_request":
        raise BadMessageError(
            f"the envelope holds {envelope.WhichOneof('body') or 'nothing'}, not an invocation request"
        )
    request = envelope.invocation_request
    try:
        check_activation_id(request.activation_id)
        check_tenant(request.function.tenant)
        check_namespace(request.function.namespace)
        check_function(request.function.function)
    except ValidationError as error:
        fields = "; ".join(f"{violation.field}: {violation.description}" for violation in error.violations)
        raise BadMessageError(f"the request breaks a rule: {fields or error.message}") from error
    if request.HasField("deadline") and not _is_moment(request.deadline):
        raise BadMessageError("the deadline is not a moment in time")
    if request.function.version == 0:
        raise BadMessageError("the request names no version")
    return envelope, request


def _is_moment(stamp: Timestamp) -> bool:
    try:
        from_timestamp(stamp)
    except (ValueError, OverflowError):
        return False
    return True
