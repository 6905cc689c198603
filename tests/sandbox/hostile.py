"""What a hostile function is: its family, name and source, and how it must end.

Where the machine decides whether time or memory runs out first, several ends are allowed. `gives` is the body of the
response of what must end well in spite of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TIMEOUT: Final = "TIMEOUT"
MEMORY: Final = "MEMORY_LIMIT"
EXCEPTION: Final = "EXCEPTION"
BAD: Final = "BAD_RESPONSE"
LARGE: Final = "RESULT_TOO_LARGE"
SUCCESS: Final = "SUCCESS"
ENDLESS: Final = (TIMEOUT, MEMORY)
"""Goes on until time or memory runs out."""
UNTIL: Final = (TIMEOUT, MEMORY, EXCEPTION)
"""Goes on, unless the engine refuses to begin: a string or an array that it does not make that long."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """One function and how it must end."""

    family: str
    name: str
    source: str
    ends: tuple[str, ...]
    gives: str | None = None
    wall: float = 10.0
    memory_mib: int = 64

    @property
    def id(self) -> str:
        return f"{self.family}: {self.name}"


def handler(body: str) -> str:
    """A module whose handler has that body."""
    return f"export default async function handle(event, ctx) {{\n{body}\n}}"


def in_family(family: str, ends: tuple[str, ...] | str, bodies: dict[str, str], **also: object) -> list[Hostile]:
    """Functions of one family, by name, that end alike. What may run out of time is given little of it."""
    allowed = (ends,) if isinstance(ends, str) else ends
    wall = {"wall": 0.25} if TIMEOUT in allowed else {}
    return [Hostile(family, name, handler(body), allowed, **{**wall, **also}) for name, body in bodies.items()]
