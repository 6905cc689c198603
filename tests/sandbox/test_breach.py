"""A cell that breaks the protocol is killed, and what it claimed is not believed."""

import asyncio
import contextlib
import os
import socket
import subprocess
from datetime import timedelta

import pytest
from codesous.cell.v1.frames_pb2 import (
    CheckResult,
    FromCell,
    HostCall,
    Idle,
    LogLine,
    Ready,
    RunResult,
    SyntaxFault,
    ToCell,
    Turn,
)
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_ERROR
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.invocation_error_pb2 import InvocationError

from cs_sandbox import meter
from cs_sandbox import run as supervised
from cs_sandbox.cell_process import FAULT_TEXT_MAX, FAULTS_MAX, CellProcess, CellState
from cs_sandbox.frames import FrameBuffer, encode
from cs_sandbox.local import LocalHostCalls
from cs_sandbox.zygote_process import CellEnd, ForkedCell
from tests.support.waiting import wait_until

FINE = FunctionResponse(status_code=200, body="x")

BREACHES = {
    "no protobuf": (5).to_bytes(4, "big") + b"\xff" * 5,
    "a huge length": (1 << 31).to_bytes(4, "big"),
    "an empty frame": (0).to_bytes(4, "big"),
    "ready again": encode(FromCell(ready=Ready())),
    "the result of another run": encode(FromCell(result=RunResult(run_id=2, response=FINE))),
    "a result without an outcome": encode(FromCell(result=RunResult(run_id=1))),
    "a bad status": encode(FromCell(result=RunResult(run_id=1, response=FunctionResponse(status_code=7)))),
    "a header that splits": encode(
        FromCell(result=RunResult(run_id=1, response=FunctionResponse(status_code=200, headers={"a": "b\r\nc: d"})))
    ),
    "a response over its limit": encode(
        FromCell(result=RunResult(run_id=1, response=FunctionResponse(status_code=200, body="x" * 300_000)))
    ),
    "a reason that is not the cell's to give": encode(
        FromCell(result=RunResult(run_id=1, error=InvocationError(reason="CS_RUNTIME_CANCELLED")))
    ),
    "a line of another run": encode(FromCell(log=LogLine(run_id=9, message="x"))),
    "idle while it runs": encode(FromCell(idle=Idle(run_id=1))),
    "a host call of id 0": encode(FromCell(host_call=HostCall(run_id=1, call_id=0, method="kv.get"))),
    "a strange method": encode(FromCell(host_call=HostCall(run_id=1, call_id=1, method="../kv"))),
    "a flood of host calls": b"".join(
        encode(FromCell(host_call=HostCall(run_id=1, call_id=n, method="kv.get", arguments=b'["k"]')))
        for n in range(1, 100)
    ),
    "a flood of lines": encode(FromCell(log=LogLine(run_id=1, message="x" * (1 << 20)))) * 12,
    "a line after the cut": encode(FromCell(log=LogLine(run_id=1, message="x" * (1 << 20)))) * 2,
    "a flood of empty lines": encode(FromCell(log=LogLine(run_id=1))) * ((1 << 15) + 2),
    "the answer to a check that nobody asked for": encode(FromCell(check_result=CheckResult())),
    "a jail that fails late": encode(FromCell(jail_failure={"layer": "seccomp"})),
    "two results": encode(FromCell(result=RunResult(run_id=1, error=InvocationError(reason="CS_NO_SUCH")))),
    "a turn after more frames than were sent": encode(FromCell(turn=Turn(taken=9))),
    "half a frame, then another": (100).to_bytes(4, "big") + b"\x0a" * 100,
}


class FakeCell:
    """The far end of a supervisor's connection, held by the test instead of a cell."""

    def __init__(self, cell, far, process):
        self.cell = cell
        self.far = far
        self.process = process
        self.seen = []
        self._frames = FrameBuffer(64 << 20)

    async def send(self, *frames):
        loop = asyncio.get_running_loop()
        for frame in frames:
            await loop.sock_sendall(self.far, frame if isinstance(frame, bytes) else encode(FromCell(**frame)))

    async def read(self, kind):
        """Read frames until one of a kind came."""
        while True:
            for number, frame in enumerate(self.seen):
                if frame.WhichOneof("frame") == kind:
                    del self.seen[number]
                    return frame
            data = await asyncio.get_running_loop().sock_recv(self.far, 65536)
            assert data, "the supervisor closed the connection"
            self.seen += [ToCell.FromString(body) for body in self._frames.feed(data)]

    async def died(self):
        await asyncio.to_thread(self.process.wait)
        self.cell.ended(CellEnd(self.process.returncode, 0))


@contextlib.asynccontextmanager
async def fake_cell():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with subprocess.Popen(["sleep", "60"]) as process, theirs:
        cell = CellProcess(ForkedCell(process.pid, os.pidfd_open(process.pid), ours), lambda _: None)
        fake = FakeCell(cell, theirs, process)
        await fake.send({"ready": Ready(layers=["seccomp"])})
        await cell.connect(timedelta(seconds=5))
        try:
            yield fake
        finally:
            cell.kill("close")


@contextlib.asynccontextmanager
async def fake_run(job, host=None, wall=10.0):
    async with fake_cell() as fake:
        fake.cell.tenant = "t_test01"
        fake.cell.reserve()
        asked = fake.cell.run(
            job("export default 1", wall=wall), host or LocalHostCalls(), None, None, timedelta(milliseconds=100)
        )
        task = asyncio.create_task(asked)
        await fake.read("run")
        try:
            yield fake, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES)
async def test_a_breach_kills_the_cell_and_fails_the_run(breach, job):
    async with fake_run(job) as (fake, run):
        sending = asyncio.create_task(fake.send(breach))
        await fake.died()
        outcome = await run
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert (outcome.status, outcome.error.reason) == (ACTIVATION_STATUS_ERROR, "CS_RUNTIME_CRASH")
        assert not outcome.error.retryable
        assert (fake.cell.state, fake.cell.kill_reason) == (CellState.GONE, "breach")


async def test_a_cell_cannot_have_its_run_repeated_or_claim_what_it_did_not_use(job):
    async with fake_run(job) as (fake, run):
        error = InvocationError(reason="CS_RUNTIME_EXCEPTION", message="m", type="T", stack="s", retryable=True)
        await fake.send({"result": RunResult(run_id=1, error=error, peak_memory_bytes=2**64 - 1)})
        outcome = await run
    assert outcome.error == InvocationError(reason="CS_RUNTIME_EXCEPTION", message="m", type="T", stack="s")
    assert outcome.peak_memory == 128 << 20


async def test_fields_that_the_contract_does_not_have_are_dropped(job):
    smuggled = FunctionResponse.FromString(FINE.SerializeToString() + b"\xd2\x05\x04evil")
    assert b"evil" in smuggled.SerializeToString()
    async with fake_run(job) as (fake, run):
        await fake.send({"result": RunResult(run_id=1, response=smuggled)})
        outcome = await run
    assert outcome.response.SerializeToString() == FINE.SerializeToString()


@pytest.mark.parametrize(("wall", "code", "reason"), [(0.05, 0, "TIMEOUT"), (0.05, -11, "CRASH"), (9.0, 0, "CRASH")])
async def test_a_cell_that_leaves_after_its_deadline_ran_out_of_time(wall, code, reason, job):
    # Its last word can be lost, when an answer that was sent meanwhile breaks the connection.
    async with fake_cell() as fake:
        fake.cell.tenant = "t_test01"
        fake.cell.reserve()
        grace = timedelta(seconds=30)
        asked = fake.cell.run(job("export default 1", wall=wall), LocalHostCalls(), None, None, grace)
        task = asyncio.create_task(asked)
        await fake.read("run")
        await asyncio.sleep(min(2 * wall, 0.1))
        fake.far.close()
        await wait_until(lambda: fake.cell.state is CellState.GONE)
        fake.cell.ended(CellEnd(code, 0))
        outcome = await task
    assert outcome.error.reason == f"CS_RUNTIME_{reason}"


class Answers:
    """Host calls that answer at once, and count."""

    def __init__(self, size=0):
        self.value = "x" * size
        self.count = 0

    async def call(self, method, arguments):
        self.count += 1
        return self.value


def host_call(number, arguments=b'["k"]'):
    return encode(FromCell(host_call=HostCall(run_id=1, call_id=number, method="kv.get", arguments=arguments)))


async def ask_on(fake, arguments=b'["k"]'):
    """Make one host call after the other, each when the one before is done with; the most bytes that were unread."""
    most = 0
    for number in range(1, 1 << 20):
        try:
            await fake.send(host_call(number, arguments))
        except OSError:
            break
        while any(run._last_call < number or run._calls for run in fake.cell._runs.live):
            await asyncio.sleep(0)
        most = max(most, fake.cell._link.unread())
    return most


async def test_a_cell_that_asks_and_never_reads_is_killed_before_its_answers_fill_the_memory(job):
    answers = Answers(1 << 20)
    async with fake_run(job, answers, wall=40.0) as (fake, run):
        asking = asyncio.create_task(ask_on(fake))
        await fake.died()
        outcome = await run
        most = await asking
    assert fake.cell.kill_reason == "breach"
    assert outcome.error.reason == "CS_RUNTIME_CRASH"
    assert 10 << 20 < most <= supervised.UNREAD_MAX + (2 << 20)


async def test_arguments_in_flight_are_bounded_and_one_call_of_any_size_is_let_in(job):
    class Never:
        def __init__(self):
            self.held = 0

        async def call(self, method, arguments):
            self.held += 1
            await asyncio.Event().wait()

    never = Never()
    large = b'["' + b"x" * (1 << 20) + b'"]'
    async with fake_run(job, never) as (fake, run):
        for number in range(1, 12):
            await fake.send(host_call(number, large))
        refused = [(await fake.read("host_result")).host_result.error.reason for _ in range(8)]
        assert refused == ["CS_RATE_LIMITED"] * 8
        assert never.held == 3
        run.cancel()


def test_an_allowance_refills_with_time_and_tells_the_debt():
    allowance = meter.Meter(rate=10, burst=100)
    assert allowance.spend(100, 50.0) == 0
    assert allowance.spend(20, 50.0) == 2
    assert allowance.spend(0, 51.0) == 1
    assert allowance.spend(10, 53.0) == 0
    assert allowance.spend(101, 1000.0) == pytest.approx(0.1)


async def calls_within(job, seconds, monkeypatch, rate):
    monkeypatch.setattr("cs_sandbox.cell_process.Meter", lambda: meter.Meter(rate=rate, burst=16 << 10))
    answers = Answers()
    async with fake_run(job, answers, wall=seconds) as (fake, run):
        asking = asyncio.create_task(ask_on(fake, b"[]"))

        async def read():
            while not run.done():
                await fake.read("host_result")

        reading = asyncio.create_task(read())
        await run
        fake.process.wait()
        reading.cancel()
        asking.cancel()
        await asyncio.gather(reading, asking, return_exceptions=True)
    return answers.count


async def test_a_flood_of_host_calls_is_slowed_down_for_everybodys_sake(job, monkeypatch):
    slowed = await calls_within(job, 2.0, monkeypatch, rate=16 << 10)
    assert slowed <= 16 + 2 * 16 + 40
    # The control: with an allowance that is never used up, the same flood goes through.
    assert await calls_within(job, 2.0, monkeypatch, rate=1 << 40) > 2 * slowed


async def test_what_a_check_says_is_cut_and_names_only_files_that_were_asked_about(job):
    faults = [SyntaxFault(file=file, line=1, column=1, message="x" * 5000) for file in ("../evil", "a.js") * 200]
    async with fake_cell() as fake:
        checking = asyncio.create_task(fake.cell.check_syntax({"a.js": b"("}, timedelta(seconds=5)))
        await fake.read("check")
        await fake.send({"check_result": CheckResult(faults=faults)})
        told = await checking
    assert {fault.file for fault in told} == {"a.js"}
    assert len(told) == FAULTS_MAX
    assert {len(fault.message) for fault in told} == {FAULT_TEXT_MAX}


@pytest.mark.parametrize("frame", [{"turn": {"run_id": 1}}, {"retiring": {}}], ids=["turns", "farewells"])
async def test_a_flood_of_frames_that_cost_nothing_else_is_slowed_down_too(frame, job, monkeypatch):
    taken = 0
    take = CellProcess._dispatch

    def count(cell, received):
        nonlocal taken
        taken += 1
        return take(cell, received)

    monkeypatch.setattr(CellProcess, "_dispatch", count)

    async def taken_within(seconds, rate):
        nonlocal taken
        monkeypatch.setattr("cs_sandbox.cell_process.Meter", lambda: meter.Meter(rate=rate, burst=16 << 10))
        async with fake_run(job, wall=seconds) as (fake, run):
            taken = 0
            sending = asyncio.create_task(fake.send(encode(FromCell(**frame)) * 200_000))
            await run
            fake.process.wait()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return taken

    slowed = await taken_within(1.0, 16 << 10)
    assert 16 <= slowed <= 16 + 16 + 40
    # The control: with an allowance that is never used up, the same flood goes through.
    assert await taken_within(1.0, 1 << 40) > 4 * slowed
