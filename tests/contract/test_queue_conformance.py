"""What every driver of the queue promises, shown by each of them."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest
from codesous.queue.v1.envelope_pb2 import Envelope, Lane
from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.queue.v1.user_message_pb2 import UserMessage

from cs_core import ids
from cs_core.codeq import Delivery, Queue, ResultChannel
from cs_core.codeq.kv import KvResultChannel
from cs_core.codeq.memory import MemoryQueue, MemoryResultChannel
from cs_core.errors import UnavailableError
from cs_core.store.client import KvClient
from cs_core.store.keys import results_channel
from cs_core.store.pubsub import Listener
from tests.support.consumers import PARTITIONS, TOPIC, open_queue
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

LEASE = timedelta(milliseconds=300)
LONG = timedelta(seconds=30)
SOON = timedelta(seconds=10)
NOW = timedelta(0)
FAST, SLOW = Lane.LANE_INTERACTIVE, Lane.LANE_BACKGROUND


@pytest.fixture(params=["kv", "memory"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[Queue]:
    if request.param == "memory":
        yield MemoryQueue(PARTITIONS, LEASE)
        return
    client = KvClient(request.getfixturevalue("redis_url"))
    queue = open_queue(client, lease=LEASE)
    yield queue
    await queue.close()
    await client.close()


@pytest.fixture(params=["kv", "memory"])
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[ResultChannel]:
    if request.param == "memory":
        yield MemoryResultChannel()
        return
    client = KvClient(request.getfixturevalue("redis_url"))
    yield KvResultChannel(client)
    await client.close()


def message(body: bytes = b"", topic: str = TOPIC) -> Envelope:
    return Envelope(message_id=ids.message_id(), topic=topic, user_message=UserMessage(topic=topic, body=body))


async def publish(queue: Queue, count: int = 1, partition: int = 0, lane: Lane.ValueType = FAST) -> list[str]:
    sent = [message(str(number).encode()) for number in range(count)]
    for envelope in sent:
        await queue.publish(TOPIC, partition, envelope, lane=lane)
    return [envelope.message_id for envelope in sent]


async def receive(queue: Queue, limit: int = 100, wait: timedelta = SOON) -> list[Delivery]:
    return await queue.receive(TOPIC, limit=limit, wait=wait)


async def one(queue: Queue, wait: timedelta = SOON) -> Delivery:
    (delivery,) = await receive(queue, 1, wait)
    return delivery


def ids_of(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message_id for delivery in deliveries]


async def test_a_message_arrives_byte_for_byte(queue: Queue) -> None:
    sent = message(bytes(range(256)))
    await queue.publish(TOPIC, "some key", sent)
    delivery = await one(queue)
    assert delivery.envelope() == sent
    assert delivery.body == sent.SerializeToString()
    assert (delivery.topic, delivery.message_id, delivery.deliveries) == (TOPIC, sent.message_id, 1)


async def test_a_key_means_one_partition_and_a_number_that_very_one(queue: Queue) -> None:
    for number in range(PARTITIONS):
        await queue.publish(TOPIC, number, message())
    assert set((await queue.depth(TOPIC)).partitions) == set(range(PARTITIONS))
    by_key = {
        (await _published(queue, "tenant-a")).partition,
        (await _published(queue, "tenant-a")).partition,
    }
    assert len(by_key) == 1
    with pytest.raises(ValueError, match="partition 4"):
        await queue.publish(TOPIC, PARTITIONS, message())


async def _published(queue: Queue, key: str) -> Delivery:
    while deliveries := await receive(queue, wait=NOW):
        await queue.ack(deliveries)
    await queue.publish(TOPIC, key, message())
    delivery = await one(queue)
    await queue.ack([delivery])
    return delivery


async def test_a_message_that_is_held_is_not_stored_twice_and_one_that_is_gone_may_come_again(queue: Queue) -> None:
    sent = message()
    for lane in (FAST, FAST, SLOW):
        await queue.publish(TOPIC, 0, sent, lane=lane)
    delivery = await one(queue)
    await queue.publish(TOPIC, 0, sent)
    assert await receive(queue, wait=NOW) == []
    assert await queue.nack(delivery, timedelta(milliseconds=50))
    await queue.publish(TOPIC, 0, sent)
    delivery = await one(queue)
    assert await queue.ack([delivery]) == 1
    assert (await queue.depth(TOPIC)).total == 0
    await queue.publish(TOPIC, 0, sent)
    assert (await one(queue)).message_id == sent.message_id


async def test_one_partition_keeps_the_order_of_publishing(queue: Queue) -> None:
    sent = await publish(queue, 20)
    assert ids_of(await receive(queue, 7)) + ids_of(await receive(queue, 13)) == sent


async def test_a_batch_is_at_most_what_was_asked_for(queue: Queue) -> None:
    for partition in range(PARTITIONS):
        await publish(queue, 5, partition)
    assert len(await receive(queue, 7)) <= 7
    assert await receive(queue, 1)


async def test_a_waiting_consumer_is_woken_by_a_publish(queue: Queue) -> None:
    waiting = asyncio.create_task(one(queue))
    await asyncio.sleep(0)
    (sent,) = await publish(queue)
    assert (await waiting).message_id == sent


async def test_nothing_comes_when_nothing_is_there(queue: Queue) -> None:
    assert await receive(queue, wait=timedelta(milliseconds=50)) == []


async def test_an_acked_message_is_gone_and_an_ack_counts_once(queue: Queue) -> None:
    await publish(queue, 3)
    deliveries = await receive(queue)
    assert await queue.ack(deliveries) == 3
    assert await queue.ack(deliveries) == 0
    assert (await queue.depth(TOPIC)).total == 0


async def test_a_leased_message_is_nobody_elses(queue: Queue) -> None:
    await publish(queue)
    assert await queue.extend(await one(queue), LONG)
    assert await receive(queue, wait=2 * LEASE) == []


async def test_a_lease_that_ends_gives_the_message_to_another_and_the_first_cannot_ack(queue: Queue) -> None:
    await publish(queue)
    first = await one(queue)
    second = await one(queue)
    assert second.message_id == first.message_id
    assert (second.deliveries, second.receipt != first.receipt) == (2, True)
    assert await queue.ack([first]) == 0
    assert not await queue.extend(first, LONG)
    assert not await queue.nack(first)
    assert not await queue.dead_letter(first, "CS_RUNTIME_CRASH")
    assert await queue.ack([second]) == 1


async def test_an_extended_lease_holds(queue: Queue) -> None:
    await publish(queue)
    delivery = await one(queue)
    for _ in range(4):
        assert await queue.extend(delivery, LEASE)
        assert await receive(queue, wait=LEASE / 3) == []
    assert await queue.ack([delivery]) == 1


async def test_a_nacked_message_comes_again_at_once_or_after_its_delay(queue: Queue) -> None:
    await publish(queue)
    assert await queue.nack(await one(queue))
    again = await one(queue)
    assert again.deliveries == 2
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await queue.nack(again, timedelta(milliseconds=400))
    depth = await queue.depth(TOPIC)
    assert [part.delayed for part in depth.partitions.values()] == [1]
    assert (await one(queue)).deliveries == 3
    assert loop.time() - start >= 0.35


async def test_a_delayed_message_waits_for_its_time(queue: Queue) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await queue.publish(TOPIC, 0, message(), delay=timedelta(milliseconds=400))
    assert await receive(queue, wait=NOW) == []
    await one(queue)
    assert loop.time() - start >= 0.35


async def test_the_interactive_lane_comes_first_and_the_background_lane_never_starves(queue: Queue) -> None:
    slow = set(await publish(queue, 40, lane=SLOW))
    fast = set(await publish(queue, 40, lane=FAST))
    first = set(ids_of(await receive(queue, 20)))
    assert len(first & fast) > len(first & slow) > 0
    # One at a time, while there is always something interactive.
    taken: Counter[bool] = Counter()
    for _ in range(20):
        taken[(await one(queue)).message_id in slow] += 1
    assert taken[False] > taken[True] > 0


async def test_a_lane_takes_what_the_other_does_not_use(queue: Queue) -> None:
    slow = await publish(queue, 10, lane=SLOW)
    assert ids_of(await receive(queue, 10)) == slow


async def test_depth_counts_by_partition_and_lane(queue: Queue) -> None:
    await publish(queue, 3, partition=0)
    await publish(queue, 2, partition=1, lane=SLOW)
    await queue.publish(TOPIC, 1, message(), delay=LONG)
    assert await queue.extend(await _from_partition(queue, 0), LONG)
    depth = await queue.depth(TOPIC)
    assert (depth.partitions[0].ready[FAST], depth.partitions[0].leased) == (2, 1)
    assert (depth.partitions[1].ready[SLOW], depth.partitions[1].delayed) == (2, 1)
    assert depth.total == 6
    assert (await queue.depth("cs.other")).total == 0


async def _from_partition(queue: Queue, partition: int) -> Delivery:
    while True:
        delivery = await one(queue)
        if delivery.partition == partition:
            return delivery
        assert await queue.nack(delivery)


async def test_a_dead_letter_leaves_its_topic_and_tells_why(queue: Queue) -> None:
    await publish(queue, 2)
    first, second = await receive(queue)
    assert await queue.dead_letter(first, "CS_RUNTIME_CRASH", "three times")
    assert await queue.ack([second]) == 1
    assert (await queue.depth(TOPIC)).total == 0
    (dead,) = await queue.list_dead_letters(TOPIC, limit=10)
    cause = dead.envelope.dead_letter
    assert (dead.envelope.message_id, cause.reason) == (first.message_id, "CS_RUNTIME_CRASH")
    assert (cause.message, cause.deliveries) == ("three times", 1)
    assert cause.source_topic == TOPIC
    assert dead.envelope.user_message == first.envelope().user_message


async def _bury(queue: Queue, count: int, partition: int) -> list[str]:
    ids = await publish(queue, count, partition)
    for delivery in await receive(queue, count):
        assert await queue.dead_letter(delivery, "CS_RUNTIME_CRASH")
    return ids


async def test_dead_letters_are_listed_once_each_oldest_first_by_pages(queue: Queue) -> None:
    buried = [*await _bury(queue, 3, 0), *await _bury(queue, 3, 1)]
    listed = await queue.list_dead_letters(TOPIC, limit=100)
    assert sorted(letter.envelope.message_id for letter in listed) == sorted(buried)
    assert [letter.position for letter in listed] == sorted(letter.position for letter in listed)
    paged: list[str] = []
    after = None
    while page := await queue.list_dead_letters(TOPIC, limit=2, after=after):
        paged += [letter.id for letter in page]
        after = page[-1].position
    assert paged == [letter.id for letter in listed]


async def test_a_dead_letter_is_read_marked_and_removed_by_its_id(queue: Queue) -> None:
    await _bury(queue, 2, 1)
    first, second = await queue.list_dead_letters(TOPIC, limit=10)
    assert await queue.get_dead_letter(TOPIC, first.id) == first
    for activation in ("a", "b", "a"):
        assert await queue.note_redrive(TOPIC, first.id, activation)
    read = await queue.get_dead_letter(TOPIC, first.id)
    assert read is not None
    assert read.redrives == ("a", "b")
    assert await queue.remove_dead_letter(TOPIC, first.id)
    assert not await queue.remove_dead_letter(TOPIC, first.id)
    assert not await queue.note_redrive(TOPIC, first.id, "c")
    assert await queue.get_dead_letter(TOPIC, first.id) is None
    assert [letter.id for letter in await queue.list_dead_letters(TOPIC, limit=10)] == [second.id]


async def test_a_message_that_is_given_up_twice_is_one_dead_letter(queue: Queue) -> None:
    sent = message()
    for _ in range(2):
        await queue.publish(TOPIC, 1, sent)
        assert await queue.dead_letter(await one(queue), "CS_RUNTIME_CRASH")
    (letter,) = await queue.list_dead_letters(TOPIC, limit=10)
    assert letter.envelope.message_id == sent.message_id


@pytest.mark.parametrize("odd", ["", ".", "0.", "x.y", "-1.a", "99.a", "0.a\x00", "²\N{MIDDLE DOT}1", "9" * 30 + ".a"])
async def test_an_odd_id_is_no_dead_letter(queue: Queue, odd: str) -> None:
    assert await queue.get_dead_letter(TOPIC, odd) is None
    assert not await queue.note_redrive(TOPIC, odd, "a")
    assert not await queue.remove_dead_letter(TOPIC, odd)


async def test_a_partition_without_room_keeps_its_messages(queue: Queue) -> None:
    await publish(queue, 5, 0)
    await publish(queue, 5, 1)
    room = {0: 0, 1: 2}
    taken = await queue.receive(TOPIC, limit=10, wait=NOW, room=lambda partition: room.get(partition, 10))
    assert [delivery.partition for delivery in taken] == [1, 1]
    assert len(await receive(queue)) > 0


async def test_topics_do_not_mix(queue: Queue) -> None:
    await publish(queue)
    assert await queue.receive("cs.other", limit=1, wait=NOW) == []


async def test_many_consumers_share_without_doubles(queue: Queue) -> None:
    sent: list[str] = []
    for partition in range(PARTITIONS):
        sent += await publish(queue, 50, partition)
    acked: list[str] = []

    async def consume() -> None:
        while deliveries := await receive(queue, 8, timedelta(milliseconds=100)):
            assert await queue.ack(deliveries) == len(deliveries)
            acked.extend(ids_of(deliveries))

    await asyncio.gather(*(consume() for _ in range(8)))
    assert sorted(acked) == sorted(sent)


async def test_a_result_reaches_its_instance_alone(channel: ResultChannel) -> None:
    mine: list[Envelope] = []
    others: list[Envelope] = []
    gaps: list[int] = []
    async with (
        channel.listen("gateway-1", mine.append, lambda: gaps.append(1)),
        channel.listen("gateway-2", others.append, lambda: gaps.append(2)),
    ):
        await wait_until(lambda: {1, 2} <= set(gaps))
        sent = Envelope(message_id="m", invocation_result=InvocationResult(activation_id="a"))
        await channel.push("gateway-1", sent)
        await wait_until(lambda: mine)
        assert (mine, others) == ([sent], [])
    await channel.push("gateway-1", sent)  # nobody listens any more: no error
    assert mine == [sent]


# What only a queue that outlives its processes can show.


async def test_a_consumer_killed_between_receive_and_ack_loses_nothing(redis_url: str) -> None:
    client = KvClient(redis_url)
    queue = open_queue(client, lease=LEASE)
    sent = await publish(queue, 1)
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.consumers", "die", redis_url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await killed.communicate()
    assert (killed.returncode, out.decode().split()) == (-9, sent)
    delivery = await one(queue)
    assert (delivery.message_id, delivery.deliveries) == (sent[0], 2)
    assert await queue.ack([delivery]) == 1
    await queue.close()
    await client.close()


@pytest.mark.timeout(120)
async def test_ten_thousand_messages_by_eight_consumers_in_two_processes(redis_url: str) -> None:
    client = KvClient(redis_url)
    queue = open_queue(client, lease=LONG)
    sent = [message() for _ in range(10_000)]
    for first in range(0, len(sent), 500):
        batch = sent[first : first + 500]
        await asyncio.gather(
            *(
                queue.publish(TOPIC, number % PARTITIONS, envelope, lane=SLOW if number % 3 else FAST)
                for number, envelope in enumerate(batch)
            )
        )
    workers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.consumers", "work", redis_url, "--consumers", "4"),
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    acked: Counter[str] = Counter()
    for worker in workers:
        out, _ = await worker.communicate()
        assert worker.returncode == 0
        acked.update(out.decode().split())
    assert set(acked) == {envelope.message_id for envelope in sent}
    assert set(acked.values()) == {1}
    # Finished work leaves nothing behind.
    assert await client.call("KEYS", "cs:{p*") == []
    await queue.close()
    await client.close()


async def test_scripts_that_the_server_forgot_are_sent_again(redis_url: str) -> None:
    client = KvClient(redis_url)
    queue = open_queue(client, lease=LEASE)
    await publish(queue)
    await client.call("SCRIPT", "FLUSH")
    assert await queue.ack([await one(queue)]) == 1
    await queue.close()
    await client.close()


async def test_what_was_published_outlives_the_server() -> None:
    server = RedisServer(durable=True)
    server.start()
    client = KvClient(server.url)
    queue = open_queue(client, lease=LEASE)
    try:
        sent = await publish(queue, 20)
        waiting = asyncio.create_task(queue.receive("cs.other", limit=1, wait=SOON))
        server.kill()
        server.start()

        async def answers() -> bool:
            with suppress(UnavailableError):
                await queue.ping()
                return True
            return False

        await wait_until(answers)
        assert sorted(ids_of(await receive(queue))) == sorted(sent)
        # A consumer that waited through it learned that the store was away; it is woken as before when it asks again.
        with suppress(UnavailableError):
            await waiting
        again = asyncio.create_task(queue.receive("cs.other", limit=1, wait=SOON))
        other = message(topic="cs.other")
        await queue.publish("cs.other", 0, other)
        assert ids_of(await again) == [other.message_id]
    finally:
        await queue.close()
        await client.close()
        server.close()


async def test_dead_letters_leave_no_key_for_ever(redis_url: str) -> None:
    client = KvClient(redis_url)
    queue = open_queue(client, lease=LEASE)
    try:
        (message_id,) = await _bury(queue, 1, 0)
        assert await queue.note_redrive(TOPIC, f"0.1{message_id}", "a1")
        found = await client.call("KEYS", "*dlq*")
        assert len(found) == 3
        lives = [await client.call("PTTL", key) for key in found]
    finally:
        await queue.close()
        await client.close()
    assert all(0 < life <= timedelta(days=14).total_seconds() * 1000 for life in lives)


async def test_a_message_that_cannot_be_read_does_not_end_the_listening(kv: KvClient) -> None:
    channel = KvResultChannel(kv)
    received: list[str] = []
    subscribed = asyncio.Event()
    async with channel.listen("i1", lambda envelope: received.append(envelope.message_id), subscribed.set):
        await asyncio.wait_for(subscribed.wait(), 20)
        await kv.call("PUBLISH", results_channel("i1"), b"\xff no envelope")
        await channel.push("i1", Envelope(message_id="good"))
        await wait_until(lambda: received == ["good"])


async def test_a_listener_can_be_closed_at_any_moment_of_its_start(redis_url: str) -> None:
    for turns in range(40):
        listener = Listener(redis_url, ["channel"], lambda _channel, _payload: None, lambda: None)
        async with asyncio.timeout(10):
            async with listener:
                for _ in range(turns):
                    await asyncio.sleep(0)
