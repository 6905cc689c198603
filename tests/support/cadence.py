"""Pollers over a real store and the stand-in for Cadence, and functions that are plain Python."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from codesous.control.v1.function_pb2 import Function, FunctionState
from codesous.control.v1.version_pb2 import Version
from codesous.control.v1.worker_binding_pb2 import PayloadCodec, WorkerBinding, WorkerBindingSpec
from codesous.control.v1.worker_binding_service_pb2 import CreateWorkerBindingRequest
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import ActivityHeartbeat, InvocationRequest, InvocationResult
from codesous.storage.v1.records_pb2 import FunctionRecord, VersionRecord
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.invocation_error_pb2 import InvocationError
from codesous.type.v1.principal_pb2 import Principal
from prometheus_client import CollectorRegistry

from cs_cli.activity_run import ActivityCall, ActivityEnd, ActivityRun
from cs_control.mutations import Actor
from cs_control.worker_bindings import WorkerBindings
from cs_core import ids
from cs_core.clock import SystemClock, to_timestamp
from cs_core.codeq import Delivery
from cs_core.codeq.contract import INVOKE
from cs_core.codeq.kv import KvQueue, KvResultChannel
from cs_core.config import Settings
from cs_core.rpc.cadence import CadenceConnection
from cs_core.store import keys
from cs_core.store.activations import ActivationStore
from cs_core.store.cadence_tasks import CadenceTaskStore
from cs_core.store.client import KvClient
from cs_core.store.resolve import Resolver
from cs_core.store.worker_bindings import WorkerBindingStore
from cs_core.store.worker_index import WorkerIndex
from cs_core.store.worker_reports import WorkerReportStore
from cs_poller.assembly import Poller, assemble
from cs_poller.standin.engine import Engine
from cs_poller.standin.server import StandIn

TENANT = "t_alpha0"
DOMAIN = "demo"
PARTITIONS = 4
ROLES = ("dev",)
_LEASE = timedelta(seconds=30)
_STATUS = {
    "CS_RUNTIME_TIMEOUT": ActivationStatus.ACTIVATION_STATUS_TIMEOUT,
    "CS_RUNTIME_CANCELLED": ActivationStatus.ACTIVATION_STATUS_CANCELLED,
}


@dataclass
class Call:
    """One run of a function: what it is given, and what it can do."""

    request: InvocationRequest
    cancelled: asyncio.Event
    heartbeat: Callable[[Any], Awaitable[None]]

    @property
    def event(self) -> Any:
        return json.loads(self.request.event)


# Returns what the function returns, or raises FunctionError.
Handler = Callable[[Call], Awaitable[Any]]


class FunctionError(Exception):
    """A run that fails."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(reason)
        self.error = InvocationError(reason=reason, message=message)


class PythonInvoker:
    """Does what an invoker does, with handlers in Python instead of cells."""

    def __init__(self, client: KvClient, handlers: Mapping[str, Handler]) -> None:
        self.runs: Counter[str] = Counter()
        self.running = 0
        self.most_running = 0
        self._handlers = handlers
        self._instance = ids.instance_id("invoker")
        self._queue = KvQueue(client, PARTITIONS, _LEASE, timedelta(milliseconds=50))
        self._channel = KvResultChannel(client)
        self._activations = ActivationStore(client, PARTITIONS, SystemClock(), timedelta(days=7))
        self._cancels: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[PythonInvoker]:
        async with self._channel.listen(self._instance, self._take, lambda: None):
            consuming = asyncio.create_task(self._consume())
            try:
                yield self
            finally:
                consuming.cancel()
                await asyncio.gather(consuming, return_exceptions=True)
                await self._queue.close()

    def _take(self, envelope: Envelope) -> None:
        owner = envelope.cancel_request.owner
        if owner in self._cancels:
            self._cancels[owner].set()

    async def _consume(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for delivery in await self._queue.receive(INVOKE, limit=64, wait=timedelta(seconds=1)):
                    group.create_task(self._process(delivery))

    async def _process(self, delivery: Delivery) -> None:
        request = delivery.envelope().invocation_request
        tenant, owner = request.function.tenant, f"{self._instance}/{ids.message_id()}"
        begun = await self._activations.begin(tenant, request.activation_id, owner, _LEASE)
        if begun.kind == "run":
            result = await self._run(request, owner)
            await self._activations.finish(result, owner)
            await self._channel.push(request.reply_to, Envelope(invocation_result=result))
        await self._queue.ack([delivery])

    async def _run(self, request: InvocationRequest, owner: str) -> InvocationResult:
        result = InvocationResult(
            request_id=request.request_id, activation_id=request.activation_id, tenant=request.function.tenant
        )

        async def heartbeat(details: Any) -> None:
            beat = ActivityHeartbeat(
                tenant=request.function.tenant,
                activation_id=request.activation_id,
                details=json.dumps(details).encode(),
            )
            await self._channel.push(request.reply_to, Envelope(activity_heartbeat=beat))

        cancelled = self._cancels[owner] = asyncio.Event()
        self.runs[request.activation_id] += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            value = await self._handlers[request.function.function](Call(request, cancelled, heartbeat))
            body = value if isinstance(value, str) else json.dumps(value)
            result.status = ActivationStatus.ACTIVATION_STATUS_SUCCESS
            result.response.CopyFrom(FunctionResponse(status_code=200, body=body))
        except FunctionError as failure:
            result.status = _STATUS.get(failure.error.reason, ActivationStatus.ACTIVATION_STATUS_ERROR)
            result.error.CopyFrom(failure.error)
        finally:
            self.running -= 1
            del self._cancels[owner]
        result.end_time.CopyFrom(to_timestamp(datetime.now(UTC)))
        return result


@dataclass
class CadenceMesh:
    """A stand-in server, functions, and as many pollers as a test starts."""

    client: KvClient
    engine: Engine
    cadence: CadenceConnection
    target: str
    invoker: PythonInvoker
    bindings: WorkerBindings
    activations: ActivationStore
    tasks: CadenceTaskStore
    answers: dict[bytes, list[tuple[str, bool]]] = field(default_factory=lambda: defaultdict(list))
    """By task token, each answer that arrived: its kind, and whether it was taken."""

    async def bind(self, name: str, activities: Mapping[str, str], **spec: Any) -> WorkerBinding:
        """Make a worker binding on the task list of its name; activities are functions by type."""
        wanted = WorkerBindingSpec(domain=spec.pop("domain", DOMAIN), task_list=name, **spec)
        for kind, function in activities.items():
            wanted.activities[kind].function, wanted.activities[kind].ref = function, "1"
        request = CreateWorkerBindingRequest(tenant=TENANT, namespace="default", worker=name, spec=wanted)
        return (await self.bindings.create(request, actor()))[0]

    async def start(self, task_list: str, activity: str, value: Any = None, **call: Any) -> ActivityRun:
        """Start an activity through the server."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        run = ActivityRun(self.cadence, ActivityCall(call.pop("domain", DOMAIN), task_list, activity, data, **call))
        await run.start()
        return run

    async def run(self, task_list: str, activity: str, value: Any = None, **call: Any) -> ActivityEnd:
        """Run an activity through the server to its end."""
        return await (await self.start(task_list, activity, value, **call)).finish()

    @asynccontextmanager
    async def poller(self, instance: str = "", **cadence: Any) -> AsyncIterator[tuple[Poller, CollectorRegistry]]:
        """A poller in this process."""
        settings, registry = self.settings(**cadence), CollectorRegistry()
        async with AsyncExitStack() as stack:
            client = KvClient(self.client.url)
            stack.push_async_callback(client.close)
            queue = KvQueue(client, PARTITIONS, _LEASE, timedelta(milliseconds=50))
            stack.push_async_callback(queue.close)
            connection = await stack.enter_async_context(CadenceConnection(settings.cadence.target, "code-sous"))
            name = instance or ids.instance_id("cadence-poller")
            poller = assemble(settings, client, queue, connection, SystemClock(), name, registry)
            async with poller.running():
                yield poller, registry

    def settings(self, **cadence: Any) -> Settings:
        """Settings of a poller, with lives short enough for a test."""
        tree = {
            "store": {"url": self.client.url, "partitions": PARTITIONS},
            "limits": {"http_body_bytes": 2**20},
            "rpc": {"drain_grace": 5.0, "readiness_interval": 0.1},
            "cadence": {"target": self.target, "member_life": 2.0, "heartbeat_interval": 0.1, **cadence},
        }
        return Settings.model_validate(tree)

    def accepted(self, kind: str = "") -> int:
        """Answers that were taken, of one kind or of all."""
        return sum(taken for answers in self.answers.values() for answered, taken in answers if kind in ("", answered))

    def refused(self) -> int:
        """Answers that were refused."""
        return sum(not taken for answers in self.answers.values() for _, taken in answers)


class PollerProcess:
    """A poller in a process of its own, which can be killed."""

    def __init__(self, mesh: CadenceMesh, folder: Path) -> None:
        self._config = folder / f"poller-{ids.message_id()}.toml"
        settings = mesh.settings()
        self._config.write_text(
            f'[store]\nurl = "{mesh.client.url}"\npartitions = {PARTITIONS}\n'
            f'[cadence]\ntarget = "{mesh.target}"\nmember_life = {settings.cadence.member_life}\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        # What tells tests how to run is no setting of a service.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CS_")}
        command = [sys.executable, "-m", "cs_poller", "--config", str(self._config)]
        with self._config.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> PollerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def actor() -> Actor:
    """Who makes bindings, and who they run as."""
    return Actor(Principal(subject="tester", tenant=TENANT, roles=ROLES), ids.request_id())


@asynccontextmanager
async def cadence_mesh(client: KvClient, handlers: Mapping[str, Handler]) -> AsyncIterator[CadenceMesh]:
    """Everything but pollers: the functions are there, as version 1 each, for the role `dev`."""
    for name in handlers:
        function = Function(tenant=TENANT, namespace="default", function=name, latest_version=1)
        function.state = FunctionState.FUNCTION_STATE_ACTIVE
        version = Version(tenant=TENANT, namespace="default", function=name, version=1)
        version.config.invoke_cadence_roles.extend(ROLES)
        await client.call(
            "SET", keys.function(TENANT, "default", name), FunctionRecord(function=function).SerializeToString()
        )
        await client.call(
            "SET", keys.version(TENANT, "default", name, 1), VersionRecord(version=version).SerializeToString()
        )
    engine, clock = Engine([DOMAIN]), SystemClock()
    index = WorkerIndex(client, PARTITIONS)
    async with AsyncExitStack() as stack:
        answers: dict[bytes, list[tuple[str, bool]]] = defaultdict(list)
        server = await stack.enter_async_context(
            StandIn(engine, "127.0.0.1:0", lambda token, kind, taken: answers[token].append((kind, taken)))
        )
        target = f"127.0.0.1:{server.port}"
        yield CadenceMesh(
            client,
            engine,
            await stack.enter_async_context(CadenceConnection(target, "tests")),
            target,
            await stack.enter_async_context(PythonInvoker(client, handlers).serving()),
            WorkerBindings(
                WorkerBindingStore(client, index), WorkerReportStore(client, clock), Resolver(client), clock
            ),
            ActivationStore(client, PARTITIONS, clock, timedelta(days=7)),
            CadenceTaskStore(client, PARTITIONS, "nobody"),
            answers,
        )


def codec(word: str) -> PayloadCodec.ValueType:
    """A codec by its word."""
    return PayloadCodec.Value(f"PAYLOAD_CODEC_{word.upper()}")
