"""What an invoker says of itself: how much it takes, and which functions keep it busy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import cast

from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.codeq import Delivery, Queue
from cs_core.codeq.contract import Room
from cs_invoker.consumer import Consumer, Intake
from cs_invoker.function_runs import FUNCTIONS_MAX, FunctionRuns
from cs_invoker.permits import Permits
from tests.support.waiting import wait_until


class Once:
    """Gives what it has at the first receive, as far as there is room, and nothing after."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self._left = list(deliveries)

    async def receive(self, _topic: str, *, limit: int, wait: timedelta, room: Room) -> list[Delivery]:
        found: list[Delivery] = []
        for delivery in list(self._left):
            taken = sum(each.partition == delivery.partition for each in found)
            if len(found) < limit and taken < room(delivery.partition):
                self._left.remove(delivery)
                found.append(delivery)
        if not found:
            await asyncio.sleep(wait.total_seconds())
        return found


async def test_a_consumer_reports_its_permits_by_partition_and_whether_it_takes_messages() -> None:
    going = asyncio.Event()

    async def hold(_delivery: Delivery) -> None:
        await going.wait()

    queue = Once([Delivery("t", partition, str(number), "1r", 1, b"") for number, partition in enumerate([3, 3, 3, 7])])
    length = timedelta(milliseconds=20)
    intake = Intake("t", 8, length, 0.5, grace=timedelta(seconds=5), outage=length, settle=length)
    consumer = Consumer(cast(Queue, queue), Permits(4), intake, hold, hold)
    running = asyncio.create_task(consumer.run())
    await wait_until(lambda: consumer.inflight == 3)
    report = consumer.report()
    assert (report.permits, report.permits_taken, report.partition_permits) == (4, 3, 2)
    assert dict(report.partition_permits_taken) == {3: 2, 7: 1}
    assert not report.draining
    consumer.pause(True)
    assert consumer.report().draining
    consumer.pause(False)
    assert not consumer.report().draining
    consumer.stop()
    assert consumer.report().draining
    going.set()
    await running
    assert dict(consumer.report().partition_permits_taken) == {}


def test_runs_are_counted_by_function_over_versions() -> None:
    runs = FunctionRuns()

    def ref(name: str, version: int = 1) -> FunctionRef:
        return FunctionRef(tenant="t_alpha0", namespace="default", function=name, version=version)

    for version in (1, 2):
        with runs.run(ref("a", version)):
            pass
    with runs.run(ref("b")):
        a, b = runs.loads()
        assert (a.function, a.runs, a.live_runs) == ("a", 2, 0)
        assert (b.function, b.runs, b.live_runs) == ("b", 0, 1)
    assert [load.live_runs for load in runs.loads()] == [0, 0]


def test_the_functions_that_ran_longest_ago_are_forgotten() -> None:
    runs = FunctionRuns()
    for number in range(FUNCTIONS_MAX + 5):
        with runs.run(FunctionRef(tenant="t_alpha0", namespace="default", function=f"f{number}")):
            pass
    names = {load.function for load in runs.loads()}
    assert len(names) == FUNCTIONS_MAX
    assert "f4" not in names
    assert f"f{FUNCTIONS_MAX + 4}" in names
