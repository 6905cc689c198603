"""From a request and its version to the job that a cell runs: limits, environment, and the handler's context."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from codesous.control.v1.version_pb2 import Version
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.runtime.v1.version_config_pb2 import IsolationLevel
from codesous.type.v1.principal_pb2 import Principal
from codesous.type.v1.trigger_pb2 import Trigger
from google.protobuf.json_format import MessageToDict

from cs_core.clock import from_timestamp
from cs_sandbox.job import MIB, Bundle, Job, Limits

from .results import Sizes

DEFAULT_ENTRY = "index.js"
DEFAULT_MEMORY_MB = 128
DEFAULT_TIMEOUT = timedelta(seconds=3)
DEFAULT_WORKER_TIMEOUT = timedelta(seconds=30)

_WORKER_KINDS = ("schedule", "cadence")


def deadline_of(request: InvocationRequest) -> datetime | None:
    """When the request ends by itself, or None."""
    return from_timestamp(request.deadline) if request.HasField("deadline") else None


def expired(request: InvocationRequest, now: datetime) -> bool:
    """Whether the deadline has passed."""
    deadline = deadline_of(request)
    return deadline is not None and deadline <= now


def entry_of(version: Version) -> str:
    """Path of the module that holds the handler."""
    return version.manifest.entry or DEFAULT_ENTRY


def wall_limit(request: InvocationRequest, version: Version, now: datetime) -> timedelta:
    """The version's timeout for this kind of trigger, cut to what is left until the deadline."""
    config = version.config
    if request.trigger.WhichOneof("kind") in _WORKER_KINDS:
        limit = config.worker_timeout.ToTimedelta() if config.HasField("worker_timeout") else DEFAULT_WORKER_TIMEOUT
    else:
        limit = config.timeout.ToTimedelta() if config.HasField("timeout") else DEFAULT_TIMEOUT
    deadline = deadline_of(request)
    return limit if deadline is None else min(limit, deadline - now)


def make_job(
    request: InvocationRequest,
    version: Version,
    bundle: Bundle,
    *,
    attempt: int,
    now: datetime,
    sizes: Sizes,
    alone: bool = False,
) -> Job:
    """The job. `attempt` counts the runs begun, this one included; `alone`: its cell runs nothing beside it."""
    wall = wall_limit(request, version, now)
    return Job(
        tenant=request.function.tenant,
        bundle=bundle,
        event=request.event or b"null",
        context=make_context(request, attempt=attempt, ends=now + wall),
        limits=Limits(
            wall=wall,
            memory_bytes=(version.config.memory_mb or DEFAULT_MEMORY_MB) * MIB,
            log_bytes=sizes.log,
            result_bytes=sizes.result,
            error_bytes=sizes.error,
            stack_bytes=sizes.stack,
        ),
        env=dict(version.config.env),
        warm_key=warm_key(version),
        alone=alone,
    )


def warm_key(version: Version) -> str:
    """The key under which cells keep a version's context; empty when they keep none.

    Made of all that the version is: a name that was purged and is used again does not find the old one's state.
    """
    if version.config.isolation != IsolationLevel.ISOLATION_LEVEL_VERSION:
        return ""
    return hashlib.sha256(version.SerializeToString(deterministic=True)).hexdigest()


def make_context(request: InvocationRequest, *, attempt: int, ends: datetime) -> dict[str, Any]:
    """The plain values of the handler's `ctx`. `deadline_ms` is Unix time in milliseconds."""
    ref = request.function
    return {
        "activation_id": request.activation_id,
        "deadline_ms": int(ends.timestamp() * 1000),
        "tenant": ref.tenant,
        "namespace": ref.namespace,
        "function": ref.function,
        "version": ref.version,
        "ref": ref.ref,
        "trigger": describe_trigger(request.trigger),
        "principal": describe_principal(request.principal),
        "attempt": attempt,
        "traceparent": request.traceparent,
    }


def describe_trigger(trigger: Trigger) -> dict[str, Any]:
    """The trigger as the handler sees it: `kind` and that kind's own fields, absent ones included."""
    kind = trigger.WhichOneof("kind")
    if kind is None:
        return {"kind": "api"}
    fields = MessageToDict(
        getattr(trigger, kind), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if kind == "schedule":
        fields["tick"] = trigger.schedule.tick  # proto JSON writes 64-bit numbers as text
    return {"kind": kind, **fields}


def describe_principal(principal: Principal) -> dict[str, Any]:
    """The principal as the handler sees it."""
    return {
        "subject": principal.subject,
        "tenant": principal.tenant,
        "roles": list(principal.roles),
        "scopes": list(principal.scopes),
    }
