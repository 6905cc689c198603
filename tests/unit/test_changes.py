"""Every kind of change names what it changed."""

from __future__ import annotations

import pytest
from codesous.control.v1.mutation_pb2 import LifecycleMutation
from google.protobuf.message import Message

from cs_core.changes import Changed, changed

KINDS = [field.name for field in LifecycleMutation.DESCRIPTOR.oneofs_by_name["change"].fields]


def _fill(message: Message, name: str) -> None:
    """Put `name` into the first of the fields that can hold a name, in the change or in its message."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None and field.name in ("function", "schedule", "worker", "secret"):
            setattr(message, field.name, name)
        elif field.message_type is not None and field.name in (
            "function",
            "alias",
            "schedule",
            "worker_binding",
            "secret",
        ):
            _fill(getattr(message, field.name), name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_change_has_a_name(kind: str) -> None:
    mutation = LifecycleMutation()
    getattr(mutation, kind).SetInParent()
    _fill(getattr(mutation, kind), "hello")
    assert changed(mutation) == Changed(kind, "hello")


def test_a_mutation_of_a_later_contract_has_no_kind() -> None:
    assert changed(LifecycleMutation()) == Changed("", "")
