"""Messages of the contracts as plain data: snake_case keys, lower-case enum values, the function's response as made."""

from __future__ import annotations

from typing import Any, Final, cast

from codesous.type.v1 import function_response_pb2
from google.protobuf import duration_pb2, json_format, timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

_TEXT_FORMS: Final = (timestamp_pb2.Timestamp.DESCRIPTOR.full_name, duration_pb2.Duration.DESCRIPTOR.full_name)


def to_data(message: Message) -> dict[str, Any]:
    """Turn a message into plain data. Absent messages are left out; scalars are always there."""
    data: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        data[field.name] = _field(cast("FieldDescriptor", field), getattr(message, field.name))
    return data


def response_data(response: function_response_pb2.FunctionResponse) -> dict[str, Any]:
    """The response object as a function makes it."""
    data: dict[str, Any] = {
        "statusCode": response.status_code,
        "headers": dict(sorted(response.headers.items())),
        "body": response.body,
        "isBase64Encoded": response.is_base64_encoded,
    }
    if response.cookies:
        data["cookies"] = list(response.cookies)
    return data


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """The word of an enum value: `ACTIVATION_STATUS_QUEUED` is `queued`."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    return value.name.removeprefix(f"{_upper_snake(enum.name)}_").lower()


def _upper_snake(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in name).removeprefix("_")


def _field(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        item = field.message_type.fields_by_name["value"]
        return {str(key): _single(item, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, each) for each in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    if field.message_type is None:
        return value.hex() if isinstance(value, bytes) else value
    if isinstance(value, function_response_pb2.FunctionResponse):
        return response_data(value)
    if field.message_type.full_name in _TEXT_FORMS:
        return value.ToJsonString()
    if field.message_type.file.package == "google.protobuf":
        return json_format.MessageToDict(value)
    return to_data(value)
