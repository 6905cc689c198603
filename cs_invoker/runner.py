"""Runs one activation in a cell: loads its version and its code, makes the job, turns the outcome into a result.

Whatever goes wrong here that running again would not cure becomes a result: a version or a bundle that is gone, code that the
sandbox refuses, a fault of ours. Only a store that is away and a sandbox that cannot run anything are raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from codesous.control.v1.version_pb2 import Version
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.type.v1.capabilities_pb2 import Capabilities
from codesous.type.v1.log_entry_pb2 import LogEntry
from cs_core.clock import Clock
from cs_core.errors import UnavailableError
from cs_sandbox.job import Bundle, HostCalls, Job, Outcome, SandboxError

from . import results
from .code import CodeMissingError
from .job import expired, make_job

_log = structlog.get_logger(__name__)


class Cells(Protocol):
    """Runs jobs: the sandbox's pool."""

    async def run(self, job: Job, host: HostCalls, *, cancel: asyncio.Event | None = None) -> Outcome:
        """Run to the end. Raises SandboxError when nothing was run."""
        ...


class Code(Protocol):
    """Finds what a request runs."""

    async def load(self, request: InvocationRequest) -> tuple[Version, Bundle]:
        """The version and its code. Raises CodeMissingError and UnavailableError."""
        ...


MakeHostCalls = Callable[[InvocationRequest, Capabilities], HostCalls]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended."""

    result: InvocationResult
    logs: Sequence[LogEntry]
    crashed: bool = False
    """Whether the cell died: the run may be begun again."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs activations in cells."""

    code: Code
    cells: Cells
    host_calls: MakeHostCalls
    clock: Clock
    sizes: results.Sizes
    on_cold_start: Callable[[], None]

    async def run(self, request: InvocationRequest, attempt: int, cancel: asyncio.Event) -> Ran:
        """Run the activation once. Raises UnavailableError and SandboxError, when nothing was run."""
        try:
            version, bundle = await self.code.load(request)
            return await self._run(request, version, bundle, attempt, cancel)
        except CodeMissingError as error:
            return self._failure(request, error.reason, str(error), attempt)
        except (UnavailableError, SandboxError):
            raise
        except Exception:
            _log.exception("the activation could not be run")
            return self._failure(request, results.REASON_INTERNAL, "a fault of the platform", attempt)

    async def _run(
        self, request: InvocationRequest, version: Version, bundle: Bundle, attempt: int, cancel: asyncio.Event
    ) -> Ran:
        now = self.clock.now()
        if expired(request, now):
            return self._failure(request, results.REASON_TIMEOUT, "the deadline passed before the run began", attempt)
        job = make_job(request, version, bundle, attempt=attempt, now=now, sizes=self.sizes)
        outcome = await self.cells.run(job, self.host_calls(request, version.config.capabilities), cancel=cancel)
        if outcome.cold:
            self.on_cold_start()
        result = results.of_outcome(request, outcome, attempt, self.sizes)
        logs = results.fit_logs(outcome.logs, attempt, self.sizes.log)
        return Ran(result, logs, crashed=result.error.reason == results.REASON_CRASH)

    def _failure(self, request: InvocationRequest, reason: str, message: str, attempt: int) -> Ran:
        now = self.clock.now()
        return Ran(results.of_failure(request, reason, message, now=now, attempt=attempt), ())
