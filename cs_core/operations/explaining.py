"""Why an activation waits, or what became of it: a verdict, and the evidence that the store has.

Theory of operation. Everything is read at one moment as far as the store allows: the record with the server's time in
one step, the place of the message in one step, then what bears on it (the slots of the version, the invokers that
live, a dead letter). `judge` looks at the evidence alone, in the order of `Verdict`: what keeps the activation from
going on however much else is free comes first. What is under way may have moved between two steps; asking again tells.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final, Protocol

from codesous.admin.v1 import explanation_pb2 as pb
from codesous.admin.v1.process_pb2 import Consumer
from codesous.storage.v1.consumer_pb2 import ConsumerReport
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from google.protobuf.timestamp_pb2 import Timestamp

from cs_core.codeq import Queue
from cs_core.codeq.contract import INVOKE
from cs_core.codeq.kv_view import Place
from cs_core.names import check_activation_id, check_tenant
from cs_core.operations.verdicts import judge
from cs_core.store.activation_looks import ActivationLooks, Look
from cs_core.store.consumers import ConsumerStore
from cs_core.store.slots import DEFAULT_MAX_CONCURRENCY, SlotStore
from cs_core.store.versions import VersionStore

_OPEN: Final = ("QUEUED", "RUNNING")
_PLACES: Final = {
    "none": pb.MessagePlace.MESSAGE_PLACE_NONE,
    "ready": pb.MessagePlace.MESSAGE_PLACE_READY,
    "leased": pb.MessagePlace.MESSAGE_PLACE_LEASED,
    "delayed": pb.MessagePlace.MESSAGE_PLACE_DELAYED,
}


class Places(Protocol):
    """Tells where messages are."""

    async def locate(self, topic: str, partition: int, message_id: str) -> Place:
        """Where a message is."""
        ...

    def dead_letter_ids(self, partition: int, message_id: str) -> list[str]:
        """The ids that the dead letter of a message may have."""
        ...


class Explainer:
    """Explains activations. `places` is None where the queue does not tell where its messages are."""

    def __init__(
        self,
        looks: ActivationLooks,
        queue: Queue,
        places: Places | None,
        consumers: ConsumerStore,
        slots: SlotStore,
        versions: VersionStore,
    ) -> None:
        self._looks = looks
        self._queue = queue
        self._places = places
        self._consumers = consumers
        self._slots = slots
        self._versions = versions

    async def explain(self, tenant: str, activation_id: str) -> pb.Explanation:
        """The verdict on an activation, with its evidence. Without a tenant it is looked for among the open ones.

        Raises:
            ValidationError: the id is no UUID, or the tenant no name of one.
            UnavailableError: the store does not answer.
        """
        check_activation_id(activation_id)
        if tenant:
            check_tenant(tenant)
        tenant = tenant or await self._looks.find_tenant(activation_id)
        found = pb.Explanation(tenant=tenant, activation_id=activation_id)
        look = await self._looks.look(tenant, activation_id) if tenant else None
        if tenant:
            found.partition = self._looks.partition(tenant, activation_id)
            await self._add_dead_letter(found)
        if look is not None:
            _add_record(found, look)
            if look.state in _OPEN:
                await self._add_surroundings(found, look)
        found.verdict, found.message = judge(found, datetime.fromtimestamp(look.now_ms / 1000, UTC) if look else None)
        return found

    async def consumers(self) -> list[Consumer]:
        """The invokers that live. Raises UnavailableError."""
        return [_consumer(name, report) for name, report in (await self._consumers.list()).items()]

    async def _add_dead_letter(self, found: pb.Explanation) -> None:
        if self._places is None:
            return
        ids = self._places.dead_letter_ids(found.partition, found.activation_id)
        for letter in await asyncio.gather(*(self._queue.get_dead_letter(INVOKE, each) for each in ids)):
            if letter is not None:
                found.dead_letter_id = letter.id
                found.reason = letter.envelope.dead_letter.reason

    async def _add_surroundings(self, found: pb.Explanation, look: Look) -> None:
        ref = look.request.function
        version, taken, consumers = await asyncio.gather(
            self._versions.get(ref.tenant, ref.namespace, ref.function, ref.version),
            self._slots.count_live(ref, look.now_ms),
            self.consumers(),
        )
        found.slots_taken = taken
        if version is not None:
            found.slots = version.config.max_concurrency or DEFAULT_MAX_CONCURRENCY
        found.consumers.extend(consumers)
        if self._places is None:
            return
        place = await self._places.locate(INVOKE, found.partition, found.activation_id)
        found.place, found.lane = _PLACES[place.where], place.lane
        found.ahead, found.deliveries = place.ahead, place.deliveries
        if place.until_ms:
            found.message_time.CopyFrom(_timestamp(place.until_ms))


def _add_record(found: pb.Explanation, look: Look) -> None:
    found.function.CopyFrom(look.request.function)
    found.status = ActivationStatus.Value(f"ACTIVATION_STATUS_{look.state}")
    found.attempt = look.attempt
    found.accept_time.CopyFrom(look.request.accept_time)
    if look.request.HasField("deadline"):
        found.deadline.CopyFrom(look.request.deadline)
    if look.state == "RUNNING":
        found.owner = look.owner
        found.lease_expire_time.CopyFrom(_timestamp(look.lease_until_ms))
    if look.state == "QUEUED" and look.next_ms:
        found.next_time.CopyFrom(_timestamp(look.next_ms))
    if look.result is not None and look.result.error.reason:
        found.reason = look.result.error.reason


def _consumer(instance: str, report: ConsumerReport) -> Consumer:
    return Consumer(
        instance=instance,
        draining=report.draining,
        permits=report.permits,
        permits_taken=report.permits_taken,
        partition_permits=report.partition_permits,
        partition_permits_taken=report.partition_permits_taken,
    )


def _timestamp(milliseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(milliseconds)
    return stamp
