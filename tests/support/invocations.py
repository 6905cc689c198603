"""Versions put straight into the store, and requests as an ingress makes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from codesous.control.v1.version_pb2 import Version
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.envelope_pb2 import Envelope, Lane
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.runtime.v1.version_config_pb2 import IsolationLevel, RetryPolicy
from codesous.storage.v1.records_pb2 import VersionRecord
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.capabilities_pb2 import Capabilities
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.principal_pb2 import Principal
from codesous.type.v1.trigger_pb2 import ApiTrigger, Trigger
from google.protobuf.timestamp_pb2 import Timestamp

from cs_core.bundle import pack
from cs_core.clock import SystemClock, to_timestamp
from cs_core.codeq.contract import INVOKE
from cs_core.codeq.kv import KvQueue
from cs_core.ids import activation_id, message_id, request_id
from cs_core.store import keys
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from tests.support.waiting import wait_until

TENANT = "t_alpha0"
PARTITIONS = 4
TERMINAL = {"SUCCESS", "ERROR", "TIMEOUT", "CANCELLED"}


def status_of(activation: Activation) -> str:
    """The status without its prefix."""
    return ActivationStatus.Name(activation.status).removeprefix("ACTIVATION_STATUS_")


class Ingress:
    """Does what a gateway does before the queue: the version is there, the record is made, the message is published."""

    def __init__(self, client: KvClient, tenant: str = TENANT) -> None:
        self.client = client
        self.tenant = tenant
        self.activations = ActivationStore(client, PARTITIONS, SystemClock(), timedelta(days=7))
        self.queue = KvQueue(client, PARTITIONS, timedelta(seconds=2), timedelta(milliseconds=50))

    async def put_version(
        self,
        name: str,
        source: str | Mapping[str, bytes],
        *,
        timeout: timedelta = timedelta(seconds=5),
        capabilities: Capabilities | None = None,
        env: Mapping[str, str] | None = None,
        memory_mb: int = 64,
        max_concurrency: int = 0,
        retry: RetryPolicy | None = None,
        isolation: IsolationLevel.ValueType = IsolationLevel.ISOLATION_LEVEL_UNSPECIFIED,
        egress_report_only: bool = False,
    ) -> FunctionRef:
        """Store version 1 of a function; text is its `index.js`."""
        files = {"index.js": source.encode()} if isinstance(source, str) else source
        bundle = pack(files, max_bytes=2**24, max_files=100)
        version = Version(tenant=self.tenant, namespace="default", function=name, version=1)
        version.bundle_sha256 = bundle.sha256
        version.config.timeout.FromTimedelta(timeout)
        version.config.memory_mb = memory_mb
        version.config.env.update(env or {})
        version.config.max_concurrency = max_concurrency
        version.config.isolation = isolation
        version.config.egress_report_only = egress_report_only
        if retry is not None:
            version.config.retry.CopyFrom(retry)
        if capabilities is not None:
            version.config.capabilities.CopyFrom(capabilities)
        record = VersionRecord(version=version).SerializeToString()
        await self.client.call("SET", keys.version(self.tenant, "default", name, 1), record)
        await self.client.call("SET", keys.bundle(self.tenant, bundle.sha256), bundle.data)
        return FunctionRef(tenant=self.tenant, namespace="default", function=name, version=1, ref="live")

    def make_request(
        self,
        ref: FunctionRef,
        event: Any = None,
        *,
        deadline: datetime | None = None,
        reply_to: str = "",
        background: bool = False,
    ) -> InvocationRequest:
        """A request by API."""
        now = Timestamp()
        now.FromDatetime(datetime.now(UTC))
        return InvocationRequest(
            request_id=request_id(),
            activation_id=activation_id(),
            function=ref,
            trigger=Trigger(api=ApiTrigger(asynchronous=background)),
            principal=Principal(subject="tester", tenant=self.tenant, roles=["dev"]),
            event=json.dumps(event).encode(),
            accept_time=now,
            deadline=None if deadline is None else to_timestamp(deadline),
            reply_to=reply_to,
        )

    async def submit(self, request: InvocationRequest) -> str:
        """Make the record and publish the message; returns the activation's id."""
        await self.activations.submit(request, hashlib.sha256(request.event).digest())
        await self.publish(request)
        return request.activation_id

    async def publish(self, request: InvocationRequest) -> None:
        """Publish the message alone."""
        envelope = Envelope(message_id=message_id(), topic=INVOKE, tenant=self.tenant, invocation_request=request)
        envelope.publish_time.FromDatetime(datetime.now(UTC))
        partition = self.activations.partition(self.tenant, request.activation_id)
        await self.queue.publish(INVOKE, partition, envelope, lane=Lane.LANE_INTERACTIVE)

    async def invoke(self, ref: FunctionRef, event: Any = None, **request: Any) -> str:
        """Submit a request; returns the activation's id."""
        return await self.submit(self.make_request(ref, event, **request))

    async def ended(self, activation: str, *, within: float = 20.0) -> Activation:
        """Wait for the terminal record."""

        async def terminal() -> Activation | None:
            record = await self.activations.get(self.tenant, activation)
            return record if record is not None and status_of(record) in TERMINAL else None

        found = await wait_until(terminal, within=within)
        assert found is not None
        return found

    async def emptied(self, *, within: float = 20.0) -> None:
        """Wait until the queue holds nothing."""

        async def empty() -> bool:
            return (await self.queue.depth(INVOKE)).total == 0

        await wait_until(empty, within=within)
