"""The tasks that this process is to answer: from receipt, or adoption, to the answer.

Theory of operation. A task is recorded with its owner before its activation is submitted, so whatever dies, somebody
finds it and answers. A task whose record is there without its activation was cut off in between: it is refused when it
is adopted, and not run, because nobody has its input any more. The activation's id follows from the task's token, so a
task that is delivered again, or recorded again because the store was away, meets the activation that is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import structlog
from cadence.api.v1.service_worker_pb2 import PollForActivityTaskResponse
from codesous.control.v1.worker_binding_pb2 import WorkerBinding
from codesous.queue.v1.envelope_pb2 import Lane
from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.storage.v1.worker_binding_pb2 import CadenceTaskRecord
from codesous.type.v1.invocation_error_pb2 import InvocationError

from cs_core.cancellation import Cancellation
from cs_core.clock import Clock, from_timestamp
from cs_core.errors import UnavailableError
from cs_core.store.activations import ActivationStore
from cs_core.store.cadence_tasks import CadenceTaskStore
from cs_core.submission import Submitter
from cs_core.waiters import Waiters

from .answers import answer_of, refuse
from .frontend import Frontend
from .heartbeats import Heartbeats, Pulse
from .intake import Intake, Received, activation_id_of
from .metrics import Metrics
from .persistence import insist
from .responder import Responder

_log = structlog.get_logger(__name__)
_LOST = timedelta(minutes=5)
"""An activation that has not ended this long after its deadline never will: its message is gone."""
_RECORD = 3.0
"""Seconds that a process that drains has to record what it received."""
Release = Callable[[], None]


class Tasks:
    """Answers tasks, each in a task of the event loop of its own."""

    def __init__(
        self,
        intake: Intake,
        store: CadenceTaskStore,
        activations: ActivationStore,
        submitter: Submitter,
        waiters: Waiters,
        cancellation: Cancellation,
        responder: Responder,
        frontend: Frontend,
        heartbeats: Heartbeats,
        clock: Clock,
        metrics: Metrics,
        heartbeat_interval: float,
    ) -> None:
        self._intake = intake
        self._store = store
        self._activations = activations
        self._submitter = submitter
        self._waiters = waiters
        self._cancellation = cancellation
        self._responder = responder
        self._frontend = frontend
        self._heartbeats = heartbeats
        self._clock = clock
        self._metrics = metrics
        self._interval = heartbeat_interval
        self._work: set[asyncio.Task[None]] = set()
        self._recording: set[asyncio.Task[CadenceTaskRecord]] = set()

    @property
    def count(self) -> int:
        """Tasks that are to be answered."""
        return len(self._work)

    def receive(self, binding: WorkerBinding, task: PollForActivityTaskResponse, release: Release) -> None:
        """Answer a task that a poll brought; `release` is called when that is over."""
        self._metrics.count_task("received")
        self._spawn(self._receive(binding, task), release)

    def adopt(self, record: CadenceTaskRecord, release: Release) -> None:
        """Answer a task of an instance that is gone; `release` is called when that is over."""
        self._metrics.count_task("adopted")
        self._spawn(self._adopt(record), release)

    async def drain(self, grace: float) -> None:
        """Let tasks end for `grace` seconds; those that are left are another instance's to answer."""
        if self._work:
            await asyncio.wait(self._work, timeout=grace)
            # Others can answer only what is recorded.
            if self._recording:
                await asyncio.wait(set(self._recording), timeout=_RECORD)
            left = set(self._work)
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None], release: Release) -> None:
        task = asyncio.create_task(self._guard(work))
        self._work.add(task)
        self._metrics.set_inflight(len(self._work))

        def done(finished: asyncio.Task[None]) -> None:
            self._work.discard(finished)
            self._metrics.set_inflight(len(self._work))
            release()

        task.add_done_callback(done)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        began = self._clock.monotonic()
        try:
            await work
        except Exception:  # noqa: BLE001 - one task must not end the process
            _log.exception("a task was not answered: a fault of the poller")
        else:
            self._metrics.observe_task(self._clock.monotonic() - began)

    async def _receive(self, binding: WorkerBinding, task: PollForActivityTaskResponse) -> None:
        with self._waiters.expect(binding.tenant, activation_id_of(binding.tenant, task.task_token)) as future:
            # On its own: a process that drains waits for it, and gives the rest up.
            recording = asyncio.create_task(self._record(binding, task))
            self._recording.add(recording)
            recording.add_done_callback(self._recording.discard)
            try:
                record = await asyncio.shield(recording)
            except UnavailableError as error:
                self._metrics.count_task("lost")
                _log.warning("a task was left to Cadence's retries: the store is away", error=error.message)
                return
            await self._finish(record, future)

    async def _record(self, binding: WorkerBinding, task: PollForActivityTaskResponse) -> CadenceTaskRecord:
        """Make a task durable. Raises UnavailableError when the store is away until Cadence gives it up."""
        until = self._clock.now() + task.start_to_close_timeout.ToTimedelta()
        received = await insist(lambda: self._intake.receive(binding, task), self._clock, until)
        await insist(lambda: self._store_received(received), self._clock, until)
        return received.record

    async def _store_received(self, received: Received) -> None:
        record, request = received.record, received.request
        await self._store.take(record)
        if request is None:
            return
        # All requests of this id are the same, and a message too many is harmless: record and message in one pipeline.
        digest = request.activation_id.encode()
        await self._submitter.submit(request, digest, lane=Lane.LANE_BACKGROUND, repeatable=False)

    async def _adopt(self, record: CadenceTaskRecord) -> None:
        until = from_timestamp(record.expire_time) + _LOST
        if not record.HasField("refusal"):
            found = await insist(lambda: self._activations.get(record.tenant, record.activation_id), self._clock, until)
            if found is None:
                message = "the poller that received the task died before it was accepted; it was not run"
                record.refusal.CopyFrom(InvocationError(reason="CS_RUNTIME_CRASH", message=message))
        with self._waiters.expect(record.tenant, record.activation_id) as future:
            await self._finish(record, future)

    async def _finish(self, record: CadenceTaskRecord, future: asyncio.Future[InvocationResult]) -> None:
        if record.HasField("refusal"):
            await self._responder.give(record, refuse(record.refusal))
            return
        gone = asyncio.Event()
        try:
            result = await self._wait(record, future, gone)
        except TimeoutError:
            _log.error("an activation did not end", activation_id=record.activation_id, tenant=record.tenant)
            self._metrics.count_answer("given_up")
            await self._responder.forget(record)
            return
        if gone.is_set():
            self._metrics.count_answer("gone")
            await self._responder.forget(record)
            return
        await self._responder.give(record, answer_of(record, result))

    async def _wait(
        self, record: CadenceTaskRecord, future: asyncio.Future[InvocationResult], gone: asyncio.Event
    ) -> InvocationResult:
        """Wait for the result, forwarding heartbeats meanwhile; `gone` is set when Cadence has given the task up."""

        async def on_cancel() -> None:
            record.cancel_requested = True
            await self._cancel(record, "cancelled by Cadence")

        async def on_gone() -> None:
            gone.set()
            await self._cancel(record, "Cadence gave the task up")

        async def send(details: bytes) -> bool:
            return await self._frontend.heartbeat(record.task_token, details, record.identity)

        pulse = Pulse(send, self._interval, on_cancel, on_gone, self._metrics)
        beating = asyncio.create_task(pulse.run())
        self._heartbeats.add(record.tenant, record.activation_id, pulse)
        try:
            left = from_timestamp(record.expire_time) + _LOST - self._clock.now()
            async with asyncio.timeout(max(left.total_seconds(), 1.0)):
                return await future
        finally:
            self._heartbeats.remove(record.tenant, record.activation_id, pulse)
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _cancel(self, record: CadenceTaskRecord, message: str) -> None:
        async def step() -> None:
            # Recorded first: whoever answers must know that it was Cadence who asked.
            await self._store.update(record)
            await self._cancellation.cancel(record.tenant, record.activation_id, message)

        try:
            await insist(step, self._clock, from_timestamp(record.expire_time))
        except UnavailableError as error:
            _log.warning("an activation was not cancelled", activation_id=record.activation_id, error=error.message)
