"""The administration of a process, over its internal port on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from codesous.admin.v1 import admin_service_pb2_grpc

from cs_cli import failure
from cs_cli.failure import SERVER, CommandError

ADDRESS_VARIABLE: Final = "CODE_SOUS_ADMIN"
CERTIFICATES_VARIABLE: Final = "CODE_SOUS_ADMIN_CERTS"
"""Folder of `ca.pem`, `client.pem` and `client.key.pem`, for processes that speak mutual TLS."""
GATEWAY: Final = "cs-http-gateway"
DEADLINE: Final = 15.0
"""Seconds for an ordinary call."""

Response = TypeVar("Response")


class Admin:
    """A channel to the AdminService of one process."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = _channel(address)
        # The generated stub is untyped in its constructor's channel.
        self.service: Any = admin_service_pb2_grpc.AdminServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._channel.close()

    def call(self, method: Callable[..., Response], request: Any, deadline: float = DEADLINE) -> Response:
        """Make a call. Raises CommandError with what the process said."""
        try:
            return method(request, timeout=deadline)
        except grpc.RpcError as error:
            raise failure.of_rpc(error, self._address) from error


def _channel(address: str) -> grpc.Channel:
    options = (("grpc.enable_http_proxy", 0),)
    given = os.environ.get(CERTIFICATES_VARIABLE, "")
    if not given:
        return grpc.insecure_channel(address, options)
    try:
        authority, key, certificate = (
            (Path(given) / name).read_bytes() for name in ("ca.pem", "client.key.pem", "client.pem")
        )
    except OSError as error:
        raise CommandError("CS_CLI_CERTIFICATES", f"{CERTIFICATES_VARIABLE}: {error}") from error
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, certificate), options)


def address_of(process: str, given: str, data_dir: Path | None) -> str:
    """Where a process is administered: as given, as `$CODE_SOUS_ADMIN` says, or on the stack of the data directory.

    Raises:
        CommandError: nothing was given and no stack runs there.
    """
    from cs_cli.stack.folders import Folders, find_data_dir
    from cs_cli.stack.state import read_state

    if address := given or os.environ.get(ADDRESS_VARIABLE, ""):
        return address
    folders = Folders(find_data_dir(data_dir))
    state = read_state(folders.state)
    for child in state.children if state is not None and state.supervisor.alive else []:
        if child.name == process:
            return f"127.0.0.1:{child.port}"
    message = f"no mesh runs on {folders.root}; name the process with --admin HOST:PORT"
    raise CommandError("CS_CLI_NO_STACK", message, SERVER)
