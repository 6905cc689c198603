"""Permits bound what a process holds, and wake whoever waits for one."""

from __future__ import annotations

import asyncio

import pytest

from cs_invoker.permits import Permits


async def test_a_waiter_wakes_when_a_permit_comes_back() -> None:
    permits = Permits(1)
    permits.take()
    waiter = asyncio.ensure_future(permits.wait_free())
    await asyncio.sleep(0)
    assert not waiter.done()
    permits.release()
    assert await waiter == 1


async def test_no_more_permits_are_taken_than_there_are() -> None:
    permits = Permits(2)
    permits.take()
    permits.take()
    assert permits.free == 0
    with pytest.raises(RuntimeError):
        permits.take()


async def test_a_permit_cannot_be_given_back_twice() -> None:
    permits = Permits(1)
    permits.take()
    permits.release()
    with pytest.raises(RuntimeError):
        permits.release()


async def test_closing_wakes_a_waiter_although_nothing_is_free() -> None:
    permits = Permits(1)
    permits.take()
    waiter = asyncio.ensure_future(permits.wait_free())
    await asyncio.sleep(0)
    permits.close()
    assert await waiter == 0


def test_at_least_one_permit_is_needed() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Permits(0)
