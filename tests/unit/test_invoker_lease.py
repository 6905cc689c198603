"""Leases are renewed while work runs; a lost one ends the work; a store that is away does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from cs_core.errors import UnavailableError
from cs_invoker.lease import LeaseKeeper, LeaseLostError, Lengths

QUICK = Lengths(record=timedelta(milliseconds=20), message=timedelta(milliseconds=40))


class ScriptedRenewals:
    """Answers renewals by number, and tells when enough were asked for."""

    def __init__(self, answer: Callable[[int], bool], *, message: bool = True) -> None:
        self.asked = 0
        self.answered = 0
        self._answer = answer
        self._message = message
        self._changed = asyncio.Condition()

    async def renew_activation(self) -> bool:
        self.asked += 1
        async with self._changed:
            self._changed.notify_all()
        owned = self._answer(self.asked)
        self.answered += 1
        return owned

    async def extend_message(self) -> bool:
        return self._message

    async def reached(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.asked >= count)


def away(_number: int) -> bool:
    raise UnavailableError("CS_STORE_UNAVAILABLE", "away")


async def test_the_outcome_of_the_work_is_given_on_and_renewal_ends_with_it() -> None:
    renewals = ScriptedRenewals(lambda _: True)

    async def work() -> str:
        await renewals.reached(3)
        return "done"

    assert await LeaseKeeper(renewals, QUICK).hold(work()) == "done"
    asked = renewals.asked
    await asyncio.sleep(QUICK.record.total_seconds())
    assert renewals.asked == asked


async def test_the_first_renewal_comes_after_a_quarter_of_the_shorter_lease() -> None:
    assert Lengths(timedelta(seconds=8), timedelta(seconds=20)).renewal == timedelta(seconds=2)
    assert Lengths(timedelta(seconds=20), timedelta(seconds=8)).renewal == timedelta(seconds=2)


async def test_an_error_of_the_work_is_given_on() -> None:
    async def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await LeaseKeeper(ScriptedRenewals(lambda _: True), QUICK).hold(fail())


async def test_a_lost_lease_ends_the_work() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(LeaseLostError):
        await LeaseKeeper(ScriptedRenewals(lambda number: number < 2), QUICK).hold(work())
    assert ended.is_set()


async def test_a_store_that_is_away_is_asked_again_and_the_work_goes_on() -> None:
    renewals = ScriptedRenewals(lambda number: number > 3 or away(number))

    async def work() -> str:
        await renewals.reached(5)
        return "done"

    assert await LeaseKeeper(renewals, QUICK).hold(work()) == "done"


async def test_a_message_leased_to_another_does_not_end_the_work() -> None:
    renewals = ScriptedRenewals(lambda _: True, message=False)

    async def work() -> str:
        await renewals.reached(2)
        return "done"

    assert await LeaseKeeper(renewals, QUICK).hold(work()) == "done"


async def test_cancelling_the_holder_cancels_the_work_and_waits_for_it() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    holder = asyncio.ensure_future(LeaseKeeper(ScriptedRenewals(lambda _: True), QUICK).hold(work()))
    await started.wait()
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert ended.is_set()
