"""Tasks of several bindings while the only poller is killed again and again: each is answered, no attempt twice.

A task that Cadence has given to a poller which dies before it could record it is known to Cadence alone: its timeout
ends that attempt, and the workflow's retry policy makes the next. The long form,
`CODE_SOUS_TEST_SCALE=full`: 1,000 tasks.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cadence.api.v1.common_pb2 import RetryPolicy

from cs_cli.activity_run import ActivityEnd
from cs_core.store.client import KvClient
from tests.support.cadence import Call, PollerProcess, cadence_mesh
from tests.support.waiting import wait_until

TASKS = 1_000 if os.environ.get("CODE_SOUS_TEST_SCALE") == "full" else 80
BINDINGS = 4
KILLS = 2
# Server, workflows and functions share this process: more workflows than this only wait for each other.
AT_ONCE = 100
TIMEOUT = timedelta(seconds=60)


async def work(call: Call) -> Any:
    await asyncio.sleep(0.02)
    return call.event


def policy() -> RetryPolicy:
    """What a workflow says that wants its activity done."""
    made = RetryPolicy(maximum_attempts=4, backoff_coefficient=1.0)
    made.initial_interval.FromTimedelta(timedelta(milliseconds=100))
    made.expiration_interval.FromTimedelta(10 * TIMEOUT)
    return made


@pytest.mark.timeout(600)
async def test_every_task_is_answered_while_the_poller_is_killed_twice(kv: KvClient, tmp_path: Path) -> None:
    async with cadence_mesh(kv, {"work": work}) as mesh:
        names = [f"jobs-{number}" for number in range(BINDINGS)]
        for name in names:
            await mesh.bind(name, {"Work": "work"}, max_inflight_tasks=32)
        with PollerProcess(mesh, tmp_path) as process:
            loop = asyncio.get_running_loop()
            began = loop.time()
            room = asyncio.Semaphore(AT_ONCE)

            async def run(number: int) -> ActivityEnd:
                async with room:
                    return await mesh.run(names[number % BINDINGS], "Work", number, timeout=TIMEOUT, retry=policy())

            runs = [asyncio.create_task(run(number)) for number in range(TASKS)]
            for kill in range(KILLS):
                await wait_until(lambda kill=kill: mesh.accepted() > TASKS * (kill + 1) / (KILLS + 2), within=240)
                process.kill()
                process.start()
            ends = await asyncio.gather(*runs)
            took = loop.time() - began

            async def nothing_left() -> bool:
                return await mesh.tasks.count() == 0

            await wait_until(nothing_left, within=60)
        more = sum(end.attempt for end in ends)
        print(
            f"{TASKS} tasks over {BINDINGS} bindings, poller killed {KILLS} times: {mesh.accepted()} answered in"
            f" {took:.1f} s; attempts beyond the first: {more}; answers that were refused: {mesh.refused()}"
        )
        assert [(end.how, json.loads(end.data)) for end in ends] == [("completed", number) for number in range(TASKS)]
        # An attempt takes one answer at most, whatever dies, and its function runs once.
        assert all([taken for _, taken in answers].count(True) <= 1 for answers in mesh.answers.values())
        # And a task completes once: an attempt that was answered as failed is tried again by its workflow.
        assert mesh.accepted("completed") == TASKS
        assert set(mesh.invoker.runs.values()) == {1}
