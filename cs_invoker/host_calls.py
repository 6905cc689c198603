"""The host API of one activation in the mesh: the sandbox's checked calls over the providers of this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.runtime.v1.version_config_pb2 import VersionConfig
from codesous.type.v1.log_entry_pb2 import LogEntry

from cs_core.clock import Clock
from cs_core.codeq import Queue, ResultChannel
from cs_core.config import LimitSettings
from cs_core.store.userkv import UserKvStore
from cs_core.trace_context import TRACEPARENT, TRACESTATE
from cs_sandbox.host.calls import CheckedCalls
from cs_sandbox.host.capability import Grants
from cs_sandbox.host.fetch import Fetcher
from cs_sandbox.host.heartbeat import HeartbeatCalls
from cs_sandbox.host.http import HttpCalls
from cs_sandbox.host.kv import KvCalls
from cs_sandbox.host.publish import QueueCalls
from cs_sandbox.host.redaction import Redactor, Redactors
from cs_sandbox.host.secret import SecretCalls

from .egress_report import EgressReport
from .host_heartbeat import HeartbeatSender
from .host_kv import StoredKeyValues
from .host_publish import QueuePublisher, TopicLimit
from .host_secrets import FunctionSecrets, Secrets
from .host_timeline import HostTimeline


@dataclass(frozen=True, slots=True)
class ActivationHost:
    """Implements the sandbox's HostCalls for one activation; closed when it has ended."""

    calls: CheckedCalls
    heartbeats: HeartbeatCalls
    timeline: HostTimeline
    redactor: Redactor
    """Knows the secrets that the version's activations have read."""

    async def call(self, method: str, arguments: list[Any]) -> Any:
        """Perform `method` and return a JSON value. Raises HostCallError."""
        return await self.calls.call(method, arguments)

    async def close(self) -> None:
        """End what the activation left behind."""
        await self.heartbeats.close()


@dataclass(frozen=True, slots=True)
class HostApi:
    """What the host calls of this process stand on."""

    user_kv: UserKvStore
    queue: Queue
    channel: ResultChannel
    fetcher: Fetcher
    secrets: Secrets
    topics: TopicLimit
    clock: Clock
    limits: LimitSettings
    partitions: int
    count_egress_report: Callable[[], None]
    redactors: Redactors = field(default_factory=Redactors)

    def open(
        self, request: InvocationRequest, config: VersionConfig, on_log: Callable[[LogEntry], None]
    ) -> ActivationHost:
        """The host calls of one activation, under its version's configuration. `on_log` takes lines of its log."""
        tenant, limits = request.function.tenant, self.limits
        ref = request.function
        redactor = self.redactors.of(f"{tenant}/{ref.namespace}/{ref.function}/{ref.version}")
        report = EgressReport(request, on_log, self.count_egress_report, redactor.text, self.clock)
        grants = Grants(
            config.capabilities,
            cadence=request.trigger.WhichOneof("kind") == "cadence",
            report_host=report if config.egress_report_only else None,
        )
        publisher = QueuePublisher(self.queue, self.topics, self.clock, self.partitions, tenant, request.activation_id)
        heartbeats = HeartbeatCalls(HeartbeatSender(self.channel, self.clock, request).send, limits.heartbeat_bytes)
        timeline = HostTimeline(self.clock)
        calls = CheckedCalls(
            grants,
            {
                "kv": KvCalls(StoredKeyValues(self.user_kv, tenant), limits.kv_value_bytes),
                "codeq": QueueCalls(publisher, limits.message_bytes),
                "http": HttpCalls(self.fetcher, tenant, grants, trace_headers(request)),
                "cadence": heartbeats,
                "secrets": SecretCalls(FunctionSecrets(self.secrets, request.function), redactor),
            },
            timeline,
        )
        return ActivationHost(calls, heartbeats, timeline, redactor)


def trace_headers(request: InvocationRequest) -> list[tuple[str, str]]:
    """The headers that hand the trace of an activation on to what it fetches."""
    headers = ((TRACEPARENT, request.traceparent), (TRACESTATE, request.tracestate))
    return [(name, value) for name, value in headers if value]
