"""One look at one schedule that is due: what becomes of its next tick.

Theory of operation. A tick goes: claim, publish, advance. The claim and the advance check the leader's fence and the
schedule's generation in the store; the activation's id follows from the schedule and the tick's number. So a leader
that dies in any gap leaves a tick that its successor publishes again as the same activation, and a leader that was
replaced neither claims nor advances. A change that overtakes a claimed tick (a pause, another rule) gives the cursor
the next number; what was claimed before it is settled by whoever leads: written down as published if it was, withheld
for good if it was not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from codesous.control.v1.schedule_pb2 import OverlapPolicy, ScheduleTick, TickOutcome

from cs_core.clock import Clock, to_timestamp
from cs_core.errors import CodeSousError, UnavailableError
from cs_core.schedules import misfire
from cs_core.schedules.misfire import Overdue
from cs_core.schedules.placing import rule_of
from cs_core.schedules.rule import Rule, from_ms, to_ms
from cs_core.schedules.runs import Runs, activation_of
from cs_core.store.shards import Advance, Count, Lead, Placed, ShardStore
from cs_scheduler.gaps import AtGap, Gap, pass_gap
from cs_scheduler.leading import Leading
from cs_scheduler.metrics import Metrics

RECHECK_MS: Final = 200
"""How often a tick that waits for the one before looks again."""
_CACHED_RULES: Final = 50_000


class Ticks:
    """Handles schedules that are due, one call per schedule; calls for different schedules may overlap."""

    def __init__(
        self,
        shards: ShardStore,
        runs: Runs,
        leading: Leading,
        metrics: Metrics,
        clock: Clock,
        *,
        at_gap: AtGap = pass_gap,
    ) -> None:
        self._shards = shards
        self._runs = runs
        self._leading = leading
        self._metrics = metrics
        self._clock = clock
        self._at_gap = at_gap
        self._rules: OrderedDict[tuple[str, int], Rule] = OrderedDict()
        self._waiting: set[str] = set()

    async def handle(self, lead: Lead, uid: str) -> None:
        """Bring one tick of a schedule to its outcome, or see that there is nothing to do yet.

        Raises:
            LeadLostError: another leads the shard.
            UnavailableError: the store or the queue does not answer; the tick stays as it was.
        """
        placed = await self._shards.get(uid)
        await self._at_gap(Gap.LOOKED, uid)
        if placed is None or placed.record is None:
            await self._shards.forget(uid)
        elif placed.claim and (placed.claimed_tick != placed.tick or placed.state != "ACTIVE"):
            await self._settle(lead, placed)
        elif placed.state != "ACTIVE" or placed.nominal_ms is None:
            await self._shards.forget(uid)
        else:
            await self._tick(lead, placed, placed.nominal_ms)

    async def _tick(self, lead: Lead, placed: Placed, nominal: int) -> None:
        assert placed.record is not None  # noqa: S101 - handle() looked
        schedule = placed.record.schedule
        rule = self._rule(placed)
        due = rule.due(nominal)
        if not placed.claim:
            now = to_ms(self._clock.now())
            overdue = misfire.judge(rule, nominal, now, schedule.policies)
            if overdue.dropped:
                await self._drop(lead, placed, rule, due, overdue)
                return
            if not overdue.stay:
                await self._shards.postpone(placed.uid, due)
                return
            beside = schedule.policies.overlap == OverlapPolicy.OVERLAP_POLICY_PARALLEL
            if not beside and placed.marker and await self._runs.is_open(schedule, placed.marker):
                await self._overlap(lead, placed, rule, nominal, now)
                return
        await self._publish(lead, placed, rule, nominal, due)

    async def _publish(self, lead: Lead, placed: Placed, rule: Rule, nominal: int, due: int) -> None:
        assert placed.record is not None  # noqa: S101 - handle() looked
        schedule = placed.record.schedule
        try:
            version = await self._runs.admit(schedule)
        except UnavailableError:
            raise
        except CodeSousError as error:
            await self._refuse(lead, placed, rule, nominal, due, error)
            return
        claim = await self._shards.claim(lead, placed)
        if not claim:
            return
        await self._at_gap(Gap.CLAIMED, placed.uid)
        # A process that was stopped for a while must not publish what another may have settled since.
        self._leading.check(lead)
        activation_id = await self._runs.publish_tick(schedule, version, placed.tick, due)
        await self._at_gap(Gap.PUBLISHED, placed.uid)
        entry = self._entry(placed.tick, due, TickOutcome.TICK_OUTCOME_PUBLISHED)
        entry.activation_id = activation_id
        if await self._advance(lead, placed, rule, nominal, entry, claim, marker=activation_id):
            if placed.uid not in self._waiting:
                self._metrics.observe_lateness((to_ms(self._clock.now()) - due) / 1000)
            self._waiting.discard(placed.uid)
        await self._at_gap(Gap.ADVANCED, placed.uid)

    async def _refuse(
        self, lead: Lead, placed: Placed, rule: Rule, nominal: int, due: int, error: CodeSousError
    ) -> None:
        assert placed.record is not None  # noqa: S101 - handle() looked
        entry = self._entry(placed.tick, due, TickOutcome.TICK_OUTCOME_REFUSED)
        entry.reason, entry.message = error.reason, error.message
        marker = ""
        # A leader before may have published it when it was still allowed.
        if placed.claim and await self._runs.withhold_tick(placed.record.schedule, placed.tick, due):
            entry = self._entry(placed.tick, due, TickOutcome.TICK_OUTCOME_PUBLISHED)
            entry.activation_id = marker = activation_of(placed.record.schedule, placed.tick)
        await self._advance(lead, placed, rule, nominal, entry, placed.claim, marker=marker)

    async def _overlap(self, lead: Lead, placed: Placed, rule: Rule, nominal: int, now: int) -> None:
        assert placed.record is not None  # noqa: S101 - handle() looked
        if placed.record.schedule.policies.overlap == OverlapPolicy.OVERLAP_POLICY_QUEUE:
            self._waiting.add(placed.uid)
            await self._shards.postpone(placed.uid, now + RECHECK_MS)
            return
        entry = self._entry(placed.tick, rule.due(nominal), TickOutcome.TICK_OUTCOME_SKIPPED)
        entry.message = f"activation {placed.marker} of a tick before goes on"
        await self._advance(lead, placed, rule, nominal, entry, "")

    async def _drop(self, lead: Lead, placed: Placed, rule: Rule, due: int, overdue: Overdue) -> None:
        entry = self._entry(placed.tick, due, TickOutcome.TICK_OUTCOME_DROPPED)
        if overdue.dropped > 1:
            entry.last_tick = placed.tick + overdue.dropped - 1
        entry.message = f"{overdue.dropped} of the ticks that were missed are too many to make up for"
        step = Advance(
            uid=placed.uid,
            generation=placed.generation,
            claim="",
            entry=entry,
            count="dropped_ticks",
            next_tick=placed.tick + overdue.dropped,
            next_ms=overdue.next_ms,
            look_ms=0 if overdue.next_ms is None else rule.due(overdue.next_ms),
            by=overdue.dropped,
        )
        if await self._shards.advance(lead, step):
            self._metrics.count_ticks("dropped", overdue.dropped)

    async def _settle(self, lead: Lead, placed: Placed) -> None:
        """Settle a tick that was claimed before the schedule was changed, by a leader that did not come to its end."""
        assert placed.record is not None  # noqa: S101 - handle() looked
        schedule = placed.record.schedule
        tick = placed.claimed_tick
        now = to_ms(self._clock.now())
        if await self._runs.withhold_tick(schedule, tick, now):
            entry = self._entry(tick, now, TickOutcome.TICK_OUTCOME_PUBLISHED)
            entry.activation_id = activation_of(schedule, tick)
        else:
            entry = self._entry(tick, now, TickOutcome.TICK_OUTCOME_DROPPED)
            entry.message = "the schedule was changed before it was published"
        count, outcome = _COUNTS[entry.outcome]
        step = Advance(
            uid=placed.uid,
            generation=placed.generation,
            claim=placed.claim,
            entry=entry,
            count=count,
            next_tick=tick,
            next_ms=None,
            look_ms=0,
            marker=entry.activation_id,
        )
        if await self._shards.advance(lead, step):
            self._metrics.count_ticks(outcome)

    async def _advance(
        self, lead: Lead, placed: Placed, rule: Rule, nominal: int, entry: ScheduleTick, claim: str, *, marker: str = ""
    ) -> bool:
        following = rule.after(nominal)
        count, outcome = _COUNTS[entry.outcome]
        step = Advance(
            uid=placed.uid,
            generation=placed.generation,
            claim=claim,
            entry=entry,
            count=count,
            next_tick=placed.tick + 1,
            next_ms=following,
            look_ms=0 if following is None else rule.due(following),
            marker=marker,
        )
        advanced = await self._shards.advance(lead, step)
        if advanced:
            self._metrics.count_ticks(outcome, reason=entry.reason)
        return advanced

    def _entry(self, tick: int, due: int, outcome: TickOutcome.ValueType) -> ScheduleTick:
        return ScheduleTick(
            tick=tick,
            due_time=to_timestamp(from_ms(due)),
            decide_time=to_timestamp(self._clock.now()),
            outcome=outcome,
        )

    def _rule(self, placed: Placed) -> Rule:
        assert placed.record is not None  # noqa: S101 - handle() looked
        key = (placed.uid, placed.record.cursor_generation)
        rule = self._rules.get(key)
        if rule is None:
            rule = self._rules[key] = rule_of(placed.record.schedule)
            if len(self._rules) > _CACHED_RULES:
                self._rules.popitem(last=False)
        return rule


_COUNTS: Final[dict[TickOutcome.ValueType, tuple[Count, str]]] = {
    TickOutcome.TICK_OUTCOME_PUBLISHED: ("published_ticks", "published"),
    TickOutcome.TICK_OUTCOME_SKIPPED: ("skipped_ticks", "skipped"),
    TickOutcome.TICK_OUTCOME_DROPPED: ("dropped_ticks", "dropped"),
    TickOutcome.TICK_OUTCOME_REFUSED: ("refused_ticks", "refused"),
}
