"""Runs of one tenant overlap in a cell while they wait; what one of them does harms the others as little as can be."""

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
from cs_sandbox.grants import Grants

MIB = 1 << 20
ASK = "export default async (name) => { const got = await cs.kv.get(name); console.log(name, got); return [name, got] }"
# One native call that never looks at the clock of the engine.
DEAF = "const a = []; a.length = 2 ** 32 - 1; return a.join('')"
ASK_THEN = "export default async (name) => {{ await cs.kv.get(name); {body} }}"


async def wait_until(condition, timeout=20.0):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


def waits(cell):
    """Whether all runs of a cell wait."""
    return cell._runs.waits(known=False)


def body_of(outcome):
    return outcome.response.body if outcome.response else outcome.error.reason


class Gate:
    """Host calls that stay open until the key is released."""

    def __init__(self):
        self.open = {}

    async def call(self, _method, arguments):
        answer = self.open.setdefault(arguments[0], asyncio.get_running_loop().create_future())
        await asyncio.shield(answer)
        return f"got {arguments[0]}"

    def release(self, *names):
        for name in names or [name for name, answer in self.open.items() if not answer.done()]:
            self.open[name].set_result(None)


class Cells:
    """A pool and its gate."""

    def __init__(self, pool, job):
        self.pool = pool
        self.gate = Gate()
        self._job = job

    def begin(self, name, source=ASK, *, alone=False, cancel=None, **options):
        from dataclasses import replace

        job = replace(self._job(source, event=name, **options), alone=alone)
        return asyncio.create_task(self.pool.run(job, self.gate, None, cancel))

    async def asked(self, *names):
        await wait_until(lambda: all(name in self.gate.open for name in names))

    @property
    def pids(self):
        return [cell.pid for cell in self.pool.cells() if cell.tenant]


@pytest.fixture
async def cells(job):
    async with CellPool(PoolSettings(cells_max=1)) as pool:
        yield Cells(pool, job)


async def test_runs_overlap_while_they_wait_for_host_calls(cells):
    runs = [cells.begin(f"k{n}") for n in range(20)]
    await cells.asked(*(f"k{n}" for n in range(20)))
    assert len(cells.pids) == 1
    assert [cell.load for cell in cells.pool.cells() if cell.tenant] == [20]
    cells.gate.release()
    for number, outcome in enumerate(await asyncio.gather(*runs)):
        assert json.loads(outcome.response.body) == [f"k{number}", f"got k{number}"]
        assert [line.message for line in outcome.logs] == [f"k{number} got k{number}"]


async def test_runs_do_not_overlap_past_their_number(job):
    async with CellPool(PoolSettings(cells_max=1, runs_per_cell=3)) as pool:
        cells = Cells(pool, job)
        runs = [cells.begin(f"k{n}") for n in range(7)]
        await wait_until(lambda: len(cells.gate.open) == 3)
        await asyncio.sleep(0.2)
        assert len(cells.gate.open) == 3
        for expected in (6, 7):
            cells.gate.release()
            await wait_until(lambda expected=expected: len(cells.gate.open) == expected)
        cells.gate.release()
        assert all(outcome.status == ACTIVATION_STATUS_SUCCESS for outcome in await asyncio.gather(*runs))


async def test_runs_that_wait_for_a_timer_overlap_too(cells):
    sleeper = "export default (ms) => new Promise((done) => setTimeout(() => done('slept'), ms))"
    slow = cells.begin(1500, sleeper)
    await wait_until(lambda: cells.pool.stats().cells.get("running") == 1)
    assert (await cells.begin("k", "export default () => 1")).response.body == "1"
    assert not slow.done()
    assert (await slow).response.body == '"slept"'


async def test_nothing_begins_in_a_cell_that_computes(cells):
    first = cells.begin("a", "export default () => { const end = Date.now() + 700; while (Date.now() < end); }")
    await wait_until(lambda: cells.pool.stats().cells.get("running") == 1)
    second = cells.begin("b")
    await asyncio.wait({first, asyncio.ensure_future(cells.asked("b"))}, return_when=asyncio.FIRST_COMPLETED)
    assert first.done()
    await cells.asked("b")
    cells.gate.release()
    assert (await second).status == ACTIVATION_STATUS_SUCCESS


async def test_overlapping_contexts_share_nothing(cells):
    poison = """globalThis.seen = (globalThis.seen ?? 0) + 1; Object.prototype.leak = (({}).leak ?? 0) + 1;
    export default async (name) => { await cs.kv.get(name); return [globalThis.seen, ({}).leak] }"""
    runs = [cells.begin(f"k{n}", poison) for n in range(10)]
    await cells.asked(*(f"k{n}" for n in range(10)))
    cells.gate.release()
    assert [json.loads(outcome.response.body) for outcome in await asyncio.gather(*runs)] == [[1, 1]] * 10


async def test_between_two_promise_jobs_of_a_run_that_goes_on_others_have_their_turn(cells):
    storm = cells.begin("storm", ASK_THEN.format(body="for (;;) await null"), wall=30.0)
    other = cells.begin("other")
    await cells.asked("storm", "other")
    cells.gate.release("storm")
    await wait_until(lambda: not any(waits(cell) for cell in cells.pool.cells()))
    cells.gate.release("other")
    assert (await other).status == ACTIVATION_STATUS_SUCCESS
    assert not storm.done()
    storm.cancel()


async def test_a_run_that_waits_too_long_times_out_alone(cells):
    late, other = cells.begin("late", wall=1.5), cells.begin("other")
    await cells.asked("late", "other")
    outcome = await late
    assert (outcome.status, outcome.bystander) == (ACTIVATION_STATUS_TIMEOUT, False)
    pids = cells.pids
    cells.gate.release("other")
    assert (await other).status == ACTIVATION_STATUS_SUCCESS
    assert (await cells.begin("again", "export default () => 1")).status == ACTIVATION_STATUS_SUCCESS
    assert cells.pids == pids


async def test_a_neighbour_that_loops_is_interrupted_and_the_others_go_on(cells):
    loop = cells.begin("loop", ASK_THEN.format(body="for (;;) {}"), wall=1.5)
    other = cells.begin("other")
    await cells.asked("loop", "other")
    cells.gate.release("loop")
    assert (await loop).status == ACTIVATION_STATUS_TIMEOUT
    (doubted,) = cells.pids
    cells.gate.release("other")
    assert (await other).status == ACTIVATION_STATUS_SUCCESS
    # The context that was interrupted in the middle of something is never freed: the cell ends instead.
    await wait_until(lambda: doubted not in cells.pids)
    assert (await cells.begin("again", "export default () => 1")).status == ACTIVATION_STATUS_SUCCESS


async def test_a_neighbour_that_cannot_be_interrupted_dies_with_the_cell_and_the_others_are_bystanders(cells):
    deaf = cells.begin("deaf", ASK_THEN.format(body=DEAF), wall=1.5)
    others = [cells.begin(f"k{n}") for n in range(3)]
    await cells.asked("deaf", "k0", "k1", "k2")
    cells.gate.release("deaf")
    outcome = await deaf
    assert (outcome.status, outcome.bystander) == (ACTIVATION_STATUS_TIMEOUT, False)
    for outcome in await asyncio.gather(*others):
        assert (outcome.status, outcome.error.reason) == (ACTIVATION_STATUS_ERROR, "CS_RUNTIME_CRASH")
        assert outcome.error.retryable
        assert outcome.bystander
    assert cells.pool.stats().kills == {"timeout": 1}
    assert cells.pool.stats().bystanders == 3


async def test_a_run_that_was_kept_from_the_processor_is_a_bystander_and_the_other_goes_on(cells):
    hog = "const end = Date.now() + 4000; while (Date.now() < end); return 'done'"
    busy = cells.begin("busy", ASK_THEN.format(body=hog))
    hindered, slow = cells.begin("hindered", wall=2.0), cells.begin("slow", wall=2.0)
    await cells.asked("busy", "hindered", "slow")
    cells.gate.release("busy")
    await asyncio.sleep(0.05)
    cells.gate.release("hindered")
    outcome = await hindered
    assert (outcome.error.reason, outcome.error.retryable, outcome.bystander) == ("CS_RUNTIME_CRASH", True, True)
    # The control: its own host call was not answered in time, whatever its neighbour did.
    outcome = await slow
    assert (outcome.status, outcome.bystander) == (ACTIVATION_STATUS_TIMEOUT, False)
    assert not busy.done()
    assert (await busy).response.body == '"done"'
    assert cells.pool.stats().kills == {}
    assert (await cells.begin("again", "export default () => 1")).status == ACTIVATION_STATUS_SUCCESS


async def test_a_cell_that_is_killed_from_outside_while_all_wait_blames_nobody(cells):
    runs = [cells.begin(f"k{n}") for n in range(3)]
    await cells.asked("k0", "k1", "k2")
    await wait_until(lambda: all(waits(cell) for cell in cells.pool.cells() if cell.tenant))
    os.kill(cells.pids[0], signal.SIGKILL)
    for outcome in await asyncio.gather(*runs):
        assert (outcome.error.reason, outcome.bystander) == ("CS_RUNTIME_CRASH", True)


async def test_a_cell_that_dies_of_a_run_blames_that_run(cells):
    victim = cells.begin("victim")
    busy = cells.begin("busy", ASK_THEN.format(body=DEAF))
    await cells.asked("victim", "busy")
    cells.gate.release("busy")
    await wait_until(lambda: not any(waits(cell) for cell in cells.pool.cells()))
    await asyncio.sleep(0.2)
    os.kill(cells.pids[0], signal.SIGKILL)
    assert not (await busy).bystander
    assert (await victim).bystander


async def test_a_run_alone_in_its_cell_is_to_blame_for_its_death(cells):
    run = cells.begin("k")
    await cells.asked("k")
    os.kill(cells.pids[0], signal.SIGKILL)
    outcome = await run
    assert (outcome.error.reason, outcome.bystander) == ("CS_RUNTIME_CRASH", False)


async def test_a_cancelled_run_leaves_its_neighbours_in_peace(cells):
    cancel = asyncio.Event()
    gone, other = cells.begin("gone", cancel=cancel), cells.begin("other")
    await cells.asked("gone", "other")
    pids = cells.pids
    cancel.set()
    assert (await gone).status == ACTIVATION_STATUS_CANCELLED
    # Its answer comes late, and finds nobody.
    cells.gate.release()
    assert (await other).status == ACTIVATION_STATUS_SUCCESS
    assert cells.pids == pids
    assert cells.pool.stats().kills == {}


async def test_a_cancelled_run_that_computes_is_killed_with_its_cell(cells):
    cancel = asyncio.Event()
    gone, other = cells.begin("gone", ASK_THEN.format(body="for (;;) {}"), cancel=cancel), cells.begin("other")
    await cells.asked("gone", "other")
    cells.gate.release("gone")
    await wait_until(lambda: not any(waits(cell) for cell in cells.pool.cells()))
    await asyncio.sleep(0.1)
    cancel.set()
    assert (await gone).status == ACTIVATION_STATUS_CANCELLED
    assert (await other).bystander
    assert cells.pool.stats().kills == {"cancel": 1}


async def test_a_neighbour_that_runs_out_of_memory_fails_alone(cells):
    hog = ASK_THEN.format(body="const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))")
    greedy, other = cells.begin("greedy", hog, memory_bytes=32 * MIB), cells.begin("other")
    await cells.asked("greedy", "other")
    cells.gate.release("greedy")
    outcome = await greedy
    assert (outcome.error.reason, outcome.bystander) == ("CS_RUNTIME_MEMORY_LIMIT", False)
    cells.gate.release("other")
    assert (await other).status == ACTIVATION_STATUS_SUCCESS


HOLD = """export default async (name) => {
  const kept = []; for (let i = 0; i < 24; i++) kept.push(new Uint8Array(1 << 20).fill(1));
  await cs.kv.get(name); return kept.length }"""


async def test_each_run_has_its_memory_and_no_more_run_than_have_room_together(job):
    async with CellPool(PoolSettings(cells_max=1, memory_max_bytes=96 * MIB)) as pool:
        cells = Cells(pool, job)
        runs = [cells.begin(f"k{n}", HOLD, memory_bytes=32 * MIB) for n in range(4)]
        await wait_until(lambda: len(cells.gate.open) == 3)
        await asyncio.sleep(0.2)
        assert len(cells.gate.open) == 3
        cells.gate.release()
        await wait_until(lambda: len(cells.gate.open) == 4)
        cells.gate.release()
        assert [outcome.response.body for outcome in await asyncio.gather(*runs)] == ["24"] * 4


async def test_the_address_space_has_room_for_all_that_the_runs_may_have_together(job):
    hold = HOLD.replace("24", "52")
    async with CellPool(PoolSettings(cells_max=1, memory_max_bytes=384 * MIB)) as pool:
        cells = Cells(pool, job)
        runs = [cells.begin(f"k{n}", hold, memory_bytes=64 * MIB) for n in range(6)]
        await wait_until(lambda: len(cells.gate.open) == 6 or any(run.done() for run in runs))
        cells.gate.release()
        assert [body_of(outcome) for outcome in await asyncio.gather(*runs)] == ["52"] * 6


@pytest.mark.parametrize("first", [True, False], ids=["the first is alone", "the second is alone"])
async def test_a_run_that_is_to_be_alone_has_no_neighbours(cells, first):
    one = cells.begin("one", alone=first)
    await cells.asked("one")
    two = cells.begin("two", alone=not first)
    await asyncio.sleep(0.2)
    assert "two" not in cells.gate.open
    cells.gate.release("one")
    assert (await one).status == ACTIVATION_STATUS_SUCCESS
    await cells.asked("two")
    cells.gate.release("two")
    assert (await two).status == ACTIVATION_STATUS_SUCCESS


async def test_a_version_that_keeps_the_processor_gets_no_neighbours_afterwards(cells):
    heavy = (
        "export default async (name) => { for (let n = name ? 0 : 2e7; n > 0; n--); if (name) await cs.kv.get(name) }"
    )
    assert (await cells.begin(None, heavy)).hogged
    one, two = cells.begin("one", heavy), cells.begin("two", heavy)
    await cells.asked("one")
    await asyncio.sleep(0.2)
    assert "two" not in cells.gate.open
    cells.gate.release("one")
    await cells.asked("two")
    cells.gate.release("two")
    assert not any(outcome.hogged for outcome in await asyncio.gather(one, two))


@pytest.mark.parametrize("fair", [True, False], ids=["with draining", "control: without draining"])
async def test_a_tenant_whose_runs_overlap_without_end_does_not_keep_another_out(job, fair, monkeypatch):
    if not fair:
        monkeypatch.setattr(Grants, "_drain_for", lambda *_: None)
    async with CellPool(PoolSettings(cells_max=2)) as pool:
        cells = Cells(pool, job)
        crowd = [cells.begin("a0", tenant="t_crowd1", wall=30), cells.begin("a1", tenant="t_crowd1", wall=60)]
        await cells.asked("a0", "a1")
        lone = cells.begin("b", "export default () => 'in'", tenant="t_lonely1")
        # The crowd goes on: at no time does it leave both cells, but it gets no more runs into one of them.
        crowd += [cells.begin(f"a{n}", tenant="t_crowd1", wall=60) for n in range(2, 8)]
        await cells.asked(*(f"a{n}" for n in range(8)))
        assert (min(cell.load for cell in pool.cells() if cell.tenant) == 1) is fair
        cells.gate.release("a0")
        await crowd[0]
        if fair:
            assert (await lone).response.body == '"in"'
        cells.gate.release()
        await asyncio.gather(*crowd, lone)


async def test_a_run_whose_clock_is_up_ends_in_time_whatever_its_neighbours_do(cells):
    """The promise: not later than the time limit and the grace of the kill, here with much room for a busy machine."""
    loop = asyncio.get_running_loop()
    deaf = cells.begin("deaf", ASK_THEN.format(body=DEAF), wall=3.5)
    late = cells.begin("late", wall=1.5)
    began = loop.time()
    await cells.asked("deaf", "late")
    cells.gate.release("deaf")
    await late
    assert loop.time() - began < 3.0
    assert not deaf.done()
    assert (await deaf).status == ACTIVATION_STATUS_TIMEOUT
    assert loop.time() - began < 6.0
