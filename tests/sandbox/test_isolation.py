"""Nothing passes from one activation to the next, from one tenant to another, or from a dead cell to a living one."""

import asyncio
import json
import os
import signal

import pytest
from codesous.type.v1.activation_status_pb2 import (
    ACTIVATION_STATUS_CANCELLED,
    ACTIVATION_STATUS_ERROR,
    ACTIVATION_STATUS_SUCCESS,
    ACTIVATION_STATUS_TIMEOUT,
)

from cs_sandbox import CellPool, PoolSettings
from cs_sandbox.local import LocalHostCalls

COUNTER = """
globalThis.seen = (globalThis.seen ?? 0) + 1;
Object.prototype.leak = (({}).leak ?? 0) + 1;
Array.prototype.push = function () { throw new Error("poisoned") };
export default () => [globalThis.seen, ({}).leak];
"""


async def wait_until(condition, timeout=10.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def small():
    async with CellPool(PoolSettings(cells_max=2)) as pool:
        yield pool


@pytest.fixture
async def narrow():
    """A pool in which runs do not overlap, so that they soon have to wait."""
    async with CellPool(PoolSettings(cells_max=2, runs_per_cell=1)) as pool:
        yield pool


async def test_globals_and_prototypes_do_not_leak_between_activations(small, job):
    for _ in range(20):
        outcome = await small.run(job(COUNTER), LocalHostCalls())
        assert json.loads(outcome.response.body) == [1, 1]


async def test_the_second_run_of_a_tenant_reuses_its_cell(small, job):
    outcomes = [await small.run(job("export default () => 1"), LocalHostCalls()) for _ in range(3)]
    assert [outcome.cold for outcome in outcomes] == [True, False, False]


async def test_two_tenants_never_share_a_cell(small, job):
    owners = {}
    gone = []

    def watch():
        for cell in small.cells():
            if cell.tenant is not None:
                assert owners.setdefault(cell.pid, cell.tenant) == cell.tenant

    async def one(number):
        outcome = await small.run(job(COUNTER, tenant=f"t_tenant{number % 5}"), LocalHostCalls())
        watch()
        gone.append(json.loads(outcome.response.body))

    await asyncio.gather(*(one(number) for number in range(60)))
    assert gone == [[1, 1]] * 60
    assert len(set(owners.values())) == 5


async def test_a_killed_cell_fails_only_its_own_activation(small, job):
    endless = job("export default () => new Promise((done) => setTimeout(done, 60000))", tenant="t_first1", wall=60)
    steady = job("export default () => new Promise((done) => setTimeout(() => done('ok'), 300))", tenant="t_second1")
    first = asyncio.create_task(small.run(endless, LocalHostCalls()))
    second = asyncio.create_task(small.run(steady, LocalHostCalls()))
    await wait_until(lambda: small.stats().cells.get("running", 0) == 2)
    (victim,) = [cell.pid for cell in small.cells() if cell.tenant == "t_first1"]
    os.kill(victim, signal.SIGKILL)
    outcome = await first
    assert outcome.status == ACTIVATION_STATUS_ERROR
    assert outcome.error.reason == "CS_RUNTIME_CRASH"
    assert outcome.error.retryable
    assert (await second).response.body == '"ok"'
    assert (await small.run(endless_to_quick(job), LocalHostCalls())).status == ACTIVATION_STATUS_SUCCESS


def endless_to_quick(job):
    return job("export default () => 1", tenant="t_first1")


async def test_the_zygote_comes_back_after_its_death(small, job):
    await small.run(job("export default () => 1"), LocalHostCalls())
    running = asyncio.create_task(
        small.run(job("export default () => { for (;;) {} }", wall=30, tenant="t_other1"), LocalHostCalls())
    )
    await wait_until(lambda: small.stats().cells.get("running", 0) == 1)
    before = small.zygote_pid
    os.kill(before, signal.SIGKILL)
    # Its cells die with it, and each fails its own activation.
    assert (await running).error.reason == "CS_RUNTIME_CRASH"
    await wait_until(lambda: not any(cell.state.value == "idle" and cell.tenant for cell in small.cells()))
    outcome = await small.run(job("export default () => 2"), LocalHostCalls())
    assert outcome.response.body == "2"
    assert small.zygote_pid != before
    assert small.stats().zygote_starts == 2


async def test_a_cell_stopped_by_a_signal_is_killed_at_the_deadline(small, job):
    sleeping = job("export default () => new Promise((done) => setTimeout(done, 60000))", wall=0.5)
    task = asyncio.create_task(small.run(sleeping, LocalHostCalls()))
    await wait_until(lambda: small.stats().cells.get("running", 0) == 1)
    (victim,) = [cell.pid for cell in small.cells() if cell.tenant]
    os.kill(victim, signal.SIGSTOP)
    assert (await task).status == ACTIVATION_STATUS_TIMEOUT
    assert small.stats().kills["timeout"] == 1
    await wait_until(lambda: not exists(victim))


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_cancel_ends_the_run_and_its_cell(small, job):
    cancel = asyncio.Event()
    endless = job("export default () => { console.log('on'); for (;;) {} }", wall=60)
    task = asyncio.create_task(small.run(endless, LocalHostCalls(), None, cancel))
    await wait_until(lambda: small.stats().cells.get("running", 0) == 1)
    cancel.set()
    outcome = await task
    assert outcome.status == ACTIVATION_STATUS_CANCELLED
    assert outcome.error.reason == "CS_RUNTIME_CANCELLED"
    assert small.stats().kills == {"cancel": 1}


async def test_a_cancelled_task_leaves_no_cell_behind(small, job):
    task = asyncio.create_task(small.run(job("export default () => { for (;;) {} }", wall=60), LocalHostCalls()))
    await wait_until(lambda: small.stats().cells.get("running", 0) == 1)
    (pid,) = [cell.pid for cell in small.cells() if cell.tenant]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: not exists(pid))
    assert (await small.run(job("export default () => 1"), LocalHostCalls())).status == ACTIVATION_STATUS_SUCCESS


async def test_runs_beyond_the_cells_wait_and_tenants_take_turns(narrow, job):
    order = []

    async def one(tenant):
        outcome = await narrow.run(
            job("export default () => new Promise((done) => setTimeout(done, 20))", tenant=tenant), LocalHostCalls()
        )
        assert outcome.status == ACTIVATION_STATUS_SUCCESS
        order.append(tenant)

    crowd = [asyncio.create_task(one("t_crowd1")) for _ in range(30)]
    await wait_until(lambda: narrow.stats().waiting > 20)
    lone = asyncio.create_task(one("t_lonely1"))
    await asyncio.gather(*crowd, lone)
    assert order.index("t_lonely1") < 10


async def test_a_waiting_run_that_is_cancelled_gives_its_place_back(narrow, job):
    slow = job("export default () => new Promise((done) => setTimeout(done, 200))")
    busy = [asyncio.create_task(narrow.run(slow, LocalHostCalls())) for _ in range(2)]
    waiting = [asyncio.create_task(narrow.run(slow, LocalHostCalls())) for _ in range(5)]
    await wait_until(lambda: narrow.stats().waiting == 5)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert narrow.stats().waiting == 0
    assert all(outcome.status == ACTIVATION_STATUS_SUCCESS for outcome in await asyncio.gather(*busy))
    assert (await narrow.run(slow, LocalHostCalls())).status == ACTIVATION_STATUS_SUCCESS


async def test_idle_cells_are_ended_after_their_time(job):
    from datetime import timedelta

    async with CellPool(PoolSettings(idle_ttl=timedelta(milliseconds=50))) as pool:
        await pool.run(job("export default () => 1"), LocalHostCalls())
        await wait_until(lambda: pool.stats().kills.get("idle") == 1)


async def test_many_bundles_in_one_cell_are_forgotten_and_loaded_again(small, job):
    for _ in range(2):
        for number in range(12):
            outcome = await small.run(job(f"export default () => {number}"), LocalHostCalls())
            assert outcome.response.body == str(number)


async def test_nothing_is_left_after_close(job):
    from pathlib import Path

    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    pool = CellPool(PoolSettings(cells_max=2))
    await pool.start()
    for number in range(4):
        await pool.run(job("export default () => 1", tenant=f"t_close{number}"), LocalHostCalls())
    await pool.run(job("export default () => { for (;;) {} }", wall=0.1), LocalHostCalls())
    pids = [pool.zygote_pid, *(cell.pid for cell in pool.cells())]
    running = asyncio.create_task(pool.run(job("export default () => { for (;;) {} }", wall=60), LocalHostCalls()))
    await wait_until(lambda: pool.stats().cells.get("running", 0) == 1)
    await pool.close()
    assert (await running).error.reason == "CS_RUNTIME_CRASH"
    await wait_until(lambda: not any(exists(pid) for pid in pids))
    assert descriptors() <= before + 1
    assert len(asyncio.all_tasks()) == 1
