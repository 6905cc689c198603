"""A cell that breaks the protocol is killed, and what it claimed is not believed."""

import asyncio
import os
import socket
import subprocess
from datetime import timedelta

import pytest
from codesous.cell.v1.frames_pb2 import FromCell, HostCall, Idle, LogLine, Ready, RunResult, ToCell
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_ERROR
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.invocation_error_pb2 import InvocationError

from cs_sandbox.cell_process import CellProcess, CellState
from cs_sandbox.frames import FrameBuffer, encode
from cs_sandbox.local import LocalHostCalls
from cs_sandbox.zygote_process import CellEnd, ForkedCell

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
}


@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES)
async def test_a_breach_kills_the_cell_and_fails_the_run(breach, job):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    with subprocess.Popen(["sleep", "60"]) as process, theirs:
        cell = CellProcess(ForkedCell(process.pid, os.pidfd_open(process.pid), ours), lambda _: None)
        await loop.sock_sendall(theirs, encode(FromCell(ready=Ready(layers=["seccomp"]))))
        await cell.connect(timedelta(seconds=5))
        cell.tenant = "t_test01"
        cell.reserve()
        run = asyncio.create_task(
            cell.run(job("export default 1"), LocalHostCalls(), None, None, timedelta(milliseconds=100))
        )
        seen = FrameBuffer(1 << 20)
        kinds = []
        while "run" not in kinds:
            kinds += [ToCell.FromString(b).WhichOneof("frame") for b in seen.feed(await loop.sock_recv(theirs, 65536))]
        sending = asyncio.create_task(loop.sock_sendall(theirs, breach))
        await asyncio.to_thread(process.wait)
        cell.ended(CellEnd(process.returncode, 0))
        outcome = await run
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert (outcome.status, outcome.error.reason) == (ACTIVATION_STATUS_ERROR, "CS_RUNTIME_CRASH")
    assert not outcome.error.retryable
    assert (cell.state, cell.kill_reason) == (CellState.GONE, "breach")
