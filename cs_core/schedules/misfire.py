"""What becomes of ticks that were missed: the newest are made up for, older ones are dropped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from codesous.control.v1.schedule_pb2 import SchedulePolicies

from cs_core.schedules.rule import MAX_LISTED, Rule

CATCHUP_MAX: Final = 60
GRACE: Final = timedelta(seconds=30)
_GRACE_MS: Final = int(GRACE / timedelta(milliseconds=1))


@dataclass(frozen=True, slots=True)
class Overdue:
    """The ticks that are due: how many of the oldest are to be dropped, and the nominal times of those that stay.

    `next_ms` is the nominal time of the tick after the dropped ones; None: there is none.
    """

    dropped: int
    stay: tuple[int, ...]
    next_ms: int | None


def judge(rule: Rule, nominal: int, now: int, policies: SchedulePolicies) -> Overdue:
    """Look at the ticks that are due at `now`, beginning with the one of the nominal time `nominal`.

    A tick is missed when the one after it is due too, or when it is later than `GRACE`: a single tick that a failover
    delayed runs even where nothing is made up for.
    """
    due = rule.due_through(nominal, now)
    if not due:
        return Overdue(0, (), nominal)
    keep = policies.max_catchup_ticks if policies.HasField("max_catchup_ticks") else CATCHUP_MAX
    newest = due[-1]
    # A list that was cut off goes on: its newest tick is missed whenever it was due.
    complete = len(due) != MAX_LISTED or isinstance(due, range)
    current = complete and now - rule.due(newest) <= _GRACE_MS
    dropped = max(len(due) - int(current) - keep, 0)
    stay = tuple(due[dropped : dropped + keep + 1])
    return Overdue(dropped, stay, stay[0] if stay else rule.after(newest))
