"""How many of a binding's tasks each living poller may hold: parts that add up to the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def share_of(uid: str, most: int, instance: str, members: Sequence[str]) -> int:
    """The part of `most` that one member gets; what does not divide goes to the first ones in the binding's own order.

    The order is by a hash of binding and member, so that small bindings spread over the pollers, and a member that
    comes or goes moves few of them.
    """
    if instance not in members:
        return 0
    even, rest = divmod(most, len(members))
    order = sorted(members, key=lambda member: hashlib.blake2b(f"{uid}/{member}".encode(), digest_size=8).digest())
    return even + (1 if order.index(instance) < rest else 0)
