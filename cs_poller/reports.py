"""Telling how this process fares with each binding: in the store, for those who look at a binding, and in metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from codesous.control.v1.worker_binding_pb2 import WorkerBinding
from codesous.storage.v1.worker_binding_pb2 import WorkerBindingReport

from cs_core.clock import Clock, to_timestamp
from cs_core.errors import UnavailableError
from cs_core.store.worker_reports import LIFE, WorkerReportStore

from .group import Group
from .metrics import Metrics

_log = structlog.get_logger(__name__)
EVERY = LIFE / 3


class Reports:
    """Reports on the groups of this process: when one turns, and again and again."""

    def __init__(
        self,
        store: WorkerReportStore,
        groups: Callable[[], Sequence[Group]],
        instance: str,
        clock: Clock,
        metrics: Metrics,
        every: timedelta = EVERY,
    ) -> None:
        self._store = store
        self._groups = groups
        self._instance = instance
        self._clock = clock
        self._metrics = metrics
        self._every = every.total_seconds()
        self._turned = asyncio.Event()
        self._told: dict[str, WorkerBinding] = {}

    def turn(self) -> None:
        """Report soon: something turned."""
        self._turned.set()

    async def run(self) -> None:
        """Report until cancelled, then take all reports back."""
        try:
            while True:
                self._turned.clear()
                await self._report()
                try:
                    async with asyncio.timeout(self._every):
                        await self._turned.wait()
                except TimeoutError:
                    pass
        finally:
            await self._take_back(list(self._told.values()))

    async def _report(self) -> None:
        groups = {group.binding.uid: group for group in self._groups() if group.serving and group.known}
        failing = sum(1 for group in groups.values() if group.failure)
        self._metrics.set_bindings(len(groups) - failing, failing)
        ended = [binding for uid, binding in self._told.items() if uid not in groups]
        now = to_timestamp(self._clock.now())
        self._told = {uid: group.binding for uid, group in groups.items()}
        await self._take_back(ended)
        try:
            await asyncio.gather(
                *(
                    self._store.give(
                        group.binding, self._instance, WorkerBindingReport(uid=uid, failure=group.failure, time=now)
                    )
                    for uid, group in groups.items()
                )
            )
        except UnavailableError as error:
            _log.info("did not report on worker bindings", error=error.message)

    async def _take_back(self, bindings: Sequence[WorkerBinding]) -> None:
        try:
            await asyncio.gather(*(self._store.take_back(binding, self._instance) for binding in bindings))
        except UnavailableError:
            # They end by themselves.
            _log.debug("did not take reports back")
