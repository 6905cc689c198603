"""What a step from one version of the schema to the next is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cs_core.store.client import KvClient


class Change(Protocol):
    """What a step does with one key."""

    async def __call__(self, client: KvClient, key: str, *, dry: bool) -> int:
        """Bring what belongs to the key to the new form; returns how many records changed, or (dry) would change.

        Holds to these rules, so that a step may be killed anywhere and begun again, and may run under processes that
        work: what is in the new form already is left alone; each change is one atomic step within one slot; what the
        step leaves behind half way is right for whoever reads it.

        Raises:
            UnavailableError: the store does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """A migration to `version`, from the one before.

    It looks at the keys that begin with `prefix` and hold `infix`.
    """

    version: int
    title: str
    """What it does, as a sentence without its subject."""
    prefix: str
    infix: str
    change: Change
    readable_from: int = 0
    """Lowest version whose processes may go on working on the store after it. 0: all of them."""

    def concerns(self, key: str) -> bool:
        """Whether a key that begins with the prefix is one to look at."""
        return self.infix in key
