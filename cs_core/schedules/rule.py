"""When a schedule ticks. Times are whole milliseconds since the epoch.

A tick has a nominal time, which the rule gives, and a due time, which is later by the tick's jitter. Local times of a
cron expression follow Debian's cron, as `cronsim` does: see the comment of `ScheduleSpec.cron`.
"""

from __future__ import annotations

import hashlib
import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final

from codesous.control.v1.schedule_pb2 import ScheduleSpec
from cronsim import CronSim, CronSimError
from google.protobuf.timestamp_pb2 import Timestamp

END_OF_TIME: Final = datetime(3000, 1, 1, tzinfo=UTC)
MAX_CRON_CHARS: Final = 256
MAX_LISTED: Final = 1000
_CRON_FIELDS = 5
_DRAWS = 2**32


class CronError(ValueError):
    """The expression is none; the message is the rule that it breaks."""


def to_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, what is below them cut off."""
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))


def from_ms(ms: int) -> datetime:
    """The moment, in UTC."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def stamp_ms(stamp: Timestamp) -> int:
    """Milliseconds since the epoch of a protobuf time."""
    return stamp.seconds * 1000 + stamp.nanos // 1_000_000


def check_cron(expression: str) -> None:
    """Raise CronError unless it is an expression of five fields that can be read."""
    if len(expression) > MAX_CRON_CHARS:
        raise CronError(f"must be at most {MAX_CRON_CHARS} characters")
    if len(expression.split()) != _CRON_FIELDS:
        raise CronError("must have five fields: minute, hour, day of month, month, day of week")
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError, AssertionError) as error:
        detail = str(error).lower().removeprefix("bad ") or "of a day"
        raise CronError(f"cannot be used: the field {detail} is malformed, out of range, or never comes up") from error


@lru_cache(maxsize=1)
def timezones() -> frozenset[str]:
    """The timezones that there are."""
    return frozenset(zoneinfo.available_timezones())


class Rule:
    """The ticks of one schedule.

    Args:
        uid: the schedule's unique id; jitter is drawn from it.
        spec: a spec that was checked.
        created_ms: when the schedule was created; intervals without a start are counted from it.
    """

    def __init__(self, uid: str, spec: ScheduleSpec, created_ms: int) -> None:
        self._uid = uid
        self._kind = spec.WhichOneof("rule")
        self._start = stamp_ms(spec.start_time) if spec.HasField("start_time") else None
        self._end = stamp_ms(spec.end_time) if spec.HasField("end_time") else to_ms(END_OF_TIME)
        self._once = stamp_ms(spec.once)
        self._interval = spec.interval.seconds * 1000
        self._anchor = created_ms if self._start is None else self._start
        self._cron = spec.cron
        self._zone = zoneinfo.ZoneInfo(spec.timezone or "UTC") if self._kind == "cron" else UTC
        self._jitter = spec.jitter.seconds * 1000 + spec.jitter.nanos // 1_000_000

    def after(self, moment: int) -> int | None:
        """The nominal time of the first tick after a moment; None: there is none."""
        return next(self._ticks_after(moment), None)

    def due(self, nominal: int) -> int:
        """When the tick of a nominal time is due."""
        if not self._jitter:
            return nominal
        following = self.after(nominal)
        room = self._jitter if following is None else min(self._jitter, following - nominal)
        draw = hashlib.blake2b(f"{self._uid}/{nominal}".encode(), digest_size=4).digest()
        return nominal + int.from_bytes(draw) * room // _DRAWS

    def due_through(self, nominal: int, now: int) -> Sequence[int]:
        """The nominal times, from `nominal` on, of the ticks that are due at `now`.

        A range of any length for an interval; of a cron expression at most `MAX_LISTED`, the oldest.
        """
        if self.due(nominal) > now:
            return ()
        if self._kind == "interval":
            found: Sequence[int] = range(nominal, min(now + 1, self._end), self._interval)
        else:
            later = islice(self._ticks_after(nominal), MAX_LISTED - 1)
            found = [nominal]
            for time in later:
                if time > now:
                    break
                found.append(time)
        # Jitter keeps the order of ticks, so the last one alone may have to wait.
        return found if self.due(found[-1]) <= now else found[:-1]

    def _ticks_after(self, moment: int) -> Iterator[int]:
        floor = moment if self._start is None else max(moment, self._start - 1)
        match self._kind:
            case "interval":
                ticks = self._interval_after(floor)
            case "cron":
                ticks = self._cron_after(floor)
            case _:
                ticks = iter([self._once] if self._once > floor else [])
        for tick in ticks:
            if tick >= self._end:
                return
            yield tick

    def _interval_after(self, floor: int) -> Iterator[int]:
        tick = self._anchor + max((floor - self._anchor) // self._interval + 1, 0) * self._interval
        while True:
            yield tick
            tick += self._interval

    def _cron_after(self, floor: int) -> Iterator[int]:
        last = floor
        for local in CronSim(self._cron, from_ms(floor).astimezone(self._zone)):
            tick = to_ms(local.astimezone(UTC))
            # Around a change of the clocks two expressions of one moment, or an earlier one, can come up: a tick is
            # later than the one before it.
            if tick > last:
                last = tick
                yield tick
