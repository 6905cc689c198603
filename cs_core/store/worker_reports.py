"""What pollers report of worker bindings: whether their polls succeed. Reports are no changes and live for seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from codesous.control.v1.worker_binding_pb2 import WorkerBinding
from codesous.storage.v1.worker_binding_pb2 import WorkerBindingReport

from cs_core.clock import Clock, from_timestamp
from cs_core.store import keys
from cs_core.store.client import KvClient

LIFE = timedelta(seconds=15)
"""A poller that is silent for this long does not count."""


class WorkerReportStore:
    """The reports on worker bindings. Methods raise UnavailableError."""

    def __init__(self, client: KvClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def give(self, binding: WorkerBinding, instance: str, report: WorkerBindingReport) -> None:
        """Say how an instance fares with a binding."""
        key = keys.worker_reports(binding.tenant, binding.namespace, binding.worker)
        await asyncio.gather(
            self._client.call("HSET", key, instance, report.SerializeToString()),
            self._client.call("EXPIRE", key, int(LIFE.total_seconds())),
        )

    async def take_back(self, binding: WorkerBinding, instance: str) -> None:
        """Say that an instance has nothing more to do with a binding."""
        await self._client.call(
            "HDEL", keys.worker_reports(binding.tenant, binding.namespace, binding.worker), instance
        )

    async def read(self, binding: WorkerBinding) -> Mapping[str, WorkerBindingReport]:
        """The reports on a binding that count, by instance."""
        stored = await self._client.call(
            "HGETALL", keys.worker_reports(binding.tenant, binding.namespace, binding.worker)
        )
        oldest = self._clock.now() - LIFE
        reports = {
            instance.decode(): WorkerBindingReport.FromString(report)
            for instance, report in zip(stored[::2], stored[1::2], strict=True)
        }
        return {
            instance: report
            for instance, report in reports.items()
            if report.uid == binding.uid and from_timestamp(report.time) >= oldest
        }
