"""The event of an Invoke as UTF-8 JSON."""

from __future__ import annotations

import json

from codesous.gateway.v1.invocation_service_pb2 import InvokeRequest
from google.protobuf import json_format

from cs_core.config import LimitSettings
from cs_core.errors import TooLargeError, ValidationError
from cs_core.event import check_json


def event_of(request: InvokeRequest, limits: LimitSettings) -> bytes:
    """The event; `null` when there is none.

    Raises:
        ValidationError: `event_json` is not JSON in UTF-8, or `event` holds what JSON cannot.
        TooLargeError: it is over its limit.
    """
    kind = request.WhichOneof("input")
    if kind is None:
        return b"null"
    if kind == "event_json":
        data = request.event_json
        _check_size(data, limits)
        check_json(data, "event_json")
        return data
    try:
        value = json_format.MessageToDict(request.event)
        data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise ValidationError.field("event", "must be a JSON value; numbers must be finite") from error
    _check_size(data, limits)
    return data


def _check_size(data: bytes, limits: LimitSettings) -> None:
    if len(data) > limits.http_body_bytes:
        raise TooLargeError(f"the event is {len(data)} bytes, the limit is {limits.http_body_bytes}")
