"""The client of a measurement: so many calls, so many at a time, and the time that each took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles

Call = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: seconds of each call, and of the whole."""

    latencies: Sequence[float]
    elapsed: float

    @property
    def rate(self) -> float:
        """Calls per second."""
        return len(self.latencies) / self.elapsed

    def percentile(self, percent: int) -> float:
        """Seconds within which so many percent of the calls were done."""
        return quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


async def drive(call: Call, *, count: int, at_once: int) -> Sample:
    """Make `count` calls by `at_once` callers, each of whom waits for one answer before the next call."""
    latencies: list[float] = []
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    return Sample(latencies, time.perf_counter() - began)
