"""The control plane's part of schedules over a real store: rules, changes, their mutations, and what it promises."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from codesous.control.v1.schedule_pb2 import OverlapPolicy, ScheduleState, TickOutcome
from codesous.control.v1.schedule_service_pb2 import CreateScheduleRequest, UpdateScheduleRequest
from codesous.type.v1.principal_pb2 import Principal
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cs_control.mutations import Actor
from cs_core.errors import AuthorizationError, CodeSousError, ConflictError, NotFoundError, ValidationError
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.shards import ShardStore
from tests.support.schedules import ADA, FUNCTION, SECOND, SHARDS, SPACE, START, TENANT, Bench, put_function

BOB = Actor(Principal(subject="bob", tenant=TENANT, roles=["developer"]), ADA.request_id)
NAME = (TENANT, SPACE, "beat")
PARALLEL = OverlapPolicy.OVERLAP_POLICY_PARALLEL


@pytest.fixture
async def bench(kv: KvClient) -> Bench:
    await put_function(kv)
    return Bench(kv)


async def changes(bench: Bench) -> list[str]:
    found = await bench.log.read(TENANT, after="", limit=1000)
    return [mutation.WhichOneof("change") or "" for _, mutation in found]


def update(*paths: str, etag: str = "", **fields: Any) -> UpdateScheduleRequest:
    request = UpdateScheduleRequest(tenant=TENANT, namespace=SPACE, schedule="beat", etag=etag)
    request.update_mask.paths.extend(paths)
    if "every" in fields:
        request.spec.interval.FromSeconds(fields["every"])
    if "cron" in fields:
        request.spec.cron = fields["cron"]
    request.action.function, request.action.ref = fields.get("function", ""), fields.get("ref", "")
    request.action.payload_json = fields.get("payload", b"")
    request.policies.overlap = fields.get("overlap", 0)
    return request


async def test_create_is_idempotent_on_equal_content_and_a_conflict_otherwise(bench: Bench) -> None:
    made = await bench.create(every=60)
    assert (made.spec.interval.seconds, made.action.payload_json, made.policies.max_catchup_ticks) == (60, b"null", 60)
    assert made.policies.overlap == OverlapPolicy.OVERLAP_POLICY_SKIP
    assert made.status.state == ScheduleState.SCHEDULE_STATE_ACTIVE
    assert made.principal == ADA.principal
    assert made.status.next_tick_time.ToDatetime(START.tzinfo) == START + 60 * SECOND
    assert await bench.create(every=60) == made
    with pytest.raises(ConflictError) as caught:
        await bench.create(every=61)
    assert caught.value.reason == "CS_CONFLICT_EXISTS"
    assert await changes(bench) == ["schedule_set"]


async def test_what_was_made_can_be_made_again_when_its_time_or_function_is_gone(bench: Bench, kv: KvClient) -> None:
    made = await bench.create(once=START + SECOND)
    bench.manual.advance(60 * SECOND)
    await kv.call("DEL", f"cs:{{{TENANT}}}:function:{SPACE}/{FUNCTION}")
    assert (await bench.create(once=START + SECOND)).uid == made.uid


def seconds(value: float) -> Duration:
    whole = int(value)
    return Duration(seconds=whole, nanos=int((value - whole) * 1e9))


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({}, ["spec"]),
        ({"interval": seconds(0)}, ["spec.interval"]),
        ({"interval": seconds(-1)}, ["spec.interval"]),
        ({"interval": seconds(1.5)}, ["spec.interval"]),
        ({"interval": seconds(86_401)}, ["spec.interval"]),
        ({"interval": Duration(seconds=2**60)}, ["spec.interval"]),
        ({"interval": Duration(seconds=1, nanos=-1)}, ["spec.interval"]),
        ({"cron": ""}, ["spec.cron"]),
        ({"cron": "0 0 30 2 *"}, ["spec.cron"]),
        ({"cron": "* * */20 * 1L"}, ["spec.cron"]),
        ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, ["spec.timezone"]),
        ({"cron": "* * *", "timezone": "x", "jitter": seconds(3601)}, ["spec.cron", "spec.timezone", "spec.jitter"]),
        ({"interval": seconds(5), "timezone": "UTC"}, ["spec.timezone"]),
        ({"interval": seconds(5), "jitter": seconds(-1)}, ["spec.jitter"]),
        ({"once": Timestamp(seconds=2**60)}, ["spec.once"]),
        ({"once": Timestamp(seconds=1)}, ["spec.once"]),
        ({"once": START}, ["spec.once"]),
        ({"interval": seconds(5), "start_time": START, "end_time": START}, ["spec.end_time"]),
        ({"interval": seconds(5), "end_time": START - SECOND}, ["spec.end_time"]),
        ({"interval": seconds(50), "end_time": START + SECOND}, ["spec.end_time"]),
        ({"interval": seconds(5), "function": "No"}, ["action.function"]),
        ({"interval": seconds(5), "ref": "0"}, ["action.ref"]),
        ({"interval": seconds(5), "payload": b"{"}, ["action.payload_json"]),
        ({"interval": seconds(5), "payload": b'"' + b"x" * 262_144 + b'"'}, ["action.payload_json"]),
        ({"interval": seconds(5), "payload": b"[" * 100_000}, ["action.payload_json"]),
        ({"interval": seconds(5), "catchup": 61}, ["policies.max_catchup_ticks"]),
        ({"interval": seconds(5), "overlap": 9}, ["policies.overlap"]),
        ({"interval": seconds(5), "function": "nothing"}, ["action.function"]),
        ({"interval": seconds(5), "ref": "nothing"}, ["action.ref"]),
        ({"interval": seconds(5), "ref": "7"}, ["action.ref"]),
    ],
)
async def test_bad_input_is_told_by_field(bench: Bench, fields: dict[str, Any], violated: list[str]) -> None:
    with pytest.raises(CodeSousError) as caught:
        await bench.create(**fields)
    assert [violation.field for violation in caught.value.violations] == violated
    assert isinstance(caught.value, ValidationError | NotFoundError)
    assert await changes(bench) == []
    with pytest.raises(NotFoundError):
        await bench.get()


async def test_names_are_checked_everywhere(bench: Bench) -> None:
    bad = "No:Name"
    request = CreateScheduleRequest(tenant=TENANT, namespace=bad, schedule=bad)
    with pytest.raises(ValidationError) as caught:
        await bench.schedules.create(request, ADA)
    assert [violation.field for violation in caught.value.violations] == ["namespace", "schedule"]
    for call in (
        bench.schedules.get(TENANT, SPACE, bad),
        bench.schedules.pause(TENANT, SPACE, bad, ADA),
        bench.schedules.delete(TENANT, SPACE, bad, ADA),
        bench.previews.preview(TENANT, SPACE, bad, 1),
    ):
        with pytest.raises(ValidationError):
            await call
    for missing in (
        bench.schedules.get(*NAME),
        bench.schedules.pause(*NAME, ADA),
        bench.schedules.resume(*NAME, ADA),
        bench.schedules.delete(*NAME, ADA),
        bench.schedules.run(*NAME, "req"),
        bench.schedules.history(*NAME, below=None, limit=1, after_ms=None),
        bench.schedules.update(update("spec"), ADA),
        bench.previews.preview(*NAME, 1),
    ):
        with pytest.raises(NotFoundError) as gone:
            await missing
        assert gone.value.reason == "CS_NOT_FOUND_SCHEDULE"


async def test_lists_go_by_name_page_by_page(bench: Bench) -> None:
    for name in ("ccc", "aaa", "bbb"):
        await bench.create(name, every=5)
    first, last = await bench.schedules.list_by_name(TENANT, SPACE, after="", limit=2)
    assert ([each.schedule for each in first], last) == (["aaa", "bbb"], "bbb")
    second, last = await bench.schedules.list_by_name(TENANT, SPACE, after="bbb", limit=2)
    assert ([each.schedule for each in second], last) == (["ccc"], None)
    assert second[0].status.HasField("next_tick_time")


async def test_every_change_has_its_mutation_and_no_other(bench: Bench) -> None:
    await bench.create(every=5)
    await bench.schedules.pause(*NAME, BOB)
    await bench.schedules.pause(*NAME, BOB)
    await bench.schedules.resume(*NAME, BOB)
    await bench.schedules.resume(*NAME, BOB)
    await bench.schedules.update(update("spec.interval", every=5), BOB)
    await bench.schedules.update(update("spec.interval", every=6), BOB)
    await bench.schedules.delete(*NAME, BOB)
    found = [mutation for _, mutation in await bench.log.read(TENANT, after="", limit=100)]
    assert [each.WhichOneof("change") for each in found] == ["schedule_set"] * 4 + ["schedule_deleted"]
    assert [each.actor.subject for each in found] == ["ada", "bob", "bob", "bob", "bob"]
    # Each begins where the one before ended.
    assert [each.before_sha256 for each in found[1:]] == [each.after_sha256 for each in found[:-1]]
    assert (found[0].before_sha256, found[-1].after_sha256) == ("", "")


async def test_an_update_changes_what_the_mask_names(bench: Bench) -> None:
    await bench.create(every=5, payload=b"1", jitter=SECOND, end_time=START + timedelta(days=1))
    changed = await bench.schedules.update(update("spec.cron", cron="*/5 * * * *"), ADA)
    assert (changed.spec.WhichOneof("rule"), changed.spec.jitter.seconds, changed.spec.timezone) == ("cron", 1, "UTC")
    assert changed.action.payload_json == b"1"
    back = await bench.schedules.update(update("spec.interval", every=5), ADA)
    assert (back.spec.WhichOneof("rule"), back.spec.timezone) == ("interval", "")
    cleared = await bench.schedules.update(update("spec.jitter", "action.payload_json", "policies"), ADA)
    assert not cleared.spec.HasField("jitter")
    assert cleared.action.payload_json == b"null"
    assert cleared.policies.max_catchup_ticks == 60
    whole = await bench.schedules.update(update("spec", every=7), ADA)
    assert whole.spec.interval.seconds == 7
    assert not whole.spec.HasField("end_time")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (update(), "update_mask"),
        (update("status.state"), "update_mask"),
        (update("spec.interval.seconds", every=5), "update_mask"),
        (update("principal"), "update_mask"),
        (update("spec.interval"), "spec"),
        (update("spec.interval", every=0), "spec.interval"),
        (update("spec", every=90_000), "spec.interval"),
        (update("action.function", function="nothing"), "action.function"),
        (update("action.ref", ref="nothing"), "action.ref"),
    ],
)
async def test_a_bad_update_changes_nothing(bench: Bench, request_: UpdateScheduleRequest, field: str) -> None:
    made = await bench.create(every=5)
    with pytest.raises(CodeSousError) as caught:
        await bench.schedules.update(request_, ADA)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert await bench.get() == made


async def test_a_stale_etag_is_a_conflict(bench: Bench) -> None:
    made = await bench.create(every=5)
    changed = await bench.schedules.update(update("spec.interval", every=6, etag=made.etag), ADA)
    assert changed.etag != made.etag
    with pytest.raises(ConflictError) as caught:
        await bench.schedules.update(update("spec.interval", every=7, etag=made.etag), ADA)
    assert caught.value.reason == "CS_CONFLICT_CONCURRENT"
    assert (await bench.get()).spec.interval.seconds == 6


async def test_nobody_has_something_else_run_as_another(bench: Bench) -> None:
    await bench.create(every=5)
    await put_function(bench.client, "other")
    # Bob may change when it ticks, and what he may run himself.
    await bench.schedules.update(update("spec.interval", every=6), BOB)
    with pytest.raises(AuthorizationError) as caught:
        await bench.schedules.update(update("action.function", function="other"), BOB)
    assert caught.value.reason == "CS_AUTHZ_ROLE_MISSING"
    with pytest.raises(AuthorizationError):
        await bench.schedules.update(update("action.payload_json", payload=b"666"), BOB)
    await put_function(bench.client, "third", roles=("developer",))
    changed = await bench.schedules.update(update("action.function", function="third"), BOB)
    assert (changed.action.function, changed.principal.subject) == ("third", "ada")
    await bench.schedules.update(update("action.function", function="other"), ADA)


async def test_a_paused_schedule_does_not_tick_and_goes_on_from_now(bench: Bench) -> None:
    await bench.create(every=1, overlap=PARALLEL)
    await bench.pass_time(3 * SECOND)
    paused = await bench.schedules.pause(*NAME, ADA)
    assert paused.status.state == ScheduleState.SCHEDULE_STATE_PAUSED
    assert not paused.status.HasField("next_tick_time")
    await bench.pass_time(100 * SECOND)
    assert len(await bench.run()) == 3
    await bench.schedules.resume(*NAME, ADA)
    await bench.pass_time(2 * SECOND)
    assert await bench.outcomes() == [(number, "published") for number in range(1, 6)]
    assert (await bench.get()).status.dropped_ticks == 0


async def test_an_update_of_the_rule_goes_on_from_now_with_the_next_number(bench: Bench) -> None:
    await bench.create(every=1, overlap=PARALLEL)
    await bench.pass_time(3 * SECOND)
    bench.manual.advance(30 * SECOND)
    changed = await bench.schedules.update(update("spec.interval", every=10), ADA)
    assert changed.status.next_tick_time.ToDatetime(START.tzinfo) == START + 40 * SECOND
    await bench.pass_time(20 * SECOND)
    assert await bench.outcomes() == [(number, "published") for number in range(1, 6)]


async def test_an_update_of_the_action_leaves_the_ticks_where_they_are(bench: Bench) -> None:
    await bench.create(every=10, overlap=PARALLEL)
    await bench.pass_time(15 * SECOND)
    await bench.schedules.update(update("action.payload_json", payload=b"2"), ADA)
    await bench.pass_time(5 * SECOND)
    assert await bench.outcomes() == [(1, "published"), (2, "published")]


async def test_run_now_runs_beside_the_ticks_as_the_principal(bench: Bench) -> None:
    await bench.create(every=10)
    await bench.pass_time(10 * SECOND)
    await bench.schedules.pause(*NAME, ADA)
    activation = await bench.schedules.run(*NAME, "req_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    found = await bench.activations.get(TENANT, activation)
    assert found is not None
    assert (found.trigger.schedule.tick, found.principal.subject) == (0, "ada")
    assert (await bench.get()).status.published_ticks == 1
    await put_function(bench.client, roles=())
    with pytest.raises(AuthorizationError):
        # Versions never change; the test's own cheat needs a resolver that has not seen it.
        await Bench(bench.client).schedules.run(*NAME, "req")


async def test_history_goes_newest_first_page_by_page(bench: Bench) -> None:
    await bench.create(every=1, overlap=PARALLEL)
    await bench.pass_time(5 * SECOND)
    first, below = await bench.schedules.history(*NAME, below=None, limit=2, after_ms=None)
    assert ([tick.tick for tick in first], below) == ([5, 4], 4)
    second, below = await bench.schedules.history(*NAME, below=below, limit=5, after_ms=None)
    assert ([tick.tick for tick in second], below) == ([3, 2, 1], None)
    late, below = await bench.schedules.history(
        *NAME, below=None, limit=4, after_ms=int((START + 3 * SECOND).timestamp() * 1000)
    )
    assert ([tick.tick for tick in late], below) == ([5, 4], None)


async def test_history_keeps_the_newest(kv: KvClient) -> None:
    await put_function(kv)
    bench = Bench(kv, history=3)
    await bench.create(every=1, overlap=PARALLEL)
    await bench.pass_time(5 * SECOND)
    assert [tick.tick for tick in await bench.ticks()] == [3, 4, 5]
    assert (await bench.get()).status.published_ticks == 5


async def outlook(bench: Bench, count: int = 3) -> list[tuple[int, str, str]]:
    ticks = await bench.previews.preview(*NAME, count)
    return [
        (tick.tick, TickOutcome.Name(tick.outcome).removeprefix("TICK_OUTCOME_"), tick.reason or tick.message)
        for tick in ticks
    ]


async def test_a_preview_tells_what_would_become_of_each_tick(bench: Bench) -> None:
    await bench.create(every=20)
    assert await outlook(bench) == [(1, "PUBLISHED", ""), (2, "PUBLISHED", ""), (3, "PUBLISHED", "")]
    # The tick at 20 s runs until 50 s at the latest: one at 40 s may find it running.
    await bench.pass_time(20 * SECOND)
    ahead = await outlook(bench)
    assert [each[:2] for each in ahead] == [(2, "SKIPPED"), (3, "PUBLISHED"), (4, "PUBLISHED")]
    assert (await bench.run())[0].activation_id in ahead[0][2]
    await bench.end_all()
    bench.manual.advance(timedelta(minutes=30))
    ahead = await outlook(bench)
    assert ahead[0][:2] == (2, "DROPPED")
    assert [each[1] for each in ahead[1:]] == ["PUBLISHED", "PUBLISHED"]
    before = await bench.outcomes()
    await bench.look()
    # As it was told.
    dropped = (await bench.ticks())[len(before)]
    assert (dropped.tick, dropped.last_tick) == (2, ahead[1][0] - 1)


async def test_a_preview_tells_who_is_refused_and_what_is_paused(bench: Bench) -> None:
    await bench.create(every=20)
    await bench.client.call("HDEL", f"cs:{{{TENANT}}}:aliases:{SPACE}/{FUNCTION}", "live")
    assert await outlook(bench, 2) == [(1, "REFUSED", "CS_NOT_FOUND_ALIAS"), (2, "REFUSED", "CS_NOT_FOUND_ALIAS")]
    await bench.schedules.pause(*NAME, ADA)
    assert await outlook(bench, 1) == [(2 - 1, "SKIPPED", "the schedule is paused")]
    for count in (-1, 101):
        with pytest.raises(ValidationError):
            await bench.previews.preview(*NAME, count)


async def test_a_preview_ends_with_the_schedule(bench: Bench) -> None:
    await bench.create(every=20, end_time=START + 50 * SECOND)
    assert [number for number, _, _ in await outlook(bench, 9)] == [1, 2]


async def test_a_tenant_uses_two_shards_of_all(kv: KvClient) -> None:
    shards = ShardStore(kv, 16, 1)
    of_one = {shards.shard(shards.new_uid(TENANT)) for _ in range(100)}
    assert of_one == set(keys.tenant_shards(TENANT, 16))
    assert len(of_one) == 2
    of_many = {shards.shard(shards.new_uid(f"t_tenant{number}")) for number in range(200)}
    assert of_many == set(range(16))
    await put_function(kv)
    made = await Bench(kv).create(every=5)
    assert keys.shard_of(made.uid, SHARDS) in keys.tenant_shards(TENANT, SHARDS)
