"""A block is ended from outside, and only by whom it concerns."""

from __future__ import annotations

import asyncio

import pytest

from cs_invoker.interruption import Cancellation, Interruption


async def test_a_block_that_is_interrupted_ends_and_the_task_goes_on() -> None:
    with Interruption() as block:
        asyncio.get_running_loop().call_soon(block.interrupt)
        await asyncio.Event().wait()
    assert block.interrupted
    await asyncio.sleep(0)


async def test_a_block_that_ends_by_itself_was_not_interrupted() -> None:
    with Interruption() as block:
        await asyncio.sleep(0)
    block.interrupt()
    await asyncio.sleep(0)
    assert not block.interrupted


async def test_what_the_block_raises_goes_on() -> None:
    with pytest.raises(LookupError), Interruption():
        raise LookupError


async def test_a_cancellation_by_another_goes_on_even_beside_an_interruption() -> None:
    block = Interruption()

    async def work() -> None:
        with block:
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    block.interrupt()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not block.interrupted


async def test_blocks_within_blocks_end_apart() -> None:
    with Interruption() as outer:
        with Interruption() as inner:
            inner.interrupt()
            await asyncio.Event().wait()
        assert inner.interrupted
        outer.interrupt()
        await asyncio.Event().wait()
    assert outer.interrupted


async def test_what_the_block_does_at_its_end_is_done() -> None:
    done = []
    with Interruption() as block:
        asyncio.get_running_loop().call_soon(block.interrupt)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append("cleaned")
    assert (block.interrupted, done) == (True, ["cleaned"])


async def test_a_cancellation_is_told_once_for_each_that_listens_and_at_once_if_it_came_before() -> None:
    cancellation, told = Cancellation(), list[int]()
    with cancellation.telling(lambda: told.append(1)):
        assert not cancellation.is_set()
        cancellation.set()
        with cancellation.telling(lambda: told.append(2)):
            pass
    cancellation.set()
    assert (cancellation.is_set(), told) == (True, [1, 2])
