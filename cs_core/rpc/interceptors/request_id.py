"""Gives every call a request id: the caller's when it is one of ours, else a fresh one."""

from __future__ import annotations

import re
from typing import Final

import structlog

from cs_core import ids
from cs_core.rpc.context import Passive, RequestContext

HEADER: Final = "x-request-id"
_REQUEST_ID = re.compile(r"req_[0-7][0-9A-HJKMNP-TV-Z]{25}")


class RequestId(Passive):
    """Names the call, binds the name to every log line of it, and tells the caller."""

    def begin(self, call: RequestContext) -> None:
        """Choose the id."""
        given = call.header(HEADER)
        call.request_id = given if _REQUEST_ID.fullmatch(given) else ids.request_id()
        call.answer_header(HEADER, call.request_id)
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
