"""The way in by gRPC: each method reads its request, calls the core, and answers."""

from __future__ import annotations

from cs_control.mutations import Actor
from cs_core.rpc.context import current


def actor() -> Actor:
    """The caller of the call that is being served."""
    call = current()
    return Actor(call.caller, call.request_id)


def answer_created(made: bool) -> None:
    """Answer 201 by HTTP when something was made, 200 when it was there."""
    if made:
        current().answer_status(201)
