"""Which activations begin in a cell of their own: those whose last run was cut short by what happened in its cell.

This process remembers those that it saw itself. The record of an activation tells only that a run was cut short, which
the death of an invoker does to all that it held: to run them all alone would make the recovery slow. So an activation
that nobody here remembers is run alone from the second time on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from cs_core.store.activations import Begun

REMEMBERED: Final = 10_000


class Suspects:
    """The activations that this process saw cut short; the oldest are forgotten first."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def note(self, tenant: str, activation_id: str) -> None:
        """A run was cut short: its cell died under it, or another run of the cell hindered it."""
        self._seen[tenant, activation_id] = None
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def is_alone(self, tenant: str, activation_id: str, begun: Begun) -> bool:
        """Whether the run that was begun is to have a cell of its own. It is forgotten: it ends, or is noted again."""
        known = (tenant, activation_id) in self._seen
        self._seen.pop((tenant, activation_id), None)
        return known or begun.cut_short > 1
