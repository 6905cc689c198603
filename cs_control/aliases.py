"""Aliases: set, list, delete, roll back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.capability_diff_pb2 import CapabilityDiff
from codesous.control.v1.function_pb2 import Function
from codesous.control.v1.mutation_pb2 import AliasDeleted, AliasSet, LifecycleMutation

from cs_control.capability_gate import CapabilityGate
from cs_control.functions import check_names, require_active
from cs_control.mutations import Actor, new_mutation
from cs_core.clock import Clock, to_timestamp
from cs_core.errors import ConflictError, NotFoundError, ValidationError
from cs_core.names import Violations, check_alias, check_function, check_namespace
from cs_core.store.aliases import AliasStore
from cs_core.store.functions import FunctionStore

# Given the function and the alias as they are, the version to point at; None leaves the alias as it is.
_Choose = Callable[[Function, Alias | None], int | None]


@dataclass(frozen=True, slots=True)
class Moved:
    """An alias as it is now, and how what it may reach has changed; None: it has not."""

    alias: Alias
    diff: CapabilityDiff | None


class Aliases:
    """What can be done with aliases."""

    def __init__(self, functions: FunctionStore, aliases: AliasStore, gate: CapabilityGate, clock: Clock) -> None:
        self._functions = functions
        self._aliases = aliases
        self._gate = gate
        self._clock = clock

    async def set(
        self, tenant: str, namespace: str, name: str, alias: str, version: int, expected: int | None, actor: Actor
    ) -> Moved:
        """Point an alias at a version. `expected` is the version that it must point at now, 0 for none.

        Raises:
            ValidationError: a name or number breaks its rule.
            NotFoundError: no such function or version.
            ConflictError: it does not point at `expected` (`CS_CONFLICT_ALIAS_VERSION`).
            AuthorizationError: it would newly reach something that the actor may not grant.
        """
        if version == 0:
            raise ValidationError.field("version", "required")

        def choose(function: Function, present: Alias | None) -> int | None:
            now_at = present.version if present else 0
            if expected is not None and expected != now_at:
                raise ConflictError(
                    "CS_CONFLICT_ALIAS_VERSION",
                    f"alias {alias} points at {now_at or 'nothing'}, not at {expected or 'nothing'}",
                    metadata={"version": str(now_at)},
                )
            # Versions are numbered without gaps and never removed.
            if version > function.latest_version:
                raise NotFoundError("version", f"{namespace}/{name}@{version}")
            return None if version == now_at else version

        return await self._move(tenant, namespace, name, alias, choose, actor, rollback=False)

    async def rollback(self, tenant: str, namespace: str, name: str, alias: str, actor: Actor) -> Moved:
        """Point an alias at the version that it pointed at before.

        Raises:
            NotFoundError: no such function or alias.
            ConflictError: there is no version before (`CS_CONFLICT_STATE`).
            AuthorizationError: it would newly reach something that the actor may not grant.
        """

        def choose(_function: Function, present: Alias | None) -> int:
            if present is None:
                raise NotFoundError("alias", f"{namespace}/{name}@{alias}")
            if present.previous_version == 0:
                raise ConflictError("CS_CONFLICT_STATE", f"alias {alias} has no version to go back to")
            return present.previous_version

        return await self._move(tenant, namespace, name, alias, choose, actor, rollback=True)

    async def list_by_name(
        self, tenant: str, namespace: str, name: str, *, after: str, limit: int
    ) -> tuple[list[Alias], str | None]:
        """List aliases by name, and the name to go on after (None: that was all)."""
        check_names(namespace, name)
        require_active(await self._functions.get(tenant, namespace, name), namespace, name)
        found = [alias for alias in await self._aliases.list_by_name(tenant, namespace, name) if alias.alias > after]
        return found[:limit], (found[limit - 1].alias if len(found) > limit else None)

    async def delete(self, tenant: str, namespace: str, name: str, alias: str, actor: Actor) -> None:
        """Delete an alias. Raises NotFoundError when there is none."""
        _check(namespace, name, alias)
        mutation = new_mutation(actor, tenant, namespace, self._clock.now())

        async def change(function: Function | None, present: Alias | None) -> tuple[None, LifecycleMutation]:
            require_active(function, namespace, name)
            if present is None:
                raise NotFoundError("alias", f"{namespace}/{name}@{alias}")
            mutation.alias_deleted.CopyFrom(AliasDeleted(alias=present))
            return None, mutation

        await self._aliases.change(tenant, namespace, name, alias, change)

    async def _move(
        self, tenant: str, namespace: str, name: str, alias: str, choose: _Choose, actor: Actor, *, rollback: bool
    ) -> Moved:
        _check(namespace, name, alias)
        now = self._clock.now()
        mutation = new_mutation(actor, tenant, namespace, now)
        diff: CapabilityDiff | None = None

        async def change(function: Function | None, present: Alias | None) -> tuple[Alias, LifecycleMutation] | None:
            nonlocal diff
            diff = None
            target = choose(require_active(function, namespace, name), present)
            if target is None:
                return None
            version = await self._gate.read(tenant, namespace, name, target)
            if version is not None:
                diff = await self._gate.pass_through(alias, present.version if present else 0, version, actor)
            moved = Alias(
                tenant=tenant,
                namespace=namespace,
                function=name,
                alias=alias,
                version=target,
                previous_version=present.version if present else 0,
                update_time=to_timestamp(now),
                updater=actor.principal.subject,
            )
            mutation.alias_set.CopyFrom(AliasSet(alias=moved, rollback=rollback, capability_diff=diff))
            return moved, mutation

        moved = await self._aliases.change(tenant, namespace, name, alias, change)
        if moved is None:
            raise NotFoundError("alias", f"{namespace}/{name}@{alias}")
        return Moved(moved, diff)


def _check(namespace: str, name: str, alias: str) -> None:
    violations = Violations()
    violations.check(check_namespace, namespace, "namespace")
    violations.check(check_function, name, "function")
    violations.check(check_alias, alias, "alias")
    violations.raise_if_any()
