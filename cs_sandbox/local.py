"""The host API without a server, for `cs fn test`: the same calls, checks and limits, over providers held in memory.

Keys, messages and heartbeats stay in this process; a fetch really fetches, under the rules of the way out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from codesous.type.v1.capabilities_pb2 import Capabilities, KvCapability, KvOperation, QueueCapability

from cs_sandbox.host.calls import CheckedCalls, Provider
from cs_sandbox.host.capability import Grants
from cs_sandbox.host.catalogue import Area
from cs_sandbox.host.fetch import Fetcher
from cs_sandbox.host.heartbeat import HeartbeatCalls
from cs_sandbox.host.http import HttpCalls
from cs_sandbox.host.kv import KvCalls
from cs_sandbox.host.memory_kv import MemoryKeyValues
from cs_sandbox.host.publish import Message, QueueCalls
from cs_sandbox.host.redaction import Redactor
from cs_sandbox.host.secret import SecretCalls
from cs_sandbox.job import KIB, MIB

OWN_DATA: Final = Capabilities(
    kv=KvCapability(prefixes=[""], operations=[op for op in KvOperation.values() if op]),
    codeq=QueueCapability(publish_topics=["*"]),
)
"""All that stays in this process."""


@dataclass(frozen=True, slots=True)
class HostLimits:
    """The limits of the host API; the defaults are the mesh's."""

    kv_value_bytes: int = 256 * KIB
    kv_tenant_keys: int = 100_000
    kv_tenant_bytes: int = 64 * MIB
    message_bytes: int = 256 * KIB
    heartbeat_bytes: int = 64 * KIB


class LocalHostCalls:
    """Implements the sandbox's HostCalls.

    Args:
        capabilities: what is granted; default: all that stays in this process.
        secrets: values by name.
        fetcher: performs fetches, for the tenant `tenant`. None: there is no way out.
        now: seconds of a monotonic clock, for expiry.

    Attributes:
        published: the messages that were published.
        redactor: knows the secrets that were read.
    """

    def __init__(
        self,
        capabilities: Capabilities = OWN_DATA,
        *,
        secrets: Mapping[str, str] | None = None,
        fetcher: Fetcher | None = None,
        tenant: str = "t_local0",
        limits: HostLimits | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = limits or HostLimits()
        self.published: list[Message] = []
        self.redactor = Redactor()
        self._secrets = dict(secrets or {})
        self._numbers = count(1)
        grants = Grants(capabilities)
        values = MemoryKeyValues(now, limits.kv_tenant_keys, limits.kv_tenant_bytes)
        providers: dict[Area, Provider] = {
            "kv": KvCalls(values, limits.kv_value_bytes),
            "codeq": QueueCalls(self, limits.message_bytes),
            "cadence": HeartbeatCalls(self._heartbeat, limits.heartbeat_bytes),
            "secrets": SecretCalls(self, self.redactor),
        }
        if fetcher is not None:
            providers["http"] = HttpCalls(fetcher, tenant, grants)
        self._calls = CheckedCalls(grants, providers)

    async def call(self, method: str, arguments: list[Any]) -> Any:
        """Perform a host call. Raises HostCallError."""
        return await self._calls.call(method, arguments)

    async def publish(self, message: Message) -> str:
        """See Publisher.publish."""
        self.published.append(message)
        return f"local-{next(self._numbers)}"

    async def find(self, name: str) -> str | None:
        """See SecretSource.find."""
        return self._secrets.get(name)

    async def _heartbeat(self, _details: bytes) -> None:
        """Nobody is there to be told. Not reached: a local run has no Cadence task, so the call is denied."""
