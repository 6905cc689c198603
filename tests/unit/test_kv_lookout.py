"""A consumer looks where it may find something, at each place in its turn, and everywhere now and then."""

from __future__ import annotations

import asyncio

from cs_core.codeq.kv_lookout import Lookout


def lookout(poll: float = 60.0) -> Lookout:
    return Lookout("redis://127.0.0.1:1", "bell", 8, poll)


def everywhere(_partition: int) -> bool:
    return True


async def test_a_place_that_rang_is_looked_at_until_it_held_less_than_was_asked_for() -> None:
    out = lookout()
    assert out.places(everywhere) == []
    out._ring("bell", b"3")
    assert out.places(everywhere) == [3]
    assert out.places(everywhere) == [3]
    out.strike(3)
    assert out.places(everywhere) == []


async def test_a_ring_after_the_look_is_not_struck_with_it() -> None:
    out = lookout()
    out._ring("bell", b"3")
    out.places(everywhere)
    out._ring("bell", b"3")
    out.strike(3)
    assert out.places(everywhere) == [3]


async def test_every_place_is_the_first_in_its_turn() -> None:
    out = lookout()
    out.note([1, 4, 6])
    assert sorted(out.places(everywhere)[0] for _ in range(3)) == [1, 4, 6]


async def test_what_is_not_wanted_now_is_kept() -> None:
    out = lookout()
    out.note([1, 2])
    assert out.places(lambda partition: partition != 1) == [2]
    assert sorted(out.places(everywhere)) == [1, 2]


async def test_a_number_that_is_no_partition_is_passed_over() -> None:
    out = lookout()
    out._ring("bell", b"8")
    assert out.places(everywhere) == []


async def test_a_ring_ends_the_wait_and_so_does_the_next_look() -> None:
    out = lookout()
    assert out.due()
    assert not out.due()
    out.places(everywhere)
    waiting = asyncio.ensure_future(out.wait(60))
    await asyncio.sleep(0)
    out._ring("bell", b"2")
    await asyncio.wait_for(waiting, 10)
    quick = lookout(poll=0.01)
    assert quick.due()
    await asyncio.wait_for(quick.wait(60), 10)
    assert quick.due()


async def test_after_a_gap_of_the_bell_everything_is_looked_at() -> None:
    out = lookout()
    assert out.due()
    out._miss()
    await asyncio.wait_for(out.wait(60), 10)
    assert out.due()
