"""The code of versions, kept by sha256: least recently used out first, bounded by count and by bytes.

A key is the hash of what it names, so an entry is never stale and may serve every version that has the same code.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from cs_core.caches import CacheView, Lookups
from cs_sandbox.job import Bundle

Load = Callable[[], Awaitable[Bundle]]


class BundleCache:
    """Bundles by (sha256, entry). One load at a time for a key; everyone who asks meanwhile shares its outcome."""

    def __init__(self, max_count: int, max_bytes: int, on_lookup: Callable[[bool], None] = lambda _hit: None) -> None:
        """`on_lookup` is told of each lookup, True for a hit; joining a load that is under way is a hit."""
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._on_lookup = on_lookup
        self._bundles: OrderedDict[tuple[str, str], Bundle] = OrderedDict()
        self._loads: dict[tuple[str, str], asyncio.Task[Bundle]] = {}
        self._bytes = 0
        self._lookups = Lookups()
        self.view = CacheView(
            "bundles", max_count, lambda: len(self._bundles), self._drop_all, self._lookups, lambda: self._bytes
        )

    def __len__(self) -> int:
        return len(self._bundles)

    @property
    def size(self) -> int:
        """Bytes of all files that are held."""
        return self._bytes

    async def get(self, sha256: str, entry: str, load: Load) -> Bundle:
        """The bundle; `load` is called when it is not held. What `load` raises reaches everyone who waited for it."""
        key = (sha256, entry)
        held = self._bundles.get(key)
        if held is not None:
            self._bundles.move_to_end(key)
            self._count(True)
            return held
        task = self._loads.get(key)
        self._count(task is not None)
        if task is None:
            task = asyncio.ensure_future(self._load(key, load))
            self._loads[key] = task
        # Shielded: the load goes on for the others when one of those who wait is cancelled.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel the loads that are under way."""
        loads = list(self._loads.values())
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    def _count(self, hit: bool) -> None:
        self._lookups.count(hit)
        self._on_lookup(hit)

    def _drop_all(self) -> int:
        """Drop what is held; loads under way go on, and what they bring is kept."""
        count = len(self._bundles)
        self._bundles.clear()
        self._bytes = 0
        return count

    async def _load(self, key: tuple[str, str], load: Load) -> Bundle:
        try:
            bundle = await load()
        finally:
            del self._loads[key]
        self._keep(key, bundle)
        return bundle

    def _keep(self, key: tuple[str, str], bundle: Bundle) -> None:
        size = _size(bundle)
        if size > self._max_bytes:
            return
        self._bundles[key] = bundle
        self._bytes += size
        while len(self._bundles) > self._max_count or self._bytes > self._max_bytes:
            _, dropped = self._bundles.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(bundle: Bundle) -> int:
    return sum(len(path) + len(content) for path, content in bundle.files.items())
