"""Leases are renewed while work runs, by another thread; a lost one ends the work; a store that is away does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest
from codesous.queue.v1.invocation_pb2 import InvocationRequest

from cs_core.codeq import Delivery, Queue
from cs_core.errors import UnavailableError
from cs_core.store.activations import ActivationStore, Renewal
from cs_core.store.slots import SlotStore
from cs_invoker.lease import Holding, LeaseLostError, Leases, Lengths
from cs_invoker.renewal import Lessors, RenewalThread
from tests.support.waiting import wait_until

QUICK = Lengths(record=timedelta(milliseconds=80), message=timedelta(milliseconds=120))


@dataclass
class ScriptedStore:
    """Answers renewals by number; stands for the store, the queue and the slots."""

    answer: Callable[[int], Renewal] = lambda _number: Renewal(owned=True)
    message: bool = True
    asked: int = 0
    times: list[float] = field(default_factory=list)
    lapsed: list[str] = field(default_factory=list)

    async def renew(self, *arguments: Any) -> Renewal:
        if arguments[-1] == timedelta(0):
            self.lapsed.append(arguments[2])
            return Renewal(owned=True)
        if isinstance(arguments[0], str):
            self.asked += 1
            self.times.append(time.monotonic())
            return self.answer(self.asked)
        return Renewal(owned=True)

    async def extend(self, _delivery: Delivery, _lease: timedelta) -> bool:
        return self.message

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Lessors]:
        yield Lessors(cast(ActivationStore, self), cast(Queue, self), cast(SlotStore, self))

    async def reached(self, count: int) -> None:
        await wait_until(lambda: self.asked >= count)


def away(_number: int) -> Renewal:
    raise UnavailableError("CS_STORE_UNAVAILABLE", "away")


async def hold(
    store: ScriptedStore,
    work: Coroutine[Any, Any, Any],
    *,
    on_cancel: Callable[[], None] = lambda: None,
    stall_limit: float = 30.0,
) -> Any:
    """Hold one activation's leases while `work` runs."""
    thread = RenewalThread(store.open, QUICK, stall_limit)
    delivery = Delivery("cs.invoke", 0, "m", "1r", 1, b"")
    holding = Holding(delivery, InvocationRequest(), "invoker/1", lambda _length: None, on_cancel)
    async with thread.running():
        return await Leases(cast(ActivationStore, store), thread).hold(holding, work)


async def test_the_outcome_of_the_work_is_given_on_and_renewal_ends_with_it() -> None:
    store = ScriptedStore()

    async def work() -> str:
        await store.reached(3)
        return "done"

    assert await hold(store, work()) == "done"
    asked = store.asked
    await asyncio.sleep(QUICK.record.total_seconds())
    assert store.asked == asked


async def test_the_first_renewal_comes_after_a_quarter_of_the_shorter_lease() -> None:
    assert Lengths(timedelta(seconds=8), timedelta(seconds=20)).renewal == timedelta(seconds=2)
    assert Lengths(timedelta(seconds=20), timedelta(seconds=8)).renewal == timedelta(seconds=2)


async def test_an_error_of_the_work_is_given_on() -> None:
    async def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await hold(ScriptedStore(), fail())


async def test_a_lost_lease_ends_the_work() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(LeaseLostError):
        await hold(ScriptedStore(lambda number: Renewal(owned=number < 2)), work())
    assert ended.is_set()


async def test_a_store_that_is_away_is_asked_again_and_the_work_goes_on() -> None:
    store = ScriptedStore(lambda number: Renewal(owned=True) if number > 3 else away(number))

    async def work() -> str:
        await store.reached(5)
        return "done"

    assert await hold(store, work()) == "done"


async def test_a_message_leased_to_another_does_not_end_the_work() -> None:
    store = ScriptedStore(message=False)

    async def work() -> str:
        await store.reached(2)
        return "done"

    assert await hold(store, work()) == "done"


async def test_a_mark_on_the_record_reaches_the_run_with_the_next_renewal() -> None:
    store = ScriptedStore(lambda number: Renewal(owned=True, cancel="stop" if number > 1 else ""))
    cancelled = asyncio.Event()

    async def work() -> str:
        await cancelled.wait()
        return "stopped"

    assert await hold(store, work(), on_cancel=cancelled.set) == "stopped"
    assert store.asked >= 2


async def test_renewal_goes_on_while_the_event_loop_is_held_up() -> None:
    store = ScriptedStore()

    async def work() -> int:
        await store.reached(1)
        before = store.asked
        time.sleep(QUICK.record.total_seconds() * 4)
        return store.asked - before

    assert await hold(store, work()) >= 3


async def test_a_process_whose_loop_does_not_come_back_loses_its_leases() -> None:
    store = ScriptedStore()

    async def work() -> float:
        await store.reached(1)
        time.sleep(2.5)
        return time.monotonic() - store.times[-1]

    # The sign of life before the stall is a second old at the most.
    assert await hold(store, work(), stall_limit=1.2) > 0.2


async def test_cancelling_the_holder_cancels_the_work_and_waits_for_it() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    holder = asyncio.ensure_future(hold(ScriptedStore(), work()))
    await started.wait()
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert ended.is_set()
