"""Heartbeats: the first at once, later ones put together, none refused for their number."""

from __future__ import annotations

import asyncio

import pytest

from cs_sandbox.host.heartbeat import HeartbeatCalls
from cs_sandbox.job import HostCallError
from tests.support.waiting import wait_until


class Poller:
    """Keeps what was sent, and may be away."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.times: list[float] = []
        self.away = False

    async def send(self, details: bytes) -> None:
        if self.away:
            raise HostCallError("CS_CODEQ_UNAVAILABLE", "away")
        self.sent.append(details)
        self.times.append(asyncio.get_running_loop().time())


async def test_what_comes_too_fast_is_put_together_and_the_last_is_sent() -> None:
    poller = Poller()
    calls = HeartbeatCalls(poller.send, 100, interval=0.1)
    for number in range(50):
        await calls.call("heartbeat", [number])
    assert poller.sent == [b"0"]
    await wait_until(lambda: len(poller.sent) == 2)
    assert poller.sent[1] == b"49"
    assert poller.times[1] - poller.times[0] >= 0.09
    await calls.close()


async def test_nothing_is_sent_after_the_end() -> None:
    poller = Poller()
    calls = HeartbeatCalls(poller.send, 100, interval=0.05)
    await calls.call("heartbeat", [1])
    await calls.call("heartbeat", [2])
    await calls.close()
    await asyncio.sleep(0.1)
    assert poller.sent == [b"1"]


async def test_a_poller_that_is_away_is_told_to_whom_it_can_be_and_the_next_is_tried() -> None:
    poller = Poller()
    poller.away = True
    calls = HeartbeatCalls(poller.send, 100, interval=0.05)
    with pytest.raises(HostCallError) as caught:
        await calls.call("heartbeat", [1])
    assert caught.value.reason == "CS_CODEQ_UNAVAILABLE"
    poller.away = False
    await calls.call("heartbeat", [2])
    await wait_until(lambda: poller.sent == [b"2"])
    await calls.close()


async def test_details_have_a_limit() -> None:
    with pytest.raises(HostCallError) as caught:
        await HeartbeatCalls(Poller().send, 10).call("heartbeat", ["x" * 9])
    assert caught.value.reason == "CS_VALIDATION_TOO_LARGE"
