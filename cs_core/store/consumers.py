"""Who consumes requests, and how much each takes: what every invoker says of itself again and again."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from codesous.storage.v1.consumer_pb2 import ConsumerReport

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.members import MemberStore

GROUP: Final = "cs-invoker-pool"
_LIVES_KEPT: Final = 10


class ConsumerStore:
    """The reports of the invokers that live. Every method raises UnavailableError when the store does not answer."""

    def __init__(self, client: KvClient) -> None:
        self._client = client
        self._members = MemberStore(client, GROUP)
        self._key = keys.member_reports(GROUP)

    async def report(self, instance: str, report: ConsumerReport, life: timedelta) -> None:
        """Be a consumer for `life` from now; what others left behind when they died is removed."""
        await self._client.call("HSET", self._key, instance, report.SerializeToString())
        await self._client.call("PEXPIRE", self._key, int(life.total_seconds() * 1000) * _LIVES_KEPT)
        living = await self._members.beat(instance, life)
        gone = {name.decode() for name in await self._client.call("HKEYS", self._key)} - set(living)
        if gone:
            await self._client.call("HDEL", self._key, *gone)

    async def leave(self, instance: str) -> None:
        """Be a consumer no more."""
        await self._members.leave(instance)
        await self._client.call("HDEL", self._key, instance)

    async def list(self) -> dict[str, ConsumerReport]:
        """What those that live said last, by instance."""
        living = set(await self._members.living())
        stored = await self._client.call("HGETALL", self._key)
        pairs = zip(stored[::2], stored[1::2], strict=True)
        reports = {name.decode(): ConsumerReport.FromString(report) for name, report in pairs}
        return {name: reports[name] for name in sorted(reports) if name in living}
