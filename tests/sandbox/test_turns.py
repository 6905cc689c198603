"""What the supervisor concludes from the turns that a cell tells, and what it does about a cell that tells untruths."""

import asyncio
from datetime import timedelta

import pytest
from codesous.cell.v1.frames_pb2 import HostCallResult, LogLine, Run, RunResult, ToCell, Turn
from codesous.type.v1.activation_status_pb2 import (
    ACTIVATION_STATUS_ERROR,
    ACTIVATION_STATUS_SUCCESS,
    ACTIVATION_STATUS_TIMEOUT,
)
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.invocation_error_pb2 import InvocationError

from cs_sandbox import cell_runs, run
from cs_sandbox.frames import FrameError
from cs_sandbox.local import LocalHostCalls
from cs_sandbox.turns import BATCH, Turns
from tests.sandbox.test_breach import fake_cell

GRACE = timedelta(milliseconds=50)
FINE = FunctionResponse(status_code=200, body="x")


def begun(number):
    return ToCell(run=Run(run_id=number))


def waiting(taken, quiet=10_000):
    return Turn(taken=taken, quiet_ms=quiet)


async def test_a_cell_waits_once_it_says_so_and_has_taken_all_that_was_sent():
    turns = Turns({}, {})
    assert not turns.waits(known=False)
    turns.note_sent(begun(1))
    turns.take(waiting(0))
    assert not turns.waits(known=False)
    turns.take(waiting(1))
    assert turns.waits(known=False)
    turns.take(Turn(run_id=1))
    assert not turns.waits(known=True)
    turns.take(waiting(1))
    turns.note_sent(ToCell(host_result=HostCallResult(run_id=1, call_id=1)))
    assert not turns.waits(known=False)
    assert not turns.waits(known=True)


async def test_a_timer_that_may_have_woken_a_run_ends_the_wait():
    turns = Turns({}, {})
    turns.take(waiting(0, quiet=20))
    assert turns.waits(known=False)
    async with asyncio.timeout(5):
        while turns.waits(known=True):
            await asyncio.sleep(0.005)


async def test_runs_of_known_code_begin_a_few_at_a_time_and_others_one_by_one():
    turns = Turns({}, {})
    turns.take(waiting(0))
    for number in range(1, BATCH + 1):
        assert turns.waits(known=True)
        turns.note_sent(begun(number))
        assert not turns.waits(known=False)
    assert not turns.waits(known=True)
    turns.take(waiting(3))
    assert turns.waits(known=True)
    assert not turns.waits(known=False)


async def test_a_cell_cannot_have_taken_more_than_it_was_sent():
    turns = Turns({}, {})
    turns.note_sent(begun(1))
    with pytest.raises(FrameError):
        turns.take(waiting(2))


class Two:
    """Two runs in a cell that the test plays; the first has a short time limit."""

    def __init__(self, fake, job):
        self.fake = fake
        self._job = job

    async def begin(self, *walls):
        begun = []
        for wall in walls:
            self.fake.cell.reserve()
            asked = self.fake.cell.run(self._job("x", wall=wall), LocalHostCalls(), None, None, GRACE)
            begun.append(asyncio.create_task(asked))
            await self.fake.read("run")
        return begun


@pytest.fixture
async def two(job):
    async with fake_cell() as fake:
        fake.cell.tenant = "t_test01"
        yield Two(fake, job)


async def test_a_run_that_was_let_go_may_still_be_heard_of_until_the_cell_has_dropped_it(two):
    late, other = await two.begin(0.5, 20.0)
    await two.fake.send({"turn": waiting(3)})
    outcome = await late
    assert (outcome.status, outcome.bystander) == (ACTIVATION_STATUS_TIMEOUT, False)
    assert (await two.fake.read("drop")).drop.run_id == 1
    await two.fake.send({"log": LogLine(run_id=1, message="late")}, {"result": RunResult(run_id=1, response=FINE)})
    await two.fake.send({"idle": {"run_id": 1}}, {"result": RunResult(run_id=2, response=FINE)})
    assert (await other).status == ACTIVATION_STATUS_SUCCESS
    assert (outcome.status, list(outcome.logs)) == (ACTIVATION_STATUS_TIMEOUT, [])
    assert two.fake.cell.kill_reason == ""


async def test_a_cell_that_says_that_it_waits_and_drops_nothing_is_killed(two, monkeypatch):
    monkeypatch.setattr(cell_runs, "RECYCLE_WAIT", 0.2)
    late, other = await two.begin(0.5, 20.0)
    await two.fake.send({"turn": waiting(3)})
    assert (await late).status == ACTIVATION_STATUS_TIMEOUT
    outcome = await other
    assert two.fake.cell.kill_reason == "recycle"
    assert outcome.bystander


async def test_a_late_run_that_has_the_turn_is_killed_with_its_cell_and_only_the_other_is_a_bystander(two):
    late, other = await two.begin(0.5, 20.0)
    await two.fake.send({"turn": Turn(run_id=1)})
    assert (await late).status == ACTIVATION_STATUS_TIMEOUT
    assert (await other).bystander
    assert two.fake.cell.kill_reason == "timeout"


async def test_a_clock_that_ends_while_a_dead_cell_is_asked_about_does_not_make_a_timeout_of_a_crash(two):
    (run,) = await two.begin(0.3)
    two.fake.process.kill()
    two.fake.far.close()
    outcome = await run
    assert (outcome.status, outcome.error.reason) == (ACTIVATION_STATUS_ERROR, "CS_RUNTIME_CRASH")


async def test_the_others_in_a_cell_that_retires_are_bystanders_of_its_end(two):
    doubtful, other = await two.begin(20.0, 20.0)
    error = InvocationError(reason="CS_RUNTIME_MEMORY_LIMIT")
    await two.fake.send({"result": RunResult(run_id=1, error=error)}, {"retiring": {}}, {"turn": Turn(run_id=2)})
    assert (await doubtful).error.reason == "CS_RUNTIME_MEMORY_LIMIT"
    two.fake.process.kill()
    two.fake.far.close()
    assert (await other).bystander


async def test_a_run_that_is_cleaned_up_after_keeps_the_blame_from_the_one_that_is_left(two):
    ended, other = await two.begin(20.0, 20.0)
    await two.fake.send({"turn": Turn(run_id=1)}, {"result": RunResult(run_id=1, response=FINE)})
    assert (await ended).status == ACTIVATION_STATUS_SUCCESS
    two.fake.process.kill()
    two.fake.far.close()
    assert (await other).bystander


@pytest.mark.parametrize("share", [0.25, 2.0], ids=["hindered for long", "control: not for long enough"])
async def test_a_run_is_hindered_while_it_has_something_to_do_and_another_has_the_turn(two, monkeypatch, share):
    monkeypatch.setattr(run, "STALLED_SHARE", share)
    other, late = await two.begin(20.0, 0.5)
    await two.fake.send({"turn": Turn(run_id=1)})
    outcome = await late
    assert outcome.bystander is (share < 1)
    assert (outcome.status == ACTIVATION_STATUS_TIMEOUT) is (share > 1)
    assert not other.done()
    other.cancel()
