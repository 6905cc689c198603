"""From the evidence on an activation to the one thing that keeps it from going on."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from codesous.admin.v1 import explanation_pb2 as pb
from codesous.queue.v1.envelope_pb2 import Lane
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from google.protobuf.timestamp_pb2 import Timestamp

from cs_core.clock import from_timestamp

_Verdict = pb.Verdict
_Place = pb.MessagePlace
Judged = tuple[pb.Verdict.ValueType, str]
_ENDED: Final = (
    ActivationStatus.ACTIVATION_STATUS_SUCCESS,
    ActivationStatus.ACTIVATION_STATUS_ERROR,
    ActivationStatus.ACTIVATION_STATUS_TIMEOUT,
    ActivationStatus.ACTIVATION_STATUS_CANCELLED,
)


def judge(found: pb.Explanation, now: datetime | None) -> Judged:
    """The verdict and its sentence. `now` is the store's time when the record was read; None: there is no record."""
    for rule in (_without_record, _ended, _running, _held_back, _without_consumer, _under_way, _in_line):
        judged = rule(found, now)
        if judged is not None:
            return judged
    return _Verdict.VERDICT_UNSPECIFIED, "the queue does not tell where its messages are"


def _without_record(found: pb.Explanation, now: datetime | None) -> Judged | None:
    if found.dead_letter_id and found.status in (*_ENDED, ActivationStatus.ACTIVATION_STATUS_UNSPECIFIED):
        return _Verdict.VERDICT_DEAD_LETTER, f"it was given up ({found.reason}); `cs dlq show {found.dead_letter_id}`"
    if now is None:
        if found.tenant:
            return _Verdict.VERDICT_UNKNOWN, f"tenant {found.tenant} has no record of it"
        return (
            _Verdict.VERDICT_UNKNOWN,
            "no activation that goes on has this id; name its tenant to look among the ended",
        )
    return None


def _ended(found: pb.Explanation, _now: datetime | None) -> Judged | None:
    if found.status not in _ENDED:
        return None
    state = ActivationStatus.Name(found.status).removeprefix("ACTIVATION_STATUS_")
    because = f" ({found.reason})" if found.reason else ""
    return _Verdict.VERDICT_DONE, f"it has ended: {state}{because}"


def _running(found: pb.Explanation, now: datetime | None) -> Judged | None:
    if found.status != ActivationStatus.ACTIVATION_STATUS_RUNNING or now is None:
        return None
    if from_timestamp(found.lease_expire_time) > now:
        until = _clock(found.lease_expire_time)
        return _Verdict.VERDICT_RUNNING, f"{found.owner} runs it; the lease is held until {until}"
    return None


def _held_back(found: pb.Explanation, now: datetime | None) -> Judged | None:
    queued = found.status == ActivationStatus.ACTIVATION_STATUS_QUEUED
    if queued and found.HasField("deadline") and now is not None and from_timestamp(found.deadline) <= now:
        return _Verdict.VERDICT_DEADLINE_PASSED, f"its deadline {_clock(found.deadline)} passed before it began"
    if queued and found.HasField("next_time") and now is not None and from_timestamp(found.next_time) > now:
        return (
            _Verdict.VERDICT_RETRY_DELAYED,
            f"run {found.attempt} failed; the next may begin at {_clock(found.next_time)}",
        )
    if found.place == _Place.MESSAGE_PLACE_NONE:
        return _Verdict.VERDICT_NO_MESSAGE, "the queue has no message of it; it is ended a minute after its deadline"
    return None


def _without_consumer(found: pb.Explanation, _now: datetime | None) -> Judged | None:
    if any(not consumer.draining for consumer in found.consumers):
        return None
    drained = len(found.consumers)
    some = f"all {drained} that live are drained" if drained else "none lives"
    return _Verdict.VERDICT_NO_CONSUMER, f"no invoker consumes partition {found.partition}: {some}"


def _under_way(found: pb.Explanation, _now: datetime | None) -> Judged | None:
    if found.status == ActivationStatus.ACTIVATION_STATUS_RUNNING:
        ended = _clock(found.lease_expire_time)
        return _Verdict.VERDICT_OWNER_GONE, f"the lease of {found.owner} ended at {ended}; another takes it over"
    if found.slots and found.slots_taken >= found.slots:
        return (
            _Verdict.VERDICT_SLOTS_TAKEN,
            f"{found.slots_taken} activations of its version run; its maxConcurrency is {found.slots}",
        )
    if found.place == _Place.MESSAGE_PLACE_LEASED:
        return _Verdict.VERDICT_CLAIMED, f"an invoker received it and has until {_clock(found.message_time)} to begin"
    if found.place == _Place.MESSAGE_PLACE_DELAYED:
        return _Verdict.VERDICT_PUT_BACK, f"its message was put back until {_clock(found.message_time)}"
    return None


def _in_line(found: pb.Explanation, _now: datetime | None) -> Judged | None:
    if found.place != _Place.MESSAGE_PLACE_READY:
        return None
    takers = [consumer for consumer in found.consumers if not consumer.draining]
    if all(consumer.permits_taken >= consumer.permits for consumer in takers):
        return _Verdict.VERDICT_PERMITS_TAKEN, f"all {sum(c.permits for c in takers)} permits of all invokers are taken"
    held = [consumer.partition_permits_taken.get(found.partition, 0) for consumer in takers]
    if all(taken >= consumer.partition_permits for taken, consumer in zip(held, takers, strict=True)):
        return (
            _Verdict.VERDICT_SHARE_TAKEN,
            f"partition {found.partition}, which its tenant uses, holds its whole share of the permits: {sum(held)}",
        )
    lane = Lane.Name(found.lane).removeprefix("LANE_").lower()
    if found.ahead:
        return (
            _Verdict.VERDICT_BEHIND_OTHERS,
            f"{found.ahead} others are in front of it in partition {found.partition}, lane {lane}",
        )
    return _Verdict.VERDICT_NEXT, f"it is the next of partition {found.partition}, lane {lane}"


def _clock(stamp: Timestamp) -> str:
    return from_timestamp(stamp).strftime("%Y-%m-%d %H:%M:%S UTC")
