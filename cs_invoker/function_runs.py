"""Counts runs by function, for those who ask which functions keep this process busy."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from codesous.admin.v1.load_pb2 import FunctionLoad
from codesous.type.v1.function_ref_pb2 import FunctionRef

FUNCTIONS_MAX: Final = 1_000


@dataclass(slots=True)
class _Count:
    runs: int = 0
    seconds: float = 0.0
    live: int = 0


class FunctionRuns:
    """Runs that ended, their time together, and those that go on. The functions that ran longest ago are forgotten."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str, str], _Count] = OrderedDict()

    @contextmanager
    def run(self, ref: FunctionRef) -> Iterator[None]:
        """Count a run for the length of the block."""
        key = (ref.tenant, ref.namespace, ref.function)
        count = self._counts.setdefault(key, _Count())
        self._counts.move_to_end(key)
        if len(self._counts) > FUNCTIONS_MAX:
            self._counts.popitem(last=False)
        count.live += 1
        started = time.monotonic()
        try:
            yield
        finally:
            count.live -= 1
            count.runs += 1
            count.seconds += time.monotonic() - started

    def loads(self) -> list[FunctionLoad]:
        """What was counted, most runs first."""
        loads = []
        for (tenant, namespace, function), count in self._counts.items():
            load = FunctionLoad(
                tenant=tenant, namespace=namespace, function=function, runs=count.runs, live_runs=count.live
            )
            load.duration.FromMicroseconds(int(count.seconds * 1_000_000))
            loads.append(load)
        return sorted(loads, key=lambda load: (-load.runs, load.tenant, load.namespace, load.function))
