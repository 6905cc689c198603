"""Making a dead letter of a delivery."""

from __future__ import annotations

from codesous.queue.v1.envelope_pb2 import DeadLetter, Envelope
from google.protobuf.message import DecodeError

from cs_core.codeq.contract import Delivery


def seal(delivery: Delivery, reason: str, message: str) -> Envelope:
    """The envelope with why it was given up; a body that is no envelope is kept as a user message."""
    try:
        envelope = delivery.envelope()
    except DecodeError:
        envelope = Envelope(message_id=delivery.message_id, topic=delivery.topic)
        envelope.user_message.body = delivery.body
    envelope.dead_letter.CopyFrom(
        DeadLetter(reason=reason, message=message, deliveries=delivery.deliveries, source_topic=delivery.topic)
    )
    envelope.dead_letter.time.GetCurrentTime()
    return envelope
