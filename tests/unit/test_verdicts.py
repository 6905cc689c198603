"""Why an activation waits: from the evidence to the verdict, one thing after the other taken away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from codesous.admin.v1 import explanation_pb2 as pb
from codesous.admin.v1.process_pb2 import Consumer
from codesous.queue.v1.envelope_pb2 import Envelope, Lane
from codesous.queue.v1.invocation_pb2 import InvocationRequest
from codesous.type.v1.activation_status_pb2 import ActivationStatus

from cs_core.clock import to_timestamp
from cs_core.codeq.envelope_head import HEAD_BYTES, read_head
from cs_core.operations.verdicts import judge

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER, EARLIER = to_timestamp(NOW + timedelta(seconds=30)), to_timestamp(NOW - timedelta(seconds=30))


def waiting(**evidence: object) -> pb.Explanation:
    """An activation that nothing keeps from being received next."""
    found = pb.Explanation(
        tenant="t_alpha0",
        activation_id="a",
        status=ActivationStatus.ACTIVATION_STATUS_QUEUED,
        partition=3,
        place=pb.MessagePlace.MESSAGE_PLACE_READY,
        lane=Lane.LANE_INTERACTIVE,
        slots=2,
        consumers=[Consumer(instance="i1", permits=4, partition_permits=2)],
    )
    found.MergeFrom(pb.Explanation(**evidence))  # type: ignore[arg-type]
    return found


def verdict(found: pb.Explanation, now: datetime | None = NOW) -> str:
    return pb.Verdict.Name(judge(found, now)[0]).removeprefix("VERDICT_")


def no_consumer(found: pb.Explanation) -> None:
    del found.consumers[:]


def drained(found: pb.Explanation) -> None:
    for consumer in found.consumers:
        consumer.draining = True


def busy(found: pb.Explanation) -> None:
    found.consumers[0].permits_taken = 4


def share(found: pb.Explanation) -> None:
    found.consumers[0].partition_permits_taken[3] = 2


def place(where: pb.MessagePlace.ValueType) -> Callable[[pb.Explanation], None]:
    def put(found: pb.Explanation) -> None:
        found.place = where
        found.message_time.CopyFrom(LATER)

    return put


def running(found: pb.Explanation, until: object = LATER) -> None:
    found.status = ActivationStatus.ACTIVATION_STATUS_RUNNING
    found.owner = "invoker-1/x"
    found.lease_expire_time.CopyFrom(until)  # type: ignore[arg-type]


CASES: Final = {
    "DEADLINE_PASSED": lambda found: found.deadline.CopyFrom(EARLIER),
    "RETRY_DELAYED": lambda found: found.next_time.CopyFrom(LATER),
    "NO_MESSAGE": place(pb.MessagePlace.MESSAGE_PLACE_NONE),
    "NO_CONSUMER": no_consumer,
    "SLOTS_TAKEN": lambda found: setattr(found, "slots_taken", 2),
    "CLAIMED": place(pb.MessagePlace.MESSAGE_PLACE_LEASED),
    "PUT_BACK": place(pb.MessagePlace.MESSAGE_PLACE_DELAYED),
    "PERMITS_TAKEN": busy,
    "SHARE_TAKEN": share,
    "BEHIND_OTHERS": lambda found: setattr(found, "ahead", 7),
}


@pytest.mark.parametrize("name", CASES)
def test_one_piece_of_evidence_alone_makes_its_verdict(name: str) -> None:
    found = waiting()
    assert verdict(found) == "NEXT"
    CASES[name](found)
    assert verdict(found) == name


@pytest.mark.parametrize("first", range(len(CASES)))
def test_of_several_the_one_that_holds_it_back_most_is_told(first: int) -> None:
    """All that is behind it applies too; of the places of a message there is only one."""
    names = list(CASES)[first:]
    found = waiting()
    for name in reversed(names):
        CASES[name](found)
    assert verdict(found) == names[0]


@pytest.mark.parametrize(
    ("change", "now", "expected"),
    [
        (running, NOW, "RUNNING"),
        (lambda found: running(found, EARLIER), NOW, "OWNER_GONE"),
        (lambda found: setattr(found, "status", ActivationStatus.ACTIVATION_STATUS_TIMEOUT), NOW, "DONE"),
        (lambda found: found.ClearField("status"), None, "UNKNOWN"),
        (drained, NOW, "NO_CONSUMER"),
        # What will be, or was, does not hold it back now.
        (lambda found: found.deadline.CopyFrom(LATER), NOW, "NEXT"),
        (lambda found: found.next_time.CopyFrom(EARLIER), NOW, "NEXT"),
        (lambda found: setattr(found, "slots_taken", 1), NOW, "NEXT"),
        (lambda found: found.consumers[0].partition_permits_taken.update({2: 2}), NOW, "NEXT"),
        (lambda found: found.ClearField("place"), NOW, "UNSPECIFIED"),
    ],
)
def test_other_states(change: Callable[[pb.Explanation], None], now: datetime | None, expected: str) -> None:
    found = waiting()
    change(found)
    assert verdict(found, now) == expected


def test_a_dead_letter_is_told_for_what_has_ended_and_not_for_what_goes_on_again() -> None:
    found = waiting(dead_letter_id="3.1a", reason="CS_RUNTIME_CRASH")
    assert verdict(found) == "NEXT"
    found.status = ActivationStatus.ACTIVATION_STATUS_ERROR
    assert verdict(found) == "DEAD_LETTER"
    assert "3.1a" in judge(found, NOW)[1]
    found.ClearField("status")
    assert verdict(found, None) == "DEAD_LETTER"


def test_the_sentence_names_what_a_person_needs() -> None:
    found = waiting()
    running(found)
    assert judge(found, NOW)[1] == "invoker-1/x runs it; the lease is held until 2030-01-02 03:04:35 UTC"
    found = waiting(ahead=7)
    assert judge(found, NOW)[1] == "7 others are in front of it in partition 3, lane interactive"


def test_the_head_of_an_envelope_is_read_without_its_body() -> None:
    envelope = Envelope(message_id="m" * 36, topic="cs.invoke", tenant="t_alpha0", traceparent="00-1-2-01")
    envelope.publish_time.FromDatetime(NOW)
    envelope.invocation_request.CopyFrom(InvocationRequest(event=b"x" * 5000))
    head = read_head(envelope.SerializeToString()[:HEAD_BYTES])
    envelope.ClearField("invocation_request")
    assert head == envelope


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a", b"\x0d\x01"])
def test_a_head_that_is_no_envelope_has_nothing(data: bytes) -> None:
    assert read_head(data) == Envelope()
