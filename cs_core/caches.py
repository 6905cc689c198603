"""A cache as an operator sees it: how full it is, how often it helped, and how to empty it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Lookups:
    """Look-ups of one cache since the process was started."""

    hits: int = 0
    misses: int = 0

    def count(self, hit: bool) -> None:
        """Count one."""
        if hit:
            self.hits += 1
        else:
            self.misses += 1


@dataclass(frozen=True, slots=True)
class CacheView:
    """One cache. `flush` drops everything, answers how many entries it dropped, and is safe at any time."""

    name: str
    entries_max: int
    entries: Callable[[], int]
    flush: Callable[[], int]
    lookups: Lookups = field(default_factory=Lookups)
    size: Callable[[], int] = lambda: 0
    """Bytes of what it holds; 0: they are not counted."""
