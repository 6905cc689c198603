"""Reports the hosts that a version reaches although its capabilities do not name them, instead of denying them.

For a version with `egress_report_only`: its author finds each host as a warning in the activation's log, an operator in
the invoker's log and as a count. Each host is reported once an activation, and not more than some of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.type.v1.log_entry_pb2 import LOG_LEVEL_WARN, LogEntry

from cs_core.clock import Clock, to_timestamp

_log = structlog.get_logger(__name__)
HOSTS_MAX: Final = 64
"""Hosts of one activation that are told apart; what comes after them is counted only."""


class EgressReport:
    """The report of one activation."""

    def __init__(
        self,
        request: InvocationRequest,
        on_log: Callable[[LogEntry], None],
        count: Callable[[], None],
        redact: Callable[[str], str],
        clock: Clock,
    ) -> None:
        """`on_log` takes lines of the activation's log, `count` counts a fetch that would be denied.

        `redact` takes out secrets: a host's name may hold one.
        """
        self._request = request
        self._on_log = on_log
        self._count = count
        self._redact = redact
        self._clock = clock
        self._hosts: set[str] = set()

    def __call__(self, host: str) -> None:
        """Note a fetch from a host that the capabilities do not name."""
        self._count()
        if host in self._hosts or len(self._hosts) >= HOSTS_MAX:
            return
        self._hosts.add(host)
        told = self._redact(host)
        message = f"[egress] capability http does not name host {told!r}: it would be denied if it were enforced"
        self._on_log(LogEntry(time=to_timestamp(self._clock.now()), level=LOG_LEVEL_WARN, message=message))
        function = self._request.function
        _log.warning(
            "a fetch would be denied",
            tenant=function.tenant,
            function=f"{function.namespace}/{function.function}",
            version=function.version,
            activation_id=self._request.activation_id,
            host=told,
        )
