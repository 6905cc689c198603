"""Refuses the calls of tenants while the process is drained."""

from __future__ import annotations

from typing import Any, Final

from cs_core.errors import UnavailableError
from cs_core.rpc.context import Passive, RequestContext

REASON: Final = "CS_SERVICE_UNAVAILABLE"


class Intake(Passive):
    """What a drain closes. What was let in before goes on; operators and health are always let in."""

    def __init__(self) -> None:
        self.closed = False

    def check(self, call: RequestContext, request: Any) -> None:  # noqa: ARG002 - the hook's shape
        """Refuse a tenant's call while the process is drained. Raises UnavailableError, to be tried again."""
        if self.closed and call.rule is not None and call.rule.tenant_scoped:
            raise UnavailableError(REASON, "the process is drained; try again, another one takes the call")
