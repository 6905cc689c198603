"""What one tenant does to another: crashing bundles and floods beside a steady caller, measured in one run.

The machine is shared and noisy, so no time is asserted: each round measures the steady tenant with and without its
neighbour, and the median over the rounds of the two p99's ratio decides.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.codeq.contract import INVOKE
from cs_core.errors import CorrelationTimeoutError
from cs_core.store import keys
from tests.support import unguarded
from tests.support.front import Front, open_front
from tests.support.invocations import PARTITIONS, status_of
from tests.support.invoker_pool import PoolProcess
from tests.support.redis_server import RedisServer
from tests.support.scale import long_test, report, scaled
from tests.support.waiting import wait_until

STEADY = "t_steady0"
SLEEPS = "export default async (event) => { await new Promise((end) => setTimeout(end, event.ms)); return 'ok'; };"
# It is at work when its cell dies, as code is that crashes its cell.
CRASHES = f"// {unguarded.CRASH_MARK}\nexport default () => {{ for (;;); }};"
DELIVERIES = 3
RUN_MS = 500
"""Long beside what the platform adds, so that a machine that is busy with its own work does not decide."""
CALLS_PER_SECOND = 10
CELLS = 8
BOUND = 2.0
"""How much longer the steady tenant may wait beside a flood. The short form has one small round, and a loose bound."""
PERMITS = 32
CALLERS = 10 * PERMITS // 4
"""Ten times the permits that the messages of one partition may hold."""


def disjoint_tenant(name: str) -> str:
    """A tenant that shares no partition of the queue with the steady one, as most do where there are many."""
    own = set(keys.tenant_partitions(STEADY, PARTITIONS))
    candidates = (f"t_{name}{number:02}" for number in range(100))
    return next(tenant for tenant in candidates if not own & set(keys.tenant_partitions(tenant, PARTITIONS)))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def stage(server: RedisServer, *off: str) -> AsyncIterator[Front]:
    settings = {
        "invoker": {"concurrency": PERMITS, "activation_lease": 20.0},
        "codeq": {"lease": 30.0, "max_deliveries": DELIVERIES},
        "sandbox": {"cells": CELLS, "cells_per_tenant": CELLS // 2, "spares": 2},
    }
    async with PoolProcess(server.url, settings, off) as process, open_front(server.url) as front:
        assert process.instance
        yield front


@dataclass
class Rounds:
    """The steady tenant's p99 by round, alone and beside its neighbour, in seconds."""

    front: Front
    ref: FunctionRef
    calls: int
    quiet: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)

    async def p99(self) -> float:
        """Call at an even pace, however long the answers take."""
        took: list[float] = []

        async def call() -> None:
            started = time.perf_counter()
            answer = await self.front.invoke(self.ref, {"ms": RUN_MS})
            assert status_of(answer) == "SUCCESS", answer.error
            took.append(time.perf_counter() - started)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.calls):
                group.create_task(call())
                await asyncio.sleep(1 / CALLS_PER_SECOND)
        return statistics.quantiles(took, n=100, method="inclusive")[98]

    async def measure(self, rounds: int, neighbour: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Measure alone, then beside the neighbour, round by round; it says when it is at its full size."""
        await self.p99()
        for _ in range(rounds):
            self.quiet.append(await self.p99())
            grown = asyncio.Event()
            noise = asyncio.ensure_future(neighbour(grown))
            try:
                await asyncio.wait_for(grown.wait(), 60)
                self.beside.append(await self.p99())
            finally:
                noise.cancel()
                await asyncio.gather(noise, return_exceptions=True)
            await self.front.emptied(within=120)

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(b / q for q, b in zip(self.quiet, self.beside, strict=True))

    def figures(self) -> dict[str, float]:
        """For the report, in milliseconds."""
        return {
            "p99_quiet_ms": statistics.median(self.quiet) * 1000,
            "p99_beside_ms": statistics.median(self.beside) * 1000,
            "ratio": self.ratio,
        }


async def steady(front: Front) -> Rounds:
    ref = await front.deploy(STEADY, "steady", SLEEPS, timeout=20)
    return Rounds(front, ref, scaled(short=20, full=100))


@long_test
async def test_one_bundle_in_a_hundred_crashes_its_cell(server: RedisServer) -> None:
    """Each activation of it is a dead letter after exactly the configured runs, and the neighbour hardly notices."""
    tenant, bundles = disjoint_tenant("crash"), scaled(short=20, full=100)
    async with stage(server, "crashes") as front:
        refs = [
            await front.deploy(tenant, f"bundle{n}", f"// {n}\n{CRASHES if n == 7 else SLEEPS}") for n in range(bundles)
        ]
        accepted: list[tuple[str, str]] = []

        async def neighbour(grown: asyncio.Event) -> None:
            grown.set()
            while True:
                for ref in refs:
                    activation = await front.invoke(ref, {"ms": RUN_MS}, asynchronous=True)
                    accepted.append((activation.activation_id, ref.function))
                    await asyncio.sleep(0.5 / CALLS_PER_SECOND)

        rounds = await steady(front)
        await rounds.measure(scaled(short=1, full=5), neighbour)
        records = {name: await front.store.get(tenant, name) for name, _ in accepted}
        letters = await front.queue.list_dead_letters(INVOKE, limit=10_000)
    poison = {name for name, function in accepted if function == "bundle7"}
    report("crashing bundles", bundles=bundles, ran=len(accepted), crashing=len(poison), **rounds.figures())
    assert poison
    for name, record in records.items():
        assert record is not None
        if name in poison:
            assert (status_of(record), record.error.reason, record.attempt) == ("ERROR", "CS_RUNTIME_CRASH", DELIVERIES)
        else:
            # One that waited in the same cell is run again, once and alone.
            assert (status_of(record), record.attempt in (1, 2)) == ("SUCCESS", True)
    assert sorted(letter.envelope.invocation_request.activation_id for letter in letters) == sorted(poison)
    assert rounds.ratio <= scaled(short=10.0, full=1.5)


@long_test
async def test_without_the_limit_a_crashing_bundle_is_run_for_ever(server: RedisServer) -> None:
    async with stage(server, "crashes", "no_crash_limit") as front:
        ref = await front.deploy("t_crash00", "crashes", CRASHES)
        activation = await front.invoke(ref, {"ms": RUN_MS}, asynchronous=True)

        async def run_too_often() -> bool:
            record = await front.store.get("t_crash00", activation.activation_id)
            return record is not None and record.attempt > DELIVERIES

        await wait_until(run_too_often)
        assert await front.queue.list_dead_letters(INVOKE, limit=10) == []


async def flood(front: Front, ref: FunctionRef, callers: int, grown: asyncio.Event) -> None:
    """Callers that wait, each with its next call at once."""

    async def call_on() -> None:
        while True:
            with suppress(CorrelationTimeoutError):
                await front.invoke(ref, {"ms": RUN_MS})

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call_on())
            # This process serves both tenants: what is measured is not how long it takes to make so many calls.
            await asyncio.sleep(0.01)
        grown.set()


async def flooded(front: Front, tenant: str, *, callers: int = CALLERS, max_concurrency: int = 0) -> Rounds:
    """The steady tenant, measured alone and beside a flood."""
    ref = await front.deploy(tenant, "flood", SLEEPS, timeout=20, max_concurrency=max_concurrency)
    rounds = await steady(front)
    await rounds.measure(scaled(short=1, full=5), lambda grown: flood(front, ref, callers, grown))
    return rounds


@long_test
@pytest.mark.parametrize("max_concurrency", scaled(short=[0], full=[0, 1]))
async def test_a_flood_of_one_tenant_hardly_delays_another(server: RedisServer, max_concurrency: int) -> None:
    async with stage(server) as front:
        rounds = await flooded(front, disjoint_tenant("flood"), max_concurrency=max_concurrency)
    report("flood", callers=CALLERS, max_concurrency=max_concurrency, **rounds.figures())
    assert rounds.ratio <= scaled(short=10.0, full=BOUND)


@long_test
async def test_in_one_partition_a_flood_starves_another_tenant(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "tenant_partitions", lambda _tenant, _partitions: (0,))
    async with stage(server, "one_partition", "no_share") as front:
        rounds = await flooded(front, "t_flood00", callers=10 * PERMITS)
    report("flood in one partition", callers=10 * PERMITS, **rounds.figures())
    assert rounds.ratio > BOUND
