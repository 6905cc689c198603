"""An invoker killed between any two steps: another one brings the activation to the same single end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import timedelta

import pytest
from codesous.gateway.v1.activation_pb2 import Activation

from cs_core.codeq.contract import INVOKE
from cs_core.store.client import KvClient
from cs_invoker.gaps import Gap
from cs_sandbox import CellPool, PoolSettings
from tests.support.invocations import Ingress, status_of
from tests.support.invokers import InvokerProcess, make_settings, running_invoker
from tests.support.waiting import wait_until

ATTEMPT = "export default (event, ctx) => ({ attempt: ctx.attempt, event })"


def lasting(milliseconds: int) -> str:
    """A function that waits, and returns its attempt."""
    wait = f"await new Promise((end) => setTimeout(end, {milliseconds}))"
    return f"export default async (event, ctx) => {{ {wait}; return {{ attempt: ctx.attempt }} }}"


@pytest.fixture
def ingress(kv: KvClient) -> Ingress:
    return Ingress(kv)


def attempt_of(record: Activation) -> int:
    return int(json.loads(record.response.body)["attempt"])


@pytest.mark.parametrize(
    ("gap", "attempts"),
    [
        (Gap.RECEIVED, 1),
        (Gap.BEGUN, 2),
        (Gap.RAN, 2),
        (Gap.FINISHED, 1),
        (Gap.PUBLISHED, 1),
        (Gap.ACKED, 1),
    ],
)
async def test_a_kill_in_any_gap_leads_to_one_result(ingress: Ingress, redis_url: str, gap: Gap, attempts: int) -> None:
    ref = await ingress.put_version("attempt", ATTEMPT)
    async with InvokerProcess(redis_url, die_at=gap) as first:
        activation = await ingress.invoke(ref, "x")
        assert await first.died() == -signal.SIGKILL
    stored = await ingress.activations.get_result(ingress.tenant, activation)
    assert (stored is not None) == (gap in {Gap.FINISHED, Gap.PUBLISHED, Gap.ACKED})
    async with running_invoker(make_settings(redis_url)):
        record = await ingress.ended(activation)
        await ingress.emptied()
    assert status_of(record) == "SUCCESS"
    assert (record.attempt, attempt_of(record)) == (attempts, attempts)
    if stored is not None:
        assert await ingress.activations.get_result(ingress.tenant, activation) == stored


async def test_an_activation_that_kills_every_invoker_is_given_up(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("poison", ATTEMPT)
    good = await ingress.put_version("good", ATTEMPT + "// good")
    activation = await ingress.invoke(ref)
    for _ in range(3):
        async with InvokerProcess(redis_url, die_at=Gap.BEGUN) as killed:
            await killed.died()
    async with running_invoker(make_settings(redis_url)):
        assert status_of(await ingress.ended(await ingress.invoke(good))) == "SUCCESS"
        record = await ingress.ended(activation)
        await ingress.emptied()
    assert (status_of(record), record.error.reason) == ("ERROR", "CS_RUNTIME_CRASH")
    dead = await ingress.queue.list_dead_letters(INVOKE, limit=10)
    assert [letter.envelope.invocation_request.activation_id for letter in dead] == [activation]
    assert dead[0].envelope.dead_letter.reason == "CS_RUNTIME_CRASH"


async def test_a_stopped_holder_does_not_overwrite_what_another_finished(ingress: Ingress, redis_url: str) -> None:
    source = lasting(1500)
    ref = await ingress.put_version("slow", source)
    async with InvokerProcess(redis_url) as holder:
        activation = await ingress.invoke(ref)

        async def begun() -> bool:
            record = await ingress.activations.get(ingress.tenant, activation)
            return record is not None and status_of(record) == "RUNNING"

        await wait_until(begun)
        assert holder.process is not None
        os.kill(holder.process.pid, signal.SIGSTOP)
        async with running_invoker(make_settings(redis_url)):
            record = await ingress.ended(activation)
            os.kill(holder.process.pid, signal.SIGCONT)
            await ingress.emptied()
            # A later activation is served by either; the first one's record stays as it was.
            await ingress.ended(await ingress.invoke(ref))
        assert record.attempt == 2
        assert await ingress.activations.get(ingress.tenant, activation) == record


async def test_a_run_longer_than_its_leases_is_run_once(ingress: Ingress, redis_url: str) -> None:
    source = lasting(3500)
    ref = await ingress.put_version("long", source, timeout=timedelta(seconds=10))
    async with running_invoker(make_settings(redis_url)), running_invoker(make_settings(redis_url)):
        record = await ingress.ended(await ingress.invoke(ref))
        await ingress.emptied()
    assert (status_of(record), record.attempt, attempt_of(record)) == ("SUCCESS", 1, 1)


async def test_a_drain_lets_running_work_end(ingress: Ingress, redis_url: str) -> None:
    source = lasting(300)
    ref = await ingress.put_version("short", source)
    begun = asyncio.Event()

    async def at_gap(gap: Gap, _activation: str) -> None:
        if gap is Gap.BEGUN:
            begun.set()

    settings = make_settings(redis_url)
    settings = settings.model_copy(update={"rpc": settings.rpc.model_copy(update={"drain_grace": 10.0})})
    async with running_invoker(settings, at_gap=at_gap):
        activation = await ingress.invoke(ref)
        await begun.wait()
    record = await ingress.ended(activation, within=0.1)
    assert (status_of(record), record.attempt) == ("SUCCESS", 1)


async def test_a_drain_that_runs_out_of_grace_hands_the_activation_over_at_once(
    ingress: Ingress, redis_url: str
) -> None:
    source = """export default async (e, ctx) => {
      if (ctx.attempt === 1) await new Promise((end) => setTimeout(end, 20000));
      return { attempt: ctx.attempt };
    }"""
    ref = await ingress.put_version("stuck", source, timeout=timedelta(seconds=30))
    begun = asyncio.Event()

    async def at_gap(gap: Gap, _activation: str) -> None:
        if gap is Gap.BEGUN:
            begun.set()

    long_leases = make_settings(redis_url, activation_lease=600.0)
    long_leases = long_leases.model_copy(update={"codeq": long_leases.codeq.model_copy(update={"lease": 600.0})})
    async with running_invoker(long_leases, at_gap=at_gap):
        activation = await ingress.invoke(ref)
        await begun.wait()
    async with running_invoker(long_leases):
        record = await ingress.ended(activation)
        await ingress.emptied()
    assert (status_of(record), record.attempt) == ("SUCCESS", 2)


async def test_a_killed_cell_is_begun_again_and_given_up_in_the_end(ingress: Ingress, redis_url: str) -> None:
    source = lasting(20000)
    ref = await ingress.put_version("victim", source, timeout=timedelta(seconds=30))
    begins = 0

    async def at_gap(gap: Gap, _activation: str) -> None:
        nonlocal begins
        begins += gap is Gap.BEGUN

    pool = CellPool(PoolSettings(cells_max=2, cells_per_tenant=2, spare_cells=0))
    await pool.start()
    try:
        async with running_invoker(make_settings(redis_url), at_gap=at_gap, pool=pool):
            activation = await ingress.invoke(ref)
            for run in range(1, 4):
                await wait_until(lambda run=run: begins == run and pool.stats().cells.get("running"))
                for cell in pool.cells():
                    if cell.tenant:
                        os.kill(cell.pid, signal.SIGKILL)
            record = await ingress.ended(activation)
            await ingress.emptied()
    finally:
        await pool.close()
    assert (status_of(record), record.error.reason, record.attempt) == ("ERROR", "CS_RUNTIME_CRASH", 3)
    assert len(await ingress.queue.list_dead_letters(INVOKE, limit=10)) == 1
