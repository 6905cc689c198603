"""The life of functions: create, read, list, delete, undelete."""

from __future__ import annotations

from codesous.control.v1.function_pb2 import Function, FunctionState
from codesous.control.v1.function_service_pb2 import CreateFunctionRequest
from codesous.control.v1.mutation_pb2 import FunctionCreated, FunctionDeleted, FunctionUndeleted, LifecycleMutation

from cs_control.manifest import RUNTIMES, check_description
from cs_control.mutations import Actor, new_mutation
from cs_core.clock import Clock, to_timestamp
from cs_core.errors import ConflictError, NotFoundError
from cs_core.names import Violations, check_function, check_namespace
from cs_core.store.functions import FunctionStore


def require_active(function: Function | None, namespace: str, name: str) -> Function:
    """Return a function that can be used; raise NotFoundError when there is none or it is deleted."""
    if function is None or function.state != FunctionState.FUNCTION_STATE_ACTIVE:
        raise NotFoundError("function", f"{namespace}/{name}")
    return function


def check_names(namespace: str, name: str) -> None:
    """Raise ValidationError unless both are names."""
    violations = Violations()
    violations.check(check_namespace, namespace, "namespace")
    violations.check(check_function, name, "function")
    violations.raise_if_any()


class Functions:
    """What can be done with functions."""

    def __init__(self, store: FunctionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, request: CreateFunctionRequest, actor: Actor) -> tuple[Function, bool]:
        """Make a function; also tells whether it was made now (False: an equal one was there).

        Raises:
            ValidationError: a name, the runtime or the description breaks its rule.
            ConflictError: the name exists with other content, or is deleted.
        """
        runtime = request.runtime or RUNTIMES[0]
        violations = Violations()
        violations.check(check_namespace, request.namespace, "namespace")
        violations.check(check_function, request.function, "function")
        if runtime not in RUNTIMES:
            violations.add("runtime", f"must be one of {', '.join(RUNTIMES)}")
        check_description(request.description, "description", violations)
        violations.raise_if_any()
        now = self._clock.now()
        wanted = Function(
            tenant=request.tenant,
            namespace=request.namespace,
            function=request.function,
            runtime=runtime,
            description=request.description,
            state=FunctionState.FUNCTION_STATE_ACTIVE,
            create_time=to_timestamp(now),
            update_time=to_timestamp(now),
            creator=actor.principal.subject,
        )
        mutation = new_mutation(actor, request.tenant, request.namespace, now)
        mutation.function_created.CopyFrom(FunctionCreated(function=wanted))
        created = False

        def change(present: Function | None) -> tuple[Function, LifecycleMutation] | None:
            nonlocal created
            created = present is None
            if present is None:
                return wanted, mutation
            if present.state != FunctionState.FUNCTION_STATE_ACTIVE:
                raise ConflictError(
                    "CS_CONFLICT_STATE", f"function {request.namespace}/{request.function} is deleted; undelete it"
                )
            if (present.runtime, present.description) != (runtime, request.description):
                raise ConflictError(
                    "CS_CONFLICT_EXISTS",
                    f"function {request.namespace}/{request.function} exists with another runtime or description",
                )
            return None

        function = await self._store.change(request.tenant, request.namespace, request.function, change)
        return function or wanted, created

    async def get(self, tenant: str, namespace: str, name: str) -> Function:
        """Read a function, a deleted one too. Raises ValidationError or NotFoundError."""
        check_names(namespace, name)
        function = await self._store.get(tenant, namespace, name)
        if function is None:
            raise NotFoundError("function", f"{namespace}/{name}")
        return function

    async def list_by_name(
        self, tenant: str, namespace: str, *, after: str, limit: int, show_deleted: bool
    ) -> tuple[list[Function], str | None]:
        """List functions by name, and the name to go on after (None: that was all)."""
        check_namespace(namespace)
        return await self._store.list_by_name(tenant, namespace, after=after, limit=limit, show_deleted=show_deleted)

    async def delete(self, tenant: str, namespace: str, name: str, actor: Actor) -> Function:
        """Delete a function softly; deleting it again changes nothing. Raises NotFoundError."""
        mutation = new_mutation(actor, tenant, namespace, self._clock.now())
        mutation.function_deleted.CopyFrom(FunctionDeleted(function=name))
        return await self._turn(tenant, namespace, name, FunctionState.FUNCTION_STATE_DELETED, mutation)

    async def undelete(self, tenant: str, namespace: str, name: str, actor: Actor) -> Function:
        """Bring a deleted function back; one that is not deleted stays as it is. Raises NotFoundError."""
        mutation = new_mutation(actor, tenant, namespace, self._clock.now())
        mutation.function_undeleted.CopyFrom(FunctionUndeleted(function=name))
        return await self._turn(tenant, namespace, name, FunctionState.FUNCTION_STATE_ACTIVE, mutation)

    async def _turn(
        self, tenant: str, namespace: str, name: str, state: FunctionState.ValueType, mutation: LifecycleMutation
    ) -> Function:
        check_names(namespace, name)

        def change(present: Function | None) -> tuple[Function, LifecycleMutation] | None:
            if present is None:
                raise NotFoundError("function", f"{namespace}/{name}")
            if present.state == state:
                return None
            turned = Function()
            turned.CopyFrom(present)
            turned.state = state
            turned.update_time.CopyFrom(mutation.time)
            turned.ClearField("delete_time")
            if state == FunctionState.FUNCTION_STATE_DELETED:
                turned.delete_time.CopyFrom(mutation.time)
            return turned, mutation

        function = await self._store.change(tenant, namespace, name, change)
        if function is None:
            raise NotFoundError("function", f"{namespace}/{name}")
        return function
