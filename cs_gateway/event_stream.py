"""What is watched as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import json

from codesous.gateway.v1.activation_pb2 import Activation
from google.protobuf.json_format import MessageToDict

from cs_gateway.watching import Watched

CONTENT_TYPE = "text/event-stream"
LAST_EVENT_ID = "last-event-id"


def event_of(watched: Watched) -> bytes:
    """One event: id, kind, and the message as one line of JSON."""
    kind = "activation" if isinstance(watched.what, Activation) else "log"
    data = MessageToDict(watched.what, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return f"id: {watched.cursor}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
