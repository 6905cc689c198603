"""Finds what a request runs: its version, and that version's code through the cache."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

from codesous.control.v1.version_pb2 import Version
from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.bundle import unpack
from cs_core.caches import CacheView, Lookups
from cs_core.config import LimitSettings
from cs_core.errors import CodeSousError
from cs_core.store.bundles import BundleStore
from cs_core.store.versions import VersionStore
from cs_sandbox.job import Bundle

from .bundle_cache import BundleCache
from .job import entry_of

REASON_VERSION = "CS_NOT_FOUND_VERSION"
REASON_BROKEN = "CS_RUNTIME_EXCEPTION"
_MAX_VERSIONS = 10_000


class CodeMissingError(Exception):
    """What the request names cannot be run: it is gone, or it is not what its record says."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StoredCode:
    """The code in the store. Versions and bundles never change, so both are cached, by name and by content."""

    def __init__(self, versions: VersionStore, bundles: BundleStore, cache: BundleCache, limits: LimitSettings) -> None:
        self._versions = versions
        self._bundles = bundles
        self._cache = cache
        self._limits = limits
        self._known: OrderedDict[tuple[str, str, str, int], Version] = OrderedDict()
        self._lookups = Lookups()
        self.cache = CacheView("versions", _MAX_VERSIONS, lambda: len(self._known), self._forget_all, self._lookups)

    def _forget_all(self) -> int:
        count = len(self._known)
        self._known.clear()
        return count

    async def version(self, ref: FunctionRef) -> Version:
        """The version. Raises CodeMissingError, and UnavailableError when the store is away."""
        key = (ref.tenant, ref.namespace, ref.function, ref.version)
        known = self._known.get(key)
        self._lookups.count(known is not None)
        if known is not None:
            self._known.move_to_end(key)
            return known
        version = await self._versions.get(ref.tenant, ref.namespace, ref.function, ref.version)
        if version is None:
            name = f"{ref.namespace}/{ref.function}@{ref.version}"
            raise CodeMissingError(REASON_VERSION, f"version {name} is not there any more")
        self._known[key] = version
        if len(self._known) > _MAX_VERSIONS:
            self._known.popitem(last=False)
        return version

    async def bundle(self, version: Version) -> Bundle:
        """A version's code. Raises CodeMissingError, and UnavailableError when the store is away."""
        entry, sha256 = entry_of(version), version.bundle_sha256

        async def load() -> Bundle:
            data = await self._bundles.get(version.tenant, sha256)
            if data is None:
                raise CodeMissingError(REASON_VERSION, f"the code of version {version.version} is not there any more")
            # Hashing and unpacking 16 MiB would hold up every other activation of this process.
            files = await asyncio.to_thread(self._open, data, sha256)
            if entry not in files:
                raise CodeMissingError(REASON_BROKEN, f"the bundle has no file {entry}")
            return Bundle(sha256, entry, files)

        return await self._cache.get(sha256, entry, load)

    def _open(self, data: bytes, sha256: str) -> dict[str, bytes]:
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CodeMissingError(REASON_BROKEN, "the stored bundle is not what its version names")
        try:
            return unpack(data, max_bytes=self._limits.bundle_bytes, max_files=self._limits.bundle_files)
        except CodeSousError as error:
            raise CodeMissingError(REASON_BROKEN, f"the stored bundle cannot be read: {error.message}") from error
