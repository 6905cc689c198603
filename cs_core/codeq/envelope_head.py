"""The head of a serialized envelope: who it is of and since when, without its body.

Bodies are megabytes at the most, and what is written before them (fields 1 to 5) fits into a few hundred bytes: whoever
looks at many messages reads that much of each.
"""

from __future__ import annotations

from typing import Final

from codesous.queue.v1.envelope_pb2 import Envelope

HEAD_BYTES: Final = 512
_FIRST_BODY_FIELD: Final = 10
_VARINT, _LENGTH = 0, 2


def read_head(data: bytes) -> Envelope:
    """The envelope without its body, of its first bytes. What cannot be read is left out."""
    position = 0
    while position < len(data):
        field = _field_end(data, position)
        if field is None or field > len(data):
            break
        position = field
    envelope = Envelope()
    envelope.MergeFromString(data[:position])
    return envelope


def _field_end(data: bytes, position: int) -> int | None:
    """Where the field that begins here ends; None where the body begins, or the bytes are no message."""
    key = _varint(data, position)
    if key is None:
        return None
    number, position = key
    if number >> 3 >= _FIRST_BODY_FIELD:
        return None
    value = _varint(data, position)
    if value is None:
        return None
    match number & 7:
        case _type if _type == _VARINT:
            return value[1]
        case _type if _type == _LENGTH:
            return value[1] + value[0]
        case _:
            return None


def _varint(data: bytes, position: int) -> tuple[int, int] | None:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
    return None
