"""The core of a gateway in this process: accepts, waits, cancels, as behind gRPC, over a store that is given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.function_pb2 import Function, FunctionState
from codesous.control.v1.version_pb2 import Version
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.storage.v1.records_pb2 import AliasRecord, FunctionRecord, VersionRecord
from codesous.type.v1.capabilities_pb2 import Capabilities
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.principal_pb2 import Principal
from codesous.type.v1.trigger_pb2 import ApiTrigger, Trigger

from cs_core.bundle import pack
from cs_core.clock import SystemClock
from cs_core.codeq.contract import INVOKE
from cs_core.codeq.kv import KvQueue, KvResultChannel
from cs_core.config import LimitSettings
from cs_core.ids import instance_id, request_id
from cs_core.store import keys
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.resolve import Resolver
from cs_core.store.slots import SlotStore
from cs_core.trace_context import new_trace
from cs_core.waiters import Waiters
from cs_gateway.ingress import Ingress, Invocation, Target
from cs_gateway.invocations import Invocations
from tests.support.invocations import PARTITIONS
from tests.support.waiting import wait_until

SPACE = "default"


class Front:
    """Accepts invocations of any tenant, and looks at what became of them."""

    def __init__(self, client: KvClient, limits: LimitSettings | None = None) -> None:
        clock, instance = SystemClock(), instance_id("front")
        self.client = client
        self.queue = KvQueue(client, PARTITIONS, timedelta(seconds=5), timedelta(milliseconds=100))
        self.store = ActivationStore(client, PARTITIONS, clock, timedelta(days=7))
        self.slots = SlotStore(client)
        self.waiters = Waiters(self.store, KvResultChannel(client), instance)
        ingress = Ingress(Resolver(client), self.store, self.queue, limits or LimitSettings(), clock, instance)
        self.invocations = Invocations(ingress, self.waiters, self.store, timedelta(milliseconds=250))

    async def deploy(
        self,
        tenant: str,
        name: str,
        source: str,
        *,
        timeout: float = 5.0,
        capabilities: Capabilities | None = None,
        max_concurrency: int = 0,
    ) -> FunctionRef:
        """Put version 1 of a function, and the alias `live` on it, into the store."""
        bundle = pack({"index.js": source.encode()}, max_bytes=2**24, max_files=100)
        version = Version(tenant=tenant, namespace=SPACE, function=name, version=1, bundle_sha256=bundle.sha256)
        version.config.invoke_http_roles.append("admin")
        version.config.timeout.FromTimedelta(timedelta(seconds=timeout))
        version.config.memory_mb, version.config.max_concurrency = 64, max_concurrency
        if capabilities is not None:
            version.config.capabilities.CopyFrom(capabilities)
        function = Function(function=name, state=FunctionState.FUNCTION_STATE_ACTIVE, latest_version=1)
        alias = AliasRecord(alias=Alias(alias="live", version=1))
        call = self.client.call
        await asyncio.gather(
            call("SET", keys.bundle(tenant, bundle.sha256), bundle.data),
            call("SET", keys.version(tenant, SPACE, name, 1), VersionRecord(version=version).SerializeToString()),
            call("HSET", keys.aliases(tenant, SPACE, name), "live", alias.SerializeToString()),
            call("SET", keys.function(tenant, SPACE, name), FunctionRecord(function=function).SerializeToString()),
        )
        return FunctionRef(tenant=tenant, namespace=SPACE, function=name, version=1, ref="live")

    async def invoke(self, ref: FunctionRef, event: Any = None, **fields: Any) -> Activation:
        """Invoke as the tenant's admin; `fields` are Invocation's."""
        return await self.invocations.invoke(
            Invocation(
                target=Target(ref.tenant, ref.namespace, ref.function, ref.ref),
                principal=Principal(subject="tester", tenant=ref.tenant, roles=["admin"]),
                request_id=request_id(),
                trigger=Trigger(api=ApiTrigger(asynchronous=bool(fields.get("asynchronous")))),
                event=json.dumps(event).encode(),
                trace=new_trace(),
                **fields,
            )
        )

    async def ids(self) -> Mapping[str, str]:
        """Every activation that has a record, and its tenant."""
        found = await self.scan("cs:{p*}:activation:*")
        return dict(reversed(key.split("activation:", 1)[1].split("/", 1)) for key in found)  # type: ignore[misc]

    async def scan(self, pattern: str) -> list[str]:
        """The keys of a pattern."""
        return [key.decode() for key in await self.client.call("KEYS", pattern)]

    async def emptied(self, *, within: float = 60.0) -> None:
        """Wait until the queue holds nothing."""

        async def empty() -> bool:
            return (await self.queue.depth(INVOKE)).total == 0

        await wait_until(empty, within=within)

    async def kept_for_ever(self) -> list[str]:
        """Keys that finished work left and that have no end: those of partitions, and slots."""
        found = [*await self.scan("cs:{p*"), *await self.scan("cs:{t_*}:slots:*")]
        lives = await asyncio.gather(*(self.client.call("PTTL", key) for key in found))
        return [key for key, life in zip(found, lives, strict=True) if life == -1]


@asynccontextmanager
async def open_front(url: str, limits: LimitSettings | None = None) -> AsyncIterator[Front]:
    """A front that waits for results, for the length of the block."""
    client = KvClient(url)
    front = Front(client, limits)
    try:
        async with front.waiters.running():
            yield front
    finally:
        await front.queue.close()
        await client.close()
