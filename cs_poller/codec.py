"""Payloads of Cadence as events, and bodies of functions as payloads."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from codesous.control.v1.worker_binding_pb2 import PayloadCodec
from codesous.type.v1.function_response_pb2 import FunctionResponse

from cs_core.errors import CodeSousError

_RAW: Final = PayloadCodec.PAYLOAD_CODEC_RAW
_SPACE: Final = " \t\r\n"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


# Python's own reader takes NaN and Infinity, which no other reader of JSON does.
_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


class BodyError(ValueError):
    """A body that the codec cannot make a payload of."""


def decode_input(data: bytes, codec: PayloadCodec.ValueType) -> bytes:
    """The event of an activity's input: UTF-8 JSON.

    Raises:
        CodeSousError: the input is not what the codec reads (`CS_CADENCE_BAD_INPUT`).
    """
    if codec == _RAW:
        return json.dumps({"body": base64.b64encode(data).decode(), "isBase64Encoded": True}).encode()
    values = _values(data)
    if len(values) == 1:
        return data.strip()
    return b"null" if not values else json.dumps(values).encode()


def encode_result(response: FunctionResponse, codec: PayloadCodec.ValueType) -> bytes:
    """The payload of a function's body.

    Raises:
        BodyError: the codec is JSON and the body is not text.
    """
    if codec == _RAW:
        return base64.b64decode(response.body) if response.is_base64_encoded else response.body.encode()
    if response.is_base64_encoded:
        raise BodyError("the body is not text; a binding with the codec raw can answer bytes")
    try:
        _check_json(response.body)
    except ValueError:
        return json.dumps(response.body, ensure_ascii=False).encode()
    return response.body.encode()


def _values(data: bytes) -> list[Any]:
    """The JSON values that stand one after another, as Cadence's clients write several arguments."""
    values: list[Any] = []
    try:
        text = data.decode()
        position = _skip(text, 0)
        while position < len(text):
            value, end = _DECODER.raw_decode(text, position)
            values.append(value)
            position = _skip(text, end)
    except (ValueError, RecursionError) as error:
        raise CodeSousError("CS_CADENCE_BAD_INPUT", f"the activity's input is not JSON: {error}") from None
    return values


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _check_json(text: str) -> None:
    try:
        json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("too deep") from None
