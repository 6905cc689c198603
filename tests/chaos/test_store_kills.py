"""The store is killed again and again under submits: whatever was acknowledged ends, with its own result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.errors import UnavailableError
from tests.support.front import Front, open_front
from tests.support.invocations import TERMINAL, status_of
from tests.support.invoker_pool import PoolProcess
from tests.support.redis_server import RedisServer
from tests.support.scale import FULL, long_test, report, scaled
from tests.support.waiting import wait_until

TENANT = "t_alpha0"
SUBMITTERS = 16
ECHO = "export default (event) => ({ statusCode: 200, body: String(event.n) });"


@dataclass
class Acknowledged:
    """What callers were told: activation id to what was sent, and how many heard of no acceptance."""

    sent: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    async def submit(self, front: Front, ref: FunctionRef, numbers: list[int]) -> None:
        """Submit each number until it is acknowledged."""
        for number in numbers:
            while True:
                try:
                    accepted = await front.invoke(ref, {"n": number}, asynchronous=True)
                except UnavailableError:
                    self.refused += 1
                    await asyncio.sleep(0.05)
                    continue
                self.sent[accepted.activation_id] = number
                break


@asynccontextmanager
async def running(server: RedisServer, invokers: int) -> AsyncIterator[Front]:
    settings = {
        "invoker": {"partition_share": 1.0, "activation_lease": 3.0},
        "codeq": {"lease": 4.0, "poll_interval": 0.1},
    }
    async with AsyncExitStack() as stack:
        stack.callback(server.close)
        server.start()
        pool = [PoolProcess(server.url, settings) for _ in range(invokers)]
        await asyncio.gather(*(stack.enter_async_context(process) for process in pool))
        yield await stack.enter_async_context(open_front(server.url))


async def submit_through_kills(server: RedisServer, front: Front, submits: int, kills: int) -> Acknowledged:
    """Submit while the store is killed and restarted at even distances."""
    told = Acknowledged()
    ref = await front.deploy(TENANT, "echo", ECHO)
    shares = [list(range(first, submits, SUBMITTERS)) for first in range(SUBMITTERS)]
    submitting = asyncio.gather(*(told.submit(front, ref, share) for share in shares))
    for kill in range(kills):
        goal = submits * (kill + 1) // (kills + 1)
        await wait_until(lambda goal=goal: len(told.sent) >= goal, within=300)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    await submitting
    return told


async def not_as_acknowledged(front: Front, told: Acknowledged) -> dict[str, str]:
    """What was acknowledged and did not end with its own result, and how it stands."""
    wrong = {}
    for activation_id, number in told.sent.items():
        record = await front.store.get(TENANT, activation_id)
        if record is None:
            wrong[activation_id] = "gone"
        elif (status_of(record), record.response.body) != ("SUCCESS", str(number)):
            wrong[activation_id] = f"{status_of(record)} {record.error.reason}"
    return wrong


@long_test
@pytest.mark.parametrize("fsync", scaled(short=["everysec"], full=["always", "everysec"]))
async def test_no_acknowledged_submit_is_lost(fsync: str) -> None:
    submits, kills = scaled(short=(300, 3), full=(10_000, 20))
    server = RedisServer(durable=True, fsync=fsync)
    async with running(server, 1) as front:
        told = await submit_through_kills(server, front, submits, kills)
        await front.emptied(within=600 if FULL else 60)
        wrong = await not_as_acknowledged(front, told)
        records = {name: await front.store.get(TENANT, name) for name in await front.ids()}
    unheard = [record for name, record in records.items() if record is not None and name not in told.sent]
    report(
        "store kills",
        fsync=fsync,
        kills=kills,
        acknowledged=len(told.sent),
        refused=told.refused,
        lost=len(wrong),
        accepted_but_unheard=len(unheard),
        of_these_not_ended=sum(status_of(record) not in TERMINAL for record in unheard),
    )
    assert len(told.sent) == submits
    assert told.refused
    assert wrong == {}


@long_test
async def test_without_a_log_on_disk_a_kill_loses_what_was_acknowledged() -> None:
    server = RedisServer(durable=False)
    async with running(server, 0) as front:
        ref = await front.deploy(TENANT, "echo", ECHO)
        told = Acknowledged()
        await told.submit(front, ref, list(range(20)))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

        async def answers() -> bool:
            try:
                await front.client.ping()
            except UnavailableError:
                return False
            return True

        await wait_until(answers)
        assert len(await not_as_acknowledged(front, told)) == 20
