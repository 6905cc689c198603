"""The log lines of one run that are not stored yet, and how many are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesous.type.v1.log_entry_pb2 import LogEntry


@dataclass(frozen=True, slots=True)
class RunLogs:
    """Lines of a run from number `offset` on (0 is its first). The store drops those that it has already."""

    offset: int = 0
    lines: Sequence[LogEntry] = ()

    def arguments(self) -> list[int | bytes]:
        """As the scripts take them."""
        return [self.offset, *(line.SerializeToString() for line in self.lines)]


NO_LOGS = RunLogs()
