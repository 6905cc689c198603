"""The ports of a stack."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from typing import Final

from cs_cli.failure import SERVER, CommandError

HOST: Final = "127.0.0.1"
_COUNT: Final = 7


@dataclass(frozen=True, slots=True)
class Ports:
    """The public port, the gRPC port of each service, and that of the stand-in for Cadence."""

    public: int
    control: int
    gateway: int
    scheduler: int
    poller: int
    invoker: int
    cadence: int

    def __iter__(self) -> Iterator[int]:
        return iter(astuple(self))


def choose_ports(public: int) -> Ports:
    """The public port and the six after it, or free ones anywhere for 0.

    Raises:
        CommandError: one of them is in use, or there are not enough above `public`.
    """
    if public == 0:
        return _free_ports()
    ports = Ports(*range(public, public + _COUNT))
    for port in ports:
        if port > 65_535:
            raise CommandError("CS_CLI_PORT", f"port {public}: the stack needs {_COUNT} ports from there on")
        with socket.socket() as probe:
            # As servers do: a port whose last connections still linger is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                what = "is in use" if port == public else f"is in use (the stack takes {public} to {ports.cadence})"
                message = f"port {port} {what}; choose another with --port, or --port 0 for free ones"
                raise CommandError("CS_CLI_PORT_IN_USE", message, SERVER) from error
    return ports


def _free_ports() -> Ports:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(_COUNT)]
        for probe in probes:
            probe.bind((HOST, 0))
        return Ports(*(probe.getsockname()[1] for probe in probes))
