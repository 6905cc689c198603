"""Writes one line per call."""

from __future__ import annotations

import time

import grpc
import structlog

from cs_core.errors import CodeSousError
from cs_core.rpc.context import Passive, RequestContext

_log = structlog.get_logger(__name__)


class AccessLog(Passive):
    """Logs method, tenant, caller, code, reason and duration when a call ends."""

    def end(self, call: RequestContext, code: grpc.StatusCode, error: CodeSousError | None) -> None:
        """Write the line."""
        _log.info(
            "call",
            method=call.method,
            tenant=call.tenant,
            subject=call.principal.subject if call.principal is not None else "",
            code=code.name,
            reason=error.reason if error is not None else "",
            duration_ms=round((time.perf_counter() - call.started) * 1000, 3),
        )
