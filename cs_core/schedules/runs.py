"""From a tick to an activation: who may run what, the request, and its submission."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from codesous.control.v1.schedule_pb2 import Schedule
from codesous.control.v1.version_pb2 import Version
from codesous.queue.v1.envelope_pb2 import Lane
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.invocation_error_pb2 import InvocationError
from codesous.type.v1.trigger_pb2 import ScheduleTrigger, Trigger

from cs_core import ids
from cs_core.clock import Clock, to_timestamp
from cs_core.config import LimitSettings
from cs_core.errors import ConflictError, LimitError
from cs_core.iam.allow import check_allowlist
from cs_core.schedules.rule import from_ms
from cs_core.store.activations import ActivationStore
from cs_core.store.resolve import Resolver
from cs_core.submission import Submitter
from cs_core.trace_context import TraceContext, new_trace

_RETRY_AFTER = timedelta(seconds=1)
_T = TypeVar("_T")


def activation_of(schedule: Schedule, tick: int) -> str:
    """The id of a tick's activation: always the same, so that a repeat of the tick is the same activation."""
    return ids.activation_id_from(schedule.tenant, "tick", schedule.uid, str(tick))


class Runs:
    """Runs what schedules ask for, as the principals that created them."""

    def __init__(
        self,
        resolver: Resolver,
        activations: ActivationStore,
        submitter: Submitter,
        limits: LimitSettings,
        clock: Clock,
        start_trace: Callable[[], TraceContext] = new_trace,
    ) -> None:
        self._resolver = resolver
        self._activations = activations
        self._submitter = submitter
        self._limits = limits
        self._clock = clock
        self._start_trace = start_trace
        self._lookups: dict[tuple[str, ...], asyncio.Task[Any]] = {}

    async def admit(self, schedule: Schedule) -> Version:
        """Find the version that a schedule means now, and check that its principal may invoke it.

        Raises:
            NotFoundError: no such function, alias or version.
            AuthorizationError: no role of the principal is on the version's list (`CS_AUTHZ_ROLE_MISSING`).
            LimitError: the tenant has as many activations in flight as it may (`CS_TENANT_INFLIGHT_LIMIT`).
        """
        action = schedule.action
        target = (schedule.tenant, schedule.namespace, action.function, action.ref)
        version, inflight = await asyncio.gather(
            self._once(target, lambda: self._resolver.resolve(*target)),
            self._once((schedule.tenant,), lambda: self._activations.count_open(schedule.tenant)),
        )
        check_allowlist(version.config, "schedule", schedule.principal)
        if inflight >= self._limits.tenant_inflight:
            raise LimitError(
                "CS_TENANT_INFLIGHT_LIMIT",
                f"tenant {schedule.tenant} has {inflight} activations in flight; the limit is"
                f" {self._limits.tenant_inflight}",
                _RETRY_AFTER,
            )
        return version

    async def _once(self, key: tuple[str, ...], look_up: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Look something up, together with whoever is looking the same up: ticks that are due at once ask the same."""
        task = self._lookups.get(key)
        if task is None:
            task = self._lookups[key] = asyncio.create_task(look_up())
            task.add_done_callback(lambda _: self._lookups.pop(key))
        found: _T = await asyncio.shield(task)
        return found

    async def is_open(self, schedule: Schedule, activation_id: str) -> bool:
        """Whether an activation of a schedule goes on. Its record tells: a result that got lost holds nothing."""
        return await self._activations.is_open(schedule.tenant, activation_id)

    async def publish_tick(self, schedule: Schedule, version: Version, tick: int, due_ms: int) -> str:
        """Publish a tick; again, it is the same activation. Returns its id. Raises UnavailableError."""
        request = self._request(schedule, version.version, activation_of(schedule, tick), tick, due_ms)
        digest = _digest(request)
        await self._submitter.submit(request, digest, lane=Lane.LANE_BACKGROUND, repeatable=True)
        return request.activation_id

    async def publish_now(self, schedule: Schedule, version: Version, request_id: str) -> str:
        """Run a schedule's action beside its ticks; returns the activation's id. Raises UnavailableError."""
        now = int(self._clock.now().timestamp() * 1000)
        request = self._request(schedule, version.version, ids.activation_id(), 0, now)
        request.request_id = request_id
        await self._submitter.submit(request, _digest(request), lane=Lane.LANE_BACKGROUND, repeatable=False)
        return request.activation_id

    async def withhold_tick(self, schedule: Schedule, tick: int, due_ms: int) -> bool:
        """Make sure that a tick which may have been published runs only if it was; returns whether it was.

        One that was not gets a record that has ended, so that a leader which wakes up late publishes nothing that runs.
        """
        request = self._request(schedule, 0, activation_of(schedule, tick), tick, due_ms)
        try:
            await self._activations.submit(
                request, hashlib.sha256(f"withheld/{request.activation_id}".encode()).digest()
            )
        except ConflictError:
            return True
        await self._activations.finish(
            InvocationResult(
                request_id=request.request_id,
                activation_id=request.activation_id,
                tenant=schedule.tenant,
                status=ActivationStatus.ACTIVATION_STATUS_CANCELLED,
                error=InvocationError(
                    reason="CS_RUNTIME_CANCELLED", message="the schedule was changed before the tick was published"
                ),
                end_time=to_timestamp(self._clock.now()),
            ),
            owner="",
        )
        return False

    def _request(
        self, schedule: Schedule, version: int, activation_id: str, tick: int, due_ms: int
    ) -> InvocationRequest:
        now = self._clock.now()
        action = schedule.action
        return InvocationRequest(
            request_id=ids.request_id(),
            activation_id=activation_id,
            function=FunctionRef(
                tenant=schedule.tenant,
                namespace=schedule.namespace,
                function=action.function,
                version=version,
                ref=action.ref,
            ),
            trigger=Trigger(
                schedule=ScheduleTrigger(
                    schedule=schedule.schedule,
                    schedule_uid=schedule.uid,
                    tick=tick,
                    due_time=to_timestamp(from_ms(due_ms)),
                )
            ),
            principal=schedule.principal,
            event=action.payload_json or b"null",
            accept_time=to_timestamp(now),
            deadline=to_timestamp(now + timedelta(seconds=self._limits.async_age)),
            traceparent=self._start_trace().traceparent,
        )


def _digest(request: InvocationRequest) -> bytes:
    # Of what makes a repeat a repeat: the schedule may have got another payload in between.
    return hashlib.sha256(request.activation_id.encode()).digest()
