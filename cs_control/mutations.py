"""Who changes something, and the entry of the mutation log that tells so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.type.v1.principal_pb2 import Principal

from cs_core import ids
from cs_core.clock import to_timestamp


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller of a change, and the request that brings it."""

    principal: Principal
    request_id: str


def new_mutation(actor: Actor, tenant: str, namespace: str, now: datetime) -> LifecycleMutation:
    """Begin an entry; the caller fills in `change`, and the store the digests."""
    return LifecycleMutation(
        mutation_id=ids.mutation_id(),
        tenant=tenant,
        namespace=namespace,
        time=to_timestamp(now),
        actor=actor.principal,
        request_id=actor.request_id,
    )
