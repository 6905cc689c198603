"""Measure a synchronous call of a small function against the floor, in one run, and print both."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import grpc
from codesous.gateway.v1 import invocation_service_pb2, invocation_service_pb2_grpc
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from rich.console import Console
from rich.table import Table

from bench import floor, stack
from bench.load import Call, Sample, drive

ROUNDS = 3
CALLS = 1_000
CONNECTIONS = (1, 32)


@contextmanager
def _floor() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-m", "bench.floor"], stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the floor has no output")
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def _echo(channel: grpc.aio.Channel) -> Call:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(floor.METHOD)

    async def call() -> None:
        await method(b"hello")

    return call


def _invoke(channel: grpc.aio.Channel, token: str) -> Call:
    stub = invocation_service_pb2_grpc.InvocationServiceStub(channel)
    request = invocation_service_pb2.InvokeRequest(
        tenant=stack.TENANT, namespace="default", function="hello", ref="live", event_json=b"{}"
    )
    metadata = (("authorization", f"Bearer {token}"),)

    async def call() -> None:
        answer = await stub.Invoke(request, metadata=metadata)
        if answer.activation.status != ActivationStatus.ACTIVATION_STATUS_SUCCESS:
            raise RuntimeError(f"the function failed: {answer.activation.error}")

    return call


async def _rounds(echo: Call, invoke: Call, at_once: int) -> tuple[list[Sample], list[Sample]]:
    """Rounds of the two by turns, after a warm-up of each: what else the machine does hits both."""
    floors, calls = [], []
    for call in (echo, invoke):
        await drive(call, count=CALLS // 5, at_once=at_once)
    for _ in range(ROUNDS):
        floors.append(await drive(echo, count=CALLS, at_once=at_once))
        calls.append(await drive(invoke, count=CALLS, at_once=at_once))
    return floors, calls


def _row(name: str, samples: list[Sample], floors: list[Sample]) -> list[str]:
    rate, p50 = median(s.rate for s in samples), median(s.percentile(50) for s in samples)
    p99 = median(s.percentile(99) for s in samples)
    return [
        name,
        f"{rate:,.0f}",
        f"{rate / median(s.rate for s in floors):.3f}",
        f"{p50 * 1000:.2f}",
        f"{p50 / median(s.percentile(50) for s in floors):.1f}",
        f"{p99 * 1000:.2f}",
    ]


async def main() -> None:
    """Print one table."""
    table = Table("gRPC through Envoy", "calls/s", "÷ floor", "p50 ms", "÷ floor", "p99 ms")
    with stack.running() as mesh, _floor() as address:
        async with grpc.aio.insecure_channel(address) as bare, grpc.aio.insecure_channel(mesh.address) as channel:
            for at_once in CONNECTIONS:
                floors, calls = await _rounds(_echo(bare), _invoke(channel, mesh.token), at_once)
                table.add_row(*_row(f"floor: bare echo, no Envoy, {at_once} at once", floors, floors))
                table.add_row(*_row(f"hello, sync, {at_once} at once", calls, floors))
    Console(width=100).print(table)


if __name__ == "__main__":
    asyncio.run(main())
