"""Consumers of the queue in processes of their own: one that is killed between receive and ack, one that works."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from datetime import timedelta

from cs_core.codeq.kv import KvQueue
from cs_core.store.client import KvClient

TOPIC = "cs.test"
PARTITIONS = 4


def open_queue(client: KvClient, *, lease: timedelta) -> KvQueue:
    """The kv driver as the conformance suite uses it."""
    return KvQueue(client, PARTITIONS, lease, timedelta(milliseconds=50))


async def _die(url: str) -> None:
    """Receive one message, say so, and be killed before the ack."""
    client = KvClient(url)
    queue = open_queue(client, lease=timedelta(milliseconds=300))
    (delivery,) = await queue.receive(TOPIC, limit=1, wait=timedelta(seconds=20))
    print(delivery.message_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def _work(url: str, consumers: int) -> None:
    """Receive and ack until nothing comes any more; print each message that was acked here."""
    client = KvClient(url)
    queue = open_queue(client, lease=timedelta(seconds=30))
    acked: list[str] = []

    async def consume() -> None:
        while deliveries := await queue.receive(TOPIC, limit=16, wait=timedelta(seconds=1)):
            assert await queue.ack(deliveries) == len(deliveries)
            acked.extend(delivery.message_id for delivery in deliveries)

    await asyncio.gather(*(consume() for _ in range(consumers)))
    await queue.close()
    await client.close()
    print("\n".join(acked), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["die", "work"])
    parser.add_argument("url")
    parser.add_argument("--consumers", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(_die(options.url) if options.role == "die" else _work(options.url, options.consumers))
    sys.exit(0)
