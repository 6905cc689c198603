"""The gaps between the steps of a tick, where a test lets the process die."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum


class Gap(StrEnum):
    """What has just been done."""

    LOOKED = "looked"
    CLAIMED = "claimed"
    PUBLISHED = "published"
    ADVANCED = "advanced"


AtGap = Callable[[Gap, str], Awaitable[None]]
"""Called in each gap with the schedule's uid."""


async def pass_gap(_gap: Gap, _uid: str) -> None:
    """Go on."""
