"""What every process can tell of the whole installation, because the store knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from codesous.admin.v1.process_pb2 import Consumer

from cs_core.clock import Clock
from cs_core.codeq import Queue
from cs_core.codeq.contract import INVOKE, PartitionDepth
from cs_core.codeq.kv_view import Backlog
from cs_core.codeq.open import open_queue_view
from cs_core.config import Settings
from cs_core.operations.explaining import Explainer
from cs_core.operations.shard_looks import ShardLooks
from cs_core.store.activation_looks import ActivationLooks
from cs_core.store.client import KvClient
from cs_core.store.consumers import ConsumerStore
from cs_core.store.slots import SlotStore
from cs_core.store.versions import VersionStore


class Backlogs(Protocol):
    """Tells for how long what waits."""

    async def backlog(self, topic: str, partition: int) -> Backlog:
        """What waits in a partition of a topic."""
        ...

    async def count_dead_letters(self, topic: str) -> int:
        """How many messages of a topic were given up."""
        ...


@dataclass(frozen=True, slots=True)
class PartLook:
    """What one partition holds; `backlog` is None where the queue does not tell."""

    partition: int
    depth: PartitionDepth
    backlog: Backlog | None


@dataclass(frozen=True, slots=True)
class QueueLook:
    """A topic: its partitions that hold something, who consumes it, and what was given up (None: not told)."""

    parts: Sequence[PartLook]
    consumers: Sequence[Consumer]
    dead_letters: int | None


@dataclass(frozen=True, slots=True)
class Installation:
    """Looks at the queue, at activations and at shards. Every look raises UnavailableError when the store is away."""

    explainer: Explainer
    shards: ShardLooks
    topics: Queue
    backlogs: Backlogs | None

    async def queue(self, topic: str) -> QueueLook:
        """How much waits on a topic, for how long, and who consumes it."""
        depth = await self.topics.depth(topic)
        numbers = sorted(depth.partitions)
        backlogs: Sequence[Backlog | None] = [None] * len(numbers)
        if self.backlogs is not None:
            backlogs = await asyncio.gather(*(self.backlogs.backlog(topic, number) for number in numbers))
        parts = [
            PartLook(number, depth.partitions[number], backlog)
            for number, backlog in zip(numbers, backlogs, strict=True)
        ]
        consumers = await self.explainer.consumers() if topic == INVOKE else ()
        dead = await self.backlogs.count_dead_letters(topic) if self.backlogs is not None else None
        return QueueLook(parts, consumers, dead)


def open_installation(settings: Settings, client: KvClient, queue: Queue, clock: Clock) -> Installation:
    """Look at the installation that the settings name, through a store and a queue that are open."""
    partitions = settings.store.partitions
    view = open_queue_view(settings, client, clock)
    explainer = Explainer(
        ActivationLooks(client, partitions),
        queue,
        view,
        ConsumerStore(client),
        SlotStore(client),
        VersionStore(client),
    )
    return Installation(explainer, ShardLooks(client, settings.scheduler.shards, clock), queue, view)
