"""Every RPC of the control plane and the gateway, on odd requests and mutated bytes, through the real server chain.

No answer is INTERNAL or UNKNOWN, every refusal is one of the table, nothing of another tenant comes into being, and the
process goes on.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from itertools import cycle, islice
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cs_core.rpc.paging import Page
from cs_core.rpc.status import TABLE
from cs_core.store.client import KvClient
from tests.support.both_planes import FAULTS, both_planes
from tests.support.contracts import all_rpcs
from tests.support.fuzzing import Campaign, fuzz_calls, share
from tests.support.odd_requests import STRANGER, TENANT, OddRequests
from tests.support.rpc import Served
from tests.support.scale import long_test

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALL_SECONDS, WAIT_SECONDS = 10.0, 0.05
# What may still be waiting when its caller has had enough.
WAITING = re.compile(r"/(Watch\w+|WaitActivation|Invoke|Handle|Drain|RedriveDeadLetters)$")
DRAIN, UNDRAIN = (f"/codesous.admin.v1.AdminService/{name}" for name in ("Drain", "Undrain"))
LEAKS = re.compile(r"Traceback|File \"|\.py\b|0x[0-9a-f]{6,}|redis|Exception")
RPCS = {
    rpc.path: rpc
    for rpc in all_rpcs()
    if rpc.service.startswith(("codesous.control.", "codesous.gateway.", "codesous.admin."))
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Served, KvClient]]:
    async with both_planes(tmp_path_factory.mktemp("fuzz")) as started:
        yield started


class Caller:
    """Calls RPCs with bytes, and judges the answers."""

    def __init__(self, served: Served, requests: OddRequests) -> None:
        self._served, self._requests = served, requests
        self._metadata = served.bearer("admin")

    async def call(self, path: str, data: bytes) -> tuple[bool, str]:
        """Whether it was refused, and what was wrong with the answer."""
        rpc = RPCS[path]
        seconds = WAIT_SECONDS if WAITING.search(path) else CALL_SECONDS
        channel = self._served.channel
        kind = channel.unary_stream if rpc.method.server_streaming else channel.unary_unary
        call: Any = kind(path, request_serializer=None, response_deserializer=None)
        FAULTS.clear()
        try:
            if rpc.method.server_streaming:
                async for part in call(data, metadata=self._metadata, timeout=seconds):
                    self._requests.learn(rpc.answer.FromString(part))
            else:
                answer = await call(data, metadata=self._metadata, timeout=seconds)
                self._requests.learn(rpc.answer.FromString(answer))
        except grpc.aio.AioRpcError as error:
            return True, wrong(error, path)
        finally:
            if path == DRAIN:
                # A drained process refuses every tenant, and the campaign would be of that refusal.
                await channel.unary_unary(UNDRAIN)(b"", metadata=self._metadata, timeout=CALL_SECONDS)
        return False, ""


def wrong(error: grpc.aio.AioRpcError, path: str) -> str:
    """What is wrong with a refusal; empty for nothing."""
    told = f"{error.code().name} {error.details()}".partition("; request ")[0]
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details):
        waited = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and WAITING.search(path)
        return "" if waited else f"untyped: {told}"
    if info.reason not in TABLE or error.code() != TABLE[info.reason].code:
        return f"not of the table: {told}"
    if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE):
        return f"{told}: {', '.join(FAULTS)}"
    return f"says too much: {told}" if LEAKS.search(error.details() or "") else ""


async def fuzz_rpcs(served: Served, paths: Sequence[str], name: str, count: int) -> Campaign:
    """Call RPCs in turn, `count` times in all."""
    requests = OddRequests(name)
    inputs = ((path, requests.of(RPCS[path])) for path in islice(cycle(paths), count))
    return await fuzz_calls(name, inputs, count, Caller(served, requests).call)


@long_test
async def test_no_rpc_fails_on_any_bytes(mesh: tuple[Served, KvClient]) -> None:
    served, client = mesh
    campaign = await fuzz_rpcs(served, list(RPCS), "rpcs", share(short=60, full=3_600) * len(RPCS))
    campaign.check()
    assert len(campaign.passed_in) > len(RPCS) * 0.4, f"too few were let in: {sorted(RPCS.keys() - campaign.passed_in)}"
    await only_of_the_tenant(client)


async def only_of_the_tenant(client: KvClient) -> None:
    """Nothing of a tenant came into being that none of the callers was of."""
    keys = [key.decode() for key in await client.call("KEYS", "*")]
    assert any(f"{{{TENANT}}}" in key for key in keys)
    # Its name is a lawful one for a function, too: it counts where a tenant's name stands.
    strangers = re.compile(rf"cs:\{{{STRANGER}\}}|cs:\{{[^}}]*\}}:[a-z-]+:{STRANGER}/")
    assert [key for key in keys if f"{{{TENANT}}}" not in key and strangers.match(key)] == []


async def test_a_servicer_that_trusts_a_token_is_found_out(
    mesh: tuple[Served, KvClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: one list believes that a position is of its own making."""
    monkeypatch.setattr(Page, "after_name", lambda page: "".join(page._position or []))
    served, _ = mesh
    campaign = await fuzz_rpcs(served, ["/codesous.control.v1.FunctionService/ListFunctions"], "control", 60)
    assert any("INTERNAL" in finding.what and "TypeError" in finding.what for finding in campaign.findings)


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_a_refusal_that_is_not_typed_is_a_finding(code: grpc.StatusCode) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "Unexpected <class 'ValueError'>")
    assert wrong(error, next(iter(RPCS))).startswith("untyped")
