"""Bundles: the bytes of canonical tars by their sha256."""

from __future__ import annotations

from cs_core.store import keys
from cs_core.store.client import KvClient


class BundleStore:
    """Reads bundles. They are written with the drafts that bring them."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def get(self, tenant: str, sha256: str) -> bytes | None:
        """Read a bundle; None when there is none."""
        stored: bytes | None = await self._client.call("GET", keys.bundle(tenant, sha256))
        return stored
