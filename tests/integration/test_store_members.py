"""Who lives: members of a service."""

from __future__ import annotations

from datetime import timedelta

from cs_core.store.client import KvClient
from cs_core.store.members import MemberStore
from tests.support.waiting import wait_until

LONG = timedelta(seconds=60)


async def test_everybody_sees_the_same_members_in_the_same_order(kv: KvClient) -> None:
    one, other = MemberStore(kv, "cs-poller"), MemberStore(kv, "cs-poller")
    await one.beat("b", LONG)
    assert await other.beat("a", LONG) == await one.beat("b", LONG) == ["a", "b"]
    assert await MemberStore(kv, "cs-scheduler").beat("c", LONG) == ["c"]


async def test_a_member_that_says_nothing_is_gone_after_its_life(kv: KvClient) -> None:
    members = MemberStore(kv, "cs-poller")
    await members.beat("silent", timedelta(milliseconds=50))

    async def gone() -> bool:
        return await members.beat("talker", LONG) == ["talker"]

    await wait_until(gone)


async def test_a_member_that_leaves_is_gone_at_once(kv: KvClient) -> None:
    members = MemberStore(kv, "cs-poller")
    await members.beat("a", LONG)
    await members.beat("b", LONG)
    assert await members.leave("a") == ["b"]


async def test_lives_from_before_the_servers_clock_went_back_do_not_last(kv: KvClient) -> None:
    members = MemberStore(kv, "cs-poller")
    await members.beat("gone", timedelta(minutes=5))
    assert await members.beat("here", LONG) == ["here"]
