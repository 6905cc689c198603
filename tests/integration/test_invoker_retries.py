"""Retries, slots and log lines on real parts: a store, a queue, invokers and cells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from codesous.runtime.v1.version_config_pb2 import RetryPolicy

from cs_core.codeq.contract import INVOKE
from cs_core.store.client import KvClient
from cs_core.store.slots import SlotStore
from cs_invoker.gaps import Gap
from tests.support.invocations import Ingress, status_of
from tests.support.invokers import InvokerProcess, make_settings, running_invoker
from tests.support.waiting import wait_until

FAILS_UNTIL = """
export default (event, ctx) => {
  console.log("run", ctx.attempt);
  if (ctx.attempt < event.until) throw new Error("not yet");
  return { statusCode: 200, body: String(ctx.attempt) };
};
"""


def policy(attempts: int, first_ms: int = 100) -> RetryPolicy:
    """A policy with short waits."""
    made = RetryPolicy(max_attempts=attempts)
    made.initial_backoff.FromMilliseconds(first_ms)
    return made


@pytest.fixture
async def ingress(redis_url: str) -> AsyncIterator[Ingress]:
    """What a gateway does before the queue."""
    client = KvClient(redis_url)
    made = Ingress(client)
    yield made
    await made.queue.close()
    await client.close()


async def test_a_failing_run_is_tried_again_until_it_succeeds_with_its_history(
    ingress: Ingress, redis_url: str
) -> None:
    ref = await ingress.put_version("flaky", FAILS_UNTIL, retry=policy(5))
    async with running_invoker(make_settings(redis_url)):
        activation = await ingress.invoke(ref, {"until": 3}, background=True)
        record = await ingress.ended(activation)
        await ingress.emptied()
    assert (status_of(record), record.response.body, record.attempt) == ("SUCCESS", "3", 3)
    assert [failed.attempt for failed in record.failed_attempts] == [1, 2]
    assert {failed.error.message for failed in record.failed_attempts} == {"not yet"}
    for failed, later in zip(record.failed_attempts, record.failed_attempts[1:], strict=False):
        assert later.start_time.ToDatetime() >= failed.end_time.ToDatetime() + timedelta(milliseconds=45)
    lines = await ingress.activations.logs(ingress.tenant, activation, 0, 100)
    assert [(line.message, line.attempt) for line in lines] == [("run 1", 1), ("run 2", 2), ("run 3", 3)]
    assert await ingress.queue.list_dead_letters(INVOKE, limit=10) == []


async def test_an_exhausted_policy_ends_in_an_error_and_a_dead_letter(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("hopeless", FAILS_UNTIL, retry=policy(3))
    async with running_invoker(make_settings(redis_url)):
        activation = await ingress.invoke(ref, {"until": 99}, background=True)
        record = await ingress.ended(activation)
        await ingress.emptied()
    assert (status_of(record), record.error.reason, record.attempt) == ("ERROR", "CS_RUNTIME_EXCEPTION", 3)
    assert len(record.failed_attempts) == 2
    (letter,) = await ingress.queue.list_dead_letters(INVOKE, limit=10)
    assert letter.envelope.invocation_request.activation_id == activation
    assert letter.envelope.dead_letter.reason == "CS_RUNTIME_EXCEPTION"


async def test_a_caller_that_waits_gets_the_first_failure(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("flaky", FAILS_UNTIL, retry=policy(5))
    async with running_invoker(make_settings(redis_url)):
        record = await ingress.ended(await ingress.invoke(ref, {"until": 3}))
        await ingress.emptied()
    assert (status_of(record), record.attempt) == ("ERROR", 1)
    assert await ingress.queue.list_dead_letters(INVOKE, limit=10) == []


async def test_a_retry_is_kept_waiting_whoever_receives_its_message_early(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("flaky", FAILS_UNTIL, retry=policy(3, first_ms=1500))
    async with running_invoker(make_settings(redis_url)):
        request = ingress.make_request(ref, {"until": 2}, background=True)
        activation = await ingress.submit(request)

        async def waits() -> bool:
            record = await ingress.activations.get(ingress.tenant, activation)
            return record is not None and record.HasField("next_time")

        await wait_until(waits)
        await ingress.publish(request)
        record = await ingress.ended(activation)
        await ingress.emptied()
    (failed,) = record.failed_attempts
    assert record.attempt == 2
    waited = record.start_time.ToDatetime() - failed.end_time.ToDatetime()
    assert waited >= timedelta(milliseconds=700)


async def test_an_activation_that_waits_for_a_retry_can_be_cancelled(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("flaky", FAILS_UNTIL, retry=policy(3, first_ms=60_000))
    async with running_invoker(make_settings(redis_url)):
        activation = await ingress.invoke(ref, {"until": 9}, background=True)

        async def waits() -> bool:
            record = await ingress.activations.get(ingress.tenant, activation)
            return record is not None and record.HasField("next_time")

        await wait_until(waits)
        assert (await ingress.activations.cancel(ingress.tenant, activation, "enough")).kind == "ended"
    record = await ingress.ended(activation)
    assert (status_of(record), len(record.failed_attempts)) == ("CANCELLED", 1)


@pytest.mark.parametrize("gap", [Gap.BEGUN, Gap.RAN, Gap.FINISHED])
async def test_an_invoker_that_dies_around_a_retry_loses_and_doubles_nothing(
    ingress: Ingress, redis_url: str, gap: Gap
) -> None:
    ref = await ingress.put_version("flaky", FAILS_UNTIL, retry=policy(4))
    async with InvokerProcess(redis_url, die_at=gap) as killed:
        activation = await ingress.invoke(ref, {"until": 3}, background=True)
        await killed.died()
    async with running_invoker(make_settings(redis_url)):
        record = await ingress.ended(activation)
        await ingress.emptied()
    # A run that died with its invoker before its end was kept is no failed run of the function's.
    assert status_of(record) == "SUCCESS"
    assert [failed.attempt for failed in record.failed_attempts] == ([1, 2] if gap is Gap.FINISHED else [2])


async def test_a_drained_run_is_no_crash(ingress: Ingress, redis_url: str) -> None:
    source = "export default (event, ctx) => new Promise((done) => setTimeout(() => done(String(ctx.attempt)), 1500));"
    ref = await ingress.put_version("slow", source)
    activation = await ingress.invoke(ref)
    for _ in range(4):
        async with running_invoker(make_settings(redis_url)) as invoker:
            await wait_until(lambda invoker=invoker: _is(len(invoker.inflight) == 1))
    async with running_invoker(make_settings(redis_url)):
        record = await ingress.ended(activation)
    assert (status_of(record), record.attempt) == ("SUCCESS", 5)


async def _is(condition: bool) -> bool:
    return condition


async def test_a_version_runs_as_often_at_once_as_it_may_and_the_rest_waits(ingress: Ingress, redis_url: str) -> None:
    source = """
    export default async () => {
      const began = Date.now();
      await new Promise((done) => setTimeout(done, 100));
      return { statusCode: 200, body: JSON.stringify([began, Date.now()]) };
    };
    """
    ref = await ingress.put_version("two", source, max_concurrency=2)
    async with running_invoker(make_settings(redis_url)), running_invoker(make_settings(redis_url)):
        activations = await asyncio.gather(*(ingress.invoke(ref) for _ in range(12)))
        records = await asyncio.gather(*(ingress.ended(activation) for activation in activations))
        await ingress.emptied()
    assert {status_of(record) for record in records} == {"SUCCESS"}
    spans = [tuple(int(part) for part in record.response.body.strip("[]").split(",")) for record in records]
    # At the moment that a run begins, those that began before and have not ended are at most one more.
    overlaps = [sum(begin <= began < end for begin, end in spans) for began, _ in spans]
    assert max(overlaps) == 2
    assert await SlotStore(ingress.client).count(ref) == 0


async def test_a_slot_of_a_dead_invoker_is_free_when_its_lease_has_ended(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("one", FAILS_UNTIL, max_concurrency=1)
    async with InvokerProcess(redis_url, die_at=Gap.BEGUN) as killed:
        await ingress.invoke(ref, {"until": 1})
        await killed.died()
    assert await SlotStore(ingress.client).count(ref) == 1
    async with running_invoker(make_settings(redis_url)):
        record = await ingress.ended(await ingress.invoke(ref, {"until": 1}))
    assert status_of(record) == "SUCCESS"


async def test_a_request_that_waits_for_a_slot_past_its_deadline_never_starts(ingress: Ingress, redis_url: str) -> None:
    source = "export default () => new Promise((done) => setTimeout(done, 1500));"
    ref = await ingress.put_version("busy", source, max_concurrency=1)
    async with running_invoker(make_settings(redis_url)):
        await ingress.invoke(ref)
        late = await ingress.invoke(ref, deadline=datetime.now(UTC) + timedelta(milliseconds=300))
        record = await ingress.ended(late)
    assert (status_of(record), record.attempt) == ("TIMEOUT", 0)
    assert not record.HasField("start_time")


async def test_log_lines_can_be_read_while_the_run_goes_on(ingress: Ingress, redis_url: str) -> None:
    source = """
    export default async () => {
      console.log("early");
      await new Promise((done) => setTimeout(done, 1500));
      console.log("late");
    };
    """
    ref = await ingress.put_version("talks", source)
    async with running_invoker(make_settings(redis_url)):
        activation = await ingress.invoke(ref)

        async def lines() -> list[str]:
            return [line.message for line in await ingress.activations.logs(ingress.tenant, activation, 0, 10)]

        assert await wait_until(lines) == ["early"]
        running = await ingress.activations.get(ingress.tenant, activation)
        assert running is not None
        assert status_of(running) == "RUNNING"
        await ingress.ended(activation)
        assert await lines() == ["early", "late"]
