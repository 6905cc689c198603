"""`cs.codeq.publish`: messages of functions on topics of their tenant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from cs_sandbox.host import arguments as given
from cs_sandbox.host.arguments import refuse

KEY_MAX: Final = 256
DELAY_MAX: Final = timedelta(days=7).total_seconds()
_TOPIC: Final = re.compile(r"[a-z][a-z0-9_.-]{0,126}")


@dataclass(frozen=True, slots=True)
class Message:
    """What a function publishes. The topic is within the tenant; the payload is UTF-8 JSON."""

    topic: str
    payload: bytes
    key: str
    """Messages of one key keep their order. Empty: no order."""
    delay: timedelta


class Publisher(Protocol):
    """Publishes for one activation."""

    async def publish(self, message: Message) -> str:
        """Store the message; returns its id. Raises HostCallError when the queue is away or full."""
        ...


class QueueCalls:
    """Provides the area `codeq`."""

    def __init__(self, publisher: Publisher, message_bytes: int) -> None:
        """`message_bytes` is the limit of a payload, as JSON."""
        self._publisher = publisher
        self._message_bytes = message_bytes

    async def call(self, _operation: str, arguments: list[Any]) -> Any:
        """Publish; the only operation. Raises HostCallError."""
        topic = arguments[0]
        if not _TOPIC.fullmatch(topic):
            raise refuse("topic", f"must match {_TOPIC.pattern}")
        payload = given.to_json("payload", given.item(arguments, 1), self._message_bytes)
        options = given.options(arguments, 2, "key", "delay")
        key = options.get("key") or ""
        if not isinstance(key, str) or len(key.encode()) > KEY_MAX:
            raise refuse("key", f"must be text of at most {KEY_MAX} bytes")
        delay = given.to_seconds("delay", options.get("delay") or 0, 0, DELAY_MAX)
        return {"messageId": await self._publisher.publish(Message(topic, payload, key, timedelta(seconds=delay)))}
