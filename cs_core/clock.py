"""The clock that is passed in, and time at the edge of protobuf."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Wall clock, UTC, aware."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Wall clock, UTC, aware."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        return time.monotonic()


class ManualClock:
    """A clock that only moves when told."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Wall clock, UTC, aware."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._monotonic

    def advance(self, by: timedelta) -> None:
        """Move both readings forward."""
        self._now += by
        self._monotonic += by.total_seconds()

    def step(self, by: timedelta) -> None:
        """Set the wall clock, as a correction of the machine's does: the monotonic reading stays."""
        self._now += by


def to_timestamp(moment: datetime) -> Timestamp:
    """Turn an aware datetime into protobuf time."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def from_timestamp(stamp: Timestamp) -> datetime:
    """Turn protobuf time into an aware datetime in UTC, to the microsecond."""
    return stamp.ToDatetime(tzinfo=UTC)
