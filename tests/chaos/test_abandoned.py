"""Callers that go away and deadlines that pass under load: nothing starts late, and nothing stays taken."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from urllib.request import urlopen

import pytest
from codesous.type.v1.capabilities_pb2 import Capabilities, KvCapability, KvOperation

from cs_core.clock import from_timestamp
from cs_core.errors import CorrelationTimeoutError
from cs_core.store import keys
from tests.support.front import Front, open_front
from tests.support.invocations import TERMINAL, status_of
from tests.support.invoker_pool import PoolProcess
from tests.support.redis_server import RedisServer
from tests.support.scale import long_test, report, scaled
from tests.support.services import free_ports
from tests.support.waiting import wait_until

TENANT = "t_alpha0"
PERMITS = 4
BRIEF, LONG = 0.4, 20.0
TELLS_ITS_START = """
export default async (event, ctx) => {
  await cs.kv.set("started/" + ctx.activation_id, String(Date.now()));
  await new Promise((end) => setTimeout(end, event.ms));
  return { statusCode: 200, body: "done" };
};
"""
CAPABILITIES = Capabilities(kv=KvCapability(prefixes=["started/"], operations=[KvOperation.KV_OPERATION_SET]))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


class Scene:
    """A front, one narrow invoker, and what is left behind."""

    def __init__(self, front: Front, metrics_port: int) -> None:
        self.front = front
        self._metrics_port = metrics_port
        self._source = random.Random(7)

    async def abandon(self, callers: int) -> int:
        """Let callers wait for far more than can run: half go away, half have a short deadline. How many went away."""
        deploy = self.front.deploy
        self.long = await deploy(TENANT, "long", TELLS_ITS_START, timeout=LONG, capabilities=CAPABILITIES)
        self.brief = await deploy(
            TENANT, "brief", TELLS_ITS_START + "//", timeout=BRIEF, capabilities=CAPABILITIES, max_concurrency=3
        )
        gone = await asyncio.gather(*(self._call(number % 2 == 0) for number in range(callers)))
        await self.front.emptied()
        return sum(gone)

    async def _call(self, goes_away: bool) -> bool:
        calling = asyncio.create_task(self.front.invoke(self.long if goes_away else self.brief, {"ms": 30}))
        await asyncio.wait([calling], timeout=self._source.uniform(0.0, 1.5) if goes_away else None)
        went = calling.cancel()
        with suppress(asyncio.CancelledError, CorrelationTimeoutError):
            await calling
        return went

    async def late_starts(self) -> list[str]:
        """Activations whose code started after their deadline."""
        late = []
        for activation_id in await self.front.ids():
            record = await self.front.store.get(TENANT, activation_id)
            started = await self.front.client.call("GET", keys.user_value(TENANT, f"started/{activation_id}"))
            assert record is not None
            seconds = BRIEF if record.function.function == "brief" else LONG
            deadline = from_timestamp(record.accept_time).timestamp() + seconds
            # The two clocks are one machine's; the code's has milliseconds.
            if started is not None and float(json.loads(started)) / 1000 > deadline + 0.001:
                late.append(activation_id)
        return late

    async def statuses(self) -> Counter[str]:
        """How the records ended."""
        records = await asyncio.gather(*(self.front.store.get(TENANT, name) for name in await self.front.ids()))
        return Counter(status_of(record) for record in records if record is not None)

    async def left_taken(self) -> dict[str, int]:
        """What is still held when nothing runs, by kind."""

        async def idle() -> bool:
            return "cs_invoker_inflight 0.0" in await asyncio.to_thread(self._metrics)

        with suppress(AssertionError):
            await wait_until(idle, within=10)
        found = re.search(r"^cs_invoker_inflight (\S+)", await asyncio.to_thread(self._metrics), re.MULTILINE)
        return {
            "inflight": int(float(found[1])) if found else -1,
            "open": await self.front.store.count_open(TENANT),
            "slots": await self.front.slots.count(self.long) + await self.front.slots.count(self.brief),
            "waiters": self.front.waiters.count,
            "keys": len(await self.front.kept_for_ever()),
        }

    async def all_permits_serve(self) -> None:
        """As many as there are permits run at the same time."""
        calls = [asyncio.create_task(self.front.invoke(self.long, {"ms": 3000})) for _ in range(PERMITS)]

        async def running() -> bool:
            return (await self.statuses())["RUNNING"] == PERMITS

        await wait_until(running)
        assert {status_of(await call) for call in calls} == {"SUCCESS"}

    def _metrics(self) -> str:
        with urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())


@asynccontextmanager
async def scene(server: RedisServer, *off: str) -> AsyncIterator[Scene]:
    port = free_ports({"metrics": ""})["metrics"]
    settings = {
        "invoker": {"concurrency": PERMITS, "partition_share": 1.0, "activation_lease": 120.0, "metrics_port": port},
        "codeq": {"lease": 120.0, "poll_interval": 0.1},
        "sandbox": {"cells": PERMITS, "cells_per_tenant": PERMITS},
    }
    async with PoolProcess(server.url, settings, off), open_front(server.url) as front:
        yield Scene(front, port)


@long_test
async def test_nothing_starts_after_its_deadline_and_nothing_stays_taken(server: RedisServer) -> None:
    callers = scaled(short=120, full=500)
    async with scene(server) as here:
        gone = await here.abandon(callers)
        statuses, left, late = await here.statuses(), await here.left_taken(), await here.late_starts()
        report("abandoned", callers=callers, gone=gone, ended=dict(statuses), late_starts=len(late), left=left)
        assert late == []
        assert left == {"inflight": 0, "open": 0, "slots": 0, "waiters": 0, "keys": 0}
        assert set(statuses) <= TERMINAL
        assert statuses["CANCELLED"]
        assert statuses["TIMEOUT"]
        await here.all_permits_serve()


@long_test
async def test_without_deadlines_runs_start_late(server: RedisServer) -> None:
    async with scene(server, "no_deadline") as here:
        await here.abandon(60)
        assert await here.late_starts()


@long_test
async def test_slots_that_are_not_given_back_are_seen(server: RedisServer) -> None:
    async with scene(server, "keep_slots") as here:
        with suppress(AssertionError):
            await asyncio.wait_for(here.abandon(20), 20)
        assert (await here.left_taken())["slots"] > 0
