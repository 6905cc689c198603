"""Waits between attempts at something that is away for a while: exponential, jittered, capped."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

# One for all: making one reads from the system, and each step that may have to be tried again has a backoff.
_SOURCE: Final = random.Random()  # noqa: S311 - jitter, not a secret


@dataclass(slots=True)
class Backoff:
    """The next wait after each failure. Each is drawn evenly from half of the step to all of it.

    The jitter keeps processes that lost the same store from coming back in one wave.
    """

    first: timedelta = timedelta(milliseconds=50)
    longest: timedelta = timedelta(seconds=2)
    source: random.Random = _SOURCE
    failures: int = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        step: timedelta = min(self.first * float(2 ** min(self.failures, 20)), self.longest)
        self.failures += 1
        return step.total_seconds() * self.source.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Forget the failures: the thing answered."""
        self.failures = 0
