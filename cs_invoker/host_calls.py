"""The host API of one activation in the mesh: the sandbox's checked calls over the providers of this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.type.v1.capabilities_pb2 import Capabilities

from cs_core.clock import Clock
from cs_core.codeq import Queue, ResultChannel
from cs_core.config import LimitSettings
from cs_core.store.userkv import UserKvStore
from cs_sandbox.host.calls import CheckedCalls
from cs_sandbox.host.capability import Grants
from cs_sandbox.host.fetch import Fetcher
from cs_sandbox.host.heartbeat import HeartbeatCalls
from cs_sandbox.host.http import HttpCalls
from cs_sandbox.host.kv import KvCalls
from cs_sandbox.host.publish import QueueCalls
from cs_sandbox.host.redaction import Redactor, Redactors
from cs_sandbox.host.secret import SecretCalls

from .host_heartbeat import HeartbeatSender
from .host_kv import StoredKeyValues
from .host_publish import QueuePublisher, TopicLimit
from .host_secrets import FunctionSecrets, Secrets


@dataclass(frozen=True, slots=True)
class ActivationHost:
    """Implements the sandbox's HostCalls for one activation; closed when it has ended."""

    calls: CheckedCalls
    heartbeats: HeartbeatCalls
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
    redactors: Redactors = field(default_factory=Redactors)

    def open(self, request: InvocationRequest, capabilities: Capabilities) -> ActivationHost:
        """The host calls of one activation."""
        tenant, limits = request.function.tenant, self.limits
        grants = Grants(capabilities, cadence=request.trigger.WhichOneof("kind") == "cadence")
        ref = request.function
        redactor = self.redactors.of(f"{tenant}/{ref.namespace}/{ref.function}/{ref.version}")
        publisher = QueuePublisher(self.queue, self.topics, self.clock, self.partitions, tenant, request.activation_id)
        heartbeats = HeartbeatCalls(HeartbeatSender(self.channel, self.clock, request).send, limits.heartbeat_bytes)
        calls = CheckedCalls(
            grants,
            {
                "kv": KvCalls(StoredKeyValues(self.user_kv, tenant), limits.kv_value_bytes),
                "codeq": QueueCalls(publisher, limits.message_bytes),
                "http": HttpCalls(self.fetcher, tenant, grants),
                "cadence": heartbeats,
                "secrets": SecretCalls(FunctionSecrets(self.secrets, request.function), redactor),
            },
        )
        return ActivationHost(calls, heartbeats, redactor)
