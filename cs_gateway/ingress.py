"""Accepting requests: from who asks for what to a durable activation and a message in the queue.

How an accepted request is made durable, and what a repeat under an idempotency key meets, stands in
`cs_core.submission`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from codesous.control.v1.version_pb2 import Version
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.envelope_pb2 import Lane
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.invocation_error_pb2 import InvocationError
from codesous.type.v1.principal_pb2 import Principal
from codesous.type.v1.trigger_pb2 import Trigger

from cs_core import ids
from cs_core.clock import Clock, to_timestamp
from cs_core.codeq import Queue
from cs_core.config import LimitSettings
from cs_core.errors import LimitError, ValidationError
from cs_core.iam.allow import check_allowlist
from cs_core.names import Violations, check_function, check_namespace, parse_ref
from cs_core.store.activations import ActivationStore
from cs_core.store.resolve import Resolver
from cs_core.submission import Submitter
from cs_core.trace_context import TraceContext, trace_id_of
from cs_gateway.open_counts import OpenCounts

_KEY_CHARS = 256
_RETRY_AFTER = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to run, as the caller wrote it."""

    tenant: str
    namespace: str
    function: str
    ref: str


@dataclass(frozen=True, slots=True)
class Invocation:
    """One request to run a function.

    `digest` tells whether two requests under one idempotency key are the same; empty: the event's own.
    """

    target: Target
    principal: Principal
    request_id: str
    trigger: Trigger
    event: bytes
    trace: TraceContext
    asynchronous: bool = False
    idempotency_key: str = ""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An activation that is not accepted yet. `timeout` is the version's."""

    request: InvocationRequest
    timeout: timedelta
    digest: bytes
    lane: Lane.ValueType
    keyed: bool

    @property
    def tenant(self) -> str:
        """Tenant of the activation."""
        return self.request.function.tenant

    @property
    def activation_id(self) -> str:
        """Id of the activation."""
        return self.request.activation_id

    def queued(self) -> Activation:
        """The activation as it is accepted."""
        request = self.request
        return Activation(
            activation_id=request.activation_id,
            function=request.function,
            status=ActivationStatus.ACTIVATION_STATUS_QUEUED,
            trigger=request.trigger,
            principal=request.principal,
            request_id=request.request_id,
            accept_time=request.accept_time,
            trace_id=trace_id_of(request.traceparent),
        )


def check_target(target: Target) -> None:
    """Raise ValidationError unless every part is a name."""
    violations = Violations()
    violations.check(check_namespace, target.namespace, "namespace")
    violations.check(check_function, target.function, "function")
    violations.check(parse_ref, target.ref, "ref")
    violations.raise_if_any()


def check_idempotency_key(key: str) -> None:
    """Raise ValidationError unless the key is empty or 1 to 256 printable ASCII characters."""
    if len(key) > _KEY_CHARS or not key.isascii() or not (key.isprintable()):
        raise ValidationError.field("idempotency_key", f"must be 1 to {_KEY_CHARS} printable ASCII characters")


class Ingress:
    """Accepts invocations by HTTP and API."""

    def __init__(
        self,
        resolver: Resolver,
        activations: ActivationStore,
        queue: Queue,
        limits: LimitSettings,
        clock: Clock,
        instance: str,
    ) -> None:
        self._resolver = resolver
        self._activations = activations
        self._open_counts = OpenCounts(activations, clock)
        self._submitter = Submitter(activations, queue)
        self._limits = limits
        self._clock = clock
        self._instance = instance

    async def admit(self, target: Target, principal: Principal) -> Version:
        """Find the version that is meant, and check that the principal may invoke it.

        Raises:
            ValidationError: a name breaks its rule.
            NotFoundError: no such function, alias or version.
            AuthorizationError: no role of the principal is on the version's list (`CS_AUTHZ_ROLE_MISSING`).
            LimitError: the tenant has as many activations in flight as it may (`CS_TENANT_INFLIGHT_LIMIT`).
        """
        check_target(target)
        version = await self._resolver.resolve(target.tenant, target.namespace, target.function, target.ref)
        check_allowlist(version.config, "http", principal)
        inflight = await self._open_counts.at_limit(target.tenant, self._limits.tenant_inflight)
        if inflight:
            raise LimitError(
                "CS_TENANT_INFLIGHT_LIMIT",
                f"tenant {target.tenant} has {inflight} activations in flight; the limit is"
                f" {self._limits.tenant_inflight}",
                _RETRY_AFTER,
            )
        return version

    def prepare(self, invocation: Invocation, version: Version) -> Prepared:
        """Make the activation of an invocation, here only. Raises ValidationError on a bad idempotency key."""
        check_idempotency_key(invocation.idempotency_key)
        timeout = version.config.timeout.ToTimedelta()
        return Prepared(
            request=self._request(invocation, version, timeout, self._clock.now()),
            timeout=timeout,
            digest=invocation.digest or hashlib.sha256(invocation.event).digest(),
            lane=Lane.LANE_BACKGROUND if invocation.asynchronous else Lane.LANE_INTERACTIVE,
            keyed=bool(invocation.idempotency_key),
        )

    async def submit(self, prepared: Prepared) -> bool:
        """Make it durable: record and message. False: it met an activation that was there before.

        Raises:
            ConflictError: the idempotency key was used with another body (`CS_CONFLICT_IDEMPOTENCY`).
            UnavailableError: the store or the queue does not answer; whether it was accepted is then not known.
        """
        self._open_counts.add(prepared.tenant)
        return await self._submitter.submit(
            prepared.request, prepared.digest, lane=prepared.lane, repeatable=prepared.keyed
        )

    async def withdraw(self, prepared: Prepared) -> None:
        """End an activation as CANCELLED if it has not started; its caller went away."""
        await self._activations.finish(
            InvocationResult(
                request_id=prepared.request.request_id,
                activation_id=prepared.activation_id,
                tenant=prepared.tenant,
                status=ActivationStatus.ACTIVATION_STATUS_CANCELLED,
                error=InvocationError(reason="CS_RUNTIME_CANCELLED", message="the caller went away"),
                end_time=to_timestamp(self._clock.now()),
            ),
            owner="",
        )

    def _request(
        self, invocation: Invocation, version: Version, timeout: timedelta, now: datetime
    ) -> InvocationRequest:
        target = invocation.target
        # A caller that waits gets nothing from a run that ends after it left.
        stay = timedelta(seconds=self._limits.async_age) if invocation.asynchronous else timeout
        return InvocationRequest(
            request_id=invocation.request_id,
            activation_id=_activation_id(invocation),
            function=FunctionRef(
                tenant=target.tenant,
                namespace=target.namespace,
                function=target.function,
                version=version.version,
                ref=target.ref,
            ),
            trigger=invocation.trigger,
            principal=invocation.principal,
            event=invocation.event,
            accept_time=to_timestamp(now),
            deadline=to_timestamp(now + stay),
            reply_to=self._instance,
            traceparent=invocation.trace.traceparent,
            tracestate=invocation.trace.state,
        )


def _activation_id(invocation: Invocation) -> str:
    if not invocation.idempotency_key:
        return ids.activation_id()
    target = invocation.target
    return ids.activation_id_from(
        target.tenant, invocation.idempotency_key, target.namespace, target.function, target.ref
    )
