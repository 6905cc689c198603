"""Why an activation waits, on a real store: the evidence is what really is there, for each state."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codesous.admin.v1 import explanation_pb2 as pb
from codesous.queue.v1.envelope_pb2 import Lane
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.storage.v1.consumer_pb2 import ConsumerReport
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.attempt_pb2 import Attempt
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.clock import SystemClock, to_timestamp
from cs_core.codeq.contract import INVOKE, Delivery
from cs_core.config import Settings
from cs_core.errors import ValidationError
from cs_core.operations.installation import Installation, open_installation
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.consumers import ConsumerStore
from cs_core.store.slots import SlotStore
from cs_core.submission import Submitter
from tests.support.invocations import PARTITIONS, TENANT, Ingress

LEASE = timedelta(seconds=30)


class Shown:
    """Submits as an ingress does, and asks why."""

    def __init__(self, client: KvClient) -> None:
        self.client = client
        self.ingress = Ingress(client)
        settings = Settings.model_validate({"store": {"partitions": PARTITIONS}})
        self.installation: Installation = open_installation(settings, client, self.ingress.queue, SystemClock())
        self.consumers = ConsumerStore(client)
        self.ref = FunctionRef()

    async def start(self, **report: Any) -> None:
        self.ref = await self.ingress.put_version("f", "export default () => 1", max_concurrency=2)
        await self.consumers.report("i1", ConsumerReport(permits=8, partition_permits=4, **report), LEASE)

    async def submit(self, **request: Any) -> str:
        made: InvocationRequest = self.ingress.make_request(self.ref, **request)
        submitter = Submitter(self.ingress.activations, self.ingress.queue)
        digest = hashlib.sha256(made.event).digest()
        await submitter.submit(made, digest, lane=Lane.LANE_INTERACTIVE, repeatable=False)
        return made.activation_id

    async def receive(self) -> Delivery:
        (delivery,) = await self.ingress.queue.receive(INVOKE, limit=1, wait=timedelta(seconds=2))
        return delivery

    async def begin(self, activation_id: str, lease: timedelta = LEASE) -> None:
        assert (await self.ingress.activations.begin(TENANT, activation_id, "i1/run", lease)).kind == "run"

    async def why(self, activation_id: str, tenant: str = TENANT) -> pb.Explanation:
        return await self.installation.explainer.explain(tenant, activation_id)

    async def verdict(self, activation_id: str, tenant: str = TENANT) -> str:
        return pb.Verdict.Name((await self.why(activation_id, tenant)).verdict).removeprefix("VERDICT_")


@pytest.fixture
async def shown(kv: KvClient) -> Shown:
    shown = Shown(kv)
    await shown.start()
    return shown


async def test_in_line(shown: Shown) -> None:
    first = await shown.submit()
    assert await shown.verdict(first) == "NEXT"
    # The tenant has two partitions: among four more, one at least stands behind another.
    others = [await shown.submit() for _ in range(4)]
    found = [await shown.why(each) for each in (first, *others)]
    behind = [each for each in found if each.verdict == pb.Verdict.VERDICT_BEHIND_OTHERS]
    assert behind
    for partition in {each.partition for each in found}:
        ahead = [each.ahead for each in found if each.partition == partition]
        assert ahead == list(range(len(ahead)))


async def test_received_running_and_done(shown: Shown) -> None:
    activation_id = await shown.submit()
    delivery = await shown.receive()
    assert await shown.verdict(activation_id) == "CLAIMED"
    await shown.begin(activation_id)
    found = await shown.why(activation_id)
    assert found.verdict == pb.Verdict.VERDICT_RUNNING
    assert (found.owner, found.attempt, found.deliveries) == ("i1/run", 1, 1)
    assert "i1/run" in found.message
    result = InvocationResult(activation_id=activation_id, tenant=TENANT)
    result.status = ActivationStatus.ACTIVATION_STATUS_SUCCESS
    result.end_time.CopyFrom(to_timestamp(datetime.now(UTC)))
    assert (await shown.ingress.activations.finish(result, "i1/run")).accepted
    await shown.ingress.queue.ack([delivery])
    assert await shown.verdict(activation_id) == "DONE"


async def test_the_owner_is_gone(shown: Shown) -> None:
    activation_id = await shown.submit()
    await shown.receive()
    await shown.begin(activation_id, timedelta(0))
    found = await shown.why(activation_id)
    assert found.verdict == pb.Verdict.VERDICT_OWNER_GONE
    assert found.owner == "i1/run"


async def test_a_failed_run_is_tried_again_later(shown: Shown) -> None:
    activation_id = await shown.submit(background=True)
    delivery = await shown.receive()
    await shown.begin(activation_id)
    wait = timedelta(seconds=60)
    await shown.ingress.activations.retry(TENANT, activation_id, "i1/run", Attempt(attempt=1), wait)
    await shown.ingress.queue.nack(delivery, wait)
    found = await shown.why(activation_id)
    assert found.verdict == pb.Verdict.VERDICT_RETRY_DELAYED
    assert found.place == pb.MessagePlace.MESSAGE_PLACE_DELAYED
    left = found.next_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(seconds=10) < left <= wait


async def test_put_back_and_slots_taken(shown: Shown) -> None:
    activation_id = await shown.submit()
    await shown.ingress.queue.nack(await shown.receive(), timedelta(seconds=60))
    assert await shown.verdict(activation_id) == "PUT_BACK"
    slots = SlotStore(shown.client)
    for owner in ("one", "two"):
        assert await slots.take(shown.ref, owner, 2, LEASE)
    found = await shown.why(activation_id)
    assert (found.verdict, found.slots_taken, found.slots) == (pb.Verdict.VERDICT_SLOTS_TAKEN, 2, 2)
    await slots.give_back(shown.ref, "one")
    assert await shown.verdict(activation_id) == "PUT_BACK"
    # One whose holder died is free, whether or not somebody has taken it since.
    await shown.client.call("ZADD", keys.slots(TENANT, "default", "f", 1), 1, "three")
    assert await slots.count(shown.ref) == 2
    assert await shown.verdict(activation_id) == "PUT_BACK"


async def test_nobody_consumes(shown: Shown) -> None:
    activation_id = await shown.submit()
    assert await shown.verdict(activation_id) == "NEXT"
    await shown.consumers.report("i1", ConsumerReport(draining=True, permits=8, partition_permits=4), LEASE)
    assert await shown.verdict(activation_id) == "NO_CONSUMER"
    await shown.consumers.report("i2", ConsumerReport(permits=8, partition_permits=4), LEASE)
    assert await shown.verdict(activation_id) == "NEXT"
    await shown.consumers.leave("i2")
    await shown.consumers.leave("i1")
    assert await shown.verdict(activation_id) == "NO_CONSUMER"
    # One that died said that it takes messages, and has not said so for longer than it promised.
    await shown.consumers.report("i3", ConsumerReport(permits=8, partition_permits=4), timedelta(milliseconds=1))
    assert await shown.verdict(activation_id) == "NO_CONSUMER"


async def test_permits_and_share_are_taken(shown: Shown) -> None:
    activation_id = await shown.submit()
    partition = (await shown.why(activation_id)).partition
    full = ConsumerReport(permits=8, permits_taken=8, partition_permits=4)
    await shown.consumers.report("i1", full, LEASE)
    assert await shown.verdict(activation_id) == "PERMITS_TAKEN"
    share = ConsumerReport(permits=8, permits_taken=4, partition_permits=4, partition_permits_taken={partition: 4})
    await shown.consumers.report("i1", share, LEASE)
    assert await shown.verdict(activation_id) == "SHARE_TAKEN"
    share.partition_permits_taken[partition] = 3
    await shown.consumers.report("i1", share, LEASE)
    assert await shown.verdict(activation_id) == "NEXT"


async def test_deadline_lost_message_and_dead_letter(shown: Shown) -> None:
    late = await shown.submit(deadline=datetime.now(UTC) - timedelta(seconds=1))
    assert await shown.verdict(late) == "DEADLINE_PASSED"
    await shown.ingress.queue.ack([await shown.receive()])
    given_up = await shown.submit()
    delivery = await shown.receive()
    assert await shown.ingress.queue.dead_letter(delivery, "CS_RUNTIME_CRASH", "it crashed")
    # The message is among the dead letters; the record has not ended, so what it lacks is a message.
    assert await shown.verdict(given_up) == "NO_MESSAGE"
    result = InvocationResult(activation_id=given_up, tenant=TENANT, status=ActivationStatus.ACTIVATION_STATUS_ERROR)
    result.end_time.CopyFrom(to_timestamp(datetime.now(UTC)))
    assert (await shown.ingress.activations.finish(result, "")).accepted
    found = await shown.why(given_up)
    assert (found.verdict, found.reason) == (pb.Verdict.VERDICT_DEAD_LETTER, "CS_RUNTIME_CRASH")
    assert await shown.ingress.queue.get_dead_letter(INVOKE, found.dead_letter_id) is not None
    assert (await shown.installation.queue(INVOKE)).dead_letters == 1


async def test_the_tenant_is_found_for_what_goes_on(shown: Shown) -> None:
    activation_id = await shown.submit()
    assert (await shown.why(activation_id, tenant="")).tenant == TENANT
    assert await shown.verdict(activation_id, tenant="") == "NEXT"
    assert await shown.verdict(str(uuid.uuid4()), tenant="") == "UNKNOWN"
    assert await shown.verdict(str(uuid.uuid4())) == "UNKNOWN"
    # What is no UUID and no tenant names no key.
    for tenant, bad in (("", "no-uuid"), ("", f"{{{activation_id}}}"), ("t_}{p1", activation_id)):
        with pytest.raises(ValidationError):
            await shown.why(bad, tenant)


async def test_the_queue_is_shown_by_partition_lane_and_tenant(shown: Shown) -> None:
    ids = [await shown.submit() for _ in range(6)]
    look = await shown.installation.queue(INVOKE)
    assert [consumer.instance for consumer in look.consumers] == ["i1"]
    ready = {part.partition: part.depth.ready[Lane.LANE_INTERACTIVE] for part in look.parts}
    assert sum(ready.values()) == len(ids)
    for part in look.parts:
        assert part.backlog is not None
        assert {name: each.ready for name, each in part.backlog.tenants.items()} == {TENANT: ready[part.partition]}
        oldest = part.backlog.oldest[Lane.LANE_INTERACTIVE]
        assert oldest == part.backlog.tenants[TENANT].oldest > timedelta(0)


async def test_who_died_leaves_no_report(shown: Shown) -> None:
    await shown.consumers.report("dead", ConsumerReport(permits=1), timedelta(milliseconds=1))
    await shown.consumers.report("i1", ConsumerReport(permits=8), LEASE)
    await shown.consumers.report("i1", ConsumerReport(permits=8), LEASE)
    stored = await shown.client.call("HKEYS", "cs:{m:cs-invoker-pool}:reports")
    assert stored == [b"i1"]
