"""One look at the processes: who is ready, what each has done so far, what waits, which cells there are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.load_pb2 import Load
from codesous.admin.v1.process_pb2 import Cell

from cs_cli.admin import Admin
from cs_cli.failure import CommandError
from cs_cli.processes import Target

_ANSWERS_IN: Final = 2.0
TOPIC: Final = "cs.invoke"


@dataclass(frozen=True, slots=True)
class Seen:
    """One process; `load` is None when it did not answer, and `error` says why."""

    name: str
    state: str
    error: str = ""
    load: Load | None = None
    cells: Sequence[Cell] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of them at one moment, by the monotonic clock; `queue` is None when nobody could tell."""

    taken: float
    processes: Sequence[Seen]
    queue: pb.GetQueueDepthResponse | None
    wall: float = field(default_factory=time.time)


class Eyes:
    """Looks at processes through channels that stay open. Close it at the end."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = list(targets)
        self._admins = [Admin(target.address) for target in targets]
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(targets)))

    def close(self) -> None:
        """Let go of the channels."""
        self._pool.shutdown(cancel_futures=True)
        for admin in self._admins:
            admin.__exit__(None, None, None)

    def look(self) -> Snapshot:
        """Look once; whoever does not answer in time is missing."""
        looks = [
            self._pool.submit(_look, target, admin) for target, admin in zip(self._targets, self._admins, strict=True)
        ]
        processes = [look.result() for look in looks]
        queue = self._first(lambda stub: stub.GetQueueDepth, pb.GetQueueDepthRequest(topic=TOPIC))
        return Snapshot(time.monotonic(), processes, queue)

    def _first(self, question: Any, request: Any) -> Any:
        """The answer of the first that has one; None when nobody has."""
        asked: list[Future[Any]] = [
            self._pool.submit(admin.call, question(admin.service), request, _ANSWERS_IN) for admin in self._admins
        ]
        for each in asked:
            if each.exception() is None:
                return each.result()
        return None


def _look(target: Target, admin: Admin) -> Seen:
    stub = admin.service
    try:
        readiness = admin.call(stub.GetReadiness, pb.GetReadinessRequest(), _ANSWERS_IN)
        load = admin.call(stub.GetLoad, pb.GetLoadRequest(), _ANSWERS_IN).load
        name = target.name
        if name == target.address:
            name = admin.call(stub.GetInfo, pb.GetInfoRequest(), _ANSWERS_IN).info.service
    except CommandError as error:
        return Seen(target.name, "missing", error.message)
    state = "ready" if readiness.ready else "drained" if readiness.draining else "not_serving"
    wrong = "; ".join(f"{check.name}: {check.message}" for check in readiness.checks if not check.ready)
    return Seen(name, state, wrong, load, _cells(admin))


def _cells(admin: Admin) -> Sequence[Cell]:
    try:
        cells: Sequence[Cell] = admin.call(admin.service.ListCells, pb.ListCellsRequest(), _ANSWERS_IN).cells
    except CommandError:
        return ()
    return cells
