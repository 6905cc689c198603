"""The life of worker bindings: create, read, list, update, delete, pause, resume."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from uuid import uuid4

from codesous.control.v1.mutation_pb2 import LifecycleMutation, WorkerBindingDeleted, WorkerBindingSet
from codesous.control.v1.worker_binding_pb2 import WorkerBinding, WorkerBindingSpec, WorkerBindingState
from codesous.control.v1.worker_binding_service_pb2 import CreateWorkerBindingRequest, UpdateWorkerBindingRequest

from cs_control.mutations import Actor, new_mutation
from cs_control.worker_specs import check_mask, check_spec, merge_spec, with_defaults
from cs_core.clock import Clock, to_timestamp
from cs_core.errors import ConflictError, NotFoundError
from cs_core.names import Violations, check_namespace, check_worker
from cs_core.store.resolve import Resolver
from cs_core.store.worker_bindings import WorkerBindingStore
from cs_core.store.worker_reports import WorkerReportStore

_ACTIVE = WorkerBindingState.WORKER_BINDING_STATE_ACTIVE
_PAUSED = WorkerBindingState.WORKER_BINDING_STATE_PAUSED
_FAILING = WorkerBindingState.WORKER_BINDING_STATE_FAILING
NO_POLLER = "no poller has taken it up"
# Given the binding as it is, the binding as it is to be; None leaves it as it is.
_Edit = Callable[[WorkerBinding], WorkerBinding | None]


class WorkerBindings:
    """What can be done with worker bindings."""

    def __init__(self, store: WorkerBindingStore, reports: WorkerReportStore, resolver: Resolver, clock: Clock) -> None:
        self._store = store
        self._reports = reports
        self._resolver = resolver
        self._clock = clock

    async def create(self, request: CreateWorkerBindingRequest, actor: Actor) -> tuple[WorkerBinding, bool]:
        """Make a binding; also tells whether it was made now (False: an equal one was there).

        Raises:
            ValidationError: a name or a field of the spec breaks its rule.
            NotFoundError: an activity is mapped to a function, alias or version that is not there.
            ConflictError: the name exists with other content.
        """
        violations = Violations()
        violations.check(check_namespace, request.namespace, "namespace")
        violations.check(check_worker, request.worker, "worker")
        check_spec(request.spec, violations)
        violations.raise_if_any()
        spec = with_defaults(request.spec, request.worker)
        await self._check_targets(request.tenant, request.namespace, spec)
        now = self._clock.now()
        wanted = WorkerBinding(
            tenant=request.tenant,
            namespace=request.namespace,
            worker=request.worker,
            uid=str(uuid4()),
            spec=spec,
            state=_ACTIVE,
            principal=actor.principal,
            create_time=to_timestamp(now),
            update_time=to_timestamp(now),
        )
        mutation = new_mutation(actor, request.tenant, request.namespace, now)
        mutation.worker_binding_set.CopyFrom(WorkerBindingSet(worker_binding=wanted))
        created = False

        def change(present: WorkerBinding | None) -> tuple[WorkerBinding, LifecycleMutation] | None:
            nonlocal created
            created = present is None
            if present is None:
                return wanted, mutation
            if present.spec != spec:
                raise ConflictError(
                    "CS_CONFLICT_EXISTS", f"worker binding {request.namespace}/{request.worker} exists and serves other"
                )
            return None

        binding = await self._store.change(request.tenant, request.namespace, request.worker, change)
        return await self._shown(binding or wanted), created

    async def get(self, tenant: str, namespace: str, worker: str) -> WorkerBinding:
        """Read a binding. Raises ValidationError or NotFoundError."""
        _check_names(namespace, worker)
        return await self._shown(_require(await self._store.get(tenant, namespace, worker), namespace, worker))

    async def list_by_name(
        self, tenant: str, namespace: str, *, after: str, limit: int
    ) -> tuple[Sequence[WorkerBinding], str | None]:
        """List bindings of a namespace by name, and the name to go on after (None: that was all)."""
        check_namespace(namespace)
        found, last = await self._store.list_by_name(tenant, namespace, after=after, limit=limit)
        return await asyncio.gather(*(self._shown(binding) for binding in found)), last

    async def update(self, request: UpdateWorkerBindingRequest, actor: Actor) -> WorkerBinding:
        """Change parts of what a binding serves.

        Raises:
            ValidationError: the mask names what cannot be changed, or the outcome breaks a rule.
            NotFoundError: no such binding, or an activity is mapped to what is not there.
            ConflictError: `etag` is stale (`CS_CONFLICT_CONCURRENT`).
        """
        _check_names(request.namespace, request.worker)
        paths = check_mask(request.update_mask)
        present = _require(
            await self._store.get(request.tenant, request.namespace, request.worker), request.namespace, request.worker
        )
        await self._check_targets(request.tenant, request.namespace, self._merged(present.spec, request, paths))

        def edit(present: WorkerBinding) -> WorkerBinding | None:
            if request.etag and request.etag != etag_of(present):
                raise ConflictError(
                    "CS_CONFLICT_CONCURRENT", f"worker binding {request.worker} was changed by others; read it again"
                )
            spec = self._merged(present.spec, request, paths)
            if spec == present.spec:
                return None
            changed = WorkerBinding()
            changed.CopyFrom(present)
            changed.spec.CopyFrom(spec)
            return changed

        return await self._edit(request.tenant, request.namespace, request.worker, edit, actor)

    async def pause(self, tenant: str, namespace: str, worker: str, actor: Actor) -> WorkerBinding:
        """Have a binding poll no more; pausing it again changes nothing. Raises ValidationError or NotFoundError."""
        return await self._turn(tenant, namespace, worker, _PAUSED, actor)

    async def resume(self, tenant: str, namespace: str, worker: str, actor: Actor) -> WorkerBinding:
        """Have a binding poll again; resuming it again changes nothing. Raises ValidationError or NotFoundError."""
        return await self._turn(tenant, namespace, worker, _ACTIVE, actor)

    async def delete(self, tenant: str, namespace: str, worker: str, actor: Actor) -> None:
        """Delete a binding. Raises ValidationError or NotFoundError."""
        _check_names(namespace, worker)
        mutation = new_mutation(actor, tenant, namespace, self._clock.now())

        def change(present: WorkerBinding | None) -> tuple[None, LifecycleMutation]:
            uid = _require(present, namespace, worker).uid
            mutation.worker_binding_deleted.CopyFrom(WorkerBindingDeleted(worker=worker, uid=uid))
            return None, mutation

        await self._store.change(tenant, namespace, worker, change)

    async def _turn(
        self, tenant: str, namespace: str, worker: str, state: WorkerBindingState.ValueType, actor: Actor
    ) -> WorkerBinding:
        _check_names(namespace, worker)

        def edit(present: WorkerBinding) -> WorkerBinding | None:
            if present.state == state:
                return None
            turned = WorkerBinding()
            turned.CopyFrom(present)
            turned.state = state
            return turned

        return await self._edit(tenant, namespace, worker, edit, actor)

    async def _edit(self, tenant: str, namespace: str, worker: str, edit: _Edit, actor: Actor) -> WorkerBinding:
        now = self._clock.now()
        mutation = new_mutation(actor, tenant, namespace, now)

        def change(present: WorkerBinding | None) -> tuple[WorkerBinding, LifecycleMutation] | None:
            edited = edit(_require(present, namespace, worker))
            if edited is None:
                return None
            edited.update_time.CopyFrom(to_timestamp(now))
            mutation.worker_binding_set.CopyFrom(WorkerBindingSet(worker_binding=edited))
            return edited, mutation

        binding = await self._store.change(tenant, namespace, worker, change)
        return await self._shown(_require(binding, namespace, worker))

    @staticmethod
    def _merged(
        spec: WorkerBindingSpec, request: UpdateWorkerBindingRequest, paths: Sequence[str]
    ) -> WorkerBindingSpec:
        merged = merge_spec(spec, request.spec, paths)
        violations = Violations()
        check_spec(merged, violations)
        violations.raise_if_any()
        return with_defaults(merged, request.worker)

    async def _check_targets(self, tenant: str, namespace: str, spec: WorkerBindingSpec) -> None:
        targets = {(target.function, target.ref) for target in spec.activities.values()}
        await asyncio.gather(*(self._resolver.resolve(tenant, namespace, *target) for target in sorted(targets)))

    async def _shown(self, binding: WorkerBinding) -> WorkerBinding:
        """The binding as callers see it: with what pollers report of it."""
        shown = WorkerBinding()
        shown.CopyFrom(binding)
        shown.etag = etag_of(binding)
        if binding.state != _ACTIVE:
            return shown
        reports = (await self._reports.read(binding)).values()
        if failures := sorted(report.failure for report in reports if report.failure):
            shown.state = _FAILING
            shown.status_message = failures[0]
        elif not reports:
            shown.status_message = NO_POLLER
        return shown


def etag_of(binding: WorkerBinding) -> str:
    """The etag of a binding as it is stored."""
    return hashlib.sha256(binding.SerializeToString(deterministic=True)).hexdigest()[:16]


def _require(binding: WorkerBinding | None, namespace: str, worker: str) -> WorkerBinding:
    if binding is None:
        raise NotFoundError("worker", f"{namespace}/{worker}")
    return binding


def _check_names(namespace: str, worker: str) -> None:
    violations = Violations()
    violations.check(check_namespace, namespace, "namespace")
    violations.check(check_worker, worker, "worker")
    violations.raise_if_any()
