"""The life of schedules: create, read, list, update, pause, resume, delete."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from codesous.control.v1.mutation_pb2 import LifecycleMutation, ScheduleDeleted, ScheduleSet
from codesous.control.v1.schedule_pb2 import Schedule, ScheduleState, ScheduleTick
from codesous.control.v1.schedule_service_pb2 import CreateScheduleRequest, UpdateScheduleRequest
from codesous.storage.v1.records_pb2 import ScheduleIntent, ScheduleRecord

from cs_control import schedule_rules, schedule_update
from cs_control.mutations import Actor, new_mutation
from cs_control.schedule_status import with_status
from cs_core.clock import Clock, to_timestamp
from cs_core.errors import CodeSousError, ConflictError, FieldViolation, NotFoundError
from cs_core.iam.allow import check_allowlist
from cs_core.names import Violations, check_namespace, check_schedule
from cs_core.schedules.placing import Placing
from cs_core.schedules.rule import to_ms
from cs_core.schedules.runs import Runs
from cs_core.store.resolve import Resolver
from cs_core.store.schedules import ScheduleStore
from cs_core.store.shards import ShardStore

# Given a copy of the schedule as it is, makes it what it is to be; tells whether ticks are to be counted anew from now.
_Turn = Callable[[Schedule], bool]


def check_names(namespace: str, name: str) -> None:
    """Raise ValidationError unless both are names."""
    violations = Violations()
    violations.check(check_namespace, namespace, "namespace")
    violations.check(check_schedule, name, "schedule")
    violations.raise_if_any()


class Schedules:
    """What can be done with schedules."""

    def __init__(
        self,
        store: ScheduleStore,
        shards: ShardStore,
        placing: Placing,
        resolver: Resolver,
        runs: Runs,
        clock: Clock,
    ) -> None:
        self._store = store
        self._shards = shards
        self._placing = placing
        self._resolver = resolver
        self._runs = runs
        self._clock = clock

    async def create(self, request: CreateScheduleRequest, actor: Actor) -> tuple[Schedule, bool]:
        """Make a schedule; also tells whether it was made now (False: an equal one was there).

        Raises:
            ValidationError: a field breaks its rule.
            NotFoundError: no such function, alias or version.
            ConflictError: the name exists with other content.
        """
        check_names(request.namespace, request.schedule)
        now = self._clock.now()
        wanted = Schedule(
            tenant=request.tenant,
            namespace=request.namespace,
            schedule=request.schedule,
            uid=self._shards.new_uid(request.tenant),
            spec=request.spec,
            action=request.action,
            policies=request.policies,
            principal=actor.principal,
            create_time=to_timestamp(now),
            update_time=to_timestamp(now),
        )
        wanted.status.state = ScheduleState.SCHEDULE_STATE_ACTIVE
        schedule_rules.check(wanted)
        schedule_rules.complete(wanted)
        present = await self._store.get(request.tenant, request.namespace, request.schedule)
        if present is None:
            await self._check_target(wanted)
        mutation = new_mutation(actor, request.tenant, request.namespace, now)
        record = ScheduleRecord(
            schedule=_named(wanted, 1), generation=1, cursor_generation=1, cursor_time=wanted.create_time
        )
        mutation.schedule_set.CopyFrom(ScheduleSet(schedule=record.schedule))

        def change(present: ScheduleRecord | None) -> tuple[ScheduleRecord, LifecycleMutation] | None:
            if present is None:
                schedule_rules.check_ticks(wanted, to_ms(now))
                return record, mutation
            there = present.schedule
            if (there.spec, there.action, there.policies) != (wanted.spec, wanted.action, wanted.policies):
                raise ConflictError(
                    "CS_CONFLICT_EXISTS", f"schedule {request.namespace}/{request.schedule} exists with other content"
                )
            return None

        intent = _intent(wanted, mutation)
        stored = await self._placing.change(intent, change)
        if stored is None:
            raise NotFoundError("schedule", f"{request.namespace}/{request.schedule}")
        return await self._with_status(stored), stored.schedule.uid == wanted.uid

    async def get(self, tenant: str, namespace: str, name: str) -> Schedule:
        """Read a schedule. Raises ValidationError or NotFoundError."""
        return await self._with_status(await self._read(tenant, namespace, name))

    async def list_by_name(
        self, tenant: str, namespace: str, *, after: str, limit: int
    ) -> tuple[list[Schedule], str | None]:
        """List schedules by name, and the name to go on after (None: that was all)."""
        check_namespace(namespace)
        records, last = await self._store.list_by_name(tenant, namespace, after=after, limit=limit)
        placed = await self._shards.get_many([record.schedule.uid for record in records])
        return [with_status(record, each) for record, each in zip(records, placed, strict=True)], last

    async def update(self, request: UpdateScheduleRequest, actor: Actor) -> Schedule:
        """Change the fields that the mask names.

        Raises:
            ValidationError: the mask or a field breaks its rule.
            NotFoundError: no such schedule; or the action is changed to a function, alias or version that is not there.
            AuthorizationError: the action is changed by another than the principal, who may not invoke it either.
            ConflictError: the etag is stale (`CS_CONFLICT_CONCURRENT`).
        """
        check_names(request.namespace, request.schedule)
        schedule_update.check_mask(request.update_mask)
        now = self._clock.now()
        present = await self._read(request.tenant, request.namespace, request.schedule)
        await self._check_new_action(present.schedule, schedule_update.merged(present.schedule, request), actor)

        def turn(schedule: Schedule) -> bool:
            if request.etag and request.etag != schedule.etag:
                raise ConflictError(
                    "CS_CONFLICT_CONCURRENT", f"schedule {request.schedule} is not the one of the etag any more"
                )
            before = Schedule()
            before.CopyFrom(schedule)
            schedule.CopyFrom(schedule_update.merged(before, request))
            schedule_rules.check(schedule)
            schedule_rules.complete(schedule)
            if schedule.spec == before.spec:
                return False
            schedule_rules.check_ticks(schedule, to_ms(now))
            return True

        return await self._turn(present, turn, actor, now)

    async def pause(self, tenant: str, namespace: str, name: str, actor: Actor) -> Schedule:
        """Pause a schedule; when this returns, none of its ticks is published any more. Raises NotFoundError."""
        present = await self._read(tenant, namespace, name)

        def turn(schedule: Schedule) -> bool:
            schedule.status.state = ScheduleState.SCHEDULE_STATE_PAUSED
            return True

        paused = await self._turn(present, turn, actor, self._clock.now())
        await self._placing.settled(paused.uid)
        return await self.get(tenant, namespace, name)

    async def resume(self, tenant: str, namespace: str, name: str, actor: Actor) -> Schedule:
        """Let a schedule tick again, from now. Raises NotFoundError."""
        present = await self._read(tenant, namespace, name)

        def turn(schedule: Schedule) -> bool:
            schedule.status.state = ScheduleState.SCHEDULE_STATE_ACTIVE
            return True

        return await self._turn(present, turn, actor, self._clock.now())

    async def delete(self, tenant: str, namespace: str, name: str, actor: Actor) -> None:
        """Delete a schedule; when this returns, none of its ticks is published any more. Raises NotFoundError."""
        present = await self._read(tenant, namespace, name)
        uid = present.schedule.uid
        mutation = new_mutation(actor, tenant, namespace, self._clock.now())
        mutation.schedule_deleted.CopyFrom(ScheduleDeleted(schedule=name, uid=uid))

        def change(record: ScheduleRecord | None) -> tuple[None, LifecycleMutation]:
            _same(record, uid, namespace, name)
            return None, mutation

        await self._placing.change(_intent(present.schedule, mutation), change)
        await self._placing.settled(uid)

    async def run(self, tenant: str, namespace: str, name: str, request_id: str) -> str:
        """Run a schedule's action now, as its principal; returns the activation's id.

        Raises:
            NotFoundError: no such schedule, function, alias or version.
            AuthorizationError: the principal is not on the version's list (`CS_AUTHZ_ROLE_MISSING`).
            LimitError: the tenant has as many activations in flight as it may.
        """
        schedule = (await self._read(tenant, namespace, name)).schedule
        version = await self._runs.admit(schedule)
        return await self._runs.publish_now(schedule, version, request_id)

    async def history(
        self, tenant: str, namespace: str, name: str, *, below: int | None, limit: int, after_ms: int | None
    ) -> tuple[list[ScheduleTick], int | None]:
        """Past ticks, newest first, and the number to go on below (None: that was all). Raises NotFoundError."""
        uid = (await self._read(tenant, namespace, name)).schedule.uid
        found = await self._shards.history(uid, below=below, limit=limit + 1)
        last = found[limit - 1].tick if len(found) > limit else None
        chosen = found[:limit]
        if after_ms is not None:
            chosen = [tick for tick in chosen if tick.due_time.ToMilliseconds() > after_ms]
            last = last if len(chosen) == limit else None
        return chosen, last

    async def _turn(self, present: ScheduleRecord, turn: _Turn, actor: Actor, now: datetime) -> Schedule:
        there = present.schedule
        mutation = new_mutation(actor, there.tenant, there.namespace, now)

        def change(record: ScheduleRecord | None) -> tuple[ScheduleRecord, LifecycleMutation] | None:
            turned = ScheduleRecord()
            turned.CopyFrom(_same(record, there.uid, there.namespace, there.schedule))
            anew = turn(turned.schedule)
            if turned == record:
                return None
            turned.generation += 1
            if anew:
                turned.cursor_generation = turned.generation
                turned.cursor_time.CopyFrom(to_timestamp(now))
            turned.schedule.update_time.CopyFrom(to_timestamp(now))
            _named(turned.schedule, turned.generation)
            mutation.schedule_set.CopyFrom(ScheduleSet(schedule=turned.schedule))
            return turned, mutation

        stored = await self._placing.change(_intent(there, mutation), change)
        return await self._with_status(_same(stored, there.uid, there.namespace, there.schedule))

    async def _read(self, tenant: str, namespace: str, name: str) -> ScheduleRecord:
        check_names(namespace, name)
        record = await self._store.get(tenant, namespace, name)
        if record is None:
            raise NotFoundError("schedule", f"{namespace}/{name}")
        return record

    async def _with_status(self, record: ScheduleRecord) -> Schedule:
        return with_status(record, await self._shards.get(record.schedule.uid))

    async def _check_target(self, schedule: Schedule) -> None:
        try:
            action = schedule.action
            await self._resolver.resolve(schedule.tenant, schedule.namespace, action.function, action.ref)
        except NotFoundError as error:
            raise _with_field(error) from error

    async def _check_new_action(self, before: Schedule, after: Schedule, actor: Actor) -> None:
        if after.action == before.action:
            return
        schedule_rules.check(after)
        await self._check_target(after)
        if actor.principal.subject != before.principal.subject:
            # Else whoever may change schedules could have anything run as those who created them.
            version = await self._resolver.resolve(
                after.tenant, after.namespace, after.action.function, after.action.ref
            )
            check_allowlist(version.config, "schedule", actor.principal)


def _named(schedule: Schedule, generation: int) -> Schedule:
    schedule.etag = f"{schedule.uid[:8]}-{generation}"
    return schedule


def _same(record: ScheduleRecord | None, uid: str, namespace: str, name: str) -> ScheduleRecord:
    """The record, if it is still the same schedule's."""
    if record is None:
        raise NotFoundError("schedule", f"{namespace}/{name}")
    if record.schedule.uid != uid:
        raise ConflictError("CS_CONFLICT_CONCURRENT", f"schedule {name} was deleted and made again; try again")
    return record


def _intent(schedule: Schedule, mutation: LifecycleMutation) -> ScheduleIntent:
    return ScheduleIntent(
        tenant=schedule.tenant,
        namespace=schedule.namespace,
        schedule=schedule.schedule,
        uid=schedule.uid,
        mutation_id=mutation.mutation_id,
    )


def _with_field(error: NotFoundError) -> CodeSousError:
    """The error, with the field of the request that names what is not there."""
    kind, name = error.resource or ("", "")
    field = "action.function" if kind == "function" else "action.ref"
    found = NotFoundError(kind, name)
    found.violations = (FieldViolation(field, error.message),)
    return found
