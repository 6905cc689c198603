"""Rates of requests: a token bucket for each tenant, and for each function whose version sets a limit of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from codesous.control.v1.version_pb2 import Version

from cs_core.clock import Clock
from cs_core.errors import LimitError

_BUCKETS_MAX: Final = 100_000
_BURST_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimits:
    """Takes a token for each request. A bucket holds what one second brings, and at least one token.

    The limits hold for the installation: each gateway grants its part of them, so a caller whose requests all go to
    one of several gateways is held to that part.

    Args:
        tenant_rps: requests per second of one tenant.
        clock: tells how much has passed.
        gateways: how many gateways live now, this one included.
    """

    def __init__(self, tenant_rps: int, clock: Clock, gateways: Callable[[], int]) -> None:
        self._tenant_rps = tenant_rps
        self._clock = clock
        self._gateways = gateways
        # The buckets used longest ago are let go: by then they are full again, but for a flood of tenants.
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def check_tenant(self, tenant: str) -> None:
        """Take a token of the tenant. Raises LimitError (`CS_RATE_LIMITED`)."""
        self._take(tenant, self._tenant_rps, f"tenant {tenant}")

    def check_function(self, version: Version) -> None:
        """Take a token of the function, when its version sets a rate. Raises LimitError (`CS_RATE_LIMITED`)."""
        if version.config.rate_limit_rps:
            name = f"{version.namespace}/{version.function}"
            self._take(
                (version.tenant, version.namespace, version.function),
                version.config.rate_limit_rps,
                f"function {name}",
            )

    def _take(self, key: Hashable, limit: int, whose: str) -> None:
        rate = limit / max(1, self._gateways())
        most, now = max(1.0, rate * _BURST_SECONDS), self._clock.monotonic()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(most, now)
            if len(self._buckets) > _BUCKETS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens < 1:
            raise LimitError(
                "CS_RATE_LIMITED",
                f"{whose} is over its limit of {limit} requests per second",
                timedelta(seconds=(1 - bucket.tokens) / rate),
            )
        bucket.tokens -= 1
