"""The mesh as its callers see it: gRPC to the public port, every call with a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import grpc
from codesous.control.v1 import (
    access_service_pb2_grpc,
    alias_service_pb2_grpc,
    function_service_pb2_grpc,
    mutation_service_pb2_grpc,
    schedule_service_pb2_grpc,
    secret_service_pb2_grpc,
    version_service_pb2_grpc,
    worker_binding_service_pb2_grpc,
)
from codesous.gateway.v1 import activation_service_pb2_grpc, invocation_service_pb2_grpc

from cs_cli import failure
from cs_cli.login import Login

DEADLINE: Final = 15.0
"""Seconds for an ordinary call."""
LONG_DEADLINE: Final = 75.0
"""Seconds for a call that waits for a function (30 s at most) or an activation (60 s at most), or carries a bundle."""
_MESSAGE_BYTES: Final = 32 * 1024 * 1024
_METADATA_BYTES: Final = 96 * 1024

Response = TypeVar("Response")


class Api:
    """A channel to the public port, and a stub of every service behind it."""

    def __init__(self, login: Login) -> None:
        self.tenant = login.tenant
        self.url = login.api_url
        self._metadata = (("authorization", f"Bearer {login.token}"),)
        self._channel = _channel(login.api_url)
        # The generated stubs are untyped in their constructors' channel.
        self.functions: Any = function_service_pb2_grpc.FunctionServiceStub(self._channel)
        self.versions: Any = version_service_pb2_grpc.VersionServiceStub(self._channel)
        self.aliases: Any = alias_service_pb2_grpc.AliasServiceStub(self._channel)
        self.mutations: Any = mutation_service_pb2_grpc.MutationServiceStub(self._channel)
        self.access: Any = access_service_pb2_grpc.AccessServiceStub(self._channel)
        self.workers: Any = worker_binding_service_pb2_grpc.WorkerBindingServiceStub(self._channel)
        self.secrets: Any = secret_service_pb2_grpc.SecretServiceStub(self._channel)
        self.schedules: Any = schedule_service_pb2_grpc.ScheduleServiceStub(self._channel)
        self.invocations: Any = invocation_service_pb2_grpc.InvocationServiceStub(self._channel)
        self.activations: Any = activation_service_pb2_grpc.ActivationServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._channel.close()

    def call(self, method: Callable[..., Response], request: Any, deadline: float = DEADLINE) -> Response:
        """Make a call. Raises CommandError with what the server said."""
        try:
            return method(request, timeout=deadline, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self.failure(error) from error

    def stream(self, method: Callable[..., Iterator[Response]], request: Any) -> Iterator[Response]:
        """Make a call that answers with a stream, for as long as it lasts. Raises grpc.RpcError."""
        yield from method(request, metadata=self._metadata)

    def failure(self, error: grpc.RpcError) -> failure.CommandError:
        """What a command says of a call that failed."""
        return failure.of_rpc(error, self.url)

    def pages(self, method: Callable[..., Any], request: Any, items: str, limit: int) -> Iterator[Any]:
        """Go through a list, page by page, up to `limit` items."""
        left = limit
        while left > 0:
            answer = self.call(method, request)
            for item in list(getattr(answer, items))[:left]:
                left -= 1
                yield item
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token


def _channel(url: str) -> grpc.Channel:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    target = f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    options = (
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.enable_http_proxy", 0 if parts.hostname in ("127.0.0.1", "localhost", "::1") else 1),
    )
    if parts.scheme == "https":
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
    return grpc.insecure_channel(target, options)
