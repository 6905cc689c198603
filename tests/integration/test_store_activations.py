"""The life of an activation's record: every step is one compare-and-set, whoever races for it."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.function_ref_pb2 import FunctionRef
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.log_entry_pb2 import LogEntry
from hypothesis import given
from hypothesis import strategies as st

from cs_core import ids
from cs_core.clock import ManualClock, to_timestamp
from cs_core.errors import ConflictError
from cs_core.store import keys
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.run_logs import RunLogs
from tests.support.waiting import wait_until

TENANT, SPACE, NAME = "t_alpha0", "default", "hello"
PARTITIONS = 4
LEASE = timedelta(seconds=30)
SHORT = timedelta(milliseconds=100)
SUCCESS = ActivationStatus.ACTIVATION_STATUS_SUCCESS
ERROR = ActivationStatus.ACTIVATION_STATUS_ERROR
DIGEST = hashlib.sha256(b"1").digest()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def store(kv: KvClient, clock: ManualClock) -> ActivationStore:
    return ActivationStore(kv, PARTITIONS, clock, timedelta(days=7))


def request(activation_id: str, at: datetime, tenant: str = TENANT) -> InvocationRequest:
    return InvocationRequest(
        request_id="req_1",
        activation_id=activation_id,
        function=FunctionRef(tenant=tenant, namespace=SPACE, function=NAME, version=1, ref="live"),
        event=b"1",
        accept_time=to_timestamp(at),
    )


def result(activation_id: str, status: ActivationStatus.ValueType = SUCCESS, body: str = "") -> InvocationResult:
    return InvocationResult(
        activation_id=activation_id,
        tenant=TENANT,
        status=status,
        response=FunctionResponse(status_code=200, body=body),
        end_time=to_timestamp(datetime.now(UTC)),
        attempt=1,
    )


async def queued(store: ActivationStore, clock: ManualClock) -> str:
    activation_id = ids.activation_id()
    assert (await store.submit(request(activation_id, clock.now()), DIGEST)).created
    return activation_id


async def status(store: ActivationStore, activation_id: str) -> str:
    found = await store.get(TENANT, activation_id)
    assert found is not None
    return ActivationStatus.Name(found.status).removeprefix("ACTIVATION_STATUS_")


async def test_from_queued_to_success(store: ActivationStore, clock: ManualClock) -> None:
    activation_id = await queued(store, clock)
    assert await status(store, activation_id) == "QUEUED"
    begun = await store.begin(TENANT, activation_id, "a/1", LEASE)
    assert (begun.kind, begun.attempt) == ("run", 1)
    assert await status(store, activation_id) == "RUNNING"
    lines = [LogEntry(message=str(number)) for number in range(2500)]
    assert (await store.finish(result(activation_id, body="x"), "a/1", RunLogs(0, lines))).accepted
    found = await store.get(TENANT, activation_id)
    assert found is not None
    assert (found.status, found.response.body, found.attempt) == (SUCCESS, "x", 1)
    assert [line.message for line in await store.logs(TENANT, activation_id, 0, 5000)] == [str(n) for n in range(2500)]
    assert [line.message for line in await store.logs(TENANT, activation_id, 2498, 10)] == ["2498", "2499"]


async def test_of_two_owners_one_begins_and_the_other_is_told_how_long(
    store: ActivationStore, clock: ManualClock
) -> None:
    activation_id = await queued(store, clock)
    outcomes = await asyncio.gather(
        *(store.begin(TENANT, activation_id, f"invoker/{number}", LEASE) for number in range(16))
    )
    assert [outcome.kind for outcome in outcomes].count("run") == 1
    busy = [outcome for outcome in outcomes if outcome.kind == "busy"]
    assert len(busy) == 15
    assert all(timedelta(0) < outcome.busy_for <= LEASE for outcome in busy)


async def test_an_expired_lease_is_taken_over_and_the_zombies_finish_is_refused(
    store: ActivationStore, clock: ManualClock
) -> None:
    activation_id = await queued(store, clock)
    await store.begin(TENANT, activation_id, "zombie/1", SHORT)

    async def taken_over() -> bool:
        return (await store.begin(TENANT, activation_id, "heir/1", LEASE)).kind == "run"

    await wait_until(taken_over)
    refused = await store.finish(result(activation_id, ERROR), "zombie/1")
    assert (refused.accepted, refused.result) == (False, None)
    assert not (await store.renew(TENANT, activation_id, "zombie/1", LEASE)).owned
    assert (await store.finish(result(activation_id, body="heir"), "heir/1")).accepted
    late = await store.finish(result(activation_id, ERROR), "zombie/1")
    assert not late.accepted
    assert late.result is not None
    assert late.result.response.body == "heir"
    found = await store.get(TENANT, activation_id)
    assert found is not None
    assert found.attempt == 2


async def test_nothing_leaves_a_terminal_state(store: ActivationStore, clock: ManualClock) -> None:
    activation_id = await queued(store, clock)
    await store.begin(TENANT, activation_id, "a/1", LEASE)
    finishes = await asyncio.gather(
        *(store.finish(result(activation_id, body=str(number)), "a/1") for number in range(8))
    )
    assert [finish.accepted for finish in finishes].count(True) == 1
    stands = next(finish.result for finish in finishes if finish.accepted)
    assert stands is not None
    begun = await store.begin(TENANT, activation_id, "b/1", LEASE)
    assert (begun.kind, begun.result) == ("done", stands)
    assert (await store.cancel(TENANT, activation_id, "stop")).kind == "terminal"
    assert await store.get_result(TENANT, activation_id) == stands


async def test_a_renewed_lease_is_not_taken_over(store: ActivationStore, clock: ManualClock) -> None:
    activation_id = await queued(store, clock)
    await store.begin(TENANT, activation_id, "a/1", SHORT)
    assert (await store.renew(TENANT, activation_id, "a/1", LEASE)).owned
    assert (await store.begin(TENANT, activation_id, "b/1", LEASE)).busy_for > SHORT


async def test_without_an_owner_only_what_has_not_started_is_finished(
    store: ActivationStore, clock: ManualClock
) -> None:
    waiting, running = await queued(store, clock), await queued(store, clock)
    await store.begin(TENANT, running, "a/1", LEASE)
    assert (await store.finish(result(waiting, ERROR), "")).accepted
    assert not (await store.finish(result(running, ERROR), "")).accepted
    assert await status(store, running) == "RUNNING"


async def test_a_begin_whose_answer_was_lost_is_no_crash_and_no_other_run(
    store: ActivationStore, clock: ManualClock
) -> None:
    activation_id = await queued(store, clock)
    first = await store.begin(TENANT, activation_id, "a/1", LEASE)
    assert await store.begin(TENANT, activation_id, "a/1", LEASE) == first
    assert (first.attempt, first.crashes) == (1, 0)
    assert (await store.begin(TENANT, activation_id, "b/1", LEASE)).kind == "busy"


async def test_whoever_renews_or_takes_over_is_told_of_a_cancel(store: ActivationStore, clock: ManualClock) -> None:
    activation_id = await queued(store, clock)
    await store.begin(TENANT, activation_id, "a/1", LEASE)
    assert (await store.renew(TENANT, activation_id, "a/1", LEASE)).cancel == ""
    await store.cancel(TENANT, activation_id, "enough")
    assert (await store.renew(TENANT, activation_id, "a/1", timedelta(0))).cancel == "enough"
    assert (await store.begin(TENANT, activation_id, "b/1", LEASE)).cancel == "enough"


async def test_a_cancel_races_a_begin_and_one_of_them_wins(store: ActivationStore, clock: ManualClock) -> None:
    for _ in range(20):
        activation_id = await queued(store, clock)
        cancelled, begun = await asyncio.gather(
            store.cancel(TENANT, activation_id, "stop"), store.begin(TENANT, activation_id, "a/1", LEASE)
        )
        assert (cancelled.kind, begun.kind) in {("ended", "done"), ("running", "run")}


async def test_a_repeated_submit_attaches_and_another_body_is_a_conflict(
    store: ActivationStore, clock: ManualClock
) -> None:
    activation_id = ids.activation_id_from(TENANT, "key", "hello@live")
    outcomes = await asyncio.gather(*(store.submit(request(activation_id, clock.now()), DIGEST) for _ in range(16)))
    assert [outcome.created for outcome in outcomes].count(True) == 1
    with pytest.raises(ConflictError) as caught:
        await store.submit(request(activation_id, clock.now()), hashlib.sha256(b"2").digest())
    assert caught.value.reason == "CS_CONFLICT_IDEMPOTENCY"


async def test_what_is_not_there_is_missing(store: ActivationStore) -> None:
    activation_id = ids.activation_id()
    assert await store.get(TENANT, activation_id) is None
    assert await store.get_result(TENANT, activation_id) is None
    assert (await store.begin(TENANT, activation_id, "a/1", LEASE)).kind == "missing"
    assert (await store.cancel(TENANT, activation_id, "stop")).kind == "missing"
    assert not (await store.finish(result(activation_id), "a/1")).accepted


async def test_another_tenant_finds_nothing(store: ActivationStore, clock: ManualClock) -> None:
    activation_id = await queued(store, clock)
    assert await store.get("t_beta00", activation_id) is None
    assert (await store.begin("t_beta00", activation_id, "a/1", LEASE)).kind == "missing"


async def test_a_list_goes_newest_first_over_both_partitions_and_equal_times(
    store: ActivationStore, clock: ManualClock
) -> None:
    made = []
    for number in range(30):
        if number % 3 == 0:
            clock.advance(timedelta(milliseconds=1))
        made.append((clock.now(), await queued(store, clock)))
    seen: list[str] = []
    before: tuple[int, str] | None = None
    while True:
        page, before = await store.list_by_function(TENANT, SPACE, NAME, before=before, limit=7)
        seen += [activation.activation_id for activation in page]
        if before is None:
            break
    assert len(seen) == len(set(seen)) == 30
    times = {activation_id: int(moment.timestamp() * 1000) for moment, activation_id in made}
    assert [times[activation_id] for activation_id in seen] == sorted(times.values(), reverse=True)


async def test_every_key_of_an_activation_has_an_end_of_life(
    kv: KvClient, store: ActivationStore, clock: ManualClock
) -> None:
    activation_id = await queued(store, clock)
    assert await _without_ttl(kv) == []
    await store.begin(TENANT, activation_id, "a/1", LEASE)
    await store.finish(result(activation_id), "a/1", RunLogs(0, [LogEntry(message="x")]))
    assert await _without_ttl(kv) == []
    cancelled = await queued(store, clock)
    await store.cancel(TENANT, cancelled, "stop")
    assert await _without_ttl(kv) == []


async def _without_ttl(kv: KvClient) -> list[bytes]:
    names = await kv.call("KEYS", "cs:{p*")
    assert names
    return [name for name in names if await kv.call("TTL", name) < 0]


@given(st.from_regex(r"t_[a-z0-9]{6,32}", fullmatch=True), st.uuids(), st.integers(1, 64))
def test_a_partition_follows_from_tenant_and_id_and_is_one_of_the_tenants_two(
    tenant: str, activation_id: object, partitions: int
) -> None:
    number = keys.partition_of(tenant, str(activation_id), partitions)
    assert number == keys.partition_of(tenant, str(activation_id), partitions)
    assert number in keys.tenant_partitions(tenant, partitions)
    assert len(set(keys.tenant_partitions(tenant, partitions))) == min(2, partitions)


def test_keys_of_one_step_share_a_slot() -> None:
    """What one script touches lies in one hash tag: the same code runs on a cluster."""

    def tag(key: str) -> str:
        return key[key.index("{") : key.index("}") + 1]

    tenant_keys = [
        keys.functions(TENANT, SPACE),
        keys.function(TENANT, SPACE, NAME),
        keys.version(TENANT, SPACE, NAME, 1),
        keys.aliases(TENANT, SPACE, NAME),
        keys.draft(TENANT, "drf_x"),
        keys.bundle(TENANT, "00"),
        keys.mutations(TENANT),
        keys.user_value(TENANT, "k"),
        keys.user_keys(TENANT),
    ]
    assert {tag(key) for key in tenant_keys} == {f"{{{TENANT}}}"}
    partition_keys = [
        keys.activation(3, TENANT, "id"),
        keys.activation_logs(3, TENANT, "id"),
        keys.activation_index(3, TENANT, SPACE, NAME),
        keys.queue(3, "cs.invoke", "bodies"),
    ]
    assert {tag(key) for key in partition_keys} == {"{p3}"}


async def test_what_is_open_is_counted_until_it_ends_or_is_past_its_time(
    store: ActivationStore, clock: ManualClock
) -> None:
    ids = [await queued(store, clock) for _ in range(3)]
    assert await store.count_open(TENANT) == 3
    await store.begin(TENANT, ids[0], "a/1", LEASE)
    assert await store.count_open(TENANT) == 3
    await store.finish(result(ids[0]), "a/1")
    await store.cancel(TENANT, ids[1], "stop")
    assert await store.count_open(TENANT) == 1
    clock.advance(timedelta(days=8))
    assert await store.count_open(TENANT) == 0


async def test_a_released_activation_waits_again_and_counts_no_crash(
    store: ActivationStore, clock: ManualClock
) -> None:
    activation_id = await queued(store, clock)
    assert (await store.begin(TENANT, activation_id, "a/1", LEASE)).crashes == 0
    assert not await store.release(TENANT, activation_id, "b/1")
    assert await store.release(TENANT, activation_id, "a/1")
    again = await store.begin(TENANT, activation_id, "b/1", timedelta(0))
    assert (again.kind, again.attempt, again.crashes) == ("run", 2, 0)
    third = await store.begin(TENANT, activation_id, "c/1", LEASE)
    assert (third.kind, third.attempt, third.crashes) == ("run", 3, 1)


async def test_log_lines_that_are_sent_again_are_stored_once(store: ActivationStore, clock: ManualClock) -> None:
    activation_id = await queued(store, clock)
    await store.begin(TENANT, activation_id, "a/1", LEASE)
    lines = [LogEntry(message=str(number)) for number in range(6)]
    assert await store.append_logs(TENANT, activation_id, "a/1", RunLogs(0, lines[:2]))
    assert await store.append_logs(TENANT, activation_id, "a/1", RunLogs(0, lines[:4]))
    assert not await store.append_logs(TENANT, activation_id, "zombie/1", RunLogs(4, lines[4:]))
    await store.finish(result(activation_id), "a/1", RunLogs(2, lines[2:]))
    stored = await store.logs(TENANT, activation_id, 0, 100)
    assert [line.message for line in stored] == ["0", "1", "2", "3", "4", "5"]
