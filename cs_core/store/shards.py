"""A schedule as its shard has it: the record taken over, the cursor, the claim, the counts, the history.

Theory of operation. A shard's slot holds, per schedule, a hash: `generation`, `cursor_generation`, `state` and
`record` of what was taken over; `tick` and `nominal`, the number and the nominal time of the next tick (the cursor);
`claim`, the tick that is being published (`tick/generation/fence`); `marker`, the activation of the last published
tick; the counts. The sorted set `due` names the schedules that have a tick left by when to look at them, so a look
costs what is due, not what exists. Every step of a leader checks the fence of its lease in the script that changes
something.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, cast

from codesous.control.v1.schedule_pb2 import ScheduleTick
from codesous.storage.v1.records_pb2 import ScheduleIntent, ScheduleRecord

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_ANNOUNCE, _LIST, _PLACE, _CLAIM, _ADVANCE = (
    load_script("cs_core.store", name)
    for name in ("announce_intent", "list_intents", "place_schedule", "claim_tick", "advance_schedule")
)
_COUNTS: Final = ("published_ticks", "skipped_ticks", "dropped_ticks", "refused_ticks")
_FIELDS: Final = (
    *("generation", "state", "record", "tick", "nominal", "claim", "marker"),
    *("last_tick", "error_reason", "error_message", *_COUNTS),
)
# What is left of a deleted schedule outlives every change of it that is under way.
_DELETED_LIFE: Final = 86_400
FINAL_GENERATION: Final = 2**53 - 1
State = Literal["ACTIVE", "PAUSED", "DELETED"]
Count = Literal["published_ticks", "skipped_ticks", "dropped_ticks", "refused_ticks"]


@dataclass(frozen=True, slots=True)
class Lead:
    """The right to lead a shard: who has it, under which fence."""

    shard: int
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A schedule as its shard has it.

    `tick` and `nominal_ms` are of the next tick (None: there is none); `claim` is the tick that is being published, as
    the scripts write it; `record` is None when nothing is left of a deleted schedule but its name.
    """

    uid: str
    generation: int
    state: State
    record: ScheduleRecord | None
    tick: int
    nominal_ms: int | None
    claim: str
    marker: str
    last_tick: int
    error_reason: str
    error_message: str
    published: int
    skipped: int
    dropped: int
    refused: int

    @property
    def claimed_tick(self) -> int:
        """Number of the tick that is being published; 0: none is."""
        return int(self.claim.partition("/")[0] or 0)

    @property
    def claim_fence(self) -> int:
        """Fence of the leader that publishes it; 0: none does."""
        return int(self.claim.rpartition("/")[2] or 0)


@dataclass(frozen=True, slots=True)
class Advance:
    """What became of a tick, and what comes next.

    `claim` is empty for a tick that was not claimed; `by` is how many ticks it were; `next_ms` is the nominal time of
    tick `next_tick` (None: there is none), `look_ms` when to look at it; `marker` is empty to leave it as it was.
    """

    uid: str
    generation: int
    claim: str
    entry: ScheduleTick
    count: Count
    next_tick: int
    next_ms: int | None
    look_ms: int
    by: int = 1
    marker: str = ""


class ShardStore:
    """The shards of an installation. Every method raises UnavailableError when the store does not answer.

    Args:
        client: the store.
        shards: how many there are.
        history: entries of the history that are kept of one schedule.
    """

    def __init__(self, client: KvClient, shards: int, history: int) -> None:
        self._client = client
        self.shards = shards
        self._history = history

    def shard(self, uid: str) -> int:
        """The shard of a schedule."""
        return keys.shard_of(uid, self.shards)

    def new_uid(self, tenant: str) -> str:
        """Make the unique id of a schedule, such that its shard is one of the two that its tenant may use.

        A tenant with more ticks than a shard's leader can handle makes its own two late, and few others share both.
        """
        own = keys.tenant_shards(tenant, self.shards)
        while True:
            uid = str(uuid.uuid4())
            if self.shard(uid) in own:
                return uid

    async def announce(self, intent: ScheduleIntent) -> None:
        """Tell the shard that a change is about to be made."""
        await self._client.script(_ANNOUNCE, [keys.shard_intents(self.shard(intent.uid))], [_bytes(intent)])

    async def withdraw(self, intent: ScheduleIntent) -> None:
        """Tell the shard that a change has come through, or was not made."""
        await self._client.call("ZREM", keys.shard_intents(self.shard(intent.uid)), _bytes(intent))

    async def intents(self, shard: int, age: timedelta, limit: int) -> list[tuple[ScheduleIntent, timedelta]]:
        """The oldest intents of at least `age`, each with its age."""
        reply = await self._client.script(_LIST, [keys.shard_intents(shard)], [_ms(age), limit])
        return [
            (ScheduleIntent.FromString(member), timedelta(milliseconds=int(passed)))
            for member, passed in zip(reply[::2], reply[1::2], strict=True)
        ]

    async def place(
        self, uid: str, record: ScheduleRecord | None, state: State, nominal_ms: int | None, look_ms: int
    ) -> str:
        """Hand a record (None: it is deleted) to its shard; returns the claim of a tick that is being published.

        A record that the shard has, or a newer one, changes nothing.
        """
        generation = FINAL_GENERATION if record is None else record.generation
        reply = await self._client.script(
            _PLACE,
            [self._hash(uid), keys.shard_due(self.shard(uid)), keys.shard_ticks(self.shard(uid), uid)],
            [
                generation,
                generation if record is None else record.cursor_generation,
                state,
                b"" if record is None else _bytes(record),
                "" if nominal_ms is None else nominal_ms,
                look_ms,
                uid,
                _DELETED_LIFE,
            ],
        )
        return str(reply[1].decode())

    async def due(self, shard: int, now_ms: int, limit: int) -> list[str]:
        """The schedules to look at now, the longest due first."""
        found = await self._client.call("ZRANGEBYSCORE", keys.shard_due(shard), "-inf", now_ms, "LIMIT", 0, limit)
        return [uid.decode() for uid in found]

    async def postpone(self, uid: str, look_ms: int) -> None:
        """Look at a schedule later, if it still has a tick left."""
        await self._client.call("ZADD", keys.shard_due(self.shard(uid)), "XX", look_ms, uid)

    async def forget(self, uid: str) -> None:
        """Look at a schedule no more; there is nothing behind its name."""
        await self._client.call("ZREM", keys.shard_due(self.shard(uid)), uid)

    async def get(self, uid: str) -> Placed | None:
        """Read a schedule as its shard has it; None when it has none."""
        return _placed(uid, await self._client.call("HMGET", self._hash(uid), *_FIELDS))

    async def get_many(self, uids: Sequence[str]) -> list[Placed | None]:
        """Read several schedules in one round trip."""
        return list(await asyncio.gather(*(self.get(uid) for uid in uids)))

    async def claim(self, lead: Lead, placed: Placed) -> str:
        """Claim the next tick before it is published; returns the claim, empty when the schedule has changed.

        Raises:
            LeadLostError: the caller is not the leader.
        """
        reply = await self._client.script(
            _CLAIM,
            [keys.shard_lease(lead.shard), self._hash(placed.uid)],
            [lead.owner, lead.fence, placed.generation, placed.tick],
        )
        if reply < 0:
            raise LeadLostError(lead)
        return f"{placed.tick}/{placed.generation}/{lead.fence}" if reply else ""

    async def advance(self, lead: Lead, step: Advance) -> bool:
        """Write down what became of a tick, and go on to the next; False when the schedule has changed.

        Raises:
            LeadLostError: the caller is not the leader.
        """
        entry = step.entry
        reply = await self._client.script(
            _ADVANCE,
            [
                keys.shard_lease(lead.shard),
                self._hash(step.uid),
                keys.shard_due(lead.shard),
                keys.shard_ticks(lead.shard, step.uid),
            ],
            [
                lead.owner,
                lead.fence,
                step.generation,
                entry.tick,
                step.claim,
                step.uid,
                step.next_tick,
                "" if step.next_ms is None else step.next_ms,
                step.look_ms,
                step.count,
                step.by,
                step.marker,
                entry.last_tick or entry.tick,
                entry.reason,
                entry.message if entry.reason else "",
                _bytes(entry),
                self._history,
                _DELETED_LIFE,
            ],
        )
        if reply < 0:
            raise LeadLostError(lead)
        return bool(reply)

    async def history(self, uid: str, *, below: int | None, limit: int) -> list[ScheduleTick]:
        """Read past ticks with numbers below `below` (None: all), newest first."""
        ceiling = "+" if below is None else f"({below}-0"
        entries = await self._client.call(
            "XREVRANGE", keys.shard_ticks(self.shard(uid), uid), ceiling, "-", "COUNT", limit
        )
        return [ScheduleTick.FromString(fields[1]) for _, fields in entries]

    async def leader(self, shard: int) -> tuple[int, int] | None:
        """Fence of a shard's leader and the end of its lease (ms, the server's clock); None: it has none."""
        fence, until = await self._client.call("HMGET", keys.shard_lease(shard), "fence", "until")
        return None if until is None else (int(fence), int(until))

    async def server_ms(self) -> int:
        """The server's clock, in ms since the epoch."""
        seconds, parts = await self._client.call("TIME")
        return int(seconds) * 1000 + int(parts) // 1000

    def _hash(self, uid: str) -> str:
        return keys.shard_schedule(self.shard(uid), uid)


class LeadLostError(Exception):
    """Another leads the shard now."""

    def __init__(self, lead: Lead) -> None:
        super().__init__(f"shard {lead.shard} is led by another than fence {lead.fence}")


def _placed(uid: str, values: Sequence[bytes | None]) -> Placed | None:
    stored = {name: value for name, value in zip(_FIELDS, values, strict=True) if value}
    record = stored.pop("record", None)
    fields = {name: value.decode() for name, value in stored.items()}
    if "generation" not in fields:
        return None
    published, skipped, dropped, refused = (int(fields.get(name, 0)) for name in _COUNTS)
    return Placed(
        uid=uid,
        generation=int(fields["generation"]),
        state=cast("State", fields["state"]),
        record=None if record is None else ScheduleRecord.FromString(record),
        tick=int(fields.get("tick", 1)),
        nominal_ms=int(fields["nominal"]) if "nominal" in fields else None,
        claim=fields.get("claim", ""),
        marker=fields.get("marker", ""),
        last_tick=int(fields.get("last_tick", 0)),
        error_reason=fields.get("error_reason", ""),
        error_message=fields.get("error_message", ""),
        published=published,
        skipped=skipped,
        dropped=dropped,
        refused=refused,
    )


def _bytes(message: ScheduleRecord | ScheduleIntent | ScheduleTick) -> bytes:
    return message.SerializeToString(deterministic=True)


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
