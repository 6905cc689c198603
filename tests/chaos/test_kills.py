"""Invokers and cells are killed at random under load: every activation ends once, and only what was hit runs again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

import pytest
from codesous.type.v1.capabilities_pb2 import Capabilities, KvCapability, KvOperation

from cs_core.codeq.contract import INVOKE
from cs_core.store.client import KvClient
from cs_invoker.assembly import BATCH
from tests.support.audit import TERMINAL, Audit, Auditor
from tests.support.invocations import Ingress, status_of
from tests.support.invoker_pool import PoolProcess
from tests.support.redis_server import RedisServer
from tests.support.scale import long_test, report, scaled
from tests.support.waiting import wait_until

COUNTED = """
export default async (event, ctx) => {
  await cs.kv.incr("runs:" + ctx.activation_id);
  await new Promise((end) => setTimeout(end, event.ms));
  return { statusCode: 200, body: String(event.n) };
};
"""
CAPABILITIES = Capabilities(kv=KvCapability(prefixes=["runs:"], operations=[KvOperation.KV_OPERATION_INCR]))
# A kill of an invoker stands for many hits at once, so there are fewer of them.
INVOKER_SHARE = 0.3
OUTSTANDING = 120
SETTINGS = {
    "invoker": {"concurrency": 32, "activation_lease": 4.0, "partition_share": 1.0},
    "codeq": {"lease": 5.0, "poll_interval": 0.1},
    "sandbox": {"cells": 8, "cells_per_tenant": 8},
}


@dataclass
class Storm:
    """Kills, and what was in flight where they hit."""

    auditor: Auditor
    pool: list[PoolProcess]
    source: random.Random
    hit: set[str] = field(default_factory=set)
    invokers: int = 0
    cells: int = 0
    in_flight: int = 0
    _restarts: set[asyncio.Task[None]] = field(default_factory=set)
    _blows: list[tuple[str, int]] = field(default_factory=list)

    async def kill(self) -> None:
        """Kill an invoker or a cell, of those that have something in flight."""
        process = self.source.choice(await wait_until(self._busy, within=60))
        cells = process.cells()
        if cells and self.source.random() >= INVOKER_SHARE:
            await self._kill_cell(process, self.source.choice(cells))
        else:
            await self.kill_invoker(process)

    def _busy(self) -> list[PoolProcess]:
        return [process for process in self.pool if process.instance and self.auditor.audit.running(process.instance)]

    async def _kill_cell(self, process: PoolProcess, cell: int) -> None:
        audit = await self.auditor.caught_up()
        before, count = audit.running(process.instance), len(audit.begun)
        try:
            os.kill(cell, signal.SIGKILL)
        except ProcessLookupError:
            return
        await self.auditor.caught_up()
        # What was begun while we looked may have been in it too.
        self._note(before | {name for name, instance in audit.begun[count:] if instance == process.instance})
        self._blows.append((process.instance, count))
        self.cells += 1

    def may_be_hit(self) -> set[str]:
        """What was hit, and the batch that an invoker began before it could see that its cell was gone."""
        found = set(self.hit)
        for instance, count in self._blows:
            own = (name for name, holder in self.auditor.audit.begun[count:] if holder == instance)
            found |= set(islice(own, BATCH))
        return found

    async def kill_invoker(self, process: PoolProcess) -> None:
        """Kill an invoker, and start another in its place."""
        instance, process.instance = process.instance, ""
        await asyncio.to_thread(process.kill)
        # What it had sent before it died may be read after what we send now, within one turn of the server's loop.
        await self.auditor.caught_up()
        self._note((await self.auditor.caught_up()).running(instance))
        self.invokers += 1
        restart = asyncio.create_task(process.start())
        self._restarts.add(restart)
        restart.add_done_callback(self._restarts.discard)

    def _note(self, activations: set[str]) -> None:
        self.hit |= activations
        self.in_flight += len(activations)

    async def over(self) -> None:
        """Wait until all that was killed is back."""
        await asyncio.gather(*self._restarts)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def storming(server: RedisServer, processes: int, *off: str) -> AsyncIterator[tuple[Ingress, Storm]]:
    """Invokers, a hand that submits, and kills to come."""
    auditor, client = Auditor(server), KvClient(server.url)
    pool = [PoolProcess(server.url, SETTINGS, off) for _ in range(processes)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(auditor.reading())
        await asyncio.gather(*(stack.enter_async_context(process) for process in pool))
        ingress = Ingress(client)
        storm = Storm(auditor, pool, random.Random(1))
        try:
            yield ingress, storm
            await storm.over()
        finally:
            await ingress.queue.close()
            await client.close()


async def run_through(ingress: Ingress, storm: Storm, activations: int, kills: int) -> list[str]:
    """Submit as others end, and kill as work goes on; returns what was submitted."""
    ref = await ingress.put_version("counted", COUNTED, capabilities=CAPABILITIES, timeout=timedelta(seconds=20))
    submitted: list[str] = []
    audit = storm.auditor.audit

    def ended() -> int:
        return sum(bool(events) and events[-1][0] in TERMINAL for events in audit.states.values())

    for kill in range(kills):
        goal = activations * (kill + 1) // kills
        while len(submitted) < goal:
            room = OUTSTANDING - (len(submitted) - ended())
            if room <= 0:
                await asyncio.sleep(0.02)
                continue
            batch = range(min(room, goal - len(submitted)))
            event = {"ms": storm.source.randint(10, 100), "n": len(submitted)}
            submitted += await asyncio.gather(*(ingress.invoke(ref, event) for _ in batch))
        await storm.kill()
    await storm.over()
    return submitted


def judge(audit: Audit, submitted: list[str], hit: set[str]) -> list[str]:
    """What is wrong, in words; nothing is right."""
    found = []
    for activation in submitted:
        if audit.terminal_writes(activation) == 0:
            found.append(f"{activation} did not end")
        elif audit.terminal_writes(activation) > 1:
            found.append(f"{activation} ended more than once")
        if audit.begun_again(activation) and activation not in hit:
            found.append(f"{activation} was run again although nothing hit it: {audit.states[activation]}")
        if audit.runs(activation) > audit.begins(activation):
            found.append(f"{activation} ran more often than it was begun")
    return found + [f"{activation} went on after its end" for activation in audit.written_after_the_end()]


@long_test
async def test_every_activation_ends_once_whatever_is_killed(server: RedisServer) -> None:
    activations, kills = scaled(short=(150, 8), full=(5000, 200))
    async with storming(server, scaled(short=2, full=3)) as (ingress, storm):
        submitted = await run_through(ingress, storm, activations, kills)
        records = await asyncio.gather(*(ingress.ended(activation, within=120) for activation in submitted))
        await ingress.emptied(within=60)
        audit = await storm.auditor.caught_up()
    extra = sum(audit.begins(activation) - 1 for activation in submitted)
    report(
        "kills",
        activations=len(records),
        killed_invokers=storm.invokers,
        killed_cells=storm.cells,
        in_flight_at_kills=storm.in_flight,
        extra_runs=extra,
        given_up=sum(status_of(record) != "SUCCESS" for record in records),
    )
    assert judge(audit, submitted, storm.may_be_hit()) == []
    assert extra <= storm.in_flight
    assert {status_of(record) for record in records} <= {"SUCCESS", "ERROR"}
    assert all(record.error.reason == "CS_RUNTIME_CRASH" for record in records if status_of(record) == "ERROR")
    assert storm.invokers
    assert storm.cells


@long_test
async def test_without_leases_on_messages_kills_lose_activations(server: RedisServer) -> None:
    async with storming(server, 2, "ack_first") as (ingress, storm):
        ref = await ingress.put_version("counted", COUNTED, capabilities=CAPABILITIES)
        submitted = await asyncio.gather(*(ingress.invoke(ref, {"ms": 1000, "n": n}) for n in range(24)))

        async def taken() -> bool:
            return (await ingress.queue.depth(INVOKE)).total == 0

        await wait_until(taken)
        await storm.kill_invoker(storm.pool[0])
        instance = storm.pool[1].instance
        await wait_until(lambda: not storm.auditor.audit.running(instance))
        audit = await storm.auditor.caught_up()
    assert any("did not end" in wrong for wrong in judge(audit, list(submitted), storm.may_be_hit()))
