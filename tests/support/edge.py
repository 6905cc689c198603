"""A real Envoy with the project's configuration, in front of fake services that record what reaches them."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from codesous.control.v1 import alias_service_pb2, function_service_pb2, mutation_service_pb2, version_service_pb2
from codesous.gateway.v1 import activation_service_pb2, invocation_service_pb2, web_service_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cs_cli.stack.envoy import EdgeSettings, render
from tests.support.waiting import wait_until

DESCRIPTORS = Path(__file__).parents[2] / "gen" / "descriptors.binpb"
CONTROL = (alias_service_pb2, function_service_pb2, mutation_service_pb2, version_service_pb2)
GATEWAY = (activation_service_pb2, invocation_service_pb2, web_service_pb2)
HOST = "127.0.0.1"
MIB = 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", 32 * MIB),
    ("grpc.max_send_message_length", 32 * MIB),
    ("grpc.max_metadata_size", 96 * 1024),
    ("grpc.absolute_max_metadata_size", 96 * 1024),
    ("grpc.so_reuseport", 0),
]

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[["Call", Any, Context], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it reached a service."""

    service: str
    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    output: type[Message]

    def header(self, name: str) -> str | None:
        """The value of one metadata entry; None when there is none."""
        return next((str(value) for key, value in self.metadata if key == name), None)

    @property
    def names(self) -> set[str]:
        """The names of the metadata."""
        return {key for key, _ in self.metadata}


@dataclass(slots=True)
class Recorder(grpc.GenericRpcHandler):
    """Serves every method of some contracts, and knows nothing of what they do."""

    area: str
    answer: Answer
    seen: list[tuple[Call, Any]] = field(default_factory=list)
    methods: dict[str, MethodDescriptor] = field(default_factory=dict)

    def add(self, file: FileDescriptor) -> None:
        """Serve the services of a file."""
        for service in file.services_by_name.values():
            for method in service.methods:
                self.methods[f"/{service.full_name}/{method.name}"] = method

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the handler of a call."""
        method = self.methods.get(details.method)
        if method is None:
            return None
        output = message_factory.GetMessageClass(method.output_type)
        metadata = tuple((key, value) for key, value in details.invocation_metadata or ())
        call = Call(self.area, method.name, metadata, output)

        async def unary(request: Any, context: Context) -> Any:
            self.seen.append((call, request))
            return await self.answer(call, request, context)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            self.seen.append((call, request))
            async for message in await self.answer(call, request, context):
                yield message

        decode = message_factory.GetMessageClass(method.input_type).FromString
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, decode, output.SerializeToString)
        return grpc.unary_unary_rpc_method_handler(unary, decode, output.SerializeToString)


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header; None when there is none."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def names(self) -> set[str]:
        """The names of the headers, in lower case."""
        return {key.lower() for key, _ in self.headers}

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def reason(self) -> str:
        """The reason of the error in the body."""
        details = self.json()["details"]
        (info,) = (detail for detail in details if detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo")
        assert info["domain"] == "code-sous"
        return str(info["reason"])


async def empty(call: Call, _request: Any, _context: Context) -> Any:
    """The empty message of the call's type."""
    return call.output()


class Edge:
    """Envoy, and the two services behind it."""

    def __init__(self, folder: Path, limits: dict[str, Any]) -> None:
        self._folder = folder
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._servers: dict[str, grpc.aio.Server] = {}
        self.ports = {"control": _free_port(), "gateway": _free_port()}
        self.recorders = {area: Recorder(area, empty) for area in self.ports}
        for area, modules in (("control", CONTROL), ("gateway", GATEWAY)):
            for module in modules:
                self.recorders[area].add(module.DESCRIPTOR)
        self.port = 0
        self.service_credentials: grpc.ServerCredentials | None = None
        self.admin = folder / "admin.sock"
        self.access_log = folder / "access.log"

    async def start(self) -> None:
        """Start everything; return when the port answers."""
        await asyncio.gather(*(self.start_service(area) for area in self.ports))
        await self.start_proxy()

    async def start_proxy(self) -> None:
        """Start Envoy alone."""
        settings = EdgeSettings(
            listen_host=HOST,
            listen_port=0,
            admin_pipe=self.admin,
            control=(HOST, self.ports["control"]),
            gateway=(HOST, self.ports["gateway"]),
            descriptors=DESCRIPTORS,
            **self._limits,
        )
        config = self._folder / "envoy.yaml"
        config.write_text(render(settings))
        command = ["-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        command += ["--file-flush-interval-msec", "50"]
        with self.access_log.open("wb") as log:
            envoy = Path(sys.executable).parent / "envoy"
            self._process = await asyncio.create_subprocess_exec(envoy, *command, stdout=log)
        self.port = await wait_until(self._listening)

    async def start_service(self, area: str) -> None:
        """Start one service on its port."""
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self.recorders[area],))
        checks = health.aio.HealthServicer()
        await checks.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        reflection.enable_server_reflection(["codesous.gateway.v1.InvocationService"], server)
        if self.service_credentials is None:
            server.add_insecure_port(f"{HOST}:{self.ports[area]}")
        else:
            server.add_secure_port(f"{HOST}:{self.ports[area]}", self.service_credentials)
        await server.start()
        self._servers[area] = server

    async def stop_service(self, area: str) -> None:
        """Stop one service at once."""
        await self._servers.pop(area).stop(None)

    async def close(self) -> None:
        """Stop everything."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        for area in list(self._servers):
            await self.stop_service(area)

    def answer_with(self, answer: Answer) -> None:
        """Let both services answer so, and forget what they saw."""
        for recorder in self.recorders.values():
            recorder.answer = answer
            recorder.seen.clear()

    def seen(self) -> tuple[Call, Any]:
        """The one call that reached a service."""
        (only,) = [call for recorder in self.recorders.values() for call in recorder.seen]
        return only

    def nothing_seen(self) -> bool:
        """Whether no call reached a service."""
        return not any(recorder.seen for recorder in self.recorders.values())

    async def http(
        self,
        method: str,
        target: str,
        *,
        json_body: Any = None,
        body: bytes | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> Response:
        """Send a request over HTTP/1.1; the target goes out as it is."""
        sent = list(headers)
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.append(("content-type", "application/json"))
        return await asyncio.to_thread(self._send, method, target, body, sent)

    def _send(self, method: str, target: str, body: bytes | None, headers: list[tuple[str, str]]) -> Response:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None and all(name != "transfer-encoding" for name, _ in headers):
                connection.putheader("content-length", str(len(body)))
            # Refused before it is all sent, the answer is there all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(body)
            answer = connection.getresponse()
            return Response(answer.status, tuple(answer.getheaders()), answer.read())
        finally:
            connection.close()

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, and read what comes until the connection is closed from the other side."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """A gRPC channel to the public port."""
        options = [*_OPTIONS, ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(f"{HOST}:{self.port}", options=options) as channel:
            yield channel

    async def _listening(self) -> int:
        assert self._process is not None
        assert self._process.returncode is None, "envoy ended"
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.admin))
        except OSError:
            return 0
        writer.write(b"GET /listeners HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        found = re.search(rf"public::{re.escape(HOST)}:(\d+)", text)
        return int(found[1]) if found else 0


@asynccontextmanager
async def edge_before(port: int) -> AsyncIterator[Edge]:
    """Envoy in front of services that run already, all on one port."""
    with tempfile.TemporaryDirectory(prefix="cs-edge-") as folder:
        edge = Edge(Path(folder), {})
        edge.ports = {"control": port, "gateway": port}
        try:
            await edge.start_proxy()
            yield edge
        finally:
            await edge.close()


@asynccontextmanager
async def running_edge(service_credentials: grpc.ServerCredentials | None = None, **limits: Any) -> AsyncIterator[Edge]:
    """An edge of the test's own; `limits` are fields of EdgeSettings."""
    # A socket's path has 108 bytes at most, so not below pytest's deep folders.
    with tempfile.TemporaryDirectory(prefix="cs-edge-") as folder:
        edge = Edge(Path(folder), limits)
        edge.service_credentials = service_credentials
        try:
            await edge.start()
            yield edge
        finally:
            await edge.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
