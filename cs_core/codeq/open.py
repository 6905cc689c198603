"""Opens the queue that the settings name."""

from __future__ import annotations

from datetime import timedelta

from cs_core.clock import Clock
from cs_core.codeq.kv import KvQueue
from cs_core.codeq.kv_view import KvQueueView
from cs_core.config import Settings
from cs_core.store.client import KvClient


def open_queue(settings: Settings, client: KvClient) -> KvQueue:
    """Open the queue on the store. The memory driver joins no two processes, so no service opens it."""
    codeq = settings.codeq
    return KvQueue(
        client,
        settings.store.partitions,
        timedelta(seconds=codeq.lease),
        timedelta(seconds=codeq.poll_interval),
        timedelta(seconds=codeq.dead_letter_ttl),
    )


def open_queue_view(settings: Settings, client: KvClient, clock: Clock) -> KvQueueView | None:
    """Look into the queue that the settings name; None where its driver does not tell more than its contract."""
    return KvQueueView(client, settings.store.partitions, clock) if settings.codeq.driver == "kv" else None
