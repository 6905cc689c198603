"""From a ref to the version that runs."""

from __future__ import annotations

from collections import OrderedDict

from codesous.control.v1.function_pb2 import FunctionState
from codesous.control.v1.version_pb2 import Version
from codesous.storage.v1.records_pb2 import AliasRecord, FunctionRecord

from cs_core.caches import CacheView, Lookups
from cs_core.errors import NotFoundError
from cs_core.names import parse_ref
from cs_core.store import keys
from cs_core.store.client import KvClient, replies
from cs_core.store.versions import VersionStore

_CACHED_VERSIONS = 10_000


class Resolver:
    """Resolves refs. Function and alias are read each time; versions never change and are remembered."""

    def __init__(self, client: KvClient) -> None:
        self._client = client
        self._versions = VersionStore(client)
        self._cache: OrderedDict[tuple[str, str, str, int], Version] = OrderedDict()
        self._lookups = Lookups()
        self.cache = CacheView("versions", _CACHED_VERSIONS, lambda: len(self._cache), self._forget_all, self._lookups)

    async def resolve(self, tenant: str, namespace: str, name: str, ref: str) -> Version:
        """The version that `ref` means now. Callers must not change it.

        Raises:
            ValidationError: `ref` is neither a version number nor an alias.
            NotFoundError: no such function (or deleted), alias or version.
        """
        target = parse_ref(ref)
        function_call = self._client.call("GET", keys.function(tenant, namespace, name))
        if isinstance(target, int):
            stored, number = await function_call, target
        else:
            alias_call = self._client.call("HGET", keys.aliases(tenant, namespace, name), target)
            stored, alias = await replies([function_call, alias_call])
            number = 0 if alias is None else AliasRecord.FromString(alias).alias.version
        if stored is None or FunctionRecord.FromString(stored).function.state != FunctionState.FUNCTION_STATE_ACTIVE:
            raise NotFoundError("function", f"{namespace}/{name}")
        if number == 0:
            raise NotFoundError("alias", f"{namespace}/{name}@{ref}")
        return await self._version(tenant, namespace, name, number)

    async def _version(self, tenant: str, namespace: str, name: str, number: int) -> Version:
        key = (tenant, namespace, name, number)
        cached = self._cache.get(key)
        self._lookups.count(cached is not None)
        if cached is not None:
            self._cache.move_to_end(key)
            return cached
        version = await self._versions.get(tenant, namespace, name, number)
        if version is None:
            raise NotFoundError("version", f"{namespace}/{name}@{number}")
        self._cache[key] = version
        if len(self._cache) > _CACHED_VERSIONS:
            self._cache.popitem(last=False)
        return version

    def _forget_all(self) -> int:
        count = len(self._cache)
        self._cache.clear()
        return count
