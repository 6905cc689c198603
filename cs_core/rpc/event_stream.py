"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import json
from typing import Final

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from cs_core.rpc.context import Context

CONTENT_TYPE: Final = "text/event-stream"
LAST_EVENT_ID: Final = "last-event-id"


def event_bytes(cursor: str, kind: str, message: Message) -> bytes:
    """One event: id, kind, and the message as one line of JSON."""
    data = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return f"id: {cursor}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def event_chunk(cursor: str, kind: str, message: Message) -> HttpBody:
    """One event as a part of an answer's body."""
    return HttpBody(content_type=CONTENT_TYPE, data=event_bytes(cursor, kind, message))


def last_event_id(context: Context) -> str:
    """The cursor that a client came back with; empty when it has none."""
    for name, value in context.invocation_metadata() or ():
        if name == LAST_EVENT_ID:
            return value if isinstance(value, str) else ""
    return ""
