"""Runs one activation in a cell: loads its version and its code, makes the job, turns the outcome into a result.

Whatever goes wrong here that running again would not cure becomes a result: a version or a bundle that is gone, code
that the sandbox refuses, a fault of ours. Only a store that is away and a sandbox that cannot run anything are
raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog
from codesous.control.v1.version_pb2 import Version
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.runtime.v1.version_config_pb2 import VersionConfig
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.log_entry_pb2 import LogEntry

from cs_core.clock import Clock, to_timestamp
from cs_core.errors import UnavailableError
from cs_sandbox.job import Bundle, HostCalls, Job, Outcome, SandboxError

from . import results
from .code import CodeMissingError
from .host_calls import ActivationHost
from .interruption import Cancellation, Interruption
from .job import deadline_of, expired, make_job

_log = structlog.get_logger(__name__)


class Cells(Protocol):
    """Runs jobs: the sandbox's pool."""

    async def run(self, job: Job, host: HostCalls, on_log: Callable[[LogEntry], None] | None = None) -> Outcome:
        """Run to the end, after a wait for a free cell. Raises SandboxError when nothing was run."""
        ...


class Code(Protocol):
    """Finds what a request runs."""

    async def version(self, ref: FunctionRef) -> Version:
        """The version. Raises CodeMissingError and UnavailableError."""
        ...

    async def bundle(self, version: Version) -> Bundle:
        """A version's code. Raises CodeMissingError and UnavailableError."""
        ...


OnLog = Callable[[LogEntry], None]
OpenHost = Callable[[InvocationRequest, VersionConfig, OnLog], ActivationHost]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended."""

    result: InvocationResult
    crashed: bool = False
    """Whether the cell died: the run may be begun again."""
    bystander: bool = False
    """Whether another run of its cell is to blame: it is begun again, and does not count as a crash of its own."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs activations in cells."""

    code: Code
    cells: Cells
    open_host: OpenHost
    clock: Clock
    sizes: results.Sizes
    on_cold_start: Callable[[], None]

    async def find(self, ref: FunctionRef) -> Version | None:
        """The version that a request names; None when it is not there. Raises UnavailableError."""
        try:
            return await self.code.version(ref)
        except CodeMissingError:
            return None

    async def run(
        self, request: InvocationRequest, attempt: int, cancel: Cancellation, on_log: OnLog, *, alone: bool = False
    ) -> Ran:
        """Run the activation once; `alone`: in a cell that runs nothing else meanwhile.

        Raises UnavailableError and SandboxError, when nothing was run.
        """
        try:
            version = await self.code.version(request.function)
            bundle = await self.code.bundle(version)
            return await self._run(request, version, bundle, attempt, cancel, on_log, alone)
        except CodeMissingError as error:
            return self._failure(request, error.reason, str(error), attempt)
        except (UnavailableError, SandboxError):
            raise
        except Exception:  # noqa: BLE001 - one activation must not end the process
            _log.exception("the activation could not be run")
            return self._failure(request, results.REASON_INTERNAL, "a fault of the platform", attempt)

    async def _run(
        self,
        request: InvocationRequest,
        version: Version,
        bundle: Bundle,
        attempt: int,
        cancel: Cancellation,
        on_log: OnLog,
        alone: bool,
    ) -> Ran:
        now = self.clock.now()
        if expired(request, now):
            return self._failure(request, results.REASON_TIMEOUT, "the deadline passed before the run began", attempt)
        job = make_job(request, version, bundle, attempt=attempt, now=now, sizes=self.sizes, alone=alone)
        host = self.open_host(request, version.config, on_log)
        deadline = deadline_of(request)
        # The wait for a free cell does not count against the function's time, but it does against the deadline.
        try:
            with Interruption() as running, cancel.telling(running.interrupt), _at(deadline, now, running.interrupt):
                outcome = await self.cells.run(job, host, lambda line: on_log(host.redactor.log(line)))
        finally:
            await host.close()
        if not running.interrupted:
            ran = self._of_outcome(request, host.redactor.outcome(outcome), attempt)
            host.timeline.write(ran.result)
            return ran
        if cancel.is_set():
            reason, message = results.REASON_CANCELLED, "the activation was cancelled"
        else:
            reason, message = results.REASON_TIMEOUT, "the deadline passed before the function returned"
        result = results.of_failure(request, reason, message, now=self.clock.now(), attempt=attempt)
        result.start_time.CopyFrom(to_timestamp(now))
        host.timeline.write(result)
        return Ran(result)

    def _of_outcome(self, request: InvocationRequest, outcome: Outcome, attempt: int) -> Ran:
        if outcome.cold:
            self.on_cold_start()
        result = results.of_outcome(request, outcome, attempt, self.sizes)
        crashed = result.error.reason == results.REASON_CRASH and result.error.retryable
        return Ran(result, crashed=crashed and not outcome.bystander, bystander=outcome.bystander)

    def _failure(self, request: InvocationRequest, reason: str, message: str, attempt: int) -> Ran:
        now = self.clock.now()
        return Ran(results.of_failure(request, reason, message, now=now, attempt=attempt))


@contextmanager
def _at(deadline: datetime | None, now: datetime, act: Callable[[], None]) -> Iterator[None]:
    """Do something when a deadline comes within the block."""
    if deadline is None:
        yield
        return
    clock = asyncio.get_running_loop().call_later((deadline - now).total_seconds(), act)
    try:
        yield
    finally:
        clock.cancel()
