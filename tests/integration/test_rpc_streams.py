"""A stream lasts no longer than the token that began it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from codesous.control.v1 import mutation_service_pb2 as pb
from codesous.control.v1.mutation_service_pb2_grpc import (
    MutationServiceServicer,
    MutationServiceStub,
    add_MutationServiceServicer_to_server,
)
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cs_core.iam.interceptors import Authentication
from cs_core.rpc.context import Passive
from cs_core.rpc.server import Service
from tests.support.rpc import TENANT, serving
from tests.support.tikti import API_KEY, AUDIENCE, Tikti, User

LEAST = 3


class Ticking(MutationServiceServicer):
    """Streams without end, and notes that it was told to stop."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def WatchMutations(
        self, request: pb.WatchMutationsRequest, context: Any
    ) -> AsyncIterator[pb.WatchMutationsResponse]:
        try:
            while True:
                yield pb.WatchMutationsResponse()
                await asyncio.sleep(0.02)
        finally:
            self.closed.set()


def service(ticking: Ticking) -> Service:
    return Service("codesous.control.v1.MutationService", add_MutationServiceServicer_to_server, ticking)


@pytest.fixture
def tikti() -> Iterator[Tikti]:
    tikti = Tikti()
    yield tikti
    tikti.close()


async def watch(channel: grpc.aio.Channel, header: str, messages: int) -> tuple[int, str]:
    """Read until the stream ends, or that many messages came: how many, and the reason of the end."""
    stub: Any = MutationServiceStub(channel)
    call = stub.WatchMutations(
        pb.WatchMutationsRequest(tenant=TENANT), metadata=(("authorization", header),), timeout=30
    )
    count = 0
    try:
        async for _ in call:
            count += 1
            if count == messages:
                call.cancel()
                return count, ""
    except grpc.aio.AioRpcError as error:
        status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()  # type: ignore[arg-type]
        assert status is not None
        assert status.details[0].Unpack(info)
        return count, info.reason
    return count, "ended"


async def test_a_stream_ends_when_its_token_does(tmp_path: Path) -> None:
    ticking = Ticking()  # type: ignore[abstract]
    async with serving(tmp_path, [service(ticking)]) as served:
        # The leeway for clocks is on top, so this token is good for about two seconds.
        token = served.issuer.mint(TENANT, ["admin"], ttl=timedelta(seconds=-3))
        count, reason = await watch(served.channel, f"Bearer {token}", 10_000)
        assert reason == "CS_AUTHN_TOKEN_EXPIRED"
        assert count >= LEAST
        await asyncio.wait_for(ticking.closed.wait(), 10)


async def test_without_the_look_before_each_message_it_would_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr(Authentication, "during", Passive.during)
    async with serving(tmp_path, [service(Ticking())]) as served:  # type: ignore[abstract]
        token = served.issuer.mint(TENANT, ["admin"], ttl=timedelta(seconds=-3))
        started = time.monotonic()
        stub: Any = MutationServiceStub(served.channel)
        metadata = (("authorization", f"Bearer {token}"),)
        call = stub.WatchMutations(pb.WatchMutationsRequest(tenant=TENANT), metadata=metadata, timeout=30)
        async for _ in call:
            if time.monotonic() - started > 3:
                break
        call.cancel()


async def test_a_stream_ends_when_the_issuer_revokes_its_token(tmp_path: Path, tikti: Tikti) -> None:
    user = tikti.add(User("ada@example.com", "x", TENANT))
    iam = {
        "mode": "introspection",
        "issuer": tikti.url,
        "audience": AUDIENCE,
        "introspection_url": f"{tikti.url}/oauth/introspect",
        "introspection_secret": API_KEY,
        "introspection_ttl": 0.3,
    }
    async with serving(tmp_path, [service(Ticking())], settings={"iam": iam}) as served:  # type: ignore[abstract]
        token = tikti.access_token(user, (), role="admin")
        assert await watch(served.channel, f"Bearer {token}", LEAST) == (LEAST, "")
        watching = asyncio.create_task(watch(served.channel, f"Bearer {token}", 10_000))
        tikti.revoked.add(token)
        _, reason = await watching
        assert reason == "CS_AUTHN_TOKEN_INVALID"
