"""What an activation's record tells of its host calls: which, when, how long, and how they ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.type.v1.host_call_pb2 import HostCall

from cs_core.clock import Clock, from_timestamp

HOST_CALLS_KEPT: Final = 64
"""Host calls of one run that its record tells."""


class HostTimeline:
    """The host calls of one run, in the order in which they began. Implements the sandbox's CallObserver."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: list[tuple[datetime, HostCall]] = []
        self._left_out = 0

    def started(self, method: str) -> Callable[[str], None]:
        """Note the start of a call; the answer is told how it ended: nothing, or the reason of its error."""
        if len(self._begun) >= HOST_CALLS_KEPT:
            self._left_out += 1
            return _ignore
        call, began = HostCall(method=method), time.perf_counter()
        self._begun.append((self._clock.now(), call))

        def ended(reason: str) -> None:
            call.duration.FromTimedelta(timedelta(seconds=time.perf_counter() - began))
            call.reason = reason

        return ended

    def write(self, result: InvocationResult) -> None:
        """Put the calls into the result of the run."""
        if not self._begun:
            return
        start = from_timestamp(result.start_time) if result.HasField("start_time") else self._begun[0][0]
        for began, call in self._begun:
            call.offset.FromTimedelta(max(began - start, timedelta(0)))
        result.host_calls.extend([call for _, call in self._begun])
        result.host_calls_left_out = self._left_out


def _ignore(_reason: str) -> None:
    """Of a call that is left out."""
