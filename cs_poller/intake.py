"""From a task that Cadence gave to what answers it: an activation, or a refusal that says why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cadence.api.v1.service_worker_pb2 import PollForActivityTaskResponse
from codesous.control.v1.worker_binding_pb2 import WorkerBinding
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.storage.v1.worker_binding_pb2 import CadenceTaskRecord
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.invocation_error_pb2 import InvocationError
from codesous.type.v1.trigger_pb2 import CadenceTrigger, Trigger

from cs_core import ids
from cs_core.clock import Clock, to_timestamp
from cs_core.config import LimitSettings
from cs_core.errors import CodeSousError, TooLargeError, UnavailableError
from cs_core.iam.allow import check_allowlist
from cs_core.store.resolve import Resolver
from cs_core.trace_context import TRACEPARENT, TRACESTATE, TraceContext, from_metadata, new_trace

from .codec import decode_input


@dataclass(frozen=True, slots=True)
class Received:
    """A task as it is recorded, and what is to run for it (None: the record says why nothing is)."""

    record: CadenceTaskRecord
    request: InvocationRequest | None


def activation_id_of(tenant: str, token: bytes) -> str:
    """The activation of a task: a task that is delivered again meets its own."""
    return ids.activation_id_from(tenant, "cadence", token.hex())


class Intake:
    """Reads tasks. `instance` is where results go."""

    def __init__(
        self,
        resolver: Resolver,
        limits: LimitSettings,
        clock: Clock,
        instance: str,
        start_trace: Callable[[], TraceContext] = new_trace,
    ) -> None:
        self._resolver = resolver
        self._limits = limits
        self._clock = clock
        self._instance = instance
        self._start_trace = start_trace

    async def receive(self, binding: WorkerBinding, task: PollForActivityTaskResponse) -> Received:
        """What becomes of a task. Raises UnavailableError when the store does not answer; then nothing became of it."""
        now = self._clock.now()
        expires = now + self._time_left(task)
        record = CadenceTaskRecord(
            tenant=binding.tenant,
            namespace=binding.namespace,
            worker=binding.worker,
            binding_uid=binding.uid,
            domain=binding.spec.domain,
            identity=binding.spec.worker_id,
            task_token=task.task_token,
            activation_id=activation_id_of(binding.tenant, task.task_token),
            codec=binding.spec.codec,
            activity_type=task.activity_type.name,
            expire_time=to_timestamp(expires),
        )
        try:
            return Received(record, await self._request(binding, task, record, now))
        except UnavailableError:
            raise
        except CodeSousError as error:
            record.refusal.CopyFrom(InvocationError(reason=error.reason, message=error.message))
            return Received(record, None)

    def _time_left(self, task: PollForActivityTaskResponse) -> timedelta:
        # Counted from now, by this clock: the server's may be another.
        limit = task.start_to_close_timeout.ToTimedelta()
        return limit if limit > timedelta(0) else timedelta(seconds=self._limits.async_age)

    async def _request(
        self, binding: WorkerBinding, task: PollForActivityTaskResponse, record: CadenceTaskRecord, now: datetime
    ) -> InvocationRequest:
        activity = task.activity_type.name
        if activity not in binding.spec.activities:
            mapped = ", ".join(sorted(binding.spec.activities)[:20])
            raise CodeSousError(
                "CS_CADENCE_ACTIVITY_UNMAPPED",
                f"worker binding {binding.namespace}/{binding.worker} maps no function to activity type"
                f" {activity[:256]!r}; it maps {mapped}",
            )
        target = binding.spec.activities[activity]
        version = await self._resolver.resolve(binding.tenant, binding.namespace, target.function, target.ref)
        check_allowlist(version.config, "cadence", binding.principal)
        event = decode_input(task.input.data, binding.spec.codec)
        if len(event) > self._limits.http_body_bytes:
            raise TooLargeError(f"the input is {len(event)} bytes; the limit is {self._limits.http_body_bytes}")
        trace = trace_of(task) or self._start_trace()
        return InvocationRequest(
            request_id=ids.request_id(),
            activation_id=record.activation_id,
            function=FunctionRef(
                tenant=binding.tenant,
                namespace=binding.namespace,
                function=target.function,
                version=version.version,
                ref=target.ref,
            ),
            trigger=Trigger(
                cadence=CadenceTrigger(
                    worker=binding.worker,
                    domain=binding.spec.domain,
                    workflow_id=task.workflow_execution.workflow_id,
                    run_id=task.workflow_execution.run_id,
                    activity_id=task.activity_id,
                    activity_type=activity,
                    attempt=task.attempt,
                )
            ),
            principal=binding.principal,
            event=event,
            accept_time=to_timestamp(now),
            deadline=record.expire_time,
            reply_to=self._instance,
            traceparent=trace.traceparent,
            tracestate=trace.state,
        )


def trace_of(task: PollForActivityTaskResponse) -> TraceContext | None:
    """The trace that the workflow handed on in the activity's header, in the fields of W3C's names; None: none."""
    fields = task.header.fields
    given = [(name, fields[name].data) for name in (TRACEPARENT, TRACESTATE) if name in fields]
    return from_metadata([(name, data.decode("ascii", "replace").strip('"')) for name, data in given])
