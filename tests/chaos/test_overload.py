"""A tenant asks for three times what it can get: what is accepted is answered, the rest is refused at once.

A whole mesh that `cs up` brings up, called through the proxy. The tenant's capacity is its share of the invoker's
permits: the function waits, so that neither the client nor the machine's two cores decide. A run with the seats taken
away shows what they are for.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import grpc
import pytest
from codesous.gateway.v1 import invocation_service_pb2 as pb
from codesous.gateway.v1.invocation_service_pb2_grpc import InvocationServiceStub
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from cs_core.store import keys
from tests.acceptance.conftest import TENANT, Mesh
from tests.support.scale import FULL, long_test, report, scaled

pytestmark = [pytest.mark.xdist_group("overload"), long_test]

# So long that three times the capacity leaves some of two cores free, the client's part included: else the machine
# decides, and not the gate.
RUN_MS = 800
TIMES = 3
CONNECTIONS = 24
OVERLOAD_S = scaled(short=8.0, full=60.0)
# As many callers wait as get their turn in half of the default time limit of a run, see `limits.tenant_waiting`.
FEWER_SEATS = {"CS_LIMITS__TENANT_WAITING": "48"}
SOURCE = f"""
export default async () => {{
  await new Promise((end) => setTimeout(end, {RUN_MS}));
  return "ok";
}};
"""


def neighbour() -> str:
    """A tenant that shares no partition of the queue with the busy one, as most do where there are many."""
    own = set(keys.tenant_partitions(TENANT, 16))
    candidates = (f"t_beside{number}" for number in range(100))
    return next(tenant for tenant in candidates if not own & set(keys.tenant_partitions(tenant, 16)))


@dataclass
class Answers:
    """What became of the calls of one caller: seconds until each answer, by kind."""

    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    # Turned away by the proxy, before the gateway: it holds so many calls at most.
    shed: list[float] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    # Good answers by the time that the last call was made; those that come after it are no throughput.
    in_time: int = 0

    def good_p99(self) -> float:
        return statistics.quantiles(self.good, n=100, method="inclusive")[98]


class Caller:
    """Calls one tenant's function through the proxy."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], tenant: str, token: str) -> None:
        # The proxy lets 100 calls go on at once in one connection; a client keeps what is more to itself.
        self._stubs = cycle([InvocationServiceStub(channel) for channel in channels])  # type: ignore[no-untyped-call]
        self._request = pb.InvokeRequest(
            tenant=tenant, namespace="default", function="waits", ref="live", event_json=b"{}"
        )
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def call(self, answers: Answers) -> None:
        began = time.perf_counter()
        try:
            answer = await next(self._stubs).Invoke(self._request, metadata=self._metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            took = time.perf_counter() - began
            reason, again = reason_of(rpc_status.from_call(error))
            answers.reasons[reason] += 1
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                assert again, f"{reason} does not say when to come back"
                answers.refused.append(took)
            elif error.code() == grpc.StatusCode.UNAVAILABLE and not reason:
                answers.shed.append(took)
            else:
                answers.failed.append((took, reason))
            return
        took = time.perf_counter() - began
        if answer.activation.status == ActivationStatus.ACTIVATION_STATUS_SUCCESS:
            answers.good.append(took)
        else:
            answers.failed.append((took, answer.activation.error.reason))

    async def at_once(self, callers: int, seconds: float) -> Answers:
        """Call by so many callers, each of whom waits for one answer before the next call."""
        answers, ends = Answers(), time.perf_counter() + seconds

        async def caller() -> None:
            while time.perf_counter() < ends:
                await self.call(answers)

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
            await asyncio.sleep(seconds)
            answers.in_time = len(answers.good)
        return answers

    async def at_rate(self, rate: float, seconds: float, ended: asyncio.Event | None = None) -> Answers:
        """Call so many times a second, however long the answers take."""
        answers, began, made = Answers(), time.perf_counter(), 0
        async with asyncio.TaskGroup() as group:
            while (now := time.perf_counter() - began) < seconds and not (ended and ended.is_set()):
                while made < now * rate:
                    group.create_task(self.call(answers))
                    made += 1
                await asyncio.sleep(0.002)
            answers.in_time = len(answers.good)
        return answers


def reason_of(status: status_pb2.Status | None) -> tuple[str, bool]:
    """The reason of an error, and whether it says when to come back."""
    reason, again = "", False
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            reason = error_details_pb2.ErrorInfo.FromString(detail.value).reason
        again = again or detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    return reason, again


@contextmanager
def mesh_of(home: Path, **environment: str) -> Iterator[Mesh]:
    mesh = Mesh(home)
    mesh.url = mesh.cs("up", "--detach", "--port", "0", **environment).json["api_url"]
    try:
        for tenant in (TENANT, neighbour()):
            mesh.cs("auth", "login", "--tenant", tenant, "--token", mesh.token(tenant, "admin"), "--api-url", mesh.url)
            mesh.deploy("waits", SOURCE)
        yield mesh
    finally:
        mesh.cs("down")


@asynccontextmanager
async def callers(mesh: Mesh) -> AsyncIterator[tuple[Caller, Caller]]:
    """The busy tenant's caller and its neighbour's, each with connections of its own."""
    beside, apart = neighbour(), [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as open_channels:

        async def connections(count: int) -> list[grpc.aio.Channel]:
            channels = (grpc.aio.insecure_channel(mesh.address, options=apart) for _ in range(count))
            return [await open_channels.enter_async_context(channel) for channel in channels]

        yield (
            Caller(await connections(CONNECTIONS), TENANT, mesh.admin),
            Caller(await connections(1), beside, mesh.token(beside, "admin")),
        )


async def capacity(busy: Caller) -> float:
    """Calls per second that the tenant gets answered at most."""
    await busy.at_once(8, 1.0)
    best = 0.0
    for at_once in (32, 48):
        seconds = scaled(short=3.0, full=6.0)
        best = max(best, (await busy.at_once(at_once, seconds)).in_time / seconds)
    return best


async def test_under_three_times_its_capacity_a_tenant_gets_its_capacity_and_the_rest_is_refused(
    tmp_path: Path,
) -> None:
    with mesh_of(tmp_path, **FEWER_SEATS) as mesh:
        async with callers(mesh) as (busy, other):
            peak = await capacity(busy)
            quiet = await other.at_rate(10, scaled(short=4.0, full=20.0))

            loaded, beside = await asyncio.gather(busy.at_rate(TIMES * peak, OVERLOAD_S), other.at_rate(10, OVERLOAD_S))
            began = time.perf_counter()
            while True:
                again = await busy.at_once(4, 0.5)
                if (
                    not (again.failed or again.refused or again.shed)
                    and statistics.median(again.good) < 2 * RUN_MS / 1000
                ):
                    break
            normal = time.perf_counter() - began

    goodput = loaded.in_time / OVERLOAD_S / peak
    refusal = statistics.quantiles(loaded.refused, n=100, method="inclusive")
    ratio = beside.good_p99() / quiet.good_p99()
    report(
        "overload",
        peak=peak,
        offered=TIMES * peak,
        goodput=goodput,
        refused=len(loaded.refused),
        refusal_p50_ms=refusal[49] * 1000,
        refusal_p99_ms=refusal[98] * 1000,
        shed=len(loaded.shed),
        failed=len(loaded.failed),
        accepted_p99_ms=loaded.good_p99() * 1000,
        normal_after_s=normal,
        neighbours_ratio=ratio,
        reasons=dict(loaded.reasons),
    )
    assert not beside.refused
    assert loaded.refused
    assert loaded.reasons["CS_TENANT_INFLIGHT_LIMIT"] == len(loaded.refused)
    assert normal < (5 if FULL else 30)
    # The short form shares the machine with other tests: what it measures of time says nothing.
    assert len(loaded.failed) <= (0 if FULL else len(loaded.good))
    if FULL:
        assert not loaded.shed
        assert not beside.failed
        assert goodput >= 0.9
        assert refusal[98] < 0.05
        assert ratio < 2


async def test_without_seats_callers_wait_in_vain(tmp_path: Path) -> None:
    everyone = {"CS_LIMITS__TENANT_WAITING": "100000", "CS_LIMITS__GATEWAY_WAITING": "100000"}
    with mesh_of(tmp_path, **everyone) as mesh:
        async with callers(mesh) as (busy, _):
            peak = await capacity(busy)
            loaded = await busy.at_rate(TIMES * peak, scaled(short=8.0, full=20.0))
    report("no seats", peak=peak, good=len(loaded.good), failed=len(loaded.failed))
    assert not loaded.refused
    assert loaded.failed, "the callers beyond the capacity were all answered: the load was none"
    assert min(took for took, _ in loaded.failed) > 1.0, "what failed was told at once, without seats too"
