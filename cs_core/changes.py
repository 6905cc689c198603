"""What a mutation changed: its kind, and the name of the thing; and which mutations somebody asks for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from codesous.control.v1.mutation_pb2 import LifecycleMutation

from cs_core.clock import from_timestamp
from cs_core.names import Violations, check_function, check_namespace


@dataclass(frozen=True, slots=True)
class Changed:
    """The kind is the field of the mutation's `change`; the name is of a function, a schedule or a worker binding.

    Drafts, versions and aliases have the name of their function. Both are empty when the mutation has no change.
    """

    kind: str
    name: str


# Where the name stands, in the change or in a message of it; the others have it in a field `function`.
_NAMES: Final = {
    "function_created": ("function", "function"),
    "alias_set": ("alias", "function"),
    "alias_deleted": ("alias", "function"),
    "schedule_set": ("schedule", "schedule"),
    "schedule_deleted": ("schedule",),
    "worker_binding_set": ("worker_binding", "worker"),
    "worker_binding_deleted": ("worker",),
    "secret_set": ("secret", "secret"),
    "secret_deleted": ("secret",),
}


def changed(mutation: LifecycleMutation) -> Changed:
    """Tell what a mutation changed."""
    kind = mutation.WhichOneof("change")
    if kind is None:
        return Changed("", "")
    value: Any = getattr(mutation, kind)
    for field in _NAMES.get(kind, ("function",)):
        value = getattr(value, field)
    return Changed(kind, value)


@dataclass(frozen=True, slots=True)
class MutationFilter:
    """Which mutations are asked for. What is empty or None fits all."""

    resource: str = ""
    subject: str = ""
    start: datetime | None = None
    end: datetime | None = None

    def check(self) -> None:
        """Raise ValidationError when `resource` is neither a namespace nor a namespace, `/` and a name."""
        if not self.resource:
            return
        namespace, slash, name = self.resource.partition("/")
        violations = Violations()
        violations.check(check_namespace, namespace, "resource")
        if slash:
            violations.check(check_function, name, "resource")
        violations.raise_if_any()

    def fits(self, mutation: LifecycleMutation) -> bool:
        """Whether a mutation is asked for."""
        namespace, slash, name = self.resource.partition("/")
        time = from_timestamp(mutation.time)
        return (
            (not namespace or mutation.namespace == namespace)
            and (not slash or changed(mutation).name == name)
            and (not self.subject or mutation.actor.subject == self.subject)
            and (self.start is None or time >= self.start)
            and (self.end is None or time < self.end)
        )
