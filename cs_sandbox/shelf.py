"""Contexts that wait for a run: prepared ones by bundle, and warm ones by version. The least recently used go first."""

from __future__ import annotations

from typing import Final

from cs_sandbox.context import Context

CONTEXTS_MAX: Final = 16
BYTES_MAX: Final = 64 * 1024 * 1024
"""Heaps of all of them together."""


class Shelf:
    """The idle contexts of one cell.

    Args:
        bytes_max: what their heaps may take together.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._contexts: list[tuple[str, Context]] = []

    def __contains__(self, key: str) -> bool:
        return any(found == key for found, _ in self._contexts)

    def put(self, key: str, context: Context) -> None:
        """Keep a context under a key: that of its version when it is warm, else its bundle's. It serves nobody."""
        self._contexts.append((key, context))
        while len(self._contexts) > CONTEXTS_MAX or self._bytes() > self._bytes_max:
            self._contexts.pop(0)[1].close()

    def take(self, key: str) -> Context | None:
        """The context of that key that was used last; it is not on the shelf any more."""
        for index in range(len(self._contexts) - 1, -1, -1):
            if self._contexts[index][0] == key:
                return self._contexts.pop(index)[1]
        return None

    def forget(self, sha256: str) -> None:
        """Free all contexts of a bundle."""
        for _, context in [item for item in self._contexts if item[1].bundle.bundle_sha256 == sha256]:
            context.close()
        self._contexts = [item for item in self._contexts if item[1].bundle.bundle_sha256 != sha256]

    def _bytes(self) -> int:
        return sum(context.engine.heap for _, context in self._contexts)
