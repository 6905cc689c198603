"""Moving an alias to a version that may reach more: who may, what is told, and what is written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.control.v1.version_service_pb2 import PublishVersionRequest
from codesous.type.v1.principal_pb2 import Principal
from structlog.testing import capture_logs

from cs_control.capability_diff import listed
from cs_control.capability_gate import CapabilityGate, Mode
from cs_control.mutations import Actor
from cs_core.errors import AuthorizationError, NotFoundError
from cs_core.store.client import KvClient
from tests.integration.test_control import FILES, NAME, SPACE, TENANT, Control

RESOURCE = f"cs:{TENANT}:{SPACE}:function/{NAME}"


def actor(*roles: str) -> Actor:
    return Actor(Principal(subject="ada", tenant=TENANT, roles=roles), "req_01ARZ3NDEKTSV4RRFFQ69G5FAV")


DEVELOPER, ADMIN = actor("developer"), actor("admin")


class Gated(Control):
    """A control plane with versions that may reach one host more each."""

    async def publish_reaching(self, *hosts: str, alias: str = "", by: Actor = ADMIN) -> Any:
        manifest = {"runtime": "cs-js", "capabilities": {"http": {"allowHosts": list(hosts)}}}
        draft = await self.upload({**FILES, "manifest.json": json.dumps(manifest).encode()})
        request = PublishVersionRequest(
            tenant=TENANT, namespace=SPACE, function=NAME, draft_id=draft.draft_id, alias=alias
        )
        return await self.versions.publish(request, by)

    async def move(self, alias: str, version: int, by: Actor) -> Any:
        return await self.aliases.set(TENANT, SPACE, NAME, alias, version, None, by)

    async def points_at(self, alias: str) -> int:
        found, _ = await self.aliases.list_by_name(TENANT, SPACE, NAME, after="", limit=100)
        return next((one.version for one in found if one.alias == alias), 0)

    async def last(self) -> LifecycleMutation:
        return (await self.log.read(TENANT, after="", limit=1000))[-1][1]


async def gated(kv: KvClient, mode: Mode = "enforce", versions: Sequence[Sequence[str]] = ()) -> Gated:
    control = Gated(kv, mode=mode)
    await control.create()
    for hosts in versions:
        await control.publish_reaching(*hosts)
    return control


async def test_who_may_not_grant_cannot_move_an_alias_to_where_it_reaches_more(kv: KvClient) -> None:
    control = await gated(kv, versions=[["a.com"], ["a.com"], ["a.com", "b.com"], []])
    await control.move("live", 1, ADMIN)
    assert (await control.move("live", 2, DEVELOPER)).diff is None
    with pytest.raises(AuthorizationError) as caught:
        await control.move("live", 3, DEVELOPER)
    assert caught.value.reason == "CS_AUTHZ_ACTION_DENIED"
    assert caught.value.metadata == {"action": "cs:function:grant", "hosts": "b.com"}
    assert (
        caught.value.message == f"cs:function:grant on {RESOURCE} is needed: alias live would newly reach hosts b.com"
    )
    assert await control.points_at("live") == 2
    moved = await control.move("live", 3, ADMIN)
    assert listed(moved.diff.added) == {"hosts": "b.com"}
    narrowed = await control.move("live", 4, DEVELOPER)
    assert (listed(narrowed.diff.added), listed(narrowed.diff.removed)) == ({}, {"hosts": "a.com, b.com"})


async def test_without_the_gate_the_alias_moves(kv: KvClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    control = await gated(kv, versions=[["a.com"], ["b.com"]])
    await control.move("live", 1, ADMIN)
    monkeypatch.setattr(CapabilityGate, "_check", lambda *_: None)
    await control.move("live", 2, DEVELOPER)
    assert await control.points_at("live") == 2


async def test_an_alias_that_is_not_there_reaches_nothing_so_deleting_it_first_is_no_way_round(kv: KvClient) -> None:
    control = await gated(kv, versions=[["a.com"], ["b.com"], []])
    await control.move("live", 1, ADMIN)
    await control.aliases.delete(TENANT, SPACE, NAME, "live", DEVELOPER)
    for version in (1, 2):
        with pytest.raises(AuthorizationError):
            await control.move("live", version, DEVELOPER)
    with pytest.raises(AuthorizationError):
        await control.move("another", 2, DEVELOPER)
    assert (await control.move("another", 3, DEVELOPER)).alias.version == 3


async def test_going_back_to_where_it_reaches_more_needs_the_grant_too(kv: KvClient) -> None:
    control = await gated(kv, versions=[["a.com"], []])
    await control.move("live", 1, ADMIN)
    await control.move("live", 2, DEVELOPER)
    with pytest.raises(AuthorizationError):
        await control.aliases.rollback(TENANT, SPACE, NAME, "live", DEVELOPER)
    back = await control.aliases.rollback(TENANT, SPACE, NAME, "live", ADMIN)
    assert (back.alias.version, listed(back.diff.added)) == (1, {"hosts": "a.com"})


async def test_publishing_with_an_alias_passes_the_same_gate_and_leaves_the_draft_when_refused(kv: KvClient) -> None:
    control = await gated(kv)
    with pytest.raises(AuthorizationError):
        await control.publish_reaching("a.com", alias="live", by=DEVELOPER)
    assert await control.points_at("live") == 0
    assert (await control.functions.get(TENANT, SPACE, NAME)).latest_version == 0
    published = await control.publish_reaching("a.com", alias="live", by=ADMIN)
    assert listed(published.diff.added) == {"hosts": "a.com"}
    # Without an alias nobody reaches anything by it yet.
    assert (await control.publish_reaching("b.com", by=DEVELOPER)).diff is None
    same = await control.publish_reaching("a.com", alias="live", by=DEVELOPER)
    assert (same.version.version, same.diff) == (3, None)


async def test_a_grant_is_written_down_with_what_it_granted(kv: KvClient) -> None:
    control = await gated(kv, versions=[["a.com"]])
    await control.move("live", 1, ADMIN)
    assert listed((await control.last()).alias_set.capability_diff.added) == {"hosts": "a.com"}
    await control.publish_reaching("b.com", alias="live", by=ADMIN)
    told = (await control.last()).version_published.capability_diff
    assert (listed(told.added), listed(told.removed)) == ({"hosts": "b.com"}, {"hosts": "a.com"})


async def test_reported_only_the_alias_moves_and_the_log_says_who_did_it(kv: KvClient) -> None:
    control = await gated(kv, "report", versions=[["a.com"]])
    with capture_logs() as lines:
        moved = await control.move("live", 1, DEVELOPER)
    assert listed(moved.diff.added) == {"hosts": "a.com"}
    (line,) = [line for line in lines if line["event"] == "something newly reaches what nobody granted"]
    assert (line["subject"], line["resource"], line["what"], line["added"]) == (
        "ada",
        RESOURCE,
        "alias live",
        {"hosts": "a.com"},
    )
    with capture_logs() as lines:
        await control.publish_reaching("b.com", alias="live", by=ADMIN)
    assert [line for line in lines if line["log_level"] == "warning"] == []


async def test_a_move_in_between_does_not_let_a_wider_version_through(kv: KvClient) -> None:
    """From version 2 nothing is new in version 3, from version 1 something is. The admin moves back and forth."""
    control = await gated(kv, versions=[[], ["a.com"], ["a.com"]])
    await control.move("live", 2, ADMIN)

    async def swing() -> None:
        for version in (1, 2) * 15:
            await control.move("live", version, ADMIN)

    async def try_it() -> None:
        for _ in range(30):
            try:
                await control.move("live", 3, DEVELOPER)
            except AuthorizationError:
                continue

    await asyncio.gather(swing(), try_it())
    moves = [
        mutation.alias_set
        for _, mutation in await control.log.read(TENANT, after="", limit=1000)
        if mutation.HasField("alias_set")
    ]
    to_three = [move for move in moves if move.alias.version == 3]
    assert all(move.alias.previous_version == 2 for move in to_three), "moved from 1 to 3 without a grant"


async def test_a_version_whose_egress_is_only_reported_needs_a_grant_to_be_published_at_all(kv: KvClient) -> None:
    control = await gated(kv)
    draft = await control.upload()
    request = PublishVersionRequest(tenant=TENANT, namespace=SPACE, function=NAME, draft_id=draft.draft_id)
    request.config.egress_report_only = True
    with pytest.raises(AuthorizationError) as caught:
        await control.versions.publish(request, DEVELOPER)
    assert caught.value.metadata == {"action": "cs:function:grant", "hosts": "*"}
    assert (await control.versions.publish(request, ADMIN)).version.config.egress_report_only


async def test_versions_are_compared(kv: KvClient) -> None:
    control = await gated(kv, versions=[["a.com"], ["b.com"]])
    diff, same = await control.versions.diff(TENANT, SPACE, NAME, 1, 2)
    assert (listed(diff.added), listed(diff.removed), same) == ({"hosts": "b.com"}, {"hosts": "a.com"}, False)
    diff, same = await control.versions.diff(TENANT, SPACE, NAME, 2, 2)
    assert (diff.HasField("added"), diff.HasField("removed"), same) == (False, False, True)
    diff, _ = await control.versions.diff(TENANT, SPACE, NAME, 0, 1)
    assert listed(diff.added) == {"hosts": "a.com"}
    for before, after in ((1, 9), (9, 1)):
        with pytest.raises(NotFoundError):
            await control.versions.diff(TENANT, SPACE, NAME, before, after)
