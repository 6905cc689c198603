"""The gaps between the durable steps of an activation, named so that tests can stop a process in each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum


class Gap(StrEnum):
    """Where an execution stands: after the step of that name and before the next one."""

    RECEIVED = "received"
    BEGUN = "begun"
    RAN = "ran"
    FINISHED = "finished"
    PUBLISHED = "published"
    ACKED = "acked"


AtGap = Callable[[Gap, str], Awaitable[None]]
"""Called in each gap with the activation's id."""


async def pass_gap(_gap: Gap, _activation_id: str) -> None:
    """What production does in a gap: nothing."""
